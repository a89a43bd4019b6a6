//! The local store: all decisions, on this host's disk. A host that is alone is always its own
//! leader.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use reconciler::{
    name::{Installation, NodeName},
    state::{Change, ClusterState},
};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::state_file::{self, StateFileError};

const SCHEMA: u32 = 1;
/// The file of a cluster member's marker, see `replicated/marker.rs`.
pub(crate) const MARKER: &str = "store.json";

/// `instance.json`: the id that marks the containers of this installation. The file outlives a lost
/// `cluster.json`; without the id every running container would be foreign to this daemon, which
/// would leave it running and start it a second time.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Instance {
    id: Installation,
    /// The node's name at the first start: the place of every pod is recorded under this name.
    #[serde(default)]
    node: Option<NodeName>,
    /// When the installation was made.
    #[serde(default)]
    made: Option<Timestamp>,
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// One of the store's files cannot be read or written.
    #[error(transparent)]
    File(#[from] StateFileError),
    /// The host's name differs from the name in the data directory.
    #[error(
        "this host was {before} and is {now} now: its pods are written down under {before}; set `name = \"{before}\"` \
         in [node] of the configuration, or uninstall first"
    )]
    Renamed {
        /// The name in the data directory.
        before: NodeName,
        /// The name by the configuration.
        now: NodeName,
    },
}

/// `cluster.json` in the data directory: read once, and written at every change.
#[derive(Debug)]
pub(crate) struct LocalStore {
    path: PathBuf,
    instance: Instance,
    state: ClusterState,
}

impl LocalStore {
    /// Opens the store of a node; makes a new cluster if the data directory has none.
    pub(crate) fn open(data: &Path, node: &NodeName) -> Result<Self, StoreError> {
        let path = cluster_path(data);
        let instance = instance_path(data);
        let known = state_file::read::<Instance>(&instance, SCHEMA)?;
        let state = match (state_file::read::<ClusterState>(&path, SCHEMA)?, &known) {
            (Some(state), _) => state,
            (None, Some(known)) => {
                tracing::warn!(
                    "{} is gone: what runs is found again by its labels, and the rest is decided anew",
                    path.display()
                );
                ClusterState {
                    cluster: known.id.to_string(),
                    ..ClusterState::default()
                }
            }
            (None, None) => ClusterState {
                cluster: new_id(),
                ..ClusterState::default()
            },
        };
        // A name under which nothing is recorded was a mistake in the configuration, and may
        // change.
        let in_use = !state.pods.is_empty() || data.join(MARKER).exists();
        let before = known.as_ref().and_then(|known| known.node.clone());
        if let Some(before) = before.filter(|before| before != node && in_use) {
            return Err(StoreError::Renamed {
                before,
                now: node.clone(),
            });
        }
        let id = known.as_ref().map_or_else(
            || Installation::new(&state.cluster),
            |known| known.id.clone(),
        );
        // An installation of a version that did not record the time is as old as its last written
        // file.
        let written =
            || Timestamp::try_from(std::fs::metadata(&instance).ok()?.modified().ok()?).ok();
        let made = known.as_ref().and_then(|known| known.made).or_else(written);
        let made = made.or_else(|| Some(Timestamp::now()));
        let own = Instance {
            id,
            node: Some(node.clone()),
            made,
        };
        if known.as_ref() != Some(&own) {
            state_file::write(&instance, SCHEMA, &own)?;
        }
        if !path.exists() {
            state_file::write(&path, SCHEMA, &state)?;
        }
        Ok(Self {
            path,
            instance: own,
            state,
        })
    }

    /// The id of the installation in a data directory; `None` if there is no installation.
    pub(crate) fn instance(data: &Path) -> Result<Option<Installation>, StateFileError> {
        if let Some(known) = state_file::read::<Instance>(&instance_path(data), SCHEMA)? {
            return Ok(Some(known.id));
        }
        Ok(
            state_file::read::<ClusterState>(&cluster_path(data), SCHEMA)?
                .map(|state| Installation::new(state.cluster)),
        )
    }

    /// Whether a data directory holds an installation.
    pub(crate) fn is_in(data: &Path) -> bool {
        cluster_path(data).exists() || instance_path(data).exists()
    }

    /// The id of this installation, which its containers carry as a label.
    pub(crate) fn installation(&self) -> &Installation {
        &self.instance.id
    }

    /// When this installation was made; `None` if its version did not record that.
    pub(crate) fn installed(&self) -> Option<Timestamp> {
        self.instance.made
    }

    /// What is decided.
    pub(crate) fn snapshot(&self) -> &ClusterState {
        &self.state
    }

    /// Writes changes to the disk; the snapshot has them only once they are written.
    pub(crate) fn commit(&mut self, changes: Vec<Change>) -> Result<(), StateFileError> {
        let mut state = self.state.clone();
        state.apply(changes);
        state_file::write(&self.path, SCHEMA, &state)?;
        self.state = state;
        Ok(())
    }

    /// Replaces the state by what the cluster's leader decided.
    pub(crate) fn replace(&mut self, state: ClusterState) -> Result<(), StateFileError> {
        if state != self.state {
            state_file::write(&self.path, SCHEMA, &state)?;
            self.state = state;
        }
        Ok(())
    }
}

fn cluster_path(data: &Path) -> PathBuf {
    data.join("cluster.json")
}

fn instance_path(data: &Path) -> PathBuf {
    data.join("instance.json")
}

/// Twelve random digits. Without randomness from the system the id is made from the clock and the
/// process: it only has to tell apart two installations on one engine.
fn new_id() -> String {
    let mut bytes = [0_u8; 6];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        let nanos = jiff::Timestamp::now().as_nanosecond() ^ i128::from(std::process::id());
        bytes.copy_from_slice(&nanos.to_be_bytes()[10..]);
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn an_installation_keeps_its_id_whichever_of_its_files_is_lost() {
        let data = tempfile::tempdir().unwrap();
        let node = NodeName::new("n1");
        assert!(!LocalStore::is_in(data.path()));
        let id = LocalStore::open(data.path(), &node)
            .unwrap()
            .snapshot()
            .cluster
            .clone();
        for lost in [cluster_path(data.path()), instance_path(data.path())] {
            std::fs::remove_file(&lost).unwrap();
            assert!(LocalStore::is_in(data.path()));
            assert_eq!(
                LocalStore::open(data.path(), &node)
                    .unwrap()
                    .snapshot()
                    .cluster,
                id,
                "{}",
                lost.display()
            );
            assert!(lost.exists());
        }
    }

    #[test]
    fn a_host_that_was_renamed_is_told_how_to_keep_its_pods() {
        let data = tempfile::tempdir().unwrap();
        LocalStore::open(data.path(), &NodeName::new("n0")).unwrap();
        // No pod has been placed under the name n0.
        LocalStore::open(data.path(), &NodeName::new("n1")).unwrap();
        std::fs::write(data.path().join(MARKER), "{}").unwrap();
        let error = LocalStore::open(data.path(), &NodeName::new("n2"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("set `name = \"n1\"` in [node]"), "{error}");
    }
}
