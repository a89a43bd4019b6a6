//! The view: one immutable value for each cycle, published by the control loop, and read by the
//! API, the metrics and the command line.

mod note;
mod trouble;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
pub(crate) use reconciler::commit::Commit;
use reconciler::{
    commit::Commits,
    fault::FaultKind,
    name::{CommitId, NodeName, ObjectKey, PodUid},
    object::ObjectId,
    state::{ClusterState, KnownNode},
    status::PodStatus,
};
use runtime::LastOutputs;
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    note::{HostNote, counted, network_open},
    trouble::{HostTrouble, Part},
};
use crate::uptime::Uptime;

/// The view. Cheap to clone: it is shared as an `Arc` through a watch channel.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The wall-clock time of the view, for people.
    pub(crate) at: Timestamp,
    /// The time of the view since boot, by which its age is measured.
    pub(crate) made: Uptime,
    /// The name of this host.
    pub(crate) node: NodeName,
    /// All hosts.
    pub(crate) nodes: BTreeMap<NodeName, KnownNode>,
    /// This host's state in its cluster; `None` for a host that is alone.
    pub(crate) cluster: Option<ClusterView>,
    /// The decisions.
    pub(crate) state: Arc<ClusterState>,
    /// The reported status of all pods.
    pub(crate) pods: Arc<BTreeMap<PodUid, PodStatus>>,
    /// The objects of every commit in use: the driving commit, and those that running pods were
    /// made from.
    pub(crate) commits: Commits,
    /// When each object of the driving commit first appeared on this host.
    pub(crate) first_seen: Arc<FirstSeen>,
    /// Why some of these commits may not run here: their running pods are kept up in place.
    pub(crate) ineligible: BTreeMap<CommitId, String>,
    /// The commit that each of this host's pods was last started from, by this host's own record.
    pub(crate) origins: BTreeMap<PodUid, CommitId>,
    /// The repository, and the result of the last fetch.
    pub(crate) source: SourceStatus,
    /// The last plan of this host, one entry for each lane.
    pub(crate) plan: Vec<LaneView>,
    /// Whether the first cycle since start has converged.
    pub(crate) converged: bool,
    /// What prevents parts of the daemon from working: the engine does not answer, the disk is
    /// full.
    pub(crate) troubles: Vec<HostTrouble>,
    /// Notes about the configuration and the decisions for `status`: verification is off,
    /// privileged pods are allowed.
    pub(crate) notes: Vec<HostNote>,
    /// The images of the target that this host cannot pull now.
    pub(crate) failed_pulls: Vec<FailedPull>,
    /// Recent events, oldest first; the control loop limits their number.
    pub(crate) events: Vec<EventView>,
    /// What containers of this host printed before they failed, newest first.
    pub(crate) last_outputs: LastOutputs,
}

/// When each object of the driving commit first appeared.
pub(crate) type FirstSeen = BTreeMap<ObjectId, Timestamp>;

/// An image that cannot be pulled, because of its registry or for an unknown reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedPull {
    /// The image, as written in the manifest.
    pub(crate) image: String,
    /// The class of the last failure.
    pub(crate) fault: FaultKind,
    /// When the first attempt failed.
    pub(crate) since: Timestamp,
    /// The number of attempts.
    pub(crate) attempts: u32,
    /// When the next attempt begins; absent if it is under way or due.
    pub(crate) retry_at: Option<Timestamp>,
    /// The last error, a sentence.
    pub(crate) error: String,
}

/// The state of a host in its cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClusterView {
    /// The cluster's id.
    pub(crate) id: String,
    /// The leader, as far as this host knows.
    pub(crate) leader: Option<NodeName>,
    /// `current`, `lost`, `frozen` or `conflict`.
    pub(crate) store: String,
    /// Since when the store is not current; absent while it is.
    pub(crate) since: Option<Timestamp>,
    /// Why the store is not current.
    pub(crate) why: Option<String>,
    /// The state of each node: `Ready`, `NotReady`, `Away`, `Silent`, `Lost`.
    pub(crate) nodes: BTreeMap<NodeName, String>,
}

