//! What bounds the decisions of a leader and of a host, by the daemon's configuration.

use std::{collections::BTreeSet, net::Ipv4Addr, ops::RangeInclusive, time::Duration};

use ipnet::Ipv4Net;

use crate::name::NodeName;

/// What bounds the leader's decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Of a rollout.
    pub rollout: RolloutSettings,
    /// Of Services.
    pub ranges: ServiceRanges,
    /// How many pods a node may have.
    pub max_pods: usize,
}

/// What bounds a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutSettings {
    /// How long everything must stay settled.
    pub soak: Duration,
    /// How long the driving commit may come no nearer to being settled, not counting what was
    /// waited for outside of it.
    pub deadline: Duration,
    /// The share of workloads, in per cent, that one commit may delete. One may always go.
    pub deletion_percent: u32,
    /// How many nodes may be at fault themselves without failing a commit; `None` is one, or 5 % of
    /// them if that is more.
    pub max_faulty_nodes: Option<usize>,
    /// The nodes that a commit comes to first; those that are out are skipped.
    pub canary_nodes: BTreeSet<NodeName>,
    /// How long all must be well there before the others follow.
    pub canary_soak: Duration,
    /// On how many nodes beyond those where its pods would go an image is pulled before its commit
    /// is driven.
    pub spare_images: usize,
}

impl RolloutSettings {
    /// How many of so many nodes may be at fault themselves; never all of them.
    pub(crate) fn max_faulty(&self, nodes: usize) -> usize {
        self.max_faulty_nodes
            .unwrap_or_else(|| (nodes / 20).max(1))
            .min(nodes.saturating_sub(1))
    }

    /// How many of so many workloads may go without a word.
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

/// What may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRanges {
    /// Addresses of Services.
    pub addresses: Ipv4Net,
    /// The cluster's DNS, which no Service may have.
    pub dns: Ipv4Addr,
    /// Node ports.
    pub node_ports: RangeInclusive<u16>,
}
