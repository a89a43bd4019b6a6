//! What the owner of pods decides: which pods to make and which to stop. Pure functions, one owner
//! at a time.

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
    state::{NotReady, PodRecord, ReceivedTime, StopReason},
    status::PodStatus,
};

/// One pod of an owner, with what its node reports about it.
#[derive(Clone, Copy, Debug)]
pub struct OwnedPod<'a> {
    /// The record of the pod.
    pub record: &'a PodRecord,
    /// The status that the node reports; `None` before the first report.
    pub status: Option<&'a PodStatus>,
    /// `controller.kubernetes.io/pod-deletion-cost` of the pod's own template: pods with a lower
    /// cost are deleted first.
    pub cost: i32,
    /// Number of pods of the same owner on the pod's node.
    pub crowd: usize,
    /// Whether the pod's node is unreachable, so that its last report may be outdated.
    pub unreachable: bool,
    /// When the pod's node received the time from which deadlines count.
    pub clock: Option<ReceivedTime>,
}

impl OwnedPod<'_> {
    /// Whether the pod has a stop record.
    pub fn is_stopping(&self) -> bool {
        self.record.stop.is_some()
    }

    /// Whether the pod has ended for good.
    pub fn is_final(&self) -> bool {
        self.status.is_some_and(|status| status.phase.is_final())
    }

    /// Whether the pod neither stops nor has ended.
    pub fn is_active(&self) -> bool {
        !self.is_stopping() && !self.is_final()
    }

    /// Whether the pod is ready to receive traffic.
    pub fn is_ready(&self) -> bool {
        !self.unreachable && self.status.is_some_and(|status| status.ready.is_some())
    }

    /// Whether the pod has been ready for `minReadySeconds`.
    pub fn is_available(&self, min_ready: Duration) -> bool {
        self.is_active()
            && self.is_ready()
            && self
                .status
                .is_some_and(|status| status.available(min_ready))
    }

    /// Whether an event on the pod's node came after deadlines began to count. Reports of a node
    /// that has not received that time count as from before it.
    pub fn is_since(&self, clock: Option<Timestamp>, at: Timestamp) -> bool {
        clock.is_none_or(|clock| {
            self.clock
                .is_some_and(|received| received.told == clock && at >= received.at)
        })
    }
}

/// Maximum number of pods of one owner that are made in one cycle, so that a mistyped number does
/// not block the leader. The remaining pods are made in the next cycle, which follows at once.
const MOST_AT_ONCE: usize = 5000;

/// An action on the pods of one owner.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make a pod from the owner's template.
    Create {
        /// How the pod is named.
        name: PodNaming,
        /// The node on which the pod must run; `None` leaves the choice to placement.
        node: Option<NodeName>,
        /// Another template than the current one, for example when a paused Deployment is scaled up
        /// with its old template.
        like: Option<(CommitId, TemplateHash)>,
    },
    /// Give a pod a stop record with this reason.
    Stop(PodUid, StopReason),
}

/// How a new pod is named.
#[derive(Clone, Debug, PartialEq)]
pub enum PodNaming {
    /// The owner's own name, for a bare Pod.
    Exact,
    /// This prefix and five generated letters.
    Generated(String),
}

/// The snapshot from which a controller decides.
#[derive(Clone, Copy, Debug)]
pub struct OwnerView<'a> {
    /// The leader's clock at the start of the cycle.
    pub now: Timestamp,
    /// The owner as the driving commit has it.
    pub workload: &'a Workload,
    /// The owner's pods, oldest first.
    pub pods: &'a [OwnedPod<'a>],
    /// The nodes of the cluster.
    pub nodes: &'a [Candidate],
    /// Pods with a serial up to this one are replaced, because a restart was requested; `None` if
    /// none was.
    pub restarted: Option<u64>,
    /// The conditions of all nodes.
    pub conditions: &'a NodeConditions,
    /// Present while only the canaries follow a new template.
    pub canary: Option<CanaryView<'a>>,
}

