//! What the owner of pods wants: which to make, which to stop. Pure, one owner at a time.

mod daemonset;
mod deployment;
mod drain;
mod pod;
mod replicas;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use drain::leaves_when_drained;
use jiff::Timestamp;

use crate::{
    name::{CommitId, NodeName, PodUid, TemplateHash},
    object::{Control, DeploymentStrategy, Workload},
    placement::{Candidate, unfit_by_itself},
    state::{PodRecord, ReceivedTime, StopReason},
    status::PodStatus,
};

/// One pod of an owner, with what its node says about it.
#[derive(Clone, Copy, Debug)]
pub struct OwnedPod<'a> {
    /// What was decided.
    pub record: &'a PodRecord,
    /// What its node says; `None` before the first word.
    pub status: Option<&'a PodStatus>,
    /// `controller.kubernetes.io/pod-deletion-cost` of its own template: what is cheap goes first.
    pub cost: i32,
    /// How many pods of its owner are on its node.
    pub crowd: usize,
    /// Nobody hears from its node: what it said last is not what it is.
    pub unreachable: bool,
    /// When its node learnt from when the deadlines count.
    pub clock: Option<ReceivedTime>,
}

impl OwnedPod<'_> {
    /// Must stop.
    pub fn is_stopping(&self) -> bool {
        self.record.stop.is_some()
    }

    /// Ended for good.
    pub fn is_final(&self) -> bool {
        self.status.is_some_and(|status| status.phase.is_final())
    }

    /// Neither stopping nor ended.
    pub fn is_active(&self) -> bool {
        !self.is_stopping() && !self.is_final()
    }

    /// Takes traffic.
    pub fn is_ready(&self) -> bool {
        !self.unreachable && self.status.is_some_and(|status| status.ready.is_some())
    }

    /// Has been ready for `minReadySeconds`.
    pub fn is_available(&self, min_ready: Duration) -> bool {
        self.is_active()
            && self.is_ready()
            && self
                .status
                .is_some_and(|status| status.available(min_ready))
    }

    /// Whether what happened on its node then was after the deadlines began to count. What a node
    /// says that has not heard of that is from before.
    pub fn is_since(&self, clock: Option<Timestamp>, at: Timestamp) -> bool {
        clock.is_none_or(|clock| {
            self.clock
                .is_some_and(|heard| heard.told == clock && at >= heard.at)
        })
    }
}

/// So many pods of one owner are made in one cycle at most: a number that somebody mistyped must
/// not take the leader's breath. What is more comes with the next cycle, which follows at once.
const MOST_AT_ONCE: usize = 5000;

/// What is done about one owner.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make a pod.
    Create {
        /// What it is called.
        name: PodNaming,
        /// Where it must run; `None` leaves that to placement.
        node: Option<NodeName>,
        /// Another template than the current one: a paused Deployment grows by its old pods.
        like: Option<(CommitId, TemplateHash)>,
    },
    /// Stop a pod.
    Stop(PodUid, StopReason),
}

/// What a new pod is called.
#[derive(Clone, Debug, PartialEq)]
pub enum PodNaming {
    /// Exactly so: a bare Pod.
    Exact,
    /// This and five letters.
    Generated(String),
}

/// What a controller sees.
#[derive(Clone, Copy, Debug)]
pub struct OwnerView<'a> {
    /// The time.
    pub now: Timestamp,
    /// The owner as the driving commit has it.
    pub workload: &'a Workload,
    /// Its pods, oldest first.
    pub pods: &'a [OwnedPod<'a>],
    /// The nodes there are.
    pub nodes: &'a [Candidate],
    /// Pods with a serial up to this are replaced: a restart was asked for.
    pub restarted: Option<u64>,
    /// How the nodes stand.
    pub conditions: &'a NodeConditions,
    /// Present while only the canaries move to a new template.
    pub canary: Option<CanaryView<'a>>,
}

/// How the nodes stand, beyond what placement asks of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeConditions {
    /// Nobody hears from them, or they said that they will be back: nothing is begun there, and
    /// what they said last counts for nothing.
    pub absent: BTreeSet<NodeName>,
    /// Those of them that were given up.
    pub lost: BTreeSet<NodeName>,
    /// They report, and take no pods: why.
    pub unready: BTreeMap<NodeName, String>,
    /// At fault themselves where the target runs on others.
    pub faulty: BTreeSet<NodeName>,
    /// When the last of them was found to be: what was there before is given up.
    pub clock: Option<Timestamp>,
    /// Being emptied, by Git.
    pub draining: BTreeSet<NodeName>,
}

impl NodeConditions {
    /// Whether what becomes of this pod says nothing about the commit.
    pub fn is_aside(&self, pod: &OwnedPod<'_>) -> bool {
        pod.record
            .place
            .node()
            .is_some_and(|node| self.faulty.contains(node) || self.lost.contains(node))
    }

