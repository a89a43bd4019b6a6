//! What the daemon shows: one immutable picture a cycle, made by the control loop, read by the API, the metrics and
//! the command line.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
pub use reconciler::commit::Commit;
use reconciler::{
    name::{CommitId, NodeName, ObjectKey, PodUid},
    state::{ClusterState, NodeFacts},
    status::PodStatus,
};
use serde::{Deserialize, Serialize};

/// The picture. Cheap to clone: it is shared as an `Arc` through a watch channel.
#[derive(Clone, Debug)]
pub struct View {
    /// When it was made.
    pub at: Timestamp,
    /// This host.
    pub node: NodeName,
    /// All hosts.
    pub nodes: BTreeMap<NodeName, NodeFacts>,
    /// What was decided.
    pub state: Arc<ClusterState>,
    /// What the pods are doing.
    pub pods: Arc<BTreeMap<PodUid, PodStatus>>,
    /// The objects of every commit in use: the driving one, and those that running pods were made from.
    pub commits: BTreeMap<CommitId, Arc<Commit>>,
    /// Where commits come from and how that stands.
    pub source: SourceStatus,
    /// What the last plan wanted done here: one line a lane.
    pub plan: Vec<LaneView>,
    /// Whether the first cycle since start has converged.
    pub converged: bool,
    /// What stands in the way of the daemon itself: the engine does not answer, the disk is full.
    pub troubles: Vec<String>,
    /// What a reader of `status` should know of the configuration: verification is off, privileged pods are allowed.
    pub notes: Vec<String>,
    /// What happened lately, oldest first, bounded by the control loop.
    pub events: Vec<EventView>,
}

/// Something that happened to an object, as Kubernetes' Event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Kind of the object, `Pod`.
    pub kind: String,
    /// Which object.
    pub key: ObjectKey,
    /// Its uid, where it is a pod.
    pub uid: Option<PodUid>,
    /// Type `Warning`, otherwise `Normal`.
    pub warning: bool,
    /// One word: `Pulled`, `Started`, `BackOff`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When it was first seen.
    pub first: Timestamp,
    /// When it was last seen.
    pub last: Timestamp,
    /// How often.
    pub count: u32,
}

/// Where commits come from and how that stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SourceStatus {
    /// The URL, without credentials.
    pub url: String,
    /// The branch.
    pub branch: String,
    /// `mainline`, `all`, `head` or `off`.
    pub verification: String,
    /// The newest commit seen there.
    pub head: Option<CommitId>,
    /// The newest one that was found trusted: the base of forward-only.
    #[serde(default)]
    pub verified: Option<CommitId>,
    /// When it was last asked with success.
    pub fetched: Option<Timestamp>,
    /// Why it could not be asked or judged, if that is so now.
    pub error: Option<String>,
    /// Why the head is not run, if it was refused.
    pub refusal: Option<Refusal>,
}

/// A refused commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which.
    pub commit: CommitId,
    /// In one sentence.
    pub summary: String,
    /// Everything that is wrong with it.
    pub problems: Vec<String>,
}

/// One lane of the last plan, for people.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaneView {
    /// The pod or image it works on.
    pub subject: String,
    /// Why.
    pub why: String,
    /// Its steps, a phrase each.
    pub steps: Vec<String>,
}
