//! A cluster in which everything that the leader decides succeeds at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{ForecastEnd, ForecastStep};
use crate::{
    cluster::{ClusterChange, ClusterInput, cluster},
    commit::Commit,
    name::{NodeName, PodUid},
    plan::Next,
    rollout::Head,
    state::{
        Change, ClusterState, NodeLife, NodeReport, Phase, PodPlace, PodRecord, Preparation,
        ReceivedTime, Record, RecordKey,
    },
    status::{PodPhase, PodStatus},
    time::later,
};

/// Maximum number of decisions of one forecast.
const DECISIONS: usize = 500;
/// Maximum number of steps of one forecast.
const STEPS: usize = 5000;
/// How long an imagined pod has been ready: longer than any `minReadySeconds`.
const LONG_READY: Duration = Duration::from_secs(1 << 40);

/// A cluster in which everything that the leader decides succeeds at once.
pub(super) struct ImaginedCluster<'a> {
    input: &'a ClusterInput<'a>,
    commit: &'a Arc<Commit>,
    now: Timestamp,
    state: ClusterState,
    reports: BTreeMap<NodeName, NodeReport>,
    /// The pods that exist before the forecast.
    existing: BTreeSet<PodUid>,
}

impl<'a> ImaginedCluster<'a> {
    /// The cluster as it is, with the commit as the target.
    pub(super) fn new(input: &'a ClusterInput<'a>, commit: &'a Arc<Commit>) -> Self {
        let mut state = input.state.clone();
        let rollout = &mut state.rollout;
        rollout.bad.remove(&commit.id);
        if rollout.target.as_ref() != Some(&commit.id) {
            rollout.target = Some(commit.id.clone());
            rollout.rollback = None;
            rollout.began = Some(input.now);
            rollout.since = Some(input.now);
            rollout.phase = Phase::preparing();
        }
        Self {
            input,
            commit,
            now: input.now,
            existing: state.pods.keys().cloned().collect(),
            state,
            reports: input.reports.clone(),
        }
    }

    /// Decides and carries out until nothing changes; returns the last decision.
    pub(super) fn run(
        &mut self,
        rounds: &mut Vec<Vec<ForecastStep>>,
    ) -> (ClusterChange, ForecastEnd) {
        let mut decision = self.decide();
        let mut listed = 0;
        for _ in 0..DECISIONS {
            let before = self.state.rollout.phase.clone();
            let steps = self.steps(&decision.changes);
            let has_changed = !decision.changes.is_empty();
            self.state.apply(std::mem::take(&mut decision.changes));

            let rollout = &self.state.rollout;
            let is_target = rollout.target.as_ref() == Some(&self.commit.id);
            let is_degraded = matches!(rollout.phase, Phase::Degraded { .. });
            if !is_target || is_degraded && has_changed {
                return (decision, ForecastEnd::Fails(before));
            }
            listed += steps.len();
            if !steps.is_empty() {
                rounds.push(steps);
            }
            if listed > STEPS {
                break;
            }

            if !has_changed {
                match (&rollout.phase, decision.next) {
                    (Phase::Healthy, _) => return (decision, ForecastEnd::Healthy),
                    (_, Next::AwaitChange) => return (decision, ForecastEnd::Stays(before)),
                    (_, Next::After(time)) => self.now = later(self.now, time),
                }
            }
            decision = self.decide();
        }
        (decision, ForecastEnd::TooLong)
    }

    /// The state and the reports of the cluster as they are now.
    #[cfg(test)]
    pub(super) fn into_parts(self) -> (ClusterState, BTreeMap<NodeName, NodeReport>) {
        (self.state, self.reports)
    }

    fn decide(&mut self) -> ClusterChange {
        self.report();
        cluster(&ClusterInput {
            now: self.now,
            state: &self.state,
            head: &Head::Unknown,
            reports: &self.reports,
            ..*self.input
        })
    }

