//! Which nodes must have which images of the target before it is driven: those where its pods would
//! go, and a few more.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{NodeReport, Preparation, Rollout};
use crate::name::{CommitId, NodeName, WorkloadKey};

/// What each node pulls while a commit is prepared. It names nodes and workloads, never images:
/// what a node pulls it reads from its own verified commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// The commit that is prepared.
    pub commit: CommitId,
    /// When it became the target: a commit that is tried again is shared out anew.
    pub began: Option<Timestamp>,
    /// The number they began with; those of one rollout's commits do not overlap.
    pub first: u64,
    /// One more whenever shares grow: nodes say up to which number they know them.
    pub number: u64,
    /// There is too much to write down: every node pulls all images of the commit.
    #[serde(default)]
    pub everywhere: bool,
    /// The nodes that it was shared out among.
    pub among: BTreeSet<NodeName>,
    /// The share of each node that has one.
    pub nodes: BTreeMap<NodeName, Share>,
    /// Nodes that did not get their images while others did, and why: pods go there only where no
    /// other node takes them.
    #[serde(default)]
    pub off: BTreeMap<NodeName, String>,
}

/// What one node pulls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The workloads of which pods would go there. The commit is not driven before their images are
    /// there.
    pub pods: BTreeSet<WorkloadKey>,
    /// Those of which pods go there if another node fails. Nobody waits for their images.
    pub spare: BTreeSet<WorkloadKey>,
    /// The number with which it grew last.
    pub number: u64,
    /// Since when the share is what it is.
    pub since: Timestamp,
    /// Since when other nodes have all images of it, and this one has not.
    pub behind: Option<Timestamp>,
}

impl Share {
    /// Whether the images of a workload belong to it.
    pub fn has(&self, workload: &WorkloadKey) -> bool {
        self.pods.contains(workload) || self.spare.contains(workload)
    }
}

impl Shares {
    /// What a node says of its share of these; `None` where it speaks of an earlier one, or of
    /// nothing.
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

    /// Whether for every workload that a node must have there is another node with that share which
    /// `is` so.
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
    /// The shares of the target; `None` where every node pulls all of it.
    pub fn shares_of_target(&self) -> Option<&Shares> {
        self.shares.as_ref().filter(|shares| {
            Some(&shares.commit) == self.target.as_ref()
                && shares.began == self.began
                && !shares.everywhere
        })
    }

    /// Whether it was decided already who pulls what of the target.
    pub(crate) fn is_shared_out(&self) -> bool {
        let shares = self.shares.as_ref();
        shares.is_some_and(|shares| {
            Some(&shares.commit) == self.target.as_ref() && shares.began == self.began
        })
    }
}
