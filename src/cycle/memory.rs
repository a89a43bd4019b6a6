//! What this host remembers on its disk beside the trust directory and the store: `node.json`, and
//! `appeared.json`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use reconciler::{
    name::{ContainerId, LinkName, PodUid},
    pod::{link::link_name, memory::NodeMemory},
};
use serde::{Deserialize, Serialize};

use super::{appeared::AppearedFile, troubles::Troubles};
use crate::{
    state_file::{self, StateFileError},
    view::{HostTrouble, Part},
};

const SCHEMA: u32 = 1;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct MemoryDocument {
    pods: NodeMemory,
    hooked: BTreeSet<ContainerId>,
}

/// `node.json`: written when it has changed, before any step that depends on it.
#[derive(Debug)]
pub(crate) struct HostMemory {
    path: PathBuf,
    saved: MemoryDocument,
    current: MemoryDocument,
    /// Pods that have a directory of files on the disk, with the digest of those files.
    pub(crate) files: BTreeMap<PodUid, String>,
    /// When each object first appeared.
    pub(super) appeared: AppearedFile,
}

impl HostMemory {
    pub(crate) fn open(data: &Path) -> Result<Self, StateFileError> {
        let path = data.join("node.json");
        let saved: MemoryDocument = state_file::read(&path, SCHEMA)?.unwrap_or_default();
        Ok(Self {
            path,
            current: saved.clone(),
            saved,
            files: BTreeMap::new(),
            appeared: AppearedFile::open(data),
        })
    }

    pub(crate) fn pods(&self) -> &NodeMemory {
        &self.current.pods
    }

    pub(super) fn set_pods(&mut self, pods: NodeMemory) {
        self.current.pods = pods;
    }

    /// Reserves again the addresses of connected pods that `node.json` does not have: the file was
    /// lost, and a running pod keeps its address.
    pub(crate) fn recover_addresses(&mut self, links: &BTreeMap<LinkName, Ipv4Addr>) {
        for uid in self.files.keys() {
            if let Some(address) = links.get(&link_name(uid)) {
                let pod = self.current.pods.pods.entry(uid.clone()).or_default();
                pod.address.get_or_insert(*address);
            }
        }
    }

    pub(super) fn hooked(&self) -> &BTreeSet<ContainerId> {
        &self.current.hooked
    }

    pub(super) fn hook_done(&mut self, container: ContainerId) {
        self.current.hooked.insert(container);
    }

    /// Forgets the hooks of containers that are not the current container of any pod.
    fn forget_hooks(&mut self) {
        let current: BTreeSet<&ContainerId> = self
            .current
            .pods
            .pods
            .values()
            .flat_map(|pod| pod.containers.values())
            .filter_map(|container| container.id.as_ref())
            .collect();
        let gone: Vec<ContainerId> = self
            .current
            .hooked
            .iter()
            .filter(|id| !current.contains(*id))
            .cloned()
            .collect();
        for id in gone {
            self.current.hooked.remove(&id);
        }
    }

    /// Writes the file if its content has changed.
    pub(super) async fn save_if_changed(&mut self, troubles: &mut Troubles) {
        self.forget_hooks();
        if self.current == self.saved {
            return;
        }
        let (path, document) = (self.path.clone(), self.current.clone());
        let written = tokio::task::spawn_blocking(move || {
            state_file::write(&path, SCHEMA, &document).map(|()| document)
        })
        .await;
        match written {
            Ok(Ok(document)) => {
                self.saved = document;
                troubles.clear(Part::Memory);
            }
            Ok(Err(error)) => {
                troubles.set(Part::Memory, HostTrouble::failed(error));
            }
            Err(error) => {
                troubles.set(Part::Memory, HostTrouble::failed(error));
            }
        }
    }
}
