//! The seam between a plan and what runs it: the real engine, or a fake one in tests of what is
//! above.

use std::{future::Future, net::Ipv4Addr, os::fd::OwnedFd};

use reconciler::{
    fault::Fault,
    name::{ContainerId, PodUid},
    object::Handler,
    plan::{ContainerSpec, ImagePin, PodFiles, PullMode, SandboxSpec, StopSpec},
};
use tokio::sync::watch;

use crate::{Observation, Runtime};

/// What a host can do with pods: one method a step, and two to see what came of it. All may be done
/// again.
pub trait Pods: Clone + Send + Sync + 'static {
    /// See [`Runtime::observe`].
    fn observe(&self) -> impl Future<Output = Result<Observation, Fault>> + Send;
    /// See [`Runtime::changed`].
    fn changed(&self) -> watch::Receiver<u64>;
    /// See [`Runtime::pull`].
    fn pull(
        &self,
        image: &str,
        mode: PullMode,
    ) -> impl Future<Output = Result<ImagePin, Fault>> + Send;
    /// See [`Runtime::prepare_files`].
    fn prepare_files(&self, files: &PodFiles) -> impl Future<Output = Result<(), Fault>> + Send;
    /// See [`Runtime::start_sandbox`].
    fn start_sandbox(&self, spec: &SandboxSpec) -> impl Future<Output = Result<(), Fault>> + Send;
    /// See [`Runtime::netns`].
    fn netns(&self, pod: &PodUid) -> impl Future<Output = Result<OwnedFd, Fault>> + Send;
    /// See [`Runtime::start_container`].
    fn start_container(
        &self,
        spec: &ContainerSpec,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
    /// See [`Runtime::post_start`].
    fn post_start(
        &self,
        container: &ContainerId,
        handler: &Handler,
        address: Ipv4Addr,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
    /// See [`Runtime::unpause`].
    fn unpause(&self, container: &ContainerId) -> impl Future<Output = Result<(), Fault>> + Send;
    /// See [`Runtime::stop`].
    fn stop(&self, stops: &[StopSpec]) -> impl Future<Output = Result<(), Fault>> + Send;
    /// See [`Runtime::remove`].
    fn remove(&self, containers: &[ContainerId]) -> impl Future<Output = Result<(), Fault>> + Send;
    /// See [`Runtime::remove_files`].
    fn remove_files(&self, pod: &PodUid) -> impl Future<Output = Result<(), Fault>> + Send;
}

impl Pods for Runtime {
    async fn observe(&self) -> Result<Observation, Fault> {
        Runtime::observe(self).await
    }

    fn changed(&self) -> watch::Receiver<u64> {
        Runtime::changed(self)
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
