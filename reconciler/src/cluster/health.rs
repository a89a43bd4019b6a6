//! The judgement of the changed workloads, and which nodes are themselves at fault.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{ClusterDecision, parts::Part};
use crate::{
    controller::{NodeConditions, OwnedPod},
    name::{NodeName, WorkloadKey, WorkloadKind},
    object::Workload,
    plan::Next,
    rollout::{
        Judgement, Suspects, first_unfinished, judge, judged_workloads, pod_failure,
        progress_deadline, suspects, with_regard_to, worst,
    },
    state::{Failure, FailureReason, NodeFault, Obstacle, Phase, Stored, Unsettled},
    time::later,
};

/// The judgement of all changed workloads together.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) judgement: Judgement,
    /// Nodes that are themselves at fault, with the reason.
    pub(super) faulty: BTreeMap<NodeName, Stored<NodeFault>>,
    pub(super) next: Next,
    /// When one of the changed workloads last made progress.
    pub(super) progressed: Option<Timestamp>,
}

impl From<Judgement> for Judged {
    fn from(judgement: Judgement) -> Self {
        Self {
            judgement,
            faulty: BTreeMap::new(),
            next: Next::AwaitChange,
            progressed: None,
        }
    }
}

impl<'a> ClusterDecision<'a> {
    /// Judges the workloads of the driving commit, as far as its phase requires it.
    pub(super) fn judged(&self) -> Judged {
        let rollout = &self.input.state.rollout;
        let is_judged = match rollout.phase {
            Phase::Empty => false,
            // Only judged to learn whether the faulty nodes are still at fault.
            Phase::Healthy => !rollout.faulty.is_empty(),
            Phase::Preparing { .. } => rollout.judges_superseded(),
            Phase::Progressing { .. } | Phase::Soaking | Phase::Degraded { .. } => true,
        };
        if !is_judged {
            return Judgement::Settled.into();
        }
        let Some(driving) = self.driving() else {
            // A commit that cannot be read runs nothing, but that does not mean that it has
            // settled.
            return Judgement::Waiting(Obstacle::CommitMissing(rollout.driving.clone())).into();
        };

        let is_healthy = rollout.phase == Phase::Healthy;
        let workloads: Vec<&Workload> = if is_healthy {
            driving.objects.workloads.values().collect()
        } else {
            judged_workloads(rollout, self.input.commits, driving)
        };
        if !is_healthy && let Some(node) = workloads.iter().find_map(|one| self.silent_node(one)) {
            return Judgement::Waiting(Obstacle::NotReported(node.clone())).into();
        }
        if rollout.wave.is_some() && self.canaries().is_empty() {
            return Judgement::Waiting(Obstacle::CanariesAbsent).into();
        }

        // The obstacle may have just disappeared: deadlines count from now.
        let clock = if rollout.waiting {
            Some(self.input.now)
        } else {
            rollout.clock
        };
        let keys: BTreeSet<&WorkloadKey> = workloads.iter().map(|workload| &workload.key).collect();
        let parts: Vec<Part<'a>> = self
            .parts(driving)
            .into_iter()
            .filter(|part| part.moves && keys.contains(&part.workload.key))
            .collect();
        let progressed = self.progressed(&parts);
        let is_late = is_healthy || self.is_late(clock, progressed);
        let found = self.suspects(&parts, clock, is_late);
        if is_healthy {
            return Judged {
                faulty: self.still_faulty(found),
                ..Judgement::Settled.into()
            };
        }

        let owned = self.owned.values().flatten();
        let unfinished = first_unfinished(owned, &self.conditions, self.input.now);
        let judged = self.weigh(found, |conditions| {
            let judge_part = |part: &'_ Part<'a>| {
                let progress = self.input.state.workloads.get(&part.workload.key);
                let view = self.part_view(part, conditions);
                let judgement = judge(&view, progress, clock);
                with_regard_to(unfinished.as_ref(), judgement, &view)
            };
            parts
                .iter()
                .map(|part| (&part.workload.key, judge_part(part)))
                .collect()
        });
        Judged {
            progressed,
            ..judged
        }
    }

