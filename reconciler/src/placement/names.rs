//! Lookup of nodes by name in constant time: one decision looks up to 150,000 records.

use super::Candidate;
use crate::name::NodeName;

/// An open-addressed hash table over the candidates. The hash function is fixed, so that the table
/// is the same on every host and in every run.
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

/// FNV-1a with the high half of the hash XORed into the low half.
fn hash(text: &str) -> usize {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as usize
}
