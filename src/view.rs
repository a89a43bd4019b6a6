//! What the daemon shows: one immutable view a cycle, made by the control loop, read by the API,
//! the metrics and the command line.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
pub(crate) use reconciler::commit::Commit;
use reconciler::{
    name::{CommitId, NodeName, ObjectKey, PodUid},
    state::{ClusterState, KnownNode},
    status::PodStatus,
};
use serde::{Deserialize, Serialize};

use crate::uptime::Uptime;

/// The view. Cheap to clone: it is shared as an `Arc` through a watch channel.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// When it was made, for people.
    pub(crate) at: Timestamp,
    /// When it was made, to see how old it is.
    pub(crate) made: Uptime,
    /// This host.
    pub(crate) node: NodeName,
    /// All hosts.
    pub(crate) nodes: BTreeMap<NodeName, KnownNode>,
    /// How this host stands in its cluster; `None` where it is alone.
    pub(crate) cluster: Option<ClusterView>,
    /// What was decided.
    pub(crate) state: Arc<ClusterState>,
    /// What the pods are doing.
    pub(crate) pods: Arc<BTreeMap<PodUid, PodStatus>>,
    /// The objects of every commit in use: the driving one, and those that running pods were made
    /// from.
    pub(crate) commits: BTreeMap<CommitId, Arc<Commit>>,
    /// Why some of those may not run here: what runs of them is kept up in place.
    pub(crate) ineligible: BTreeMap<CommitId, String>,
    /// Which commit each of this host's pods was last run from, by this host's own record.
    pub(crate) origins: BTreeMap<PodUid, CommitId>,
    /// Where commits come from and how that stands.
    pub(crate) source: SourceStatus,
    /// What the last plan wanted done here: one line a lane.
    pub(crate) plan: Vec<LaneView>,
    /// Whether the first cycle since start has converged.
    pub(crate) converged: bool,
    /// What stands in the way of the daemon itself: the engine does not answer, the disk is full.
    pub(crate) troubles: Vec<String>,
    /// What a reader of `status` should know of the configuration: verification is off, privileged
    /// pods are allowed.
    pub(crate) notes: Vec<String>,
    /// What happened lately, oldest first, bounded by the control loop.
    pub(crate) events: Vec<EventView>,
}

/// How a host stands in its cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClusterView {
    /// The cluster's id.
    pub(crate) id: String,
    /// Who leads, as far as is known here.
    pub(crate) leader: Option<NodeName>,
    /// `current`, `lost`, `frozen` or `conflict`.
    pub(crate) store: String,
    /// Since when the store is not current.
    pub(crate) since: Option<Timestamp>,
    /// Why not.
    pub(crate) why: Option<String>,
    /// Each node in a word: `Ready`, `NotReady`, `Away`, `Silent`, `Lost`.
    pub(crate) nodes: BTreeMap<NodeName, String>,
}

/// Something that happened to an object, as Kubernetes' Event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventView {
    /// Kind of the object, `Pod`.
    pub(crate) kind: String,
    /// Which object.
    pub(crate) key: ObjectKey,
    /// Its uid, where it is a pod.
    pub(crate) uid: Option<PodUid>,
    /// Type `Warning`, otherwise `Normal`.
    pub(crate) warning: bool,
    /// One word: `Pulled`, `Started`, `BackOff`.
    pub(crate) reason: String,
    /// A sentence.
    pub(crate) message: String,
    /// When it was first seen.
    pub(crate) first: Timestamp,
    /// When it was last seen.
    pub(crate) last: Timestamp,
    /// How often.
    pub(crate) count: u32,
}

/// Where commits come from and how that stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SourceStatus {
    /// The URL, without credentials.
    pub(crate) url: String,
    /// The branch.
    pub(crate) branch: String,
    /// `mainline`, `all`, `head` or `off`.
    pub(crate) verification: String,
    /// The newest commit seen there.
    pub(crate) head: Option<CommitId>,
    /// The newest one that was found trusted: the base of forward-only.
    #[serde(default)]
    pub(crate) verified: Option<CommitId>,
    /// When it was last asked with success: the time at which the question was begun, for people.
    pub(crate) fetched: Option<Timestamp>,
    /// The same in nanoseconds since this host booted, so that `sync` can tell an answer to its own
    /// question from an older one, whatever the clock is set to in between.
    #[serde(default)]
    pub(crate) fetched_uptime_nanos: Option<Uptime>,
    /// Why it could not be asked or judged, if that is so now.
    pub(crate) error: Option<String>,
    /// Why the head is not run, if it was refused.
    pub(crate) refusal: Option<RefusedCommit>,
}

/// When a question to the repository was begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchStart {
    /// By the clock on the wall.
    pub(crate) at: Timestamp,
    /// In the order of things.
    pub(crate) uptime: Uptime,
}

impl FetchStart {
    /// Now.
    pub(crate) fn now() -> Self {
        Self {
            at: Timestamp::now(),
            uptime: Uptime::now(),
        }
    }
}

impl SourceStatus {
    /// The repository has answered a question that was begun then.
    pub(crate) fn answered(&mut self, asked: FetchStart) {
        self.fetched = Some(asked.at);
        self.fetched_uptime_nanos = Some(asked.uptime);
        self.error = None;
    }
}

/// A refused commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedCommit {
    /// Which.
    pub(crate) commit: CommitId,
    /// In one sentence.
    pub(crate) summary: String,
    /// Everything that is wrong with it.
    pub(crate) problems: Vec<String>,
}

/// One lane of the last plan, for people.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LaneView {
    /// The pod or image it works on.
    pub(crate) subject: String,
    /// Why.
    pub(crate) why: String,
    /// Its steps, a phrase each.
    pub(crate) steps: Vec<String>,
}
