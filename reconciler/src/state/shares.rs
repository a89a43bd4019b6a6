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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::commit_id,
        name::{ObjectKey, WorkloadKind},
    };

    fn workload(name: &str) -> WorkloadKey {
        WorkloadKey {
            kind: WorkloadKind::Deployment,
            object: ObjectKey::new("default", name),
        }
    }

    fn share(number: u64, pods: &[&str], spare: &[&str]) -> Share {
        Share {
            pods: pods.iter().map(|name| workload(name)).collect(),
            spare: spare.iter().map(|name| workload(name)).collect(),
            number,
            since: Timestamp::UNIX_EPOCH,
            behind: None,
        }
    }

    /// The shares 3 to 7 of the commit `c1`.
    fn shares(nodes: &[(&str, Share)]) -> Shares {
        Shares {
            commit: commit_id("c1"),
            began: Some(Timestamp::UNIX_EPOCH),
            first: 3,
            number: 7,
            everywhere: false,
            among: BTreeSet::new(),
            nodes: nodes
                .iter()
                .map(|(node, share)| (NodeName::new(*node), share.clone()))
                .collect(),
            off: BTreeMap::new(),
        }
    }

    #[test]
    fn a_share_has_the_workloads_of_its_pods_and_the_spare_ones() {
        let share = share(3, &["web"], &["db"]);
        let has = ["web", "db", "cron"].map(|name| share.has(&workload(name)));
        assert_eq!(has, [true, true, false]);
    }

    #[test]
    fn a_report_counts_from_the_shares_with_which_the_nodes_share_last_grew() {
        let shares = shares(&[("a", share(5, &["web"], &[]))]);
        // A node, the number of the shares that it reports, and whether the report counts.
        let cases = [
            ("a", None, true),
            ("a", Some(4), false),
            ("a", Some(5), true),
            ("a", Some(7), true),
            ("a", Some(8), false),
            ("without", Some(2), false),
            ("without", Some(3), true),
        ];
        for (node, number, counts) in cases {
            let node = NodeName::new(node);
            let report = |preparation| NodeReport {
                prepared: BTreeMap::from([(commit_id("c1"), preparation)]),
                share: number,
                ..NodeReport::default()
            };
            let ready = report(Preparation::Ready);
            let reported = shares.reported_preparation(&node, Some(&ready));
            assert_eq!(
                reported,
                counts.then_some(&Preparation::Ready),
                "{number:?}"
            );
            assert_eq!(shares.is_ready(&node, Some(&ready)), counts, "{number:?}");
            let pulling = report(Preparation::Pulling { done: 0, of: 1 });
            assert!(!shares.is_ready(&node, Some(&pulling)), "{number:?}");
        }
        assert!(!shares.is_ready(&NodeName::new("a"), None));
        assert!(!shares.is_ready(&NodeName::new("a"), Some(&NodeReport::default())));
    }

    #[test]
    fn each_workload_of_a_node_needs_another_node_that_has_it_and_of_which_it_holds() {
        let shares = shares(&[
            ("a", share(3, &["web", "db"], &["cron"])),
            ("b", share(3, &["web"], &[])),
            ("c", share(3, &[], &["db"])),
            ("d", share(3, &["alone"], &[])),
            ("e", share(3, &[], &["alone"])),
        ]);
        // The node, the nodes of which it holds, and the answer.
        let cases = [
            ("a", "b c", true),
            ("a", "a b", false),
            ("a", "a c", false),
            ("a", "a d e", false),
            ("b", "a", true),
            ("b", "b c", false),
            ("c", "", true),
            ("d", "a b c d", false),
            ("d", "e", true),
            ("without", "", true),
        ];
        for (node, holds, expected) in cases {
            let is = |other: &NodeName| holds.split(' ').any(|name| name == other.as_str());
            let all = shares.others_all(&NodeName::new(node), is);
            assert_eq!(all, expected, "{node}: {holds}");
        }
    }

    #[test]
    fn shares_are_those_of_the_target_only_with_its_commit_and_its_beginning() {
        let at = |seconds| Timestamp::from_second(seconds).ok();
        // The target, when it became the target, whether all nodes pull all images, whether the
        // shares are decided, and whether they are to be followed.
        let cases = [
            ("c1", at(0), false, true, true),
            ("c1", at(0), true, true, false),
            ("c1", at(1), false, false, false),
            ("c2", at(0), false, false, false),
            ("c2", at(1), true, false, false),
        ];
        for (target, began, everywhere, decided, followed) in cases {
            let rollout = Rollout {
                target: Some(commit_id(target)),
                began,
                shares: Some(Shares {
                    everywhere,
                    ..shares(&[])
                }),
                ..Rollout::default()
            };
            assert_eq!(rollout.is_shared_out(), decided, "{target} {began:?}");
            let of_target = rollout.shares_of_target();
            let expected = rollout.shares.as_ref().filter(|_| followed);
            assert_eq!(of_target, expected, "{target} {began:?} {everywhere}");
        }
        assert!(!Rollout::default().is_shared_out());
        assert_eq!(Rollout::default().shares_of_target(), None);
    }
}
