//! The interface between the steps of a plan and the engine: the real one, or a fake one in tests
//! of the layers above.

use std::{collections::BTreeSet, net::Ipv4Addr, os::fd::OwnedFd};

use async_trait::async_trait;
use reconciler::{
    fault::Fault,
    name::{ContainerId, ImageId, PodUid},
    object::Handler,
    plan::{ContainerSpec, ImagePin, PodFiles, PullMode, SandboxSpec, StopSpec},
};
use tokio::sync::watch;

use crate::{Collected, Observation, Runtime};

/// The operations of a host on pods: one method for each step, and the queries that observe the
/// results. All are idempotent.
#[async_trait]
pub trait Pods: Send + Sync {
    /// See [`Runtime::observe`].
    async fn observe(&self) -> Result<Observation, Fault>;
    /// See [`Runtime::changed`].
    fn changed(&self) -> watch::Receiver<u64>;
    /// See [`Runtime::resync`].
    fn resync(&self);
    /// See [`Runtime::collect_garbage`].
    async fn collect_garbage(
        &self,
        keep: &BTreeSet<ImageId>,
        above_percent: u8,
    ) -> Result<Collected, Fault>;
    /// See [`Runtime::pods_on_disk`].
    async fn pods_on_disk(&self) -> Result<Vec<PodUid>, Fault>;
    /// See [`Runtime::pull`].
    async fn pull(&self, image: &str, mode: PullMode) -> Result<ImagePin, Fault>;
    /// See [`Runtime::prepare_files`].
    async fn prepare_files(&self, files: &PodFiles) -> Result<(), Fault>;
    /// See [`Runtime::start_sandbox`].
    async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<(), Fault>;
    /// See [`Runtime::netns`].
    async fn netns(&self, pod: &PodUid) -> Result<OwnedFd, Fault>;
    /// See [`Runtime::start_container`].
    async fn start_container(&self, spec: &ContainerSpec) -> Result<(), Fault>;
    /// See [`Runtime::post_start`].
    async fn post_start(
        &self,
        container: &ContainerId,
        handler: &Handler,
        address: Ipv4Addr,
    ) -> Result<(), Fault>;
    /// See [`Runtime::unpause`].
    async fn unpause(&self, container: &ContainerId) -> Result<(), Fault>;
    /// See [`Runtime::stop`].
    async fn stop(&self, stops: &[StopSpec]) -> Result<(), Fault>;
    /// See [`Runtime::remove`].
    async fn remove(&self, containers: &[ContainerId]) -> Result<(), Fault>;
    /// See [`Runtime::remove_files`].
    async fn remove_files(&self, pod: &PodUid) -> Result<(), Fault>;
}

#[async_trait]
impl Pods for Runtime {
    async fn observe(&self) -> Result<Observation, Fault> {
        Runtime::observe(self).await
    }

    fn changed(&self) -> watch::Receiver<u64> {
        Runtime::changed(self)
    }

    fn resync(&self) {
        Runtime::resync(self);
    }

    async fn collect_garbage(
        &self,
        keep: &BTreeSet<ImageId>,
        above_percent: u8,
    ) -> Result<Collected, Fault> {
        Runtime::collect_garbage(self, keep, above_percent).await
    }

    async fn pods_on_disk(&self) -> Result<Vec<PodUid>, Fault> {
        Runtime::pods_on_disk(self).await
    }

    async fn pull(&self, image: &str, mode: PullMode) -> Result<ImagePin, Fault> {
        Runtime::pull(self, image, mode).await
    }

    async fn prepare_files(&self, files: &PodFiles) -> Result<(), Fault> {
        Runtime::prepare_files(self, files).await
    }

    async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<(), Fault> {
        Runtime::start_sandbox(self, spec).await
    }

    async fn netns(&self, pod: &PodUid) -> Result<OwnedFd, Fault> {
        Runtime::netns(self, pod).await
    }

    async fn start_container(&self, spec: &ContainerSpec) -> Result<(), Fault> {
        Runtime::start_container(self, spec).await
    }

    async fn post_start(
        &self,
        container: &ContainerId,
        handler: &Handler,
        address: Ipv4Addr,
    ) -> Result<(), Fault> {
        Runtime::post_start(self, container, handler, address).await
    }

    async fn unpause(&self, container: &ContainerId) -> Result<(), Fault> {
        Runtime::unpause(self, container).await
    }

    async fn stop(&self, stops: &[StopSpec]) -> Result<(), Fault> {
        Runtime::stop(self, stops).await
    }

    async fn remove(&self, containers: &[ContainerId]) -> Result<(), Fault> {
        Runtime::remove(self, containers).await
    }

    async fn remove_files(&self, pod: &PodUid) -> Result<(), Fault> {
        Runtime::remove_files(self, pod).await
    }
}
