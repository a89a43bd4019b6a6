//! Acts on a plan, and on the requests of people.

use std::collections::BTreeSet;

use jiff::Timestamp;
use reconciler::{
    cluster::roll_back,
    commit,
    name::{CommitId, CommitPrefix, WorkloadKey},
    node::{NodePlan, images_in_use},
    observed::Observed,
    plan::{Lane, LaneKey, Next, Why},
    rollout::retry,
    state::{Change, CommitState, Rollout},
};

use super::{Host, RETRY, leader::Requester, plan_text};
use crate::{
    apply::Done,
    command::{Command, CommandError, CommandResult},
    view::{HostTrouble, Part},
};

/// Unused images are removed when more than this share of the engine's disk is used.
const FULL_PERCENT: u8 = 80;

impl Host {
    /// Publishes the network tables before anything is stopped, so that no connection is sent to a
    /// pod that is about to stop. The start of a new pod does not wait for that, since it takes no
    /// traffic from other pods.
    pub(super) async fn act(&mut self, plan: NodePlan) -> Next {
        let at_rest = plan.lanes.is_empty() && self.parts.lanes.is_idle();
        self.reporter
            .last_plan
            .take(&plan.lanes, self.parts.lanes.is_idle());
        self.acted |= !plan.lanes.is_empty();
        for key in &plan.cancel {
            self.parts.lanes.cancel(key);
        }

        let (new, others) = plan.lanes.into_iter().partition::<Vec<_>, _>(|lane| {
            matches!(lane.why, Why::Start { .. } | Why::Image { .. })
        });
        self.start(new);

        let mut next = Next::AwaitChange;
        let mut published = true;
        self.reach_peers().await;
        if let Some(services) = &plan.services {
            let synced = self.parts.network.sync(services).await;
            let synced = synced.map(drop).map_err(HostTrouble::failed);
            published = synced.is_ok();
            if !published {
                next = Next::After(RETRY);
            }
            self.note(Part::Services, synced);
        }
        if let Some(names) = plan.names
            && self.reporter.published_names != names
        {
            self.parts.names.write(&names);
            self.reporter.published_names.clone_from(&names);
            self.parts.dns.publish(names);
        }
        if self.parts.dns.is_serving() {
            self.troubles.clear(Part::Dns);
        } else {
            self.troubles.set(Part::Dns, HostTrouble::DnsEnded);
        }

        self.parts.prober.set(&plan.probes);
        self.reporter.converged |= at_rest;

        // No pod is stopped while the network table still sends traffic to it.
        let mut others = others;
        others.retain(|lane| published || !matches!(lane.why, Why::Stop { .. }));
        self.start(others);
        next
    }

    fn start(&mut self, lanes: Vec<Lane>) {
        for lane in lanes {
            // A new pod's address must be on the disk before the pod can use it; running pods are
            // maintained all the same.
            if self.troubles.has(Part::Memory) && matches!(lane.why, Why::Start { .. }) {
                continue;
            }
            if let Some(line) = plan_text::announce(&lane) {
                tracing::info!("{line}");
            }
            self.count_drift(&lane.why);
            self.reporter.events.lane(&lane, self.store.snapshot());
            self.parts.lanes.start(lane);
        }
    }

    /// Remembers the result of a step.
    pub(super) fn did(&mut self, done: Done) {
        match done {
            Done::Pinned(commit, image, pin) => {
                if let Some(warning) = &pin.warning {
                    tracing::warn!(%image, "{warning}");
                }
                // Written by the next cycle before its plan depends on it, together with all other
                // pins that came since the last cycle.
                self.knowledge.add_pins([(commit, image, pin)]);
            }
            Done::Files(pod, digest) => {
                self.memory.files.insert(pod, digest);
            }
            Done::FilesGone(pod) => {
                self.memory.files.remove(&pod);
            }
            Done::Hooked(container) => self.memory.hook_done(container),
        }
    }

    /// Pins the commits in use in the mirror and the trust directory, and releases all others.
    pub(super) async fn keep_needed_commits(&mut self) -> Next {
        let mut keep = self.needed();
        self.knowledge.commit_cache.retain(&keep);
        keep.extend(self.returnable());
        if self.knowledge.are_pinned(&keep) {
            return Next::AwaitChange;
        }

        let state = self.store.snapshot();
        self.parts.lanes.forget_failures(|key| match key {
            LaneKey::Pod(uid) => state.pods.contains_key(uid),
            LaneKey::Image(commit, _) => keep.contains(commit),
            LaneKey::Link(_) => false,
        });

        let kept = self
            .knowledge
            .retain(&keep, &state.rollout, self.fixed.history);
        self.note(Part::Trust, kept.map_err(HostTrouble::failed));

        let mirror = self.parts.reader.mirror.clone();
        if self.knowledge.pin_in(mirror, keep).await {
            Next::AwaitChange
        } else {
            Next::After(RETRY)
        }
    }

    /// The commits that pods of this host run from or the rollout names, and the head.
    fn needed(&self) -> BTreeSet<CommitId> {
        let mut needed = self.in_use();
        needed.extend(self.knowledge.accepted_head().cloned());
        needed
    }

    /// The commits that a rollback could go to: the last healthy ones.
    fn returnable(&self) -> BTreeSet<CommitId> {
        let healthy = self.store.snapshot().rollout.history.iter().rev();
        healthy
            .filter(|entry| entry.state == CommitState::Healthy)
            .map(|entry| entry.commit.clone())
            .take(self.fixed.history)
            .collect()
    }

