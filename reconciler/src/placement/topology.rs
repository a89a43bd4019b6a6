//! Topologies: which nodes form one domain, by the value of a label.

use std::{collections::BTreeMap, sync::Arc};

use super::{Candidate, candidate::count};

/// The domain of a node without the label.
pub(super) const NOWHERE: u32 = u32::MAX;

/// The domains of one topology key.
#[derive(Debug)]
pub(super) struct Topology {
    /// The domain of each node; empty where no node has the label.
    of: Vec<u32>,
    /// Number of different values of the label.
    pub(super) domains: usize,
    /// Whether every domain is a single node, as with `kubernetes.io/hostname`.
    pub(super) fine: bool,
}

impl Topology {
    fn new(nodes: &[Candidate], key: &str) -> Self {
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        let mut labelled = 0;
        let of: Vec<u32> = nodes
            .iter()
            .map(|node| {
                let Some(value) = node.labels.get(key) else {
                    return NOWHERE;
                };
                labelled += 1;
                let next = count(numbers.len());
                *numbers.entry(value).or_insert(next)
            })
            .collect();
        let domains = numbers.len();
        Self {
            of: if domains == 0 { Vec::new() } else { of },
            domains,
            fine: domains == labelled,
        }
    }

    pub(super) fn domain(&self, node: u32) -> u32 {
        self.of.get(node as usize).copied().unwrap_or(NOWHERE)
    }
}

/// Groups of nodes that are in the same domains of several topologies.
#[derive(Debug)]
pub(super) struct Grouping {
    /// The group of each node.
    pub(super) of: Vec<u32>,
    /// The domains of each group, one for each topology.
    pub(super) domains: Vec<Vec<u32>>,
}

/// All topologies that pods refer to; each is computed when first needed.
#[derive(Debug, Default)]
pub(super) struct Topologies {
    by_key: BTreeMap<String, u32>,
    all: Vec<Topology>,
    groupings: BTreeMap<Vec<u32>, Arc<Grouping>>,
}

impl Topologies {
    pub(super) fn number(&mut self, nodes: &[Candidate], key: &str) -> u32 {
        if let Some(number) = self.by_key.get(key) {
            return *number;
        }
        let number = count(self.all.len());
        self.all.push(Topology::new(nodes, key));
        self.by_key.insert(key.to_owned(), number);
        number
    }

    pub(super) fn get(&self, number: u32) -> &Topology {
        &self.all[number as usize]
    }

    pub(super) fn grouping(&mut self, nodes: usize, topologies: &[u32]) -> Arc<Grouping> {
        if let Some(grouping) = self.groupings.get(topologies) {
            return Arc::clone(grouping);
        }
        let mut numbers: BTreeMap<Vec<u32>, u32> = BTreeMap::new();
        let mut domains = Vec::new();
        let of = (0..count(nodes))
            .map(|node| {
                let tuple: Vec<u32> = topologies
                    .iter()
                    .map(|one| self.get(*one).domain(node))
                    .collect();
                *numbers.entry(tuple).or_insert_with_key(|tuple| {
                    domains.push(tuple.clone());
                    count(domains.len() - 1)
                })
            })
            .collect();
        let grouping = Arc::new(Grouping { of, domains });
        self.groupings
            .insert(topologies.to_vec(), Arc::clone(&grouping));
        grouping
    }
}