    /// When one of these workloads last made progress with its present template.
    fn progressed(&self, parts: &[Part<'a>]) -> Option<Timestamp> {
        parts
            .iter()
            .filter_map(|part| {
                let progress = self.input.state.workloads.get(&part.workload.key)?;
                (progress.template == part.workload.template.hash).then_some(progress.since)
            })
            // A previous leader's clock may have been ahead of this leader's clock.
            .map(|since| since.min(self.input.now))
            .max()
    }

    /// Whether `rollout.deadline` has passed since the clock or the last progress.
    fn is_late(&self, clock: Option<Timestamp>, progressed: Option<Timestamp>) -> bool {
        let Some(clock) = clock else {
            return false;
        };
        let since = progressed.map_or(clock, |progressed| clock.max(progressed));
        later(since, self.input.settings.rollout.deadline) <= self.input.now
    }

    /// The faults of the pods of these workloads. Past its own deadline, or the rollout's, a pod
    /// that is not available has failed.
    fn suspects(&self, parts: &[Part<'a>], clock: Option<Timestamp>, is_late: bool) -> Suspects {
        let mut found = Suspects::default();
        for part in parts {
            let progress = self.input.state.workloads.get(&part.workload.key);
            let deadline = progress_deadline(part.workload, progress, clock, self.input.now);
            let is_over = deadline.is_some_and(|deadline| deadline <= self.input.now);
            let view = self.part_view(part, &self.conditions);
            add(&mut found, suspects(&view, clock, is_late || is_over));
        }
        found
    }

    /// The nodes that are at fault although the commit is healthy.
    fn still_faulty(&self, found: Suspects) -> BTreeMap<NodeName, Stored<NodeFault>> {
        // A faulty node that is unreachable now has not recovered by that.
        let out = self
            .input
            .state
            .rollout
            .faulty
            .iter()
            .filter(|(node, _)| self.conditions.absent.contains(*node))
            .map(|(node, fault)| (node.clone(), fault.clone()));
        out.chain(stored(faults(found.nodes)))
            .chain(stored(found.unready))
            .collect()
    }

    /// Whether few enough nodes are at fault, and the judgement without these nodes.
    fn weigh<'k>(
        &self,
        found: Suspects,
        judge: impl Fn(&NodeConditions) -> BTreeMap<&'k WorkloadKey, Judgement>,
    ) -> Judged {
        if let Some(failure) = found.failure {
            return Judgement::Failed(failure).into();
        }
        let most = self
            .input
            .settings
            .rollout
            .max_faulty(self.input.nodes.len());
        let mut conditions = self.conditions.clone();
        conditions.faulty.extend(found.nodes.keys().cloned());
        if conditions.faulty.len() > most
            && let Some(failure) = found.nodes.values().next()
        {
            return Judgement::Failed(Failure {
                class: failure.class,
                reason: FailureReason::TooManyNodes {
                    first: Box::new(failure.reason.clone()),
                    failing: conditions.faulty.len(),
                    nodes: self.input.nodes.len(),
                    most,
                },
            })
            .into();
        }

        let mut waiting = None;
        let mut faulty: BTreeMap<NodeName, Stored<NodeFault>> =
            stored(faults(found.nodes)).collect();
        let unready: BTreeSet<&NodeName> = conditions
            .faulty
            .iter()
            .chain(found.unready.keys())
            .collect();
        if unready.len() > most {
            let new = found
                .unready
                .iter()
                .find(|(node, _)| !conditions.faulty.contains(*node));
            waiting = new.map(|(_, fault)| Obstacle::Node(fault.clone()));
        } else {
            conditions.faulty.extend(found.unready.keys().cloned());
            faulty.extend(stored(found.unready));
        }

        let mut next = Next::AwaitChange;
        let judgement = match (worst(judge(&conditions)), waiting, found.undecided) {
            (failed @ Judgement::Failed(_), ..) => failed,
            (_, Some(waiting), _) => Judgement::Waiting(waiting),
            (Judgement::Settled | Judgement::Progressing(_), None, Some((failure, until))) => {
                next = Next::at(until, self.input.now);
                Judgement::Progressing(Unsettled::Undecided(failure))
            }
            (judgement, None, _) => judgement,
        };
        Judged {
            judgement,
            faulty,
            next,
            progressed: None,
        }
    }

    /// The nodes, canaries apart, where a DaemonSet's pod fails: such a pod may have been failing
    /// since long after its commit became healthy.
    pub(super) fn failing(&self) -> BTreeSet<NodeName> {
        let daemons = self
            .owned
            .iter()
            .filter(|(owner, _)| owner.kind == WorkloadKind::DaemonSet);
        let fails = |pod: &&OwnedPod<'_>| {
            pod.is_active() && !self.conditions.is_absent(pod) && pod_failure(pod, None).is_some()
        };
        let failing = daemons.flat_map(|(_, pods)| pods).filter(fails);
        let nodes = failing.filter_map(|pod| pod.record.place.node());
        let canaries = self.canaries();
        nodes
            .filter(|node| !canaries.contains(*node))
            .cloned()
            .collect()
    }

    /// A node that runs a pod of this owner and has not reported yet, as after a restart of the
    /// leader. An unreachable node does not report, and is not waited for.
    fn silent_node(&self, workload: &Workload) -> Option<&'a NodeName> {
        let pods = self.owned.get(&workload.key)?;
        let mut nodes = pods
            .iter()
            .filter(|pod| !self.conditions.is_absent(pod))
            .filter_map(|pod| pod.record.place.node());
        nodes.find(|node| !self.input.reports.contains_key(*node))
    }
}

/// The nodes where a pod fails, each with that failure as the node's own fault.
fn faults(nodes: BTreeMap<NodeName, Failure>) -> impl Iterator<Item = (NodeName, NodeFault)> {
    nodes
        .into_iter()
        .map(|(node, failure)| (node, NodeFault::Pod(failure.reason)))
}

/// Faults in the form in which the rollout stores them.
fn stored(
    faults: impl IntoIterator<Item = (NodeName, NodeFault)>,
) -> impl Iterator<Item = (NodeName, Stored<NodeFault>)> {
    faults.into_iter().map(|(node, fault)| (node, fault.into()))
}

fn add(all: &mut Suspects, one: Suspects) {
    for (node, failure) in one.nodes {
        all.nodes.entry(node).or_insert(failure);
    }
    for (node, why) in one.unready {
        all.unready.entry(node).or_insert(why);
    }
    all.failure = all.failure.take().or(one.failure);
    all.undecided = match (all.undecided.take(), one.undecided) {
        (Some(a), Some(b)) => Some(if b.1 < a.1 { b } else { a }),
        (a, b) => a.or(b),
    };
}
