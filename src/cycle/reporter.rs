//! What a cycle reports: to the log, the metrics, the view and the other hosts.

mod events;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use reconciler::{
    commit::Commit,
    foreign::ForeignText,
    name::{CommitId, NodeName, PodUid},
    network::DnsRecords,
    plan::LaneKey,
    state::{CommitState, NodeReport, Phase, Rollout},
    status::PodStatus,
};

pub(super) use self::events::RecentEvents;
use super::{Host, plan_text::LastPlan};
use crate::{
    metrics::{Metrics, PushPhase, RolloutResult},
    uptime::Uptime,
    view::{FailedPull, HostNote, SourceStatus, View},
};

/// What this host has reported, so that the same is not reported again.
#[derive(Debug)]
pub(super) struct Reporter {
    /// What this host reports of its pods and images.
    pub(super) report: NodeReport,
    /// What was last logged and counted of the rollout.
    pub(super) reported_rollout: Rollout,
    pub(super) last_plan: LastPlan,
    pub(super) events: RecentEvents,
    /// Whether a cycle since the start had nothing to do.
    pub(super) converged: bool,
    /// The records that the DNS server received last.
    pub(super) published_names: DnsRecords,
}

impl Reporter {
    /// A reporter that has reported everything up to this state of the rollout.
    pub(super) fn starting_from(rollout: Rollout) -> Self {
        Self {
            report: NodeReport::default(),
            reported_rollout: rollout,
            last_plan: LastPlan::default(),
            events: RecentEvents::default(),
            converged: false,
            published_names: DnsRecords::default(),
        }
    }

    /// Logs, counts and publishes what is new in the rollout.
    pub(super) fn report_rollout(&mut self, after: Rollout, node: &NodeName, metrics: &Metrics) {
        report_change(&self.reported_rollout, &after, metrics);
        let before = &self.reported_rollout.history;
        for entry in after.history.iter().filter(|entry| !before.contains(entry)) {
            self.events.commit(node, entry);
        }
        self.reported_rollout = after;
    }
}

impl Host {
    /// The state of all pods, each as its own node reported it.
    fn statuses(&self) -> BTreeMap<PodUid, PodStatus> {
        let state = self.store.snapshot();
        let mut statuses = BTreeMap::new();
        for (node, report) in self.all_reports() {
            let own = |uid: &PodUid| {
                state
                    .pods
                    .get(uid)
                    .is_none_or(|record| record.place.node() == Some(&node))
            };
            statuses.extend(report.pods.into_iter().filter(|(uid, _)| own(uid)));
        }
        statuses
    }

    /// The view after a cycle.
    pub(crate) fn view(&self) -> View {
        let state = self.store.snapshot();
        View {
            at: Timestamp::now(),
            made: Uptime::now(),
            node: self.name().clone(),
            nodes: self.nodes(),
            cluster: self.cluster_view(),
            state: Arc::new(state.clone()),
            pods: Arc::new(self.statuses()),
            commits: self
                .knowledge
                .commit_cache
                .commits()
                .iter()
                .chain(self.knowledge.commit_cache.kept())
                .map(shared)
                .collect(),
            first_seen: Arc::clone(self.memory.appeared.first_seen()),
            ineligible: self
                .knowledge
                .commit_cache
                .ineligible()
                .map(|(id, why)| (id.clone(), why.to_owned()))
                .collect(),
            origins: self.origins_of_pods(),
            source: SourceStatus {
                verified: self
                    .knowledge
                    .trust
                    .lock()
                    .pointers()
                    .verified
                    .as_ref()
                    .map(|one| one.id().clone()),
                ..self.knowledge.source.clone()
            },
            plan: self.reporter.last_plan.lanes.clone(),
            converged: self.reporter.converged,
            notes: self.all_notes(),
            failed_pulls: self.failed_pulls(),
            events: self.reporter.events.list(),
            last_outputs: Arc::clone(&self.parts.outputs.borrow()),
            troubles: self
                .troubles
                .list()
                .cloned()
                .chain(self.knowledge.commit_cache.troubles())
                .collect(),
        }
    }

