//! The metrics for Prometheus. Every label has a fixed set of values, except a commit id, of which
//! there is one for each pointer at a time.

mod family;
mod words;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use prometheus::{
    Counter, CounterVec, Encoder, Gauge, GaugeVec, HistogramVec, Registry, TextEncoder,
    process_collector::ProcessCollector,
};
use reconciler::{
    foreign,
    name::{CommitId, PodUid},
    state::Phase,
    status::{PodPhase, PodStatus},
};

pub(crate) use self::words::{
    CycleResult, DriftCause, PushPhase, RollbackReason, RolloutResult, SignatureOutcome,
    WebhookResult,
};
use crate::view::View;

/// All metrics of one daemon, in a registry of their own.
pub(crate) struct Metrics {
    registry: Registry,
    cycle_seconds: HistogramVec,
    cycles: CounterVec,
    push_seconds: HistogramVec,
    signatures: CounterVec,
    rollouts: CounterVec,
    rollbacks: CounterVec,
    repairs: CounterVec,
    webhooks: CounterVec,
    pods: GaugeVec,
    restarts: Counter,
    commits: GaugeVec,
    commit_times: GaugeVec,
    fetched: Gauge,
    suspended: Gauge,
    degraded: Gauge,
    leader: Gauge,
    store_current: Gauge,
    nodes: GaugeVec,
    last_view: Mutex<LastView>,
}

/// The values of the last view, by which changes are detected.
#[derive(Default)]
struct LastView {
    commits: BTreeMap<&'static str, CommitId>,
    restarts: BTreeMap<PodUid, u32>,
}

const PHASES: [PodPhase; 5] = [
    PodPhase::Pending,
    PodPhase::Running,
    PodPhase::Succeeded,
    PodPhase::Failed,
    PodPhase::Unknown,
];

const NODE_STATES: [&str; 5] = ["Ready", "NotReady", "Away", "Silent", "Lost"];

/// The pods of this host: the sum over the hosts of a cluster must count each pod once.
fn own_pods(view: &View) -> impl Iterator<Item = (&PodUid, &PodStatus)> {
    view.pods.iter().filter(|(uid, _)| {
        view.state
            .pods
            .get(*uid)
            .is_none_or(|record| record.place.node() == Some(&view.node))
    })
}

