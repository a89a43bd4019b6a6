//! What the cluster has decided and what its nodes report: the content of the store.

mod failure;
mod format;
mod history;
mod life;
mod node;
mod obstacle;
mod phase;
mod pod;
mod record;
mod refused;
mod restarts;
mod rollout;
mod shares;
mod stored;
mod unplaced;

use std::{collections::BTreeMap, net::Ipv4Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    name::{Installation, NodeName, ObjectKey, PodUid, TemplateHash, WorkloadKey},
    object::PortKey,
};

pub use self::{
    failure::{AvailablePods, Failure, FailureClass, FailureReason, LastExit, Unsettled},
    format::{OldestReader, RecordFormat, TooNewForNode},
    history::{CommitReason, CommitState, HistoryEntry},
    life::{Brake, KnownNode, NodeLife, NotReady, Silence},
    node::{NodeFacts, NodeReport, NodeSystem, Preparation, ReceivedTime},
    obstacle::{ImageObstacle, NodeFault, Obstacle, UnfinishedStop, UnreadyPod, UnreadyReason},
    phase::{Activity, AwaitedImages, CanaryActivity, Phase},
    pod::{PodPlace, PodRecord, StopReason, StopRecord},
    record::{Change, Record, RecordKey},
    refused::{Refused, UnfitReason},
    rollout::{Adoption, Rollback, Rollout, Wave},
    shares::{Share, Shares},
    stored::Stored,
    unplaced::{Refusal, Unfit},
};

/// Everything that was decided: names, places and commit ids, never a pod's specification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Id of the cluster: a random text made once; it seeds the uids of all pods.
    pub cluster: String,
    /// Number of names and uids that were assigned so far.
    pub serial: u64,
    /// The rollout of the current commit.
    pub rollout: Rollout,
    /// Every pod that must exist or still exists, pods that are stopping included.
    pub pods: BTreeMap<PodUid, PodRecord>,
    /// Progress of each workload's rollout.
    pub workloads: BTreeMap<WorkloadKey, WorkloadProgress>,
    /// Addresses and ports allocated to Services.
    pub services: BTreeMap<ObjectKey, ServiceAllocation>,
    /// Nodes that are unreachable or lost.
    #[serde(default)]
    pub outages: BTreeMap<NodeName, Outage>,
    /// Nodes that were removed from the cluster, with their installation: reports of such an
    /// installation are ignored.
    #[serde(default)]
    pub removed: BTreeMap<NodeName, Installation>,
}

/// A node that is unreachable or lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// When the node became unreachable, by the leader's clock.
    pub since: Timestamp,
    /// Whether the leader gave the node up, so that its pods are replaced elsewhere where possible.
    /// While this is false the node's pods only receive no traffic.
    pub lost: bool,
}

/// Progress of a workload's rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadProgress {
    /// Highest number of pods of the current template so far.
    pub updated: u32,
    /// Highest number of available pods of the current template so far.
    pub available: u32,
    /// When either number last rose, or the template changed.
    pub since: Timestamp,
    /// The template that both numbers refer to.
    pub template: TemplateHash,
}

/// What was allocated to a Service; the allocation stays as long as the Service exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAllocation {
    /// The virtual address (`spec.clusterIP`); `None` where the Service has none, or where no
    /// address is free.
    pub cluster_ip: Option<Ipv4Addr>,
    /// The node port of each port of the Service.
    pub node_ports: BTreeMap<PortKey, u16>,
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
