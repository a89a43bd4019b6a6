//! What the daemon opens first: this host's own files, and the store.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use reconciler::name::NodeName;
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    config::Config,
    cycle::{DetourFile, HostMemory},
    http::serve::Bound,
    store::{LocalStore, MARKER, ReplicatedStore, Store, StoreEvent},
    trust::TrustStore,
};

/// What this host has on its disk, and the cluster's store.
pub(super) struct OpenedState {
    pub(super) node: NodeName,
    pub(super) store: Store,
    pub(super) store_events: mpsc::UnboundedReceiver<StoreEvent>,
    pub(super) trust: Arc<Mutex<TrustStore>>,
    pub(super) memory: HostMemory,
    pub(super) detour: DetourFile,
}

impl OpenedState {
    /// Opens the store first: a new host waits for its cluster, and ends without anything to undo.
    pub(super) async fn open(
        config: &Config,
        data: &Path,
        bound: &Bound,
        end: &Notify,
    ) -> Result<Self> {
        let node = config.node_name()?;
        let (store, store_events) = open_store(config, data, bound, end).await?;
        Ok(Self {
            node,
            store,
            store_events,
            trust: Arc::new(Mutex::new(TrustStore::open(&data.join("trust"))?)),
            memory: HostMemory::open(data)?,
            detour: DetourFile::open(data)?,
        })
    }
}

/// Opens the store: the local one, or that of a cluster, which a new host has to wait for.
async fn open_store(
    config: &Config,
    data: &Path,
    bound: &Bound,
    end: &Notify,
) -> Result<(Store, mpsc::UnboundedReceiver<StoreEvent>)> {
    let Some(joining) = config.joining()? else {
        ensure!(
            !data.join(MARKER).exists(),
            "this host is of a cluster ({} is there), and [store] of the configuration has no endpoints: alone it would \
             run the whole cluster's pods; put them back, or `windlass uninstall` first",
            data.join(MARKER).display()
        );
        // A host that is alone receives no events of a store.
        let (_, events) = mpsc::unbounded_channel();
        return Ok((
            Store::Local(Box::new(LocalStore::open(data, &config.node_name()?)?)),
            events,
        ));
    };

    let (waiting, waits) = watch::channel("it opens the cluster's store".to_owned());
    let _answering = bound.say_waiting(&waits).context("answer on the sockets")?;
    tokio::select! {
        opened = ReplicatedStore::open(data, joining, &waiting) => {
            let (store, events) = opened.context("open the cluster's store")?;
            Ok((Store::Replicated(Box::new(store)), events))
        }
        () = end.notified() => bail!("a signal ended the daemon while it waited for the cluster's store"),
    }
}
