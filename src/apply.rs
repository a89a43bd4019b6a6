//! Executes steps: one `match` turns a step into an effect. No decision is made here.

use std::{path::PathBuf, sync::Arc};

use netfilter::HostNet;
use reconciler::{
    fault::{Fault, FaultKind},
    name::{CommitId, ContainerId, ImageReference, PodUid},
    plan::{ImagePin, Step},
    pod::files::config_digest,
};
use runtime::Pods;
use tokio::sync::Semaphore;

use crate::crash;

/// How many sandboxes and containers are created or started concurrently, and how many pods are
/// removed concurrently.
const ENGINE_SLOTS: usize = 8;
/// The file with the digest of a pod's files, written once all of them exist.
const DIGEST_FILE: &str = "digest";
/// The beginning of the digest file; a digest of another schema counts as unknown.
const DIGEST_SCHEMA: &str = "1 ";

/// The parts through which steps act on the engine, the network and the disk.
pub(crate) struct Effects {
    runtime: Arc<dyn Pods>,
    network: Arc<dyn HostNet>,
    pods_dir: PathBuf,
    engine: Semaphore,
    removals: Semaphore,
}

/// The result of a step that must be remembered.
#[derive(Debug)]
pub(crate) enum Done {
    /// The image is on this host, with this id.
    Pinned(CommitId, ImageReference, ImagePin),
    /// The files of a pod exist, with this digest.
    Files(PodUid, String),
    /// The files of a pod were removed.
    FilesGone(PodUid),
    /// A postStart hook has run.
    Hooked(ContainerId),
}

impl Effects {
    pub(crate) fn new(
        runtime: Arc<dyn Pods>,
        network: Arc<dyn HostNet>,
        pods_dir: PathBuf,
    ) -> Self {
        Self {
            runtime,
            network,
            pods_dir,
            engine: Semaphore::new(ENGINE_SLOTS),
            removals: Semaphore::new(ENGINE_SLOTS),
        }
    }

    /// Executes one step.
    pub(crate) async fn apply(&self, step: &Step) -> Result<Option<Done>, Fault> {
        let done = self.effect(step).await?;
        // The loop records the result of a step only after this point.
        crash::point(name(step));
        Ok(done)
    }

    async fn effect(&self, step: &Step) -> Result<Option<Done>, Fault> {
        match step {
            Step::PullImage {
                commit,
                image,
                reference,
                mode,
            } => {
                let pin = self.runtime.pull(reference, *mode).await?;
                return Ok(Some(Done::Pinned(commit.clone(), image.clone(), pin)));
            }
            Step::PrepareFiles(files) => {
                self.runtime.prepare_files(files).await?;
                // Written last: without a digest the directory counts as incomplete.
                let digest = config_digest(files);
                self.write_digest(&files.pod, &digest)?;
                return Ok(Some(Done::Files(files.pod.clone(), digest)));
            }
            Step::StartSandbox(spec) => {
                let _slot = self.engine.acquire().await;
                self.runtime.start_sandbox(spec).await?;
            }
            Step::Connect { pod, link } => {
                let namespace = self.runtime.netns(pod).await?;
                self.network.connect(link, namespace).await?;
            }
            Step::StartContainer(spec) => {
                let _slot = self.engine.acquire().await;
                self.runtime.start_container(spec).await?;
            }
            Step::PostStart {
                container,
                handler,
                address,
            } => {
                self.runtime
                    .post_start(container, handler, *address)
                    .await?;
                return Ok(Some(Done::Hooked(container.clone())));
            }
            Step::Unpause(container) => self.runtime.unpause(container).await?,
            Step::Drain(time) => tokio::time::sleep(*time).await,
            Step::Stop(specs) => self.runtime.stop(specs).await?,
            Step::Remove(containers) => {
                // Removals have slots of their own: a removal that hangs must not prevent
                // containers from being started.
                let _slot = self.removals.acquire().await;
                self.runtime.remove(containers).await?;
            }
            Step::Disconnect(link) => self.network.disconnect(link).await?,
            Step::RemoveFiles(pod) => {
                self.runtime.remove_files(pod).await?;
                return Ok(Some(Done::FilesGone(pod.clone())));
            }
        }
        Ok(None)
    }

    /// The pods with files on the disk from before the start, with the digests of the files.
    pub(crate) async fn files_on_disk(&self) -> Result<Vec<(PodUid, String)>, Fault> {
        let pods = self.runtime.pods_on_disk().await?;
        // A directory without a digest is incomplete; it is listed, so that it can be removed or
        // made again.
        let digest = |pod: &PodUid| {
            let text = std::fs::read_to_string(self.digest_path(pod)).unwrap_or_default();
            text.strip_prefix(DIGEST_SCHEMA)
                .map(str::to_owned)
                .unwrap_or_default()
        };
        Ok(pods
            .into_iter()
            .map(|pod| (pod.clone(), digest(&pod)))
            .collect())
    }

    fn digest_path(&self, pod: &PodUid) -> PathBuf {
        self.pods_dir.join(pod.as_str()).join(DIGEST_FILE)
    }

    fn write_digest(&self, pod: &PodUid, digest: &str) -> Result<(), Fault> {
        let path = self.digest_path(pod);
        std::fs::write(&path, format!("{DIGEST_SCHEMA}{digest}")).map_err(|error| {
            let full = error.kind() == std::io::ErrorKind::StorageFull;
            let kind = if full {
                FaultKind::DiskFull
            } else {
                FaultKind::Other
            };
            Fault::new(kind, format!("cannot write {}: {error}", path.display()))
        })
    }
}

/// The name of a step, for logs and crash points.
pub(crate) fn name(step: &Step) -> &'static str {
    match step {
        Step::PullImage { .. } => "pull-image",
        Step::PrepareFiles(_) => "prepare-files",
        Step::StartSandbox(_) => "start-sandbox",
        Step::Connect { .. } => "connect",
        Step::StartContainer(_) => "start-container",
        Step::PostStart { .. } => "post-start",
        Step::Unpause(_) => "unpause",
        Step::Drain(_) => "drain",
        Step::Stop(_) => "stop",
        Step::Remove(_) => "remove",
        Step::Disconnect(_) => "disconnect",
        Step::RemoveFiles(_) => "remove-files",
    }
}

/// The container of a step, for the message of its failure.
pub(crate) fn container_of(step: &Step) -> Option<String> {
    match step {
        Step::StartContainer(spec) => Some(spec.name.clone()),
        Step::PullImage { .. }
        | Step::PrepareFiles(_)
        | Step::StartSandbox(_)
        | Step::Connect { .. }
        | Step::PostStart { .. }
        | Step::Unpause(_)
        | Step::Drain(_)
        | Step::Stop(_)
        | Step::Remove(_)
        | Step::Disconnect(_)
        | Step::RemoveFiles(_) => None,
    }
}
