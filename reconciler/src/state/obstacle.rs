//! What is in the way of a rollout although its commit is not at fault, as data.

use std::{fmt, time::Duration};

use super::{FailureReason, NotReady, Refusal};
use crate::{
    fault::FaultKind,
    foreign::ForeignText,
    name::{CommitId, NodeName, ObjectKey, WorkloadKey},
};

/// What prevents a rollout from making progress. While there is an obstacle, no deadline passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The leader has no eligible commit with the id of the driving commit; `None` if the rollout
    /// has no driving commit.
    CommitMissing(Option<CommitId>),
    /// A node that runs pods of a judged workload has not reported since this leader leads.
    NotReported(NodeName),
    /// None of the canaries is a member of the cluster that can be reached.
    CanariesAbsent,
    /// A node is out, and the DaemonSet's pod on it was not available in the node's last report.
    LeftDown {
        /// The DaemonSet whose pod was not available.
        workload: WorkloadKey,
        /// The node that is out.
        node: NodeName,
    },
    /// A pod must end before its successor is made, and its node is out.
    EndsOnAbsentNode {
        /// The owner of the pod.
        workload: WorkloadKey,
        /// The pod that must end.
        pod: ObjectKey,
        /// The node that is out.
        node: NodeName,
    },
    /// A pod cannot start.
    Pod {
        /// The owner of the pod.
        workload: WorkloadKey,
        /// The pod, and why it cannot start.
        pod: UnreadyPod,
    },
    /// An old pod of the workload does not end.
    Unfinished {
        /// The owner of the pod.
        workload: WorkloadKey,
        /// The pod that does not end.
        stop: UnfinishedStop,
    },
    /// No node accepts a pod of the workload while a pod of any owner does not end.
    Occupied {
        /// The workload whose pods are not placed.
        workload: WorkloadKey,
        /// The pod that does not end.
        stop: UnfinishedStop,
    },
    /// A node is itself at fault, and more nodes are than `rollout.max-faulty-nodes` allows.
    Node(NodeFault),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommitMissing(commit) => {
                let id = commit.as_ref().map_or("", CommitId::short);
                write!(f, "commit {id} is not in the local clone")
            }
            Self::NotReported(node) => write!(f, "node {node} has not reported yet"),
            Self::CanariesAbsent => f.write_str("no canary reports"),
            Self::LeftDown { workload, node } => write!(
                f,
                "{workload}: node {node} is out, and its pod was down; it holds up the others"
            ),
            Self::EndsOnAbsentNode {
                workload,
                pod,
                node,
            } => write!(
                f,
                "{workload}: node {node} is out, and pod {} must end there before another is made; \
                 `windlass node rm {node}` gives it up",
                pod.name
            ),
            Self::Pod { workload, pod } => write!(f, "{workload}: {pod}"),
            Self::Unfinished { workload, stop } => write!(f, "{workload}: {stop}"),
            Self::Occupied { workload, stop } => {
                write!(f, "{workload}: no node takes a pod of it while {stop}")
            }
            Self::Node(fault) => fault.fmt(f),
        }
    }
}

/// A pod that is not ready, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadyPod {
    /// Namespace and name of the pod.
    pub pod: ObjectKey,
    /// Why the pod is not ready.
    pub why: UnreadyReason,
}

/// Why a pod is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnreadyReason {
    /// The message of the pod's last report, from its node.
    Reported(ForeignText),
    /// No node accepts the pod.
    Unplaced(Refusal),
    /// The pod's node is unreachable.
    NodeUnreachable(NodeName),
}

impl fmt::Display for UnreadyPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.pod.name;
        match &self.why {
            UnreadyReason::Reported(message) => write!(f, "pod {name}: {message}"),
            UnreadyReason::Unplaced(refusal) => write!(f, "pod {name} is not placed: {refusal}"),
            UnreadyReason::NodeUnreachable(node) => {
                write!(f, "pod {name}: it does not reports node {node}")
            }
        }
    }
}

/// An old pod that has a stop record and does not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedStop {
    /// Namespace and name of the pod.
    pub pod: ObjectKey,
    /// The node of the pod.
    pub node: NodeName,
    /// How long the pod has been stopping. The time is printed in steps, so that the sentence does
    /// not change every second.
    pub stopping: Duration,
    /// The class of what the node reports; the engine's own text stays on its host. `None` if the
    /// node reports no fault.
    pub fault: Option<FaultKind>,
}

impl fmt::Display for UnfinishedStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = self
            .fault
            .map_or("it has not ended yet", FaultKind::stopping_reason);
        write!(
            f,
            "the old pod {} has been stopping for {}: {why}; `windlass status` on node {} says more",
            self.pod.name,
            in_steps(self.stopping),
            self.node
        )
    }
}