    /// Whether a node that is out, and not given up, was left without an available pod of these:
    /// its daemon may just be starting again, and what was taken down there stays down until it is
    /// back.
    pub fn left_down(&self, node: &NodeName, pods: &[OwnedPod<'_>]) -> bool {
        let was_up = |pod: &OwnedPod<'_>| {
            pod.is_active() && pod.status.is_some_and(|status| status.ready.is_some())
        };
        let on: Vec<_> = pods
            .iter()
            .filter(|pod| pod.record.place.node() == Some(node))
            .collect();
        let waited_for = self.absent.contains(node) && !self.lost.contains(node);
        waited_for && !on.is_empty() && !on.into_iter().any(was_up)
    }

    /// Whether nothing can be learnt of this pod now.
    pub fn is_absent(&self, pod: &OwnedPod<'_>) -> bool {
        pod.record
            .place
            .node()
            .is_some_and(|node| self.absent.contains(node))
    }
}

/// What a controller may do while only the canaries move.
#[derive(Clone, Copy, Debug)]
pub struct CanaryView<'a> {
    /// The canaries that are there.
    pub nodes: &'a BTreeSet<NodeName>,
    /// What all others go on with.
    pub before: Option<(&'a CommitId, &'a Workload)>,
    /// How many nodes that are no canaries have no available pod.
    pub down_elsewhere: usize,
}

impl OwnerView<'_> {
    /// Whether a pod is as the driving commit wants it.
    pub fn is_current(&self, pod: &OwnedPod<'_>) -> bool {
        pod.record.template == self.workload.template.hash && !self.must_restart(pod)
    }

    /// Whether a pod was there when a restart was asked for.
    pub fn must_restart(&self, pod: &OwnedPod<'_>) -> bool {
        self.restarted
            .is_some_and(|asked| pod.record.serial <= asked)
    }

    /// Whether no new pod is made while an old one may still run.
    pub fn never_overlaps(&self) -> bool {
        match self.workload.control {
            Control::Pod => true,
            Control::Deployment { strategy, .. } => strategy == DeploymentStrategy::Recreate,
            Control::Replicas { .. } | Control::DaemonSet { .. } => false,
        }
    }

    /// A pod that was told to stop and may still run. One whose node was lost holds up nothing
    /// where its place is given to another.
    pub fn may_still_run(&self, pod: &OwnedPod<'_>) -> bool {
        let lost = pod
            .record
            .place
            .node()
            .is_some_and(|node| self.conditions.lost.contains(node));
        pod.is_stopping() && !(lost && self.workload.moves_when_lost())
    }

    /// Why a pod that is not current is stopped.
    pub fn outdated_reason(&self, pod: &OwnedPod<'_>) -> StopReason {
        if pod.record.template == self.workload.template.hash {
            StopReason::Restarted
        } else {
            StopReason::Replaced
        }
    }

    /// The canaries that take this owner's pods: one new pod each.
    pub fn canaries(&self) -> Vec<&NodeName> {
        let Some(canary) = &self.canary else {
            return Vec::new();
        };
        let fits = |node: &&Candidate| {
            canary.nodes.contains(&node.name)
                && unfit_by_itself(&self.workload.template.spec, node).is_none()
        };
        self.nodes
            .iter()
            .filter(fits)
            .map(|node| &node.name)
            .collect()
    }

    /// How many pods of the new template there may be. Those that an earlier commit brought stay,
    /// wherever they are.
    pub fn updated_wanted(&self, replicas: u32) -> usize {
        let all = replicas as usize;
        if self.canary.is_none() {
            return all;
        }
        let canaries = self.canaries();
        let is_canary = |pod: &&OwnedPod<'_>| {
            pod.record
                .place
                .node()
                .is_some_and(|node| canaries.contains(&node))
        };
        let current = self
            .pods
            .iter()
            .filter(|pod| pod.is_active() && self.is_current(pod));
        let (on_canaries, elsewhere): (Vec<&OwnedPod<'_>>, Vec<_>) = current.partition(is_canary);
        all.min(elsewhere.len() + canaries.len().max(on_canaries.len()))
    }

    /// Whether a pod has been ready for the owner's `minReadySeconds`.
    pub fn is_available(&self, pod: &OwnedPod<'_>) -> bool {
        pod.is_available(self.workload.control.min_ready())
    }
}

/// What is done about one owner now.
pub fn control(view: &OwnerView<'_>) -> Vec<Action> {
    match &view.workload.control {
        Control::Pod => pod::control(view),
        Control::Replicas { replicas, .. } => replicas::control(view, *replicas),
        Control::Deployment {
            replicas,
            strategy,
            paused,
            ..
        } => deployment::control(view, *replicas, *strategy, *paused),
        Control::DaemonSet { update, .. } => daemonset::control(view, *update),
    }
}
