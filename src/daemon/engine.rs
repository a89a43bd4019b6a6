//! The container engine with what acts on it: lanes and probes.

use std::{path::Path, sync::Arc};

use anyhow::Result;
use netfilter::{HostNet, Network};
use reconciler::name::Installation;
use runtime::{Pods, Prober, Runtime};
use tokio::sync::mpsc;

use super::settings::runtime_config;
use crate::{
    apply::Effects,
    config::Config,
    cycle::HostMemory,
    lanes::{LaneEvent, Lanes},
    last_outputs::OutputsFile,
};

/// The engine's side of the daemon.
pub(super) struct OpenedEngine {
    pub(super) runtime: Runtime,
    /// The same as `runtime`, for the loop.
    pub(super) pods: Arc<dyn Pods>,
    effects: Arc<Effects>,
    pub(super) lanes: Lanes,
    pub(super) lane_events: mpsc::UnboundedReceiver<LaneEvent>,
    pub(super) prober: Prober,
}

impl OpenedEngine {
    /// Opens the engine, whether it answers or not. Its containers carry `installation` as a label.
    pub(super) async fn open(
        config: &Config,
        data: &Path,
        installation: &Installation,
        network: &Arc<Network>,
    ) -> Result<Self> {
        let runtime = Runtime::open(runtime_config(config, installation, data)?).await?;
        let outputs = OutputsFile::in_dir(data);
        runtime.restore_outputs(outputs.read());
        tokio::spawn(outputs.follow(runtime.last_outputs()));
        // The first pod needs the image; the engine may not answer yet.
        tokio::spawn({
            let runtime = runtime.clone();
            async move { runtime.load_sandbox_image().await }
        });

        let pods: Arc<dyn Pods> = Arc::new(runtime.clone());
        let network: Arc<dyn HostNet> = network.clone();
        let effects = Arc::new(Effects::new(Arc::clone(&pods), network, data.join("pods")));
        let (lanes, lane_events) = Lanes::new(Arc::clone(&effects));
        let prober = Prober::new(runtime.clone());
        Ok(Self {
            runtime,
            pods,
            effects,
            lanes,
            lane_events,
            prober,
        })
    }

    /// Adds to this host's memory what a crash may have kept from its file: the directories of pods
    /// on the disk, and the addresses of the pods that are connected.
    pub(super) async fn recover(
        &self,
        mut memory: HostMemory,
        network: &Network,
    ) -> Result<HostMemory> {
        match self.effects.files_on_disk().await {
            Ok(files) => memory.files = files.into_iter().collect(),
            Err(fault) => tracing::warn!("{fault}"),
        }
        memory.recover_addresses(&network.addresses().await?);
        Ok(memory)
    }
}
