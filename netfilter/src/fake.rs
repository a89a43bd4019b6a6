//! A host's network that only remembers: for tests of the control loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::OwnedFd,
};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use reconciler::network::{Peers, PodLink, ServiceTable};

use crate::{drift::Drift, error::NetworkError, host::HostNet, nft::Synced};

/// What the fake host looks like. A test may change it behind the loop's back.
#[derive(Clone, Debug, Default)]
pub struct FakeState {
    /// Whether `prepare` was called.
    pub prepared: bool,
    /// The links, by name.
    pub links: BTreeMap<String, PodLink>,
    /// The table as last synced; `None` before that.
    pub table: Option<ServiceTable>,
    /// The other hosts as last set; `None` before that.
    pub peers: Option<Peers>,
    /// What the next resync finds and repairs.
    pub drift: Vec<Drift>,
    /// Calls that changed something.
    pub mutations: usize,
    /// Names of links that cannot be made.
    pub broken: BTreeSet<String>,
}

/// A host's network that only remembers.
#[derive(Debug, Default)]
pub struct FakeNet {
    state: Mutex<FakeState>,
}

impl FakeNet {
    /// Looks at the state, or changes it.
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

    async fn disconnect(&self, name: &str) -> Result<(), NetworkError> {
        let mut state = self.state();
        if state.links.remove(name).is_some() {
            state.mutations += 1;
        }
        Ok(())
    }

    async fn links(&self) -> Result<BTreeSet<String>, NetworkError> {
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
}
