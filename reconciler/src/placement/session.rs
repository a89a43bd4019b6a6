//! Places pods of one shape, one after another.
//!
//! While only pods of one shape are placed, each placement changes few nodes, and what was computed
//! for the other nodes stays valid. A pod of another shape ends the session.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use super::{
    class::{Class, Heap, Owned, Queue, Rank},
    load::{Ask, Load},
    relation::Relations,
    topology::{Grouping, Topologies},
};
use crate::state::Unfit;

/// A session for a shape without relations to other pods.
///
/// The queue holds nodes without pods of the owner. Nodes with pods of the owner are moved to a
/// heap of the session when they reach the top, and moved back at its end. Such nodes deeper in the
/// queue rank worse than its top.
#[derive(Debug, Default)]
pub(super) struct Plain {
    moved: Heap,
}

impl Plain {
    /// Takes the best node out of the session.
    pub(super) fn take(
        &mut self,
        queue: &mut Queue,
        owned: &[Owned],
        load: &Load,
        ask: &Ask,
    ) -> Option<Rank> {
        let fresh = loop {
            let Some(mut top) = queue.heap.peek_mut() else {
                break None;
            };
            let Reverse(rank) = *top;
            if load.unfit(rank.node, ask).is_some() {
                std::collections::binary_heap::PeekMut::pop(top);
                continue;
            }
            let (share, pods) = load.fullness(rank.node, ask);
            let now = Rank {
                share,
                pods,
                ..rank
            };
            let owned = owned[rank.node as usize];
            if owned.all > 0 {
                std::collections::binary_heap::PeekMut::pop(top);
                self.moved.push(Reverse(Rank { owned, ..now }));
            } else if now == rank {
                break Some(rank);
            } else {
                *top = Reverse(now);
            }
        };
        // Within a session only the chosen node changes, and it was inserted again with its new
        // rank.
        let moved = self.moved.peek().map(|Reverse(rank)| *rank);
        match (fresh, moved) {
            (Some(fresh), Some(moved)) if moved < fresh => self.moved.pop(),
            (None, _) => self.moved.pop(),
            (Some(_), _) => queue.heap.pop(),
        }
        .map(|Reverse(rank)| rank)
    }

    /// Inserts the node again, with one more pod.
    pub(super) fn put(&mut self, rank: Rank, load: &Load, ask: &Ask) {
        if load.unfit(rank.node, ask).is_none() {
            let (share, pods) = load.fullness(rank.node, ask);
            self.moved.push(Reverse(Rank {
                owned: rank.owned.and_one(true),
                share,
                pods,
                ..rank
            }));
        }
    }

    pub(super) fn end(self, queue: &mut Queue) {
        queue
            .heap
            .extend(self.moved.into_iter().map(|Reverse(rank)| {
                Reverse(Rank {
                    owned: Owned::default(),
                    ..rank
                })
            }));
    }
}

/// A session for a shape with relations to other pods.
///
/// Nodes in the same domains of all multi-node topologies form one group: the effect of such a
/// topology is computed once for a group, not for each node. The effect of single-node topologies
/// is part of a node's rank in its group.
#[derive(Debug)]
pub(super) struct Related {
    relations: Relations,
    /// The nodes that refuse such pods.
    off: BTreeSet<u32>,
    /// The nodes that have the images of these pods; `None` where that does not matter.
    warm: Option<BTreeSet<u32>>,
    /// The topologies by which nodes are grouped.
    coarse: Vec<u32>,
    grouping: Arc<Grouping>,
    heaps: Vec<Heap>,
}

/// The inputs of a session.
#[derive(Clone, Copy)]
pub(super) struct Sight<'s> {
    pub(super) class: &'s Class,
    pub(super) topologies: &'s Topologies,
    pub(super) load: &'s Load,
    pub(super) ask: &'s Ask,
    /// Pods of the owner on each node.
    pub(super) owned: &'s [Owned],
}

impl Related {
    /// The topologies by which nodes must be grouped.
    pub(super) fn coarse(relations: &Relations) -> Vec<u32> {
        let coarse = relations.all.iter().filter(|relation| !relation.fine);
        let mut coarse: Vec<u32> = coarse.map(|relation| relation.topology).collect();
        coarse.sort_unstable();
        coarse.dedup();
        coarse
    }