/// An event of an object, as in Kubernetes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventView {
    /// The kind of the object.
    pub(crate) kind: EventKind,
    /// The namespace and name of the object.
    pub(crate) key: ObjectKey,
    /// The uid of the object, if it is a pod.
    pub(crate) uid: Option<PodUid>,
    /// Whether the event's type is `Warning` and not `Normal`.
    pub(crate) warning: bool,
    /// The reason in one word, such as `Pulled`, `Started`, `BackOff`.
    pub(crate) reason: String,
    /// The reason as a sentence.
    pub(crate) message: String,
    /// The time of the first occurrence.
    pub(crate) first: Timestamp,
    /// The time of the last occurrence.
    pub(crate) last: Timestamp,
    /// The number of occurrences.
    pub(crate) count: u32,
}

/// The kinds of objects that have events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EventKind {
    Pod,
    /// Commits are no objects of Kubernetes: an event of a commit is one of the host that judged
    /// the commit.
    Node,
}

/// The repository, and the result of the last fetch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SourceStatus {
    /// The URL, without credentials.
    pub(crate) url: String,
    /// The followed branch, without `refs/heads/`.
    pub(crate) branch: String,
    /// `mainline`, `all`, `head` or `off`.
    pub(crate) verification: String,
    /// The newest commit of the branch; absent if none is known.
    pub(crate) head: Option<CommitId>,
    /// The newest commit that this host has verified: history goes forward from it.
    #[serde(default)]
    pub(crate) verified: Option<CommitId>,
    /// When the last successful fetch began, by the wall clock.
    pub(crate) fetched: Option<Timestamp>,
    /// The same in nanoseconds since this host booted, so that `sync` can tell the result of its
    /// own fetch from an older one, whatever the clock is set to in between.
    #[serde(default)]
    pub(crate) fetched_uptime_nanos: Option<Uptime>,
    /// Why the last fetch or judgement failed; absent if it did not.
    pub(crate) error: Option<String>,
    /// Why the head must not run; absent unless it was refused.
    pub(crate) refusal: Option<RefusedCommit>,
}

/// When a fetch began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchStart {
    /// By the wall clock.
    pub(crate) at: Timestamp,
    /// By the time since boot, which no setting of the clock changes.
    pub(crate) uptime: Uptime,
}

impl FetchStart {
    pub(crate) fn now() -> Self {
        Self {
            at: Timestamp::now(),
            uptime: Uptime::now(),
        }
    }
}

impl SourceStatus {
    /// The newest commit that this host knows of, refused or not: before the first fetch since the
    /// start, the newest verified commit.
    pub(crate) fn newest(&self) -> Option<&CommitId> {
        self.head.as_ref().or(self.verified.as_ref())
    }

    /// Records a fetch that the repository has answered.
    pub(crate) fn answered(&mut self, asked: FetchStart) {
        self.fetched = Some(asked.at);
        self.fetched_uptime_nanos = Some(asked.uptime);
        self.error = None;
    }
}

/// A refused commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedCommit {
    /// The commit's id.
    pub(crate) commit: CommitId,
    /// The refusal as one sentence.
    pub(crate) summary: String,
    /// All problems of the commit.
    pub(crate) problems: Vec<String>,
    /// Why the commit is not trusted, as a word; [`INVALID_MANIFESTS`] if it is trusted.
    #[serde(default)]
    pub(crate) class: String,
    /// The signer of the commit, if its own signature is good; empty otherwise.
    #[serde(default)]
    pub(crate) signer: String,
}

/// The class of a refused commit that is trusted, and whose manifests are invalid.
pub(crate) const INVALID_MANIFESTS: &str = "manifests";

/// One lane of the last plan, for people.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LaneView {
    /// The pod or image it works on.
    pub(crate) subject: String,
    /// The reason of the lane.
    pub(crate) why: String,
    /// The steps, one phrase each.
    pub(crate) steps: Vec<String>,
}
