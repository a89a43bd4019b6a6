//! Resource usage of every node so far.

use std::collections::BTreeSet;

use super::{Candidate, ResourceAmounts, candidate::count};
use crate::object::Protocol;
use crate::state::Unfit;

/// The resources that a pod requests from a node and that other pods may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ask {
    pub(super) requests: ResourceAmounts,
    pub(super) ports: Vec<(Protocol, u16)>,
}

/// Resource usage of every node. Usage only grows: a pod that a placer has counted stays counted,
/// so a node that cannot satisfy a request now never will.
#[derive(Debug)]
pub(super) struct Load {
    nodes: Vec<Used>,
    ports: BTreeSet<(u32, Protocol, u16)>,
}

#[derive(Debug)]
struct Used {
    pods: u32,
    requests: ResourceAmounts,
    allocatable: Option<ResourceAmounts>,
    max_pods: u32,
}

impl Load {
    pub(super) fn new(nodes: &[Candidate], max_pods: usize) -> Self {
        let unused = |node: &Candidate| Used {
            pods: 0,
            requests: ResourceAmounts::default(),
            allocatable: node.allocatable,
            max_pods: count(node.max_pods.unwrap_or(max_pods)),
        };
        let nodes = nodes.iter().map(unused).collect();
        Self {
            nodes,
            ports: BTreeSet::new(),
        }
    }

    pub(super) fn add(&mut self, node: u32, ask: &Ask) {
        let used = &mut self.nodes[node as usize];
        used.pods += 1;
        used.requests = used.requests.plus(ask.requests);
        self.ports.extend(
            ask.ports
                .iter()
                .map(|(protocol, port)| (node, *protocol, *port)),
        );
    }

    /// Why a node cannot satisfy a request; `None` if it can.
    pub(super) fn unfit(&self, node: u32, ask: &Ask) -> Option<Unfit> {
        let taken =
            |(protocol, port): &&(Protocol, u16)| self.ports.contains(&(node, *protocol, *port));
        if let Some((_, port)) = ask.ports.iter().find(taken) {
            return Some(Unfit::HostPort(*port));
        }
        let used = &self.nodes[node as usize];
        if used.pods >= used.max_pods {
            return Some(Unfit::Full);
        }
        ask.requests.too_much(used.requests, used.allocatable?)
    }

    /// Usage of the node with the pod in per cent, and the number of pods on the node.
    pub(super) fn fullness(&self, node: u32, ask: &Ask) -> (u32, u32) {
        let used = &self.nodes[node as usize];
        (
            used.requests.plus(ask.requests).share(used.allocatable),
            used.pods,
        )
    }
}
