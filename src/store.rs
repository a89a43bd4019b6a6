//! The local store: everything decided, on this host's disk. One host is always its own leader.

use std::path::{Path, PathBuf};

use reconciler::state::{Change, ClusterState};
use ring::rand::{SecureRandom, SystemRandom};

use crate::state_file::{self, StateFileError};

const SCHEMA: u32 = 1;

/// `cluster.json` in the data directory, read once and written through.
#[derive(Debug)]
pub(crate) struct LocalStore {
    path: PathBuf,
    state: ClusterState,
}

impl LocalStore {
    /// Opens the store, making a new cluster where there is none.
    pub(crate) fn open(data: &Path) -> Result<Self, StateFileError> {
        let path = data.join("cluster.json");
        let state = match state_file::read::<ClusterState>(&path, SCHEMA)? {
            Some(state) => state,
            None => {
                let state = ClusterState { cluster: new_id(), ..ClusterState::default() };
                state_file::write(&path, SCHEMA, &state)?;
                state
            }
        };
        Ok(Self { path, state })
    }

    /// What is decided.
    pub(crate) fn snapshot(&self) -> &ClusterState {
        &self.state
    }

    /// Puts changes on disk, and believes them only once they are there.
    pub(crate) fn commit(&mut self, changes: Vec<Change>) -> Result<(), StateFileError> {
        let mut state = self.state.clone();
        state.apply(changes);
        state_file::write(&self.path, SCHEMA, &state)?;
        self.state = state;
        Ok(())
    }
}

/// Twelve random digits. If the system has no randomness the clock and the process must do: the id only keeps two
/// installations on one engine apart.
fn new_id() -> String {
    let mut bytes = [0_u8; 6];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        let nanos = jiff::Timestamp::now().as_nanosecond() ^ i128::from(std::process::id());
        bytes.copy_from_slice(&nanos.to_be_bytes()[10..]);
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
