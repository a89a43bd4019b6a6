//! Nodes on which pods with the same rules may run, kept in order of rank, so that a choice is
//! cheap.
//!
//! Thousands of owners have the same rules. The checks of a node by itself are done once for all
//! pods with the same rules, and a heap of nodes, least rank first, is kept for all pods that also
//! request the same resources.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use super::{
    Candidate,
    candidate::{
        avoided, count, taints_tolerated, unfit_by_itself, unmet_by_labels, wanted_by_labels,
    },
    load::{Ask, Load},
};
use crate::{
    name::NodeName,
    object::{NodeAffinity, PodSpec, Toleration},
    state::{Refusal, Unfit},
};

/// How good a node is for a pod: the least rank is the best. The fields are compared in this order.
///
/// Taints that an administrator wants avoided come first, then the preferred rules of the pod's
/// author, then preferred spread, then the spread of one owner's pods that applies to every pod;
/// load and name only break ties. Thus an explicit rule always outranks the default. Among nodes
/// that are equal up to that point, a node that has the images is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Number of PreferNoSchedule taints that the pod does not tolerate.
    pub(super) avoided: u32,
    /// Sum of the weights of preferred rules that the node does not satisfy.
    pub(super) unmet: u32,
    /// Number of pods beyond what ScheduleAnyway constraints prefer.
    pub(super) excess: u32,
    /// Pods of the same owner on the node.
    pub(super) owned: Owned,
    /// Whether the node would have to pull the pod's images, as far as is known.
    pub(super) cold: bool,
    /// Resource usage of the node with the pod, in per cent.
    pub(super) share: u32,
    /// Number of pods on the node.
    pub(super) pods: u32,
    /// Index of the node in the order of names. The first nodes do not get all pods, since every
    /// pod increases the usage of its node.
    pub(super) node: u32,
}

/// Pods of one owner on a node. Pods of the same template are compared first: pods of other
/// templates are usually about to be replaced, so they matter less for the spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owned {
    pub(super) alike: u32,
    pub(super) all: u32,
}

impl Owned {
    /// The counts with one more pod, of the same template or of another one.
    pub(super) fn and_one(self, alike: bool) -> Self {
        Self {
            alike: self.alike + u32::from(alike),
            all: self.all + 1,
        }
    }
}

/// A heap of ranks, the least on top.
pub(super) type Heap = BinaryHeap<Reverse<Rank>>;

/// A node that accepts pods of a class, if only the node itself is considered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Eligible {
    pub(super) node: u32,
    avoided: u32,
    unmet: u32,
}

impl Eligible {
    pub(super) fn rank(self, owned: Owned, load: &Load, ask: &Ask) -> Rank {
        let (share, pods) = load.fullness(self.node, ask);
        Rank {
            avoided: self.avoided,
            unmet: self.unmet,
            excess: 0,
            owned,
            cold: false,
            share,
            pods,
            node: self.node,
        }
    }
}

/// The rules of a pod about nodes by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NodeRules<'a> {
    node_name: &'a Option<NodeName>,
    node_selector: &'a BTreeMap<String, String>,
    affinity: &'a NodeAffinity,
    tolerations: &'a [Toleration],
}

/// The nodes' answer to all pods with the same rules.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) eligible: Vec<Eligible>,
    /// For all other nodes, the reasons with the number of nodes.
    refused: BTreeMap<Unfit, usize>,
    /// For each node, whether labels allow a pod and whether taints do; computed when a spread
    /// constraint needs it.
    policies: Option<Vec<(bool, bool)>>,
}

/// The nodes of a class in order, for pods that request the same resources.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) class: u32,
    /// Ranks as they were when they were inserted, without pods of an owner. The usage of nodes
    /// only grows, so these ranks are lower bounds.
    pub(super) heap: Heap,
    /// The last refusal, with the number of pods that were counted at that time: while no pod is
    /// added, the refusal stays valid.
    pub(super) refusal: Option<(u64, Refusal)>,
}

