//! What the cluster has decided and what its nodes report: the content of the store.

mod node;
mod pod;
mod record;
mod refused;
mod rollout;
mod shares;
mod unplaced;

use std::{collections::BTreeMap, net::Ipv4Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::name::{NodeName, ObjectKey, PodUid, TemplateHash, WorkloadKey};

pub use self::{
    node::{KnownNode, NodeFacts, NodeLife, NodeReport, NodeSystem, Preparation, ReceivedTime},
    pod::{PodPlace, PodRecord, StopReason, StopRecord},
    record::{Change, Record, RecordKey},
    refused::Refused,
    rollout::{
        Adoption, CommitState, Failure, FailureClass, HistoryEntry, Phase, Rollback, Rollout, Wave,
    },
    shares::{Share, Shares},
    unplaced::{Refusal, Unfit},
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
    /// How each workload's rollout stands.
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

/// How a workload's rollout stands.
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
}