    /// Removes images that the daemon pulled and no commit needs, when the engine's disk is nearly
    /// full.
    pub(super) async fn collect_garbage(&mut self) {
        // An image that a lane has just pulled must count as used.
        self.keep_new_pins();
        let Ok(observation) = self.parts.runtime.observe().await else {
            return;
        };
        let observed = Observed {
            containers: observation.containers,
            ..Observed::default()
        };

        let mut commits = self.needed();
        commits.extend(self.returnable());
        let keep = images_in_use(&observed, self.knowledge.trust.lock().pins(), &commits);
        if let Err(fault) = self
            .parts
            .runtime
            .collect_garbage(&keep, FULL_PERCENT)
            .await
        {
            tracing::warn!("{fault}");
        }
    }

    /// Executes a request of a person on the host that leads.
    pub(super) async fn act_on(
        &mut self,
        command: Command,
        asker: Option<Requester>,
    ) -> CommandResult {
        let now = self.now();
        let mut rollout = self.store.snapshot().rollout.clone();
        let answer = match command {
            Command::Sync => {
                self.parts.nudge.notify_one();
                return Ok("the repository is fetched now".to_owned());
            }
            Command::Suspend => {
                rollout.suspended = true;
                "no new commit is taken until `windlass resume`; what runs is kept running"
                    .to_owned()
            }
            Command::Resume => {
                rollout.suspended = false;
                rollout.pinned_against = None;
                "new commits are taken again".to_owned()
            }
            Command::Retry { commit } => self.retry(&mut rollout, commit, now)?,
            Command::Restart { workload } => self.restart(&mut rollout, &workload)?,
            Command::Rollback { commit } => {
                let to = self.rollback_target(&rollout, commit)?;
                rollout = roll_back(&rollout, to.clone(), now);
                format!(
                    "going back to {}; it stays until `windlass resume` or a newer commit",
                    to.short()
                )
            }
            Command::RollbackLocal { commit } => return self.set_out(commit, now),
            Command::ResumeLocal => return self.return_from_detour(),
            Command::RemoveNode { node } => return self.remove_node(&node, asker).await,
            Command::AdoptStore => return Ok(self.store.adopt().await?),
        };
        self.commit_for(asker, vec![Change::put(rollout)], answer)
            .await
    }

    fn retry(
        &mut self,
        rollout: &mut Rollout,
        wanted: Option<CommitPrefix>,
        now: Timestamp,
    ) -> CommandResult {
        let failed = match wanted {
            Some(prefix) => {
                let failed = prefix.resolve(rollout.bad.keys()).cloned();
                Some(failed.ok_or(CommandError::NotFailed(prefix))?)
            }
            None => None,
        };

        let cleared = retry(rollout, failed.as_ref(), now);
        // A person who retries has changed something outside of Git: the back-off of pulls would
        // only delay the retry.
        self.parts.lanes.forget_failures(|_| false);
        self.parts.nudge.notify_one();
        Ok(match cleared {
            0 => "no commit was marked as failed; what waits is tried again now".to_owned(),
            count => {
                format!("the mark of {count} failed commits is cleared; the head is tried again")
            }
        })
    }

    fn restart(&self, rollout: &mut Rollout, workload: &WorkloadKey) -> CommandResult {
        let driving = commit::driving(self.knowledge.commit_cache.commits(), rollout);
        if !driving.is_some_and(|commit| commit.objects.workloads.contains_key(workload)) {
            return Err(CommandError::NoWorkload(workload.clone()));
        }
        rollout
            .restarts
            .insert(workload.clone(), self.store.snapshot().serial);
        Ok(format!(
            "the pods of {workload} are replaced by its own strategy"
        ))
    }

    /// The commit that a rollback goes to: one that was healthy, that this host has verified, and
    /// that lies within the history limit.
    pub(super) fn rollback_target(
        &mut self,
        rollout: &Rollout,
        wanted: Option<CommitPrefix>,
    ) -> Result<CommitId, CommandError> {
        let healthy: Vec<CommitId> = rollout
            .history
            .iter()
            .rev()
            .filter(|entry| entry.state == CommitState::Healthy)
            .map(|entry| entry.commit.clone())
            .collect();
        let is_target = |id: &CommitId| rollout.target.as_ref() == Some(id);

        let id = match &wanted {
            Some(prefix) => prefix
                .resolve(&healthy)
                .cloned()
                .ok_or_else(|| CommandError::NotHealthy(prefix.clone()))?,
            // Starts before the target's own entry, so that a second rollback goes further back and
            // not forward again.
            None => {
                let after = healthy.iter().position(is_target).map_or(0, |at| at + 1);
                let before = healthy.into_iter().skip(after).find(|id| !is_target(id));
                before.ok_or(CommandError::NoEarlierHealthy)?
            }
        };
        if is_target(&id) {
            return Err(CommandError::IsTarget(id));
        }

        let judged = self
            .fixed
            .judge
            .eligible(&self.knowledge.trust, self.fixed.history, &id);
        let verified = judged
            .map_err(|source| CommandError::NotJudged {
                commit: id.clone(),
                source,
            })?
            .map_err(|why| CommandError::NotEligible {
                commit: id.clone(),
                source: why.into(),
            })?;
        self.knowledge.verified.insert(id.clone(), verified);
        Ok(id)
    }
}
