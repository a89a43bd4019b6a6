//! What the cluster has decided and what its nodes report: the content of the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    foreign,
    name::{CommitId, NodeName, ObjectKey, PodUid, TemplateHash, WorkloadKey},
    node::Refused,
    object::Taint,
    placement::Refusal,
    plan::PodIdentity,
    rollout::{Adoption, Rollout},
    status::PodStatus,
};

/// Everything decided. It holds names, places and commit ids, never a pod's specification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Which cluster this is: a random text made once, in the seed of all uids.
    pub cluster: String,
    /// How many names and uids were given so far.
    pub serial: u64,
    /// The life of the current commit.
    pub rollout: Rollout,
    /// Every pod that is or must be, also those that are stopping.
    pub pods: BTreeMap<PodUid, PodRecord>,
    /// How each workload's roll-out stands.
    pub workloads: BTreeMap<WorkloadKey, WorkloadProgress>,
    /// Addresses and ports given to Services.
    pub services: BTreeMap<ObjectKey, ServiceAllocation>,
    /// Nodes that nobody hears from.
    #[serde(default)]
    pub outages: BTreeMap<NodeName, Outage>,
    /// Nodes that were taken out of the cluster, with their installation: what they write counts
    /// for nothing.
    #[serde(default)]
    pub removed: BTreeMap<NodeName, String>,
}

/// That nobody hears from a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// Since when, by the leader's clock.
    pub since: Timestamp,
    /// Whether it was given up: what can run elsewhere does. Until then it only takes no traffic.
    pub lost: bool,
}

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

/// How a workload's roll-out stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadProgress {
    /// Pods of the current template, at most so far.
    pub updated: u32,
    /// Of these, available, at most so far.
    pub available: u32,
    /// When either number last went up, or the template changed.
    pub since: Timestamp,
    /// The template these numbers are about.
    pub template: TemplateHash,
}

/// What was given to a Service; kept for its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAllocation {
    /// The virtual address.
    pub cluster_ip: Option<Ipv4Addr>,
    /// Node ports by `TCP/80`.
    pub node_ports: BTreeMap<String, u16>,
}

/// What one node says of itself; never a reason to stop anything when it is missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its pods.
    pub pods: BTreeMap<PodUid, PodStatus>,
    /// Pods with a stop record of which nothing is left.
    pub gone: BTreeSet<PodUid>,
    /// Pods that run here and that no record names.
    pub orphans: Vec<PodIdentity>,
    /// How far the images of a commit are.
    pub prepared: BTreeMap<CommitId, Preparation>,
    /// What it does not believe of what was decided for it, and why.
    #[serde(default)]
    pub refused: BTreeMap<PodUid, Refused>,
    /// Those of them that have had no place here for a while, and are to run elsewhere.
    #[serde(default)]
    pub turned_away: BTreeSet<PodUid>,
    /// When it learnt from when the deadlines count, see [`Rollout::clock`].
    #[serde(default)]
    pub clock: Option<Heard>,
    /// The adoption that it knows of, see [`Rollout::adopted`]: `gone` also names the pods of the
    /// copy of which nothing is here.
    #[serde(default)]
    pub stock: Option<Timestamp>,
    /// The number of the [`Shares`](crate::rollout::Shares) that `prepared` speaks of; `None` where
    /// it speaks of all images of the commit.
    #[serde(default)]
    pub share: Option<u64>,
}

/// A time of the leader's clock, and when a host learnt of it by its own. The two clocks are never
/// compared: what happens on the host is before or after the moment at which it learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The leader's word: which moment is meant.
    pub told: Timestamp,
    /// When it was heard, by the host's clock.
    pub at: Timestamp,
}

impl Heard {
    /// What a host knows of a time that it is told: when it first heard of it. A clock that was set
    /// back since is believed.
    pub fn hear(told: Option<Timestamp>, before: Option<Self>, now: Timestamp) -> Option<Self> {
        let told = told?;
        let known = before.filter(|before| before.told == told);
        Some(Self {
            told,
            at: known.map_or(now, |known| known.at.min(now)),
        })
    }
}

