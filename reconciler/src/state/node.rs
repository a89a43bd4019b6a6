//! What a node says of itself, and whether it lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Refused;
use crate::{
    foreign,
    name::{CommitId, NodeName, PodUid},
    object::Taint,
    plan::PodIdentity,
    status::PodStatus,
};

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
    /// When it learnt from when the deadlines count, see [`Rollout::clock`](super::Rollout::clock).
    #[serde(default)]
    pub clock: Option<ReceivedTime>,
    /// The adoption that it knows of, see [`Rollout::adopted`](super::Rollout::adopted): `gone`
    /// also names the pods of the copy of which nothing is here.
    #[serde(default)]
    pub stock: Option<Timestamp>,
    /// The number of the [`Shares`](super::Shares) that `prepared` speaks of; `None` where
    /// it speaks of all images of the commit.
    #[serde(default)]
    pub share: Option<u64>,
}

/// A time of the leader's clock, and when a host learnt of it by its own. The two clocks are never
/// compared: what happens on the host is before or after the moment at which it learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedTime {
    /// The leader's word: which moment is meant.
    pub told: Timestamp,
    /// When it was heard, by the host's clock.
    pub at: Timestamp,
}

impl ReceivedTime {
    /// What a host knows of a time that it is told: when it first heard of it. A clock that was set
    /// back since is believed.
    pub fn receive(told: Option<Timestamp>, before: Option<Self>, now: Timestamp) -> Option<Self> {
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
    /// It fails again and again, and nobody can say whose fault that is: it has until the
    /// deadline.
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