    /// The images of the target that this host cannot pull, in the order of their names.
    fn failed_pulls(&self) -> Vec<FailedPull> {
        let now = Timestamp::now();
        let target = self.store.snapshot().rollout.target.as_ref();
        let failures = self.parts.lanes.failures().iter();
        let of_target = failures.filter_map(|(key, failure)| match key {
            LaneKey::Image(commit, image) if target == Some(commit) => Some(FailedPull {
                image: image.to_string(),
                fault: failure.fault.kind,
                since: failure.since,
                attempts: failure.count,
                retry_at: failure.retry_at(now),
                error: failure.fault.message.clone(),
            }),
            LaneKey::Image(..) | LaneKey::Pod(_) | LaneKey::Link(_) => None,
        });
        of_target.collect()
    }

    fn origins_of_pods(&self) -> BTreeMap<PodUid, CommitId> {
        let pods = self.memory.pods().pods.iter();
        pods.filter_map(|(uid, pod)| Some((uid.clone(), pod.origin.as_ref()?.commit.clone())))
            .collect()
    }

    /// Notes about commits that may not run here although something of them runs, or the rollout
    /// follows them.
    fn ineligible_notes(&self) -> impl Iterator<Item = HostNote> {
        let rollout = &self.store.snapshot().rollout;
        let ineligible = self.knowledge.commit_cache.ineligible();
        ineligible.filter_map(|(id, why)| {
            let origins = self
                .memory
                .pods()
                .pods
                .values()
                .filter_map(|pod| pod.origin.as_ref());
            let pods = origins.filter(|origin| origin.commit == *id).count();
            let is_followed =
                rollout.driving.as_ref() == Some(id) || rollout.target.as_ref() == Some(id);
            (pods > 0 || is_followed).then(|| HostNote::Ineligible {
                commit: id.clone(),
                why: ForeignText::sentence(why),
                pods,
            })
        })
    }

    /// Notes that `status` shows although nothing prevents the rollout.
    fn all_notes(&self) -> Vec<HostNote> {
        let configuration = self.fixed.notes.iter().cloned();
        let decisions = self.leader.notes.iter().cloned().map(HostNote::Decided);
        configuration
            .chain(self.exposure_note())
            .chain(decisions)
            .chain(self.detour_note())
            .chain(self.detours_elsewhere())
            .chain(self.ineligible_notes())
            .chain(self.faulty_notes())
            .chain(self.refused_notes())
            .chain(self.image_notes())
            .collect()
    }

    /// Notes about other hosts that run an earlier commit by their own decision.
    fn detours_elsewhere(&self) -> impl Iterator<Item = HostNote> {
        let store = self.store.replicated().into_iter();
        store
            .flat_map(|store| store.members())
            .filter(|(name, _)| *name != self.name())
            .filter_map(|(name, member)| {
                Some(HostNote::DetourElsewhere {
                    node: name.clone(),
                    commit: member.report.local_rollback.clone()?,
                })
            })
    }

    /// Notes about nodes that are themselves at fault.
    fn faulty_notes(&self) -> impl Iterator<Item = HostNote> {
        let faulty = self.store.snapshot().rollout.faulty.iter();
        faulty.map(|(node, why)| HostNote::Faulty {
            node: node.clone(),
            why: why.clone(),
        })
    }

    /// Notes about assignments and stop records that this host refuses.
    fn refused_notes(&self) -> impl Iterator<Item = HostNote> {
        let records = &self.store.snapshot().pods;
        let refused = self.reporter.report.refused.iter();
        refused.filter_map(|(uid, why)| {
            Some(HostNote::Refused {
                pod: records.get(uid)?.key.clone(),
                why: why.clone(),
            })
        })
    }

    /// Notes about nodes that did not get the images of a commit in time, and about images that
    /// this host cannot pull although none of its pods needs them yet.
    fn image_notes(&self) -> Vec<HostNote> {
        let rollout = &self.store.snapshot().rollout;
        let shares = rollout.shares_of_target().into_iter();
        let off = shares
            .flat_map(|shares| &shares.off)
            .filter(|(node, _)| !rollout.faulty.contains_key(*node))
            .map(|(node, why)| HostNote::WithoutImages {
                node: node.clone(),
                why: why.clone(),
            });

        let is_healthy = rollout.phase == Phase::Healthy;
        let failures = self.parts.lanes.failures().iter();
        let spare = failures.filter_map(|(key, failure)| match key {
            LaneKey::Image(commit, _) if is_healthy && rollout.target.as_ref() == Some(commit) => {
                Some(HostNote::SpareImage(ForeignText::sentence(
                    &failure.fault.message,
                )))
            }
            LaneKey::Image(..) | LaneKey::Pod(_) | LaneKey::Link(_) => None,
        });
        off.chain(spare).collect()
    }
}

