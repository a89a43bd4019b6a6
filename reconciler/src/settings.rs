//! Limits on the decisions of a leader and of a host, from the daemon's configuration.

use std::{collections::BTreeSet, net::Ipv4Addr, ops::RangeInclusive, time::Duration};

use ipnet::Ipv4Net;

use crate::name::NodeName;

/// Limits on the leader's decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Limits on a rollout.
    pub rollout: RolloutSettings,
    /// Addresses and ports for Services.
    pub ranges: ServiceRanges,
    /// Maximum number of pods on a node.
    pub max_pods: usize,
}

/// Limits on a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutSettings {
    /// How long everything must stay settled before a commit is healthy.
    pub soak: Duration,
    /// Maximum time without progress of the driving commit. Time in which the rollout waits for
    /// something outside of the commit does not count.
    pub deadline: Duration,
    /// Maximum percentage of workloads that one commit may delete; one workload may always be
    /// deleted.
    pub deletion_percent: u32,
    /// Maximum number of nodes that may be at fault without failing a commit; `None` is the larger
    /// of one node and 5 % of the nodes.
    pub max_faulty_nodes: Option<usize>,
    /// The canaries: nodes that follow a new commit first. Unreachable nodes are skipped.
    pub canary_nodes: BTreeSet<NodeName>,
    /// How long everything on the canaries must stay settled before the other nodes follow.
    pub canary_soak: Duration,
    /// Number of spare nodes that pull an image before its commit is driven, in addition to the
    /// nodes where its pods would be placed.
    pub spare_images: usize,
}

impl RolloutSettings {
    /// Maximum number of nodes that may be at fault, of this many nodes; never all of them.
    pub(crate) fn max_faulty(&self, nodes: usize) -> usize {
        self.max_faulty_nodes
            .unwrap_or_else(|| (nodes / 20).max(1))
            .min(nodes.saturating_sub(1))
    }

    /// Maximum number of workloads that may be deleted without approval, of this many workloads.
    pub(crate) fn deletion_budget(&self, all: usize) -> usize {
        (all.saturating_mul(self.deletion_percent as usize) / 100).max(1)
    }
}

impl Default for RolloutSettings {
    fn default() -> Self {
        Self {
            soak: Duration::from_secs(10),
            deadline: Duration::from_secs(600),
            deletion_percent: 30,
            max_faulty_nodes: None,
            canary_nodes: BTreeSet::new(),
            canary_soak: Duration::from_secs(30),
            spare_images: 2,
        }
    }
}

/// The ranges from which Services get addresses and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRanges {
    /// Addresses of Services.
    pub addresses: Ipv4Net,
    /// Address of the cluster's DNS, which no Service may use.
    pub dns: Ipv4Addr,
    /// Node ports.
    pub node_ports: RangeInclusive<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twentieth_of_the_nodes_and_at_least_one_may_be_at_fault_but_never_all() {
        let faulty = |max_faulty_nodes, nodes| {
            let settings = RolloutSettings {
                max_faulty_nodes,
                ..RolloutSettings::default()
            };
            settings.max_faulty(nodes)
        };
        let nodes = [0, 1, 2, 19, 39, 40, 100];
        assert_eq!(
            nodes.map(|nodes| faulty(None, nodes)),
            [0, 0, 1, 1, 1, 2, 5]
        );
        assert_eq!(
            nodes.map(|nodes| faulty(Some(3), nodes)),
            [0, 0, 1, 3, 3, 3, 3]
        );
        assert_eq!(faulty(Some(0), 100), 0);
    }

    #[test]
    fn a_percentage_of_the_workloads_and_at_least_one_may_be_deleted() {
        let budget = |deletion_percent, all| {
            let settings = RolloutSettings {
                deletion_percent,
                ..RolloutSettings::default()
            };
            settings.deletion_budget(all)
        };
        let all = [0, 1, 6, 7, 10, 250];
        assert_eq!(all.map(|all| budget(30, all)), [1, 1, 1, 2, 3, 75]);
        assert_eq!(budget(0, 250), 1);
        assert_eq!(budget(100, 250), 250);
    }
}
