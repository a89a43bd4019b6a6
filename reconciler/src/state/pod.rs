//! One pod as it was decided: whose it is, where it runs, and whether it must stop.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::name::{CommitId, NodeName, ObjectKey, PodUid, TemplateHash, WorkloadKey};

/// One pod: its name, its owner, where it must run, and from which commit a host resolves what it
/// is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodRecord {
    /// The pod's uid.
    pub uid: PodUid,
    /// Namespace and name.
    pub key: ObjectKey,
    /// What owns it.
    pub owner: WorkloadKey,
    /// Where it runs, or why nowhere.
    pub place: PodPlace,
    /// A locator: the owner's template in this commit has the hash below.
    pub commit: CommitId,
    /// The template the pod was made from.
    pub template: TemplateHash,
    /// When it was decided.
    pub created: Timestamp,
    /// Orders pods of the same instant.
    pub serial: u64,
    /// Present once the pod must stop.
    pub stop: Option<StopRecord>,
}

/// Where a pod runs, or why nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PodPlace {
    /// On this node.
    Node(NodeName),
    /// No node takes it: "0 of 3 nodes: 1 cordoned, 2 have taint gpu".
    Unplaced(Refusal),
}

impl PodPlace {
    /// The node, if there is one.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Node(node) => Some(node),
            Self::Unplaced(_) => None,
        }
    }
}

/// The explicit order to stop a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StopRecord {
    /// When it was given.
    pub at: Timestamp,
    /// Why.
    pub reason: StopReason,
}

/// Why a pod must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// The commit does not have its owner any more.
    OwnerRemoved,
    /// Fewer replicas are wanted.
    ScaledDown,
    /// Its owner's template has changed.
    Replaced,
    /// It has failed for good and is replaced.
    Failed,
    /// Its node does not take it any more.
    NodeExcluded,
    /// Somebody asked for a restart of its owner.
    Restarted,
    /// Its node is lost, and another runs in its place.
    NodeLost,
    /// Its node is being drained.
    Drained,
    /// Its host went back to an earlier commit by itself; no leader ever says this.
    WentBack,
}

impl StopReason {
    /// As a sentence without its subject.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnerRemoved => "its owner is not in the commit any more",
            Self::ScaledDown => "fewer replicas are wanted",
            Self::Replaced => "its template has changed",
            Self::Failed => "it failed and is replaced",
            Self::NodeExcluded => "its node does not take it any more",
            Self::Restarted => "a restart was asked for",
            Self::NodeLost => "its node was lost and it was replaced elsewhere",
            Self::Drained => "its node is being drained",
            Self::WentBack => "its host went back to an earlier commit by itself",
        }
    }
}
