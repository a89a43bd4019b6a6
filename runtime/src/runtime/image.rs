//! Pulling images, and pinning them: which image a tag is.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bollard::{
    auth::DockerCredentials,
    models::{CreateImageInfo, ImageInspect},
    query_parameters::CreateImageOptionsBuilder,
};
use futures_util::{FutureExt, StreamExt, future::Shared};
use parking_lot::Mutex;
use reconciler::{
    fault::{Fault, FaultKind},
    name::ImageId,
    plan::{ImagePin, PullMode},
};
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

use crate::{
    config::{RegistryAuth, RuntimeConfig},
    docker::CallError,
    runtime::Runtime,
};

pub(crate) mod collect;
mod credentials;
mod progress;
pub(crate) mod record;
mod reference;

use progress::Progress;
pub use progress::{ImagePull, PullStage};
use record::Record;
use reference::Reference;

/// The result of a pull, shared by all that wait for it.
type PullResult = Result<Pulled, Fault>;
type SharedPull = Shared<oneshot::Receiver<PullResult>>;

/// What a pull changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pulled {
    /// The image was not on this host before.
    newer: bool,
}

/// A pull under way.
struct UnderWay {
    result: SharedPull,
    progress: Progress,
}

/// Settings of pulls, pulls under way, and the record of pulled images.
pub(crate) struct Images {
    registries: Vec<RegistryAuth>,
    docker_config: Option<PathBuf>,
    slots: Semaphore,
    /// Pulls under way, by reference: a second pull of the same reference waits for the first.
    under_way: Mutex<BTreeMap<String, UnderWay>>,
    record: Mutex<Record>,
}

impl Images {
    pub(crate) fn open(config: &RuntimeConfig) -> Result<Self, record::RecordError> {
        Ok(Self {
            registries: config.registries.clone(),
            docker_config: config.docker_config.clone(),
            slots: Semaphore::new(config.pull_concurrency.max(1)),
            under_way: Mutex::default(),
            record: Mutex::new(Record::open(&config.images_file)?),
        })
    }
}

impl Runtime {
    /// Ensures that an image is on this host, and returns its pin.
    pub async fn pull(&self, image: &str, mode: PullMode) -> Result<ImagePin, Fault> {
        let what = format!("cannot get image {image}");
        let fault = |kind, why: &str| Fault::new(kind, format!("{what}: {why}"));
        let Some(reference) = Reference::parse(image) else {
            let why = "that is not a name of an image";
            return Err(fault(FaultKind::ImageMissing, why));
        };

        // Only `Always` asks the registry about an image that is here.
        if mode != PullMode::Always
            && let Some(pin) = self.here(&reference, &what).await?
        {
            return Ok(pin);
        }
        if mode == PullMode::Never {
            let why = "it is not on this host, and imagePullPolicy is Never";
            return Err(fault(FaultKind::ImageMissing, why));
        }

        let failed = match self.pull_once(&reference, &what).await {
            Ok(_) => None,
            // A host without its registry must be able to restart its pods.
            Err(fault)
                if fault.kind == FaultKind::RegistryUnreachable && mode == PullMode::Always =>
            {
                Some(fault)
            }
            Err(fault) => return Err(fault),
        };
        match (self.here(&reference, &what).await?, failed) {
            (Some(pin), None) => Ok(pin),
            (Some(pin), Some(fault)) => {
                let warning = format!(
                    "the registry could not be asked, the local image is used ({})",
                    fault.message
                );
                Ok(ImagePin {
                    warning: Some(warning),
                    ..pin
                })
            }
            (None, Some(fault)) => Err(fault),
            (None, None) => {
                let why = "it was removed right after its pull";
                Err(fault(FaultKind::Gone, why))
            }
        }
    }

    /// The pin of an image that is on this host; `None` if the image is not here.
    async fn here(&self, reference: &Reference, what: &str) -> Result<Option<ImagePin>, Fault> {
        let name = reference.full();
        let inspected = self
            .engine()
            .call(|docker| async move { docker.inspect_image(&name).await })
            .await;
        match inspected {
            Ok(found) => Ok(Some(pin(&found, reference))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into_pull_fault(what)),
        }
    }

    /// Pulls, or waits for the pull of the same reference that is under way. The pull continues
    /// when nothing waits for it any more.
    async fn pull_once(&self, reference: &Reference, what: &str) -> PullResult {
        let pull = {
            let mut under_way = self.inner.images.under_way.lock();
            match under_way.get(&reference.full()) {
                Some(pull) => pull.result.clone(),
                None => {
                    let (done, pull) = oneshot::channel();
                    let pull = pull.shared();
                    let new = UnderWay {
                        result: pull.clone(),
                        progress: Progress::default(),
                    };
                    under_way.insert(reference.full(), new);
                    let (reference, what) = (reference.clone(), what.to_owned());
                    tokio::spawn(self.clone().pull_to_the_end(reference, what, done));
                    pull
                }
            }
        };
        pull.await.unwrap_or_else(|_| {
            Err(Fault::new(
                FaultKind::Cancelled,
                format!("{what}: the pull was cancelled"),
            ))
        })
    }

