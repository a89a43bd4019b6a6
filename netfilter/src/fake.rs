//! A fake of the host's network that keeps its state in memory: for tests of the control loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::OwnedFd,
};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use parking_lot::{Mutex, MutexGuard};
use reconciler::{
    name::LinkName,
    network::{Peers, PodLink, ServiceTable},
};

use crate::{
    drift::Drift, error::NetworkError, exposure::OutsideSource, host::HostNet, nft::Synced,
};

/// The state of the fake host. A test may change it without the control loop, as drift.
#[derive(Clone, Debug, Default)]
pub struct FakeState {
    /// Whether `prepare` was called.
    pub prepared: bool,
    /// The pod links by name.
    pub links: BTreeMap<LinkName, PodLink>,
    /// The table of the last sync; `None` before that.
    pub table: Option<ServiceTable>,
    /// The peers of the last call of `set_peers`; `None` before that.
    pub peers: Option<Peers>,
    /// The drift that the next resync detects and repairs.
    pub drift: Vec<Drift>,
    /// The number of calls that changed something.
    pub mutations: usize,
    /// Names of the links whose creation fails.
    pub broken: BTreeSet<LinkName>,
    /// The networks that may ask the DNS; `None` opens it to everybody.
    pub dns_callers: Option<BTreeSet<Ipv4Net>>,
    /// The senders from outside that were counted.
    pub outside_sources: Vec<OutsideSource>,
}

/// A fake of the host's network that keeps its state in memory.
#[derive(Debug, Default)]
pub struct FakeNet {
    state: Mutex<FakeState>,
}

impl FakeNet {
    /// Reads the state, or changes it.
    pub fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock()
    }
}

#[async_trait]
impl HostNet for FakeNet {
    async fn prepare(&self) -> Result<(), NetworkError> {
        self.state().prepared = true;
        Ok(())
    }

    async fn connect(&self, link: &PodLink, _netns: OwnedFd) -> Result<(), NetworkError> {
        let mut state = self.state();
        if state.broken.contains(&link.name) {
            return Err(NetworkError::Connect {
                link: link.name.clone(),
                action: "making the pair",
                source: io::Error::from(io::ErrorKind::PermissionDenied),
            });
        }
        if state.links.get(&link.name) != Some(link) {
            state.links.insert(link.name.clone(), link.clone());
            state.mutations += 1;
        }
        Ok(())
    }

    async fn disconnect(&self, name: &LinkName) -> Result<(), NetworkError> {
        let mut state = self.state();
        if state.links.remove(name).is_some() {
            state.mutations += 1;
        }
        Ok(())
    }

    async fn links(&self) -> Result<BTreeSet<LinkName>, NetworkError> {
        Ok(self.state().links.keys().cloned().collect())
    }

    async fn sync(&self, table: &ServiceTable) -> Result<Synced, NetworkError> {
        let mut state = self.state();
        if state.table.as_ref() == Some(table) {
            return Ok(Synced::Unchanged);
        }
        let replaced = state.table.is_none();
        state.table = Some(table.clone());
        state.mutations += 1;
        Ok(Synced::Changed {
            replaced,
            added: 0,
            removed: 0,
        })
    }

    async fn set_peers(&self, peers: &Peers) -> Result<(), NetworkError> {
        let mut state = self.state();
        if state.peers.as_ref() != Some(peers) {
            state.peers = Some(peers.clone());
            state.mutations += 1;
        }
        Ok(())
    }

    async fn resync(&self) -> Result<Vec<Drift>, NetworkError> {
        let mut state = self.state();
        let drift = std::mem::take(&mut state.drift);
        state.mutations += drift.len();
        Ok(drift)
    }

    async fn dns_callers(&self) -> Option<BTreeSet<Ipv4Net>> {
        self.state().dns_callers.clone()
    }

    async fn outside_sources(&self) -> Result<Vec<OutsideSource>, NetworkError> {
        Ok(self.state().outside_sources.clone())
    }
}
