//! Nodes by name, in constant time: 150,000 records are looked up for one decision.

use super::Candidate;
use crate::name::NodeName;

/// An open-addressed table over the candidates. Its hash is fixed, so that it is the same on every
/// host and in every run.
#[derive(Debug)]
pub(super) struct Names {
    slots: Vec<u32>,
}

const FREE: u32 = u32::MAX;

impl Names {
    pub(super) fn new(nodes: &[Candidate]) -> Self {
        let mut slots = vec![FREE; (nodes.len() * 2).next_power_of_two().max(2)];
        let mask = slots.len() - 1;
        for (node, number) in nodes.iter().zip(0_u32..) {
            let mut slot = hash(node.name.as_str()) & mask;
            while slots[slot] != FREE {
                slot = (slot + 1) & mask;
            }
            slots[slot] = number;
        }
        Self { slots }
    }

    pub(super) fn find(&self, nodes: &[Candidate], name: &NodeName) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut slot = hash(name.as_str()) & mask;
        loop {
            match self.slots[slot] {
                FREE => return None,
                number if nodes[number as usize].name == *name => return Some(number),
                _ => slot = (slot + 1) & mask,
            }
        }
    }
}

/// FNV-1a, with its high half folded in.
fn hash(text: &str) -> usize {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as usize
}