impl Metrics {
    /// Registers all metrics. It fails only if two metrics had the same name.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let family = family::Family::new(&registry);
        let build = family.gauges(
            "windlass_build_info",
            "Which build this is; always 1.",
            &["version", "commit", "rust"],
        )?;
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), words::COMMIT, words::RUST])
            .set(1.0);
        registry.register(Box::new(ProcessCollector::for_self()))?;

        let metrics = Self {
            cycle_seconds: family.seconds(
                "windlass_reconcile_duration_seconds",
                "Duration of a cycle of the control loop.",
                "result",
                &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
            )?,
            cycles: family.counters(
                "windlass_reconciles_total",
                "Cycles of the control loop.",
                &["result"],
            )?,
            push_seconds: family.seconds(
                "windlass_push_to_healthy_seconds",
                "Time that a commit spent in each phase, from the start of its fetch until it was healthy.",
                "phase",
                &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0],
            )?,
            signatures: family.counters(
                "windlass_signature_checks_total",
                "Judgements of commits by their signature.",
                &["outcome"],
            )?,
            rollouts: family.counters(
                "windlass_rollouts_total",
                "Commits whose rollout has ended.",
                &["result"],
            )?,
            rollbacks: family.counters(
                "windlass_rollbacks_total",
                "Times an earlier commit was gone back to.",
                &["reason"],
            )?,
            repairs: family.counters(
                "windlass_drift_repairs_total",
                "Repairs of objects of Windlass that were changed by others on the host.",
                &["cause"],
            )?,
            webhooks: family.counters(
                "windlass_webhook_requests_total",
                "Webhook requests by their result.",
                &["forge", "result"],
            )?,
            pods: family.gauges("windlass_pods", "Pods of this host by phase.", &["phase"])?,
            restarts: family
                .counter("windlass_container_restarts_total", "Containers that were started again.")?,
            commits: family.gauges(
                "windlass_commit_info",
                "The commit that each pointer points at; always 1.",
                &["pointer", "commit"],
            )?,
            commit_times: family.gauges(
                "windlass_commit_timestamp_seconds",
                "Committer's time of the commit that each pointer points at.",
                &["pointer"],
            )?,
            fetched: family.gauge(
                "windlass_last_fetch_timestamp_seconds",
                "Time of the last successful fetch of the repository.",
            )?,
            suspended: family.gauge("windlass_suspended", "1 while no new commit is taken.")?,
            degraded: family
                .gauge("windlass_degraded", "1 while a failed commit runs because there is no healthy one to go back to.")?,
            leader: family
                .gauge("windlass_leader", "1 on the host that leads its cluster, and where it is alone.")?,
            store_current: family.gauge(
                "windlass_store_current",
                "0 while the cluster's store does not answer, or is not trusted.",
            )?,
            nodes: family.gauges(
                "windlass_nodes",
                "Nodes of the cluster by their state, as this host knows them.",
                &["state"],
            )?,
            last_view: Mutex::default(),
            registry,
        };
        metrics.start_at_zero();
        Ok(metrics)
    }

    /// Sets all counters to zero at the start: a counter that appears with its first event shows no
    /// increase.
    fn start_at_zero(&self) {
        CycleResult::ALL.iter().for_each(|result| {
            self.cycles.with_label_values(&[result.label()]);
        });
        PushPhase::ALL.iter().for_each(|phase| {
            self.push_seconds.with_label_values(&[phase.label()]);
        });
        SignatureOutcome::ALL.iter().for_each(|outcome| {
            self.signatures.with_label_values(&[outcome.label()]);
        });
        RolloutResult::ALL.iter().for_each(|result| {
            self.rollouts.with_label_values(&[result.label()]);
        });
        RollbackReason::ALL.iter().for_each(|reason| {
            self.rollbacks.with_label_values(&[reason.label()]);
        });
        DriftCause::ALL.iter().for_each(|cause| {
            self.repairs.with_label_values(&[cause.label()]);
        });
        for forge in ["github", "generic"] {
            WebhookResult::ALL.iter().for_each(|result| {
                self.webhooks.with_label_values(&[forge, result.label()]);
            });
        }
        PHASES
            .iter()
            .for_each(|phase| self.pods.with_label_values(&[phase.as_str()]).set(0.0));
    }

    /// Records the end of a cycle.
    pub(crate) fn cycle(&self, elapsed: Duration, result: CycleResult) {
        self.cycle_seconds
            .with_label_values(&[result.label()])
            .observe(elapsed.as_secs_f64());
        self.cycles.with_label_values(&[result.label()]).inc();
    }

    /// Records that a commit has left a phase, after this time.
    pub(crate) fn push(&self, phase: PushPhase, elapsed: Duration) {
        self.push_seconds
            .with_label_values(&[phase.label()])
            .observe(elapsed.as_secs_f64());
    }

    /// Records the judgement of a commit.
    pub(crate) fn signature(&self, outcome: SignatureOutcome) {
        self.signatures.with_label_values(&[outcome.label()]).inc();
    }

    /// Records the end of a rollout.
    pub(crate) fn rollout(&self, result: RolloutResult) {
        self.rollouts.with_label_values(&[result.label()]).inc();
    }

    /// Records that an earlier commit became the target.
    pub(crate) fn rollback(&self, reason: RollbackReason) {
        self.rollbacks.with_label_values(&[reason.label()]).inc();
    }

    /// Records the repair of drift.
    pub(crate) fn repair(&self, cause: DriftCause) {
        self.repairs.with_label_values(&[cause.label()]).inc();
    }

    /// Records the answer to a webhook.
    pub(crate) fn webhook(&self, forge: &'static str, result: WebhookResult) {
        self.webhooks
            .with_label_values(&[forge, result.label()])
            .inc();
    }

    /// Records a published view: sets all gauges, and counts the restarts since the view before.
    pub(crate) fn observe(&self, view: &View) {
        let rollout = &view.state.rollout;
        let mut counts = BTreeMap::new();
        for (_, status) in own_pods(view) {
            *counts.entry(status.phase).or_insert(0_u32) += 1;
        }
        for phase in PHASES {
            let count = counts.get(&phase).copied().unwrap_or_default();
            self.pods
                .with_label_values(&[phase.as_str()])
                .set(f64::from(count));
        }

        self.suspended.set(f64::from(u8::from(rollout.suspended)));
        self.degraded.set(f64::from(u8::from(matches!(
            rollout.phase,
            Phase::Degraded { .. }
        ))));
        if let Some(fetched) = view.source.fetched {
            self.fetched.set(fetched.as_duration().as_secs_f64());
        }
        self.observe_cluster(view);

        let mut last = self.last_view.lock();
        self.observe_commits(view, &mut last);
        let restarts: BTreeMap<PodUid, u32> = own_pods(view)
            .map(|(uid, status)| (uid.clone(), status.restarts()))
            .collect();
        for (uid, now) in &restarts {
            // Restarts of a pod that is new to this process may have been before the daemon's
            // start, so they do not count.
            let before = last.restarts.get(uid).copied().unwrap_or(*now);
            self.restarts.inc_by(f64::from(now.saturating_sub(before)));
        }
        last.restarts = restarts;
    }

    fn observe_cluster(&self, view: &View) {
        // A host that is alone leads itself.
        let leads = view
            .cluster
            .as_ref()
            .is_none_or(|cluster| cluster.leader.as_ref() == Some(&view.node));
        let current = view
            .cluster
            .as_ref()
            .is_none_or(|cluster| cluster.store == "current");
        self.leader.set(f64::from(u8::from(leads)));
        self.store_current.set(f64::from(u8::from(current)));

        for state in NODE_STATES {
            let count = view
                .nodes
                .values()
                .filter(|node| node.life.as_str() == state)
                .count();
            self.nodes
                .with_label_values(&[state])
                .set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        }
    }

    fn observe_commits(&self, view: &View, last: &mut LastView) {
        let rollout = &view.state.rollout;
        // The old series of a pointer is removed: a query must not find two commits for one pointer.
        let pointers = [
            ("target", &rollout.target),
            ("healthy", &rollout.healthy),
            ("verified", &view.source.verified),
            ("head", &view.source.head),
        ];
        for (pointer, commit) in pointers {
            if last.commits.get(pointer) != commit.as_ref() {
                if let Some(old) = last.commits.remove(pointer) {
                    // A missing value need not be removed.
                    self.commits
                        .remove_label_values(&[pointer, &foreign::escape(old.as_str())])
                        .unwrap_or_default();
                    self.commit_times
                        .remove_label_values(&[pointer])
                        .unwrap_or_default();
                }
                if let Some(commit) = commit {
                    self.commits
                        .with_label_values(&[pointer, &foreign::escape(commit.as_str())])
                        .set(1.0);
                    last.commits.insert(pointer, commit.clone());
                }
            }
            let known = commit.as_ref().and_then(|commit| view.commits.get(commit));
            if let Some(known) = known {
                self.commit_times
                    .with_label_values(&[pointer])
                    .set(known.time.as_duration().as_secs_f64());
            }
        }
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}
