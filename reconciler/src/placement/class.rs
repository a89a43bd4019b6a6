//! Nodes that pods of a kind may go to, kept in order: what makes a choice cheap.
//!
//! Thousands of owners ask for the same thing. What a node says to a pod by itself is found out
//! once for all pods with the same rules, and nodes are kept in a heap, least first, for all pods
//! that also ask for the same resources.

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
use crate::state::{Refusal, Unfit};
use crate::{
    name::NodeName,
    object::{NodeAffinity, PodSpec, Toleration},
};

/// How good a node is for a pod: the least is the best. The fields are compared in this order.
///
/// What an administrator wants avoided comes first, then the rules that the author of the pod
/// prefers, then the wished spread, then the spread of one owner's pods that every pod gets; load
/// and name only break ties. So a rule that somebody wrote down always outranks the default. Of
/// nodes that are equal up to there, one that has the images is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// PreferNoSchedule taints that are not tolerated.
    pub(super) avoided: u32,
    /// Weight of preferred rules that do not hold.
    pub(super) unmet: u32,
    /// Pods above what ScheduleAnyway constraints wish.
    pub(super) excess: u32,
    /// Pods of the same owner.
    pub(super) owned: Owned,
    /// It would have to pull the pod's images, as far as anybody knows.
    pub(super) cold: bool,
    /// How full it would be, in per cent.
    pub(super) share: u32,
    /// How many pods it has.
    pub(super) pods: u32,
    /// Its place in the order of names. Every pod makes its node fuller, so that the first ones do
    /// not get all.
    pub(super) node: u32,
}

/// Pods of one owner on a node. Those of the same template come first: the others are on their way
/// out, mostly, and what counts is how those are spread that stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owned {
    pub(super) alike: u32,
    pub(super) all: u32,
}

impl Owned {
    /// With one more of the same template, or another one.
    pub(super) fn and_one(self, alike: bool) -> Self {
        Self {
            alike: self.alike + u32::from(alike),
            all: self.all + 1,
        }
    }
}

/// Ranks, the least on top.
pub(super) type Heap = BinaryHeap<Reverse<Rank>>;

/// A node that takes pods of a class as far as it alone is concerned.
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

/// What a pod says of nodes by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NodeRules<'a> {
    node_name: &'a Option<NodeName>,
    node_selector: &'a BTreeMap<String, String>,
    affinity: &'a NodeAffinity,
    tolerations: &'a [Toleration],
}

/// What nodes say to all pods with the same rules.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) eligible: Vec<Eligible>,
    /// Of all other nodes, why not.
    refused: BTreeMap<Unfit, usize>,
    /// Whether labels want, and taints let, a pod on each node; made when a spread constraint asks.
    policies: Option<Vec<(bool, bool)>>,
}

/// The nodes of a class in order, for pods that ask for the same.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) class: u32,
    /// Ranks as they were when they were put in, with nothing owned. Nodes only get fuller, so that
    /// they are lower bounds.
    pub(super) heap: Heap,
    /// The last refusal, and how many pods were counted then: as long as none is added, it stays
    /// true.
    pub(super) refusal: Option<(u64, Refusal)>,
}

/// All classes and queues.
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

/// How many entries classes and queues may hold together; with more they are dropped and made again
/// when asked for.
const MOST_ENTRIES: usize = 4_000_000;

impl<'a> Classes<'a> {
    /// The queue for a shape; all numbers from before may be void.
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
    /// Counts the reasons of all nodes; `unfit` says why one that is eligible does not take the
    /// pod.
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