/// The conditions of all nodes, beyond those that placement checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeConditions {
    /// Unreachable nodes, and nodes that announced a short absence: no pod is started there, and
    /// their last reports are no evidence.
    pub absent: BTreeSet<NodeName>,
    /// Those of the absent nodes that the leader gave up.
    pub lost: BTreeSet<NodeName>,
    /// Nodes that report but accept no new pods, with the reason.
    pub unready: BTreeMap<NodeName, NotReady>,
    /// Nodes that are themselves at fault, since the target runs on other nodes.
    pub faulty: BTreeSet<NodeName>,
    /// When the last of these faults was observed: only pods from before that time are given up.
    pub clock: Option<Timestamp>,
    /// Nodes that Git marks to be drained.
    pub draining: BTreeSet<NodeName>,
}

impl NodeConditions {
    /// Whether the state of this pod is no evidence about the commit.
    pub fn is_aside(&self, pod: &OwnedPod<'_>) -> bool {
        pod.record
            .place
            .node()
            .is_some_and(|node| self.faulty.contains(node) || self.lost.contains(node))
    }

    /// Whether an absent node that is not lost had no available pod among these in its last report:
    /// the node's daemon may be restarting, and a pod that was stopped there stays down until the
    /// node returns.
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

    /// Whether the present state of this pod cannot be known.
    pub fn is_absent(&self, pod: &OwnedPod<'_>) -> bool {
        pod.record
            .place
            .node()
            .is_some_and(|node| self.absent.contains(node))
    }
}

/// The limits of a controller while only the canaries follow the new template.
#[derive(Clone, Copy, Debug)]
pub struct CanaryView<'a> {
    /// The canaries that are members of the cluster.
    pub nodes: &'a BTreeSet<NodeName>,
    /// The commit and workload that all other nodes continue with.
    pub before: Option<(&'a CommitId, &'a Workload)>,
    /// Number of nodes, canaries apart, without an available pod.
    pub down_elsewhere: usize,
}

impl OwnerView<'_> {
    /// The pods with the template of the driving commit that do not stop.
    pub fn current(&self) -> Vec<&OwnedPod<'_>> {
        let pods = self.pods.iter();
        pods.filter(|pod| !pod.is_stopping() && self.is_current(pod))
            .collect()
    }

    /// Whether a pod has the template of the driving commit.
    pub fn is_current(&self, pod: &OwnedPod<'_>) -> bool {
        pod.record.template == self.workload.template.hash && !self.must_restart(pod)
    }

    /// Whether a pod existed when the restart was requested.
    pub fn must_restart(&self, pod: &OwnedPod<'_>) -> bool {
        self.restarted
            .is_some_and(|asked| pod.record.serial <= asked)
    }

    /// Whether no new pod may be made while an old one may still run.
    pub fn never_overlaps(&self) -> bool {
        match self.workload.control {
            Control::Pod => true,
            Control::Deployment { strategy, .. } => strategy == DeploymentStrategy::Recreate,
            Control::Replicas { .. } | Control::DaemonSet { .. } => false,
        }
    }

    /// Whether a stopping pod may still run. If its node is lost, a pod of an owner that may be
    /// replaced elsewhere counts as ended.
    pub fn may_still_run(&self, pod: &OwnedPod<'_>) -> bool {
        let lost = pod
            .record
            .place
            .node()
            .is_some_and(|node| self.conditions.lost.contains(node));
        pod.is_stopping() && !(lost && self.workload.moves_when_lost())
    }

    /// The reason with which an outdated pod is stopped.
    pub fn outdated_reason(&self, pod: &OwnedPod<'_>) -> StopReason {
        if pod.record.template == self.workload.template.hash {
            StopReason::Restarted
        } else {
            StopReason::Replaced
        }
    }

    /// The canaries that accept this owner's pods; each gets one new pod.
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

    /// How many pods of the new template there may be. Pods of that template from an earlier commit
    /// stay, on any node.
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

/// The actions for one owner in this cycle.
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

#[cfg(test)]
pub(crate) mod tests;
