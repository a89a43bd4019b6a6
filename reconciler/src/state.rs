//! What the cluster has decided and what its nodes report: the content of the store.

mod node;
mod pod;
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

/// One change of the state; a leader's decision is a list of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// A pod is new, or has changed.
    Pod(Box<PodRecord>),
    /// A pod is gone.
    Forget(PodUid),
    /// The rollout has moved on.
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