    /// Reports that what was decided is done, for each node that reports at all.
    fn report(&mut self) {
        let mut records: BTreeMap<&NodeName, Vec<&PodRecord>> = BTreeMap::new();
        for record in self.state.pods.values() {
            if let Some(node) = record.place.node() {
                records.entry(node).or_default().push(record);
            }
        }
        for (node, known) in self.input.nodes {
            if !matches!(known.life, NodeLife::Ready | NodeLife::NotReady(_)) {
                continue;
            }
            let report = self.reports.entry(node.clone()).or_default();
            report.gone.clear();
            report.share = None;
            report
                .prepared
                .insert(self.commit.id.clone(), Preparation::Ready);
            report.clock = ReceivedTime::receive(self.state.rollout.clock, report.clock, self.now);
            report
                .pods
                .retain(|uid, _| self.state.pods.contains_key(uid));

            for record in records.remove(node).unwrap_or_default() {
                let uid = &record.uid;
                if record.stop.is_some() {
                    report.pods.remove(uid);
                    report.gone.insert(uid.clone());
                    continue;
                }
                let status = report
                    .pods
                    .entry(uid.clone())
                    .or_insert_with(PodStatus::pending);
                if becomes_ready(status) {
                    make_ready(status, self.now);
                }
            }
        }
    }

    /// What these changes do to pods and Services.
    fn steps(&self, changes: &[Change]) -> Vec<ForecastStep> {
        let step = |change: &Change| match change {
            Change::Put(Record::Pod(record)) => self.pod_step(record),
            Change::Put(Record::Service(service, allocation)) => Some(ForecastStep::Allocate {
                service: service.clone(),
                allocation: allocation.clone(),
            }),
            Change::Delete(RecordKey::Service(service)) => Some(ForecastStep::Release {
                service: service.clone(),
            }),
            Change::Put(
                Record::Serial(_)
                | Record::Rollout(_)
                | Record::Workload(..)
                | Record::Outage(..)
                | Record::Removed(..),
            )
            | Change::Delete(
                RecordKey::Serial
                | RecordKey::Rollout
                | RecordKey::Pod(_)
                | RecordKey::Workload(_)
                | RecordKey::Outage(_)
                | RecordKey::Removed(_),
            ) => None,
        };
        changes.iter().filter_map(step).collect()
    }

    fn pod_step(&self, record: &PodRecord) -> Option<ForecastStep> {
        let before = self.state.pods.get(&record.uid);
        let owner = record.owner.clone();
        if let Some(stop) = &record.stop {
            let is_new = before.is_some_and(|before| before.stop.is_none());
            return is_new.then(|| ForecastStep::Stop {
                owner,
                pod: self
                    .existing
                    .contains(&record.uid)
                    .then(|| record.key.clone()),
                node: record.place.node().cloned(),
                reason: stop.reason,
            });
        }
        // A record that only names another commit keeps its pod as it is.
        if before.is_some_and(|before| before.place == record.place) {
            return None;
        }
        Some(match &record.place {
            PodPlace::Node(node) => ForecastStep::Start {
                owner,
                node: node.clone(),
            },
            PodPlace::Unplaced(why) => ForecastStep::Unplaced {
                owner,
                why: why.clone(),
            },
        })
    }
}

/// Whether a pod is imagined to become ready: it is new, or is being started without a failure so
/// far. A pod that was started before and is not ready stays as its node reports it.
fn becomes_ready(status: &PodStatus) -> bool {
    let is_starting = status.phase == PodPhase::Pending
        && status.fault.is_none()
        && status.restarts() == 0
        && !status.terminating;
    status.ready.is_some() || is_starting
}

fn make_ready(status: &mut PodStatus, now: Timestamp) {
    status.phase = PodPhase::Running;
    status.reason = None;
    status.message = None;
    status.initialized = true;
    status.started.get_or_insert(now);
    status.ready.get_or_insert(now);
    status.ready_for = LONG_READY;
}