/// All classes and their queues.
#[derive(Debug, Default)]
pub(super) struct Classes<'a> {
    numbers: BTreeMap<NodeRules<'a>, u32>,
    pub(super) all: Vec<Class>,
    queue_numbers: BTreeMap<(u32, Ask), u32>,
    pub(super) queues: Vec<Queue>,
    /// The queue of each shape.
    of_shapes: BTreeMap<u32, u32>,
    held: usize,
}

/// Maximum number of entries of all classes and queues together; beyond that they are dropped and
/// computed again when needed.
const MOST_ENTRIES: usize = 4_000_000;

impl<'a> Classes<'a> {
    /// The queue for a shape; the call may invalidate all earlier queue numbers.
    pub(super) fn queue(
        &mut self,
        shape: u32,
        spec: &'a PodSpec,
        ask: &Ask,
        nodes: &[Candidate],
        load: &Load,
    ) -> u32 {
        if let Some(queue) = self.of_shapes.get(&shape) {
            return *queue;
        }
        if self.held > MOST_ENTRIES {
            *self = Self::default();
        }
        let class = self.class(spec, nodes);
        let key = (class, ask.clone());
        let queue = match self.queue_numbers.get(&key) {
            Some(queue) => *queue,
            None => {
                let eligible = &self.all[class as usize].eligible;
                let fit = eligible
                    .iter()
                    .filter(|one| load.unfit(one.node, ask).is_none());
                let heap: Heap = fit
                    .map(|one| Reverse(one.rank(Owned::default(), load, ask)))
                    .collect();
                self.held += heap.len();
                self.queues.push(Queue {
                    class,
                    heap,
                    refusal: None,
                });
                let number = count(self.queues.len() - 1);
                self.queue_numbers.insert(key, number);
                number
            }
        };
        self.of_shapes.insert(shape, queue);
        queue
    }

    fn class(&mut self, spec: &'a PodSpec, nodes: &[Candidate]) -> u32 {
        let rules = NodeRules {
            node_name: &spec.node_name,
            node_selector: &spec.node_selector,
            affinity: &spec.affinity.node,
            tolerations: &spec.tolerations,
        };
        if let Some(number) = self.numbers.get(&rules) {
            return *number;
        }
        let mut class = Class {
            eligible: Vec::new(),
            refused: BTreeMap::new(),
            policies: None,
        };
        for (node, number) in nodes.iter().zip(0..) {
            match unfit_by_itself(spec, node) {
                Some(unfit) => *class.refused.entry(unfit).or_default() += 1,
                None => class.eligible.push(Eligible {
                    node: number,
                    avoided: avoided(spec, node),
                    unmet: unmet_by_labels(spec, node),
                }),
            }
        }
        self.held += class.eligible.len();
        self.all.push(class);
        let number = count(self.all.len() - 1);
        self.numbers.insert(rules, number);
        number
    }

    pub(super) fn policies(
        &mut self,
        class: u32,
        spec: &PodSpec,
        nodes: &[Candidate],
    ) -> &[(bool, bool)] {
        let class = &mut self.all[class as usize];
        class.policies.get_or_insert_with(|| {
            nodes
                .iter()
                .map(|node| (wanted_by_labels(spec, node), taints_tolerated(spec, node)))
                .collect()
        })
    }
}

impl Class {
    /// Counts the reasons of all nodes; `unfit` returns the reason of an eligible node that does
    /// not accept the pod.
    pub(super) fn refusal(&self, nodes: usize, unfit: impl Fn(u32) -> Option<Unfit>) -> Refusal {
        let mut reasons = self.refused.clone();
        for unfit in self.eligible.iter().filter_map(|one| unfit(one.node)) {
            *reasons.entry(unfit).or_default() += 1;
        }
        Refusal::Counted {
            nodes,
            reasons: reasons.into_iter().collect(),
        }
    }
}