    pub(super) fn new(
        relations: Relations,
        (off, warm): (BTreeSet<u32>, Option<BTreeSet<u32>>),
        coarse: Vec<u32>,
        grouping: Arc<Grouping>,
        sight: Sight<'_>,
    ) -> Self {
        let mut session = Self {
            relations,
            off,
            warm,
            coarse,
            grouping,
            heaps: Vec::new(),
        };
        session.fill(sight);
        session
    }

    fn fill(&mut self, sight: Sight<'_>) {
        let mut ranks: Vec<Vec<Reverse<Rank>>> = vec![Vec::new(); self.grouping.domains.len()];
        for one in &sight.class.eligible {
            if !self.off.contains(&one.node) && sight.load.unfit(one.node, sight.ask).is_none() {
                let rank = one.rank(sight.owned[one.node as usize], sight.load, sight.ask);
                if let Some(rank) = self.on_node(rank, sight.topologies) {
                    ranks[self.grouping.of[one.node as usize] as usize].push(Reverse(rank));
                }
            }
        }
        self.heaps = ranks.into_iter().map(Heap::from).collect();
    }

    /// The rank with the effect of single-node topologies; `None` if one of them forbids the node.
    fn on_node(&self, rank: Rank, topologies: &Topologies) -> Option<Rank> {
        let domain = |topology| topologies.get(topology).domain(rank.node);
        let merit = self
            .relations
            .judge(|one| one.fine, |one| domain(one.topology))
            .ok()?;
        let cold = self
            .warm
            .as_ref()
            .is_some_and(|warm| !warm.contains(&rank.node));
        Some(Rank {
            unmet: rank.unmet + merit.unmet,
            excess: merit.excess,
            cold,
            ..rank
        })
    }

    /// Takes the best node out of the session, with the effect of its group.
    pub(super) fn take(&mut self) -> Option<Rank> {
        let mut best: Option<(Rank, usize)> = None;
        for (group, heap) in self.heaps.iter().enumerate() {
            let Some(Reverse(top)) = heap.peek() else {
                continue;
            };
            let domains = &self.grouping.domains[group];
            let domain = |topology: u32| {
                self.coarse
                    .binary_search(&topology)
                    .ok()
                    .map_or(super::topology::NOWHERE, |at| domains[at])
            };
            let Ok(merit) = self
                .relations
                .judge(|one| !one.fine, |one| domain(one.topology))
            else {
                continue;
            };
            let excess = top.excess.saturating_add(merit.excess);
            let whole = Rank {
                unmet: top.unmet + merit.unmet,
                excess,
                ..*top
            };
            if best.is_none_or(|(best, _)| whole < best) {
                best = Some((whole, group));
            }
        }
        let (rank, group) = best?;
        self.heaps[group].pop();
        Some(rank)
    }

    /// Counts the pod on the node and inserts the node again; `owned` counts the pod already.
    pub(super) fn put(&mut self, node: u32, sight: Sight<'_>) {
        if self.relations.place(node, sight.topologies) {
            self.fill(sight);
            return;
        }
        let Ok(at) = sight
            .class
            .eligible
            .binary_search_by_key(&node, |one| one.node)
        else {
            return;
        };
        if sight.load.unfit(node, sight.ask).is_none() {
            let rank =
                sight.class.eligible[at].rank(sight.owned[node as usize], sight.load, sight.ask);
            if let Some(rank) = self.on_node(rank, sight.topologies) {
                self.heaps[self.grouping.of[node as usize] as usize].push(Reverse(rank));
            }
        }
    }

    /// Why an eligible node does not accept the pod; `None` if it does.
    pub(super) fn unfit(&self, node: u32, topologies: &Topologies) -> Option<Unfit> {
        if self.off.contains(&node) {
            return Some(Unfit::Refuses);
        }
        self.relations
            .judge(|_| true, |one| topologies.get(one.topology).domain(node))
            .err()
    }
}
