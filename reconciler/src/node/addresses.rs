//! The addresses of this host's pods.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;

use crate::pod::memory::NodeMemory;

/// Assigns this host's pod addresses: always the lowest free one.
pub(super) struct Addresses {
    subnet: Ipv4Net,
    taken: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    pub(super) fn new(subnet: Ipv4Net, memory: &NodeMemory) -> Self {
        Self {
            subnet,
            taken: memory.pods.values().filter_map(|pod| pod.address).collect(),
        }
    }

    /// The lowest free address; `None` if all are taken.
    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        let address = self
            .subnet
            .hosts()
            .find(|address| !self.taken.contains(address))?;
        self.taken.insert(address);
        Some(address)
    }
}