    async fn pull_to_the_end(
        self,
        reference: Reference,
        what: String,
        done: oneshot::Sender<PullResult>,
    ) {
        let images = &self.inner.images;
        let pulled = match images.slots.acquire().await {
            Ok(_slot) => self
                .pull_now(&reference)
                .await
                .map_err(|error| error.into_pull_fault(&what)),
            Err(_) => Err(Fault::new(
                FaultKind::Cancelled,
                format!("{what}: the runtime is closing"),
            )),
        };
        // An image that a person had pulled before is not newer: it is not recorded, and so never
        // collected.
        if pulled == Ok(Pulled { newer: true }) {
            self.remember(&reference, &what).await;
        }
        images.under_way.lock().remove(&reference.full());
        self.inner.observer.images_dirty();
        // All that waited for it may be gone.
        let _ = done.send(pulled);
    }

    async fn pull_now(&self, reference: &Reference) -> Result<Pulled, CallError> {
        let options = CreateImageOptionsBuilder::new()
            .from_image(&reference.name)
            .tag(reference.version())
            .build();
        let credentials = self.credentials(reference).await;

        let docker = self.engine().client().await?;
        let mut progress = docker
            .create_image(Some(options), None, credentials)
            .boxed();
        let silence = self.inner.config.pull_timeout;
        let mut newer = false;
        loop {
            match timeout(silence, progress.next()).await {
                Ok(Some(Ok(info))) => {
                    self.note_progress(&reference.full(), &info);
                    // The last line of a pull that `docker pull` prints, too; the other one is
                    // `Status: Image is up to date`.
                    let status = info.status.unwrap_or_default();
                    newer |= status.starts_with("Status: Downloaded newer image");
                }
                Ok(Some(Err(error))) => return Err(error.into()),
                Ok(None) => return Ok(Pulled { newer }),
                Err(_) => {
                    // The engine responds to other calls, so the registry is what does not respond.
                    let message = format!(
                        "the pull timed out: no progress within {} s",
                        silence.as_secs()
                    );
                    return Err(CallError::Refused { status: 0, message });
                }
            }
        }
    }

    fn note_progress(&self, image: &str, line: &CreateImageInfo) {
        if let Some(pull) = self.inner.images.under_way.lock().get_mut(image) {
            pull.progress.take(line);
        }
    }

    /// The pulls under way on this host.
    pub fn pulls(&self) -> Vec<ImagePull> {
        let under_way = self.inner.images.under_way.lock();
        let pulls = under_way.iter();
        pulls.map(|(image, pull)| pull.progress.of(image)).collect()
    }

    async fn credentials(&self, reference: &Reference) -> Option<DockerCredentials> {
        let host = reference.host();
        let images = &self.inner.images;
        let is_hosts = |auth: &&RegistryAuth| credentials::is_host(&auth.host, host);
        if let Some(auth) = images.registries.iter().find(is_hosts) {
            let content = read_credentials(&auth.password_file).await?;
            return credentials::from_password_file(content, &auth.user, host);
        }
        let content = read_credentials(images.docker_config.as_ref()?).await?;
        credentials::from_docker_config(&content, host)
    }

    /// Records a pulled image: only recorded images may be removed later.
    async fn remember(&self, reference: &Reference, what: &str) {
        let Ok(Some(pin)) = self.here(reference, what).await else {
            return;
        };
        let runtime = self.clone();
        let name = reference.full();
        let written = tokio::task::spawn_blocking(move || {
            let mut record = runtime.inner.images.record.lock();
            record.add(&pin.id, &name)
        })
        .await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "an image that was pulled is not on record and will not be collected");
        }
    }
}

async fn read_credentials(path: &Path) -> Option<Vec<u8>> {
    tokio::fs::read(path)
        .await
        .inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot read the registry credentials");
        })
        .ok()
}

/// The pin has the digest under the requested repository, since a registry serves it under no
/// other.
fn pin(found: &ImageInspect, reference: &Reference) -> ImagePin {
    let digests = found.repo_digests.as_deref().unwrap_or_default();
    let own = digests
        .iter()
        .find(|digest| digest.split('@').next() == Some(reference.familiar_name()));
    ImagePin {
        id: ImageId::new(found.id.clone().unwrap_or_default()),
        digest: own.or(digests.first()).cloned(),
        warning: None,
    }
}
