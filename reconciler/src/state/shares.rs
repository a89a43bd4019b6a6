//! Which nodes must pull which images of the target before it is driven: the nodes where its pods
//! would be placed, and some spare nodes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ImageObstacle, NodeReport, Preparation, Rollout, Stored};
use crate::name::{CommitId, NodeName, WorkloadKey};

/// What each node pulls while a commit is prepared. Shares name nodes and workloads, never images:
/// a node reads from its own verified commit which images to pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// The commit that is prepared.
    pub commit: CommitId,
    /// When that commit became the target: a commit that is retried gets new shares.
    pub began: Option<Timestamp>,
    /// The first number of these shares; the numbers of the commits of one rollout do not overlap.
    pub first: u64,
    /// Increases whenever a share grows; nodes report the number of the shares that they received.
    pub number: u64,
    /// The shares would be too large to store, so every node pulls all images of the commit.
    #[serde(default)]
    pub everywhere: bool,
    /// The nodes that were considered when the shares were decided.
    pub among: BTreeSet<NodeName>,
    /// The share of each node that has one.
    pub nodes: BTreeMap<NodeName, Share>,
    /// Nodes that could not pull their images while others could, with the reason: pods are placed
    /// there only where no other node accepts them.
    #[serde(default)]
    pub off: BTreeMap<NodeName, Stored<ImageObstacle>>,
}

/// What one node pulls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Workloads whose pods would be placed on this node. The commit is not driven before their
    /// images are on the node.
    pub pods: BTreeSet<WorkloadKey>,
    /// Workloads whose pods are placed on this node if another node fails. The rollout does not
    /// wait for their images.
    pub spare: BTreeSet<WorkloadKey>,
    /// The number of the shares with which this share last grew.
    pub number: u64,
    /// Since when the share has its present content.
    pub since: Timestamp,
    /// Since when other nodes have all images of this share while this node has not.
    pub behind: Option<Timestamp>,
}

impl Share {
    /// Whether the images of a workload belong to the share.
    pub fn has(&self, workload: &WorkloadKey) -> bool {
        self.pods.contains(workload) || self.spare.contains(workload)
    }
}

impl Shares {
    /// What a node reports about its share of these shares; `None` where the report refers to
    /// earlier shares, or to none.
    pub fn reported_preparation<'r>(
        &self,
        node: &NodeName,
        report: Option<&'r NodeReport>,
    ) -> Option<&'r Preparation> {
        let oldest = self
            .nodes
            .get(node)
            .map_or(self.first, |share| share.number);
        let report = report.filter(|report| {
            report
                .share
                .is_none_or(|number| (oldest..=self.number).contains(&number))
        })?;
        report.prepared.get(&self.commit)
    }

    /// Whether a node has the images of its share.
    pub fn is_ready(&self, node: &NodeName, report: Option<&NodeReport>) -> bool {
        self.reported_preparation(node, report) == Some(&Preparation::Ready)
    }

    /// Whether, for every workload that the node must have, there is another node that must have it
    /// too and for which `is` holds.
    pub fn others_all(&self, node: &NodeName, is: impl Fn(&NodeName) -> bool) -> bool {
        let Some(share) = self.nodes.get(node) else {
            return true;
        };
        let other = |workload: &WorkloadKey| {
            self.nodes
                .iter()
                .any(|(other, share)| other != node && share.has(workload) && is(other))
        };
        share.pods.iter().all(other)
    }
}

impl Rollout {
    /// The shares of the target; `None` where every node pulls all images.
    pub fn shares_of_target(&self) -> Option<&Shares> {
        self.shares.as_ref().filter(|shares| {
            Some(&shares.commit) == self.target.as_ref()
                && shares.began == self.began
                && !shares.everywhere
        })
    }

    /// Whether the shares of the target were already decided.
    pub(crate) fn is_shared_out(&self) -> bool {
        let shares = self.shares.as_ref();
        shares.is_some_and(|shares| {
            Some(&shares.commit) == self.target.as_ref() && shares.began == self.began
        })
    }
}
