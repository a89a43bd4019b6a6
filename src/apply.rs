//! The one match: a step becomes an effect. Nothing is decided here.

use std::{path::PathBuf, sync::Arc};

use netfilter::HostNet;
use reconciler::{
    fault::{Fault, FaultKind},
    name::{CommitId, ContainerId, PodUid},
    plan::{ImagePin, Step},
    pod::files::config_digest,
};
use runtime::Pods;
use tokio::sync::Semaphore;

use crate::crash;

/// How many sandboxes and containers are being created or started side by side, and how many pods'
/// are being removed.
const ENGINE_SLOTS: usize = 8;
/// Holds the digest of a pod's files once they are all there.
const DIGEST_FILE: &str = "digest";
/// What the file begins with; a digest of another schema is one that is not known.
const DIGEST_SCHEMA: &str = "1 ";

/// The hands of the daemon.
pub(crate) struct Effects {
    runtime: Arc<dyn Pods>,
    network: Arc<dyn HostNet>,
    pods_dir: PathBuf,
    engine: Semaphore,
    removals: Semaphore,
}

/// What a step did that somebody must remember.
#[derive(Debug)]
pub(crate) enum Done {
    /// An image is here, and is this one.
    Pinned(CommitId, String, ImagePin),
    /// A pod's files are there.
    Files(PodUid, String),
    /// A pod's files are gone.
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

    /// Does one step.
    pub(crate) async fn apply(&self, step: &Step) -> Result<Option<Done>, Fault> {
        let done = self.effect(step).await?;
        // What a step did is recorded by the loop, later than this.
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
                // Slots of their own: removals that hang must not keep containers from being
                // started.
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

    /// What is on the disk from before: pods with all their files.
    pub(crate) async fn files_on_disk(&self) -> Result<Vec<(PodUid, String)>, Fault> {
        let pods = self.runtime.pods_on_disk().await?;
        // A directory without a digest was left half made; it is known, so that it can be removed
        // or made again.
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

/// What a step is called.
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

/// The container a step is about, for the message of its failure.
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