fn shared((id, commit): (&CommitId, &Arc<Commit>)) -> (CommitId, Arc<Commit>) {
    (id.clone(), Arc::clone(commit))
}

/// Reports a new state of the rollout to the log and the metrics.
fn report_change(before: &Rollout, after: &Rollout, metrics: &Metrics) {
    let short = |commit: &Option<CommitId>| {
        commit
            .as_ref()
            .map_or_else(|| "none".to_owned(), |id| id.short().to_owned())
    };
    let entered = before.phase.as_str() != after.phase.as_str() || before.target != after.target;
    if entered {
        let target = short(&after.target);
        time_phase(before, after, metrics);
        match &after.phase {
            Phase::Empty => {}
            Phase::Preparing { .. } => tracing::info!(commit = %target, "preparing"),
            Phase::Progressing { .. } => tracing::info!(commit = %target, "progressing"),
            Phase::Soaking => tracing::info!(commit = %target, "settled; soaking"),
            Phase::Healthy => tracing::info!(commit = %target, "healthy"),
            Phase::Degraded { message } => tracing::error!(commit = %target, "degraded: {message}"),
        }
    }

    if let (None, Some(rollback)) = (&before.rollback, &after.rollback) {
        let (from, to) = (rollback.from.short(), short(&after.target));
        tracing::error!(from, to = %to, "rolling back: {}", rollback.reason);
        metrics.rollback(rollback.class.into());
    }
    for (node, why) in after
        .faulty
        .iter()
        .filter(|(node, _)| !before.faulty.contains_key(*node))
    {
        tracing::warn!(%node, "a node is at fault itself: {why}");
    }
    for entry in &after.history {
        let known = before.history.iter().any(|old| old == entry);
        if known {
            continue;
        }
        match entry.state {
            CommitState::Held => {
                tracing::warn!(commit = entry.commit.short(), "held: {}", entry.reason);
                metrics.rollout(RolloutResult::Held);
            }
            CommitState::Healthy => metrics.rollout(RolloutResult::Healthy),
            CommitState::RolledBack => {
                metrics.rollout(RolloutResult::RolledBack);
                // A commit that a newer commit had superseded is given up while the target stays
                // the same.
                if after.rollback.is_none() {
                    tracing::error!(commit = entry.commit.short(), "given up: {}", entry.reason);
                    metrics.rollback(entry.class.unwrap_or_default().into());
                }
            }
            CommitState::Degraded => metrics.rollout(RolloutResult::Degraded),
            CommitState::Superseded => metrics.rollout(RolloutResult::Superseded),
            CommitState::Refused => metrics.rollout(RolloutResult::Refused),
            CommitState::Progressing => {}
        }
    }
}

/// Records how long the phase lasted that has just ended, and the whole rollout.
fn time_phase(before: &Rollout, after: &Rollout, metrics: &Metrics) {
    let elapsed = |since: Option<Timestamp>| {
        let (since, now) = (since?, after.since?);
        std::time::Duration::try_from(now.duration_since(since)).ok()
    };
    if before.target != after.target {
        return;
    }
    let ended = match (&before.phase, &after.phase) {
        (Phase::Preparing { .. }, _) => Some(PushPhase::Prepare),
        (Phase::Progressing { .. }, Phase::Soaking | Phase::Healthy) => Some(PushPhase::Progress),
        (Phase::Soaking, Phase::Healthy) => Some(PushPhase::Soak),
        _ => None,
    };
    if let (Some(phase), Some(duration)) = (ended, elapsed(before.since)) {
        metrics.push(phase, duration);
    }
    if after.phase == Phase::Healthy
        && let Some(duration) = elapsed(after.began)
    {
        metrics.push(PushPhase::Total, duration);
    }
}