/// How far a node is with getting a commit's images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Preparation {
    /// All are here and pinned.
    Ready,
    /// So many of so many are.
    Pulling {
        /// Pinned images.
        done: usize,
        /// All images.
        of: usize,
    },
    /// Something outside of the commit is in the way.
    Waiting(#[serde(deserialize_with = "foreign::sentence")] String),
    /// It fails again and again, and nobody can say whose fault that is: it has until the dead
    /// line.
    Failing(#[serde(deserialize_with = "foreign::sentence")] String),
    /// The commit cannot be run.
    Failed(#[serde(deserialize_with = "foreign::sentence")] String),
}

/// What a node says of itself once, when it starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its name.
    pub name: NodeName,
    /// Which installation bears that name.
    pub installation: String,
    /// Its own address.
    pub address: Ipv4Addr,
    /// The addresses of its pods.
    pub pod_subnet: Ipv4Net,
    /// The MTU that its pods' packets may have on their way to other hosts.
    pub mtu: u32,
    /// Labels from the daemon's configuration, `kubernetes.io/hostname` and the like included.
    pub labels: BTreeMap<String, String>,
    /// Taints from the daemon's configuration; Git may add more and take none of these away.
    pub taints: Vec<Taint>,
    /// What it is made of.
    #[serde(default)]
    pub system: NodeSystem,
}

/// What a node is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSystem {
    /// `kernelVersion`.
    #[serde(deserialize_with = "foreign::sentence")]
    pub kernel: String,
    /// `osImage`.
    #[serde(deserialize_with = "foreign::sentence")]
    pub os: String,
    /// `containerRuntimeVersion`, like `docker://20.10.24`; empty until the engine has said it.
    #[serde(deserialize_with = "foreign::sentence")]
    pub engine: String,
    /// `architecture`, in Kubernetes' words.
    #[serde(deserialize_with = "foreign::sentence")]
    pub architecture: String,
    /// Version of its daemon.
    #[serde(deserialize_with = "foreign::sentence")]
    pub version: String,
    /// Processors; 0 where they are not known.
    pub cpus: usize,
    /// Memory in KiB; 0 where it is not known.
    pub memory_kib: u64,
    /// How many pods its configuration lets it have; 0 where it is not known.
    #[serde(default)]
    pub max_pods: usize,
    /// When Windlass was installed on it, by its own clock.
    #[serde(default)]
    pub installed: Option<Timestamp>,
}

/// A node, and whether it lives.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownNode {
    /// What it says of itself.
    pub facts: NodeFacts,
    /// Whether it lives.
    pub life: NodeLife,
}

/// Whether a node lives, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeLife {
    /// It reports, and takes pods.
    Ready,
    /// It reports, and takes no new pods: why.
    NotReady(String),
    /// It said that it comes back soon: it takes no new pods, and nothing moves.
    Away,
    /// Not heard of, and not given up yet: why not.
    Silent(String),
    /// Nobody hears from it, and what can run elsewhere must.
    Lost,
}

impl NodeLife {
    /// One word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::NotReady(_) => "NotReady",
            Self::Away => "Away",
            Self::Silent(_) => "Silent",
            Self::Lost => "Lost",
        }
    }

    /// Whether it takes new pods.
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }

    /// Whether nobody hears from it.
    pub fn is_out(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::Lost)
    }
}

/// One change of the state; a leader's decision is a list of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// A pod is new, or has changed.
    Pod(Box<PodRecord>),
    /// A pod is gone.
    Forget(PodUid),
    /// The roll-out has moved on.
    Rollout(Box<Rollout>),
    /// A workload has progressed.
    Progress(WorkloadKey, WorkloadProgress),
    /// A workload is gone.
    DropProgress(WorkloadKey),
    /// A Service has its addresses.
    Service(ObjectKey, ServiceAllocation),
    /// A Service is gone.
    DropService(ObjectKey),
    /// So many names were given.
    Serial(u64),
    /// Nobody hears from a node.
    Out(NodeName, Outage),
    /// A node is heard from again.
    Back(NodeName),
    /// A node does not belong to the cluster any more, with its installation.
    Remove(NodeName, String),
    /// A node that was removed was installed anew.
    Readmit(NodeName),
}

impl ClusterState {
    /// A host's copy of the state as it is put into a store that a person adopts.
    #[must_use]
    pub fn adopted(mut self, now: Timestamp) -> Self {
        self.rollout.adopted = Some(Adoption {
            at: now,
            serial: self.serial,
            stock_taken: false,
        });
        self
    }

    /// Applies changes in order.
    pub fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Pod(record) => {
                    self.pods.insert(record.uid.clone(), *record);
                }
                Change::Forget(uid) => {
                    self.pods.remove(&uid);
                }
                Change::Rollout(rollout) => self.rollout = *rollout,
                Change::Progress(key, progress) => {
                    self.workloads.insert(key, progress);
                }
                Change::DropProgress(key) => {
                    self.workloads.remove(&key);
                }
                Change::Service(key, allocation) => {
                    self.services.insert(key, allocation);
                }
                Change::DropService(key) => {
                    self.services.remove(&key);
                }
                Change::Serial(serial) => self.serial = serial,
                Change::Out(node, outage) => {
                    self.outages.insert(node, outage);
                }
                Change::Back(node) => {
                    self.outages.remove(&node);
                }
                Change::Remove(node, installation) => {
                    self.outages.remove(&node);
                    self.removed.insert(node, installation);
                }
                Change::Readmit(node) => {
                    self.removed.remove(&node);
                }
            }
        }
    }
}