/// A time in steps of 10 s, or of minutes from one minute on.
fn in_steps(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{} s", seconds - seconds % 10),
        seconds => format!("{} min", seconds / 60),
    }
}

/// Why a node has not got the images of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageObstacle {
    /// The node reports why it cannot pull an image.
    Reported(ForeignText),
    /// The node is still pulling.
    SlowPull {
        /// The node that is pulling.
        node: NodeName,
        /// Number of images that are on the node.
        done: usize,
        /// Number of all images of its share.
        of: usize,
    },
    /// The node reports nothing about the commit: it has not received the commit, or not read it.
    NotReceived(NodeName),
}

impl fmt::Display for ImageObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reported(reason) => reason.fmt(f),
            Self::SlowPull { node, done, of } => {
                write!(
                    f,
                    "node {node} is still pulling: {done} of {of} images are there"
                )
            }
            Self::NotReceived(node) => write!(
                f,
                "node {node} has not got the commit: see `windlass status` there"
            ),
        }
    }
}

/// Why a node is itself at fault, so that the rollout does not wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeFault {
    /// A pod fails on the node, and a pod of the same template is available on another node.
    Pod(FailureReason),
    /// The node accepts no pods.
    NotReady {
        /// The node that is not ready.
        node: NodeName,
        /// Why the node is not ready.
        why: NotReady,
    },
    /// The node is still pulling, and a pod of the same template is available on another node.
    SlowPull {
        /// The node that is pulling.
        node: NodeName,
        /// The workload whose images are pulled.
        workload: WorkloadKey,
    },
    /// The node did not get the images of the target in time, while other nodes did.
    Images(ImageObstacle),
}

impl fmt::Display for NodeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(failure) => failure.fmt(f),
            Self::NotReady { node, why } => write!(f, "node {node} is not ready: {why}"),
            Self::SlowPull { node, workload } => {
                write!(f, "node {node} is still pulling images of {workload}")
            }
            Self::Images(obstacle) => obstacle.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::WorkloadKind;

    fn workload() -> WorkloadKey {
        WorkloadKey {
            kind: WorkloadKind::Deployment,
            object: ObjectKey::new("default", "web"),
        }
    }

    #[test]
    fn the_time_of_a_stop_is_printed_in_steps() {
        let printed = |seconds| in_steps(Duration::from_secs(seconds));
        assert_eq!(
            [
                printed(0),
                printed(59),
                printed(60),
                printed(119),
                printed(1800)
            ],
            ["0 s", "50 s", "1 min", "1 min", "30 min"]
        );
    }

    #[test]
    fn an_obstacle_names_the_workload_the_pod_and_the_node() {
        let node = || NodeName::new("n1");
        let pod = || ObjectKey::new("default", "web-1");
        let stop = |fault| UnfinishedStop {
            pod: pod(),
            node: node(),
            stopping: Duration::from_secs(45),
            fault,
        };
        let printed = [
            Obstacle::CommitMissing(Some(CommitId::from([0x12; 20]))).to_string(),
            Obstacle::NotReported(node()).to_string(),
            Obstacle::EndsOnAbsentNode {
                workload: workload(),
                pod: pod(),
                node: node(),
            }
            .to_string(),
            Obstacle::Pod {
                workload: workload(),
                pod: UnreadyPod {
                    pod: pod(),
                    why: UnreadyReason::Reported(ForeignText::new("no\nroute")),
                },
            }
            .to_string(),
            Obstacle::Unfinished {
                workload: workload(),
                stop: stop(Some(FaultKind::EngineUnreachable)),
            }
            .to_string(),
            Obstacle::Occupied {
                workload: workload(),
                stop: stop(None),
            }
            .to_string(),
            Obstacle::Node(NodeFault::NotReady {
                node: node(),
                why: NotReady::Reported(ForeignText::new("the engine hangs")),
            })
            .to_string(),
        ];
        insta::assert_snapshot!(printed.join("\n"), @r"
        commit 1212121212 is not in the local clone
        node n1 has not reported yet
        Deployment/default/web: node n1 is out, and pod web-1 must end there before another is made; `windlass node rm n1` gives it up
        Deployment/default/web: pod web-1: no\nroute
        Deployment/default/web: the old pod web-1 has been stopping for 40 s: StopFailed: the container engine does not answer; `windlass status` on node n1 says more
        Deployment/default/web: no node takes a pod of it while the old pod web-1 has been stopping for 40 s: it has not ended yet; `windlass status` on node n1 says more
        node n1 is not ready: the engine hangs
        ");
    }
}
