//! The runtime as a whole: its parts, and the steps that are one call.

mod engine_info;
pub(crate) mod exec;
mod image;
mod logs;

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::Arc,
};

use reconciler::{
    fault::Fault,
    name::{ContainerId, PodUid},
    plan::PodFiles,
};
use tokio::{
    sync::{Semaphore, watch},
    task::AbortHandle,
};

use self::{
    exec::Overdue,
    image::{Images, record::RecordError},
};
use crate::{
    config::RuntimeConfig,
    docker::{CallError, Engine},
    events,
    http::HttpClient,
    observer::{LastOutput, LastOutputs, Observation, Observer},
    pulse,
    translate::Host,
    volume::{self, HostPathRules},
};

pub use self::{
    engine_info::EngineInfo,
    exec::ExecOutcome,
    image::{ImagePull, PullStage, collect::Collected},
    logs::{LogOptions, LogStream},
};

/// How many execs are started concurrently; how long each of them then runs is limited by its own
/// deadline.
const EXEC_STARTS: usize = 8;

/// Containers on one engine. Cheap to clone; dropping the last clone stops following the engine's
/// events.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: RuntimeConfig,
    pub(crate) host: Host,
    pub(crate) observer: Arc<Observer>,
    pub(crate) images: Images,
    pub(crate) http: HttpClient,
    pub(crate) exec_starts: Semaphore,
    pub(crate) overdue: Arc<Overdue>,
    events: AbortHandle,
    pulse: AbortHandle,
}

/// Why the runtime could not be opened. An unreachable engine is not an error: it may start later.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The directory for the pods cannot be made.
    #[error("cannot make the directory {}", path.display())]
    PodsDir {
        /// The path of the directory.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The record of pulled images cannot be used.
    #[error("cannot use the record of pulled images")]
    Record(#[from] RecordError),
    /// The host's memory, which the OOM scores need, cannot be read.
    #[error("cannot read /proc/meminfo")]
    Memory(#[source] io::Error),
    /// The client for probes cannot be made.
    #[error("cannot make the HTTP client for probes")]
    Http(#[source] reqwest::Error),
}

impl Runtime {
    /// Opens the runtime and starts to follow the engine's events. Must be called inside a tokio
    /// runtime.
    pub async fn open(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        // Others may traverse the directory, for an engine that maps users, and cannot list it.
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&config.pods_dir)
            .map_err(|source| RuntimeError::PodsDir {
                path: config.pods_dir.clone(),
                source,
            })?;

        let memory_bytes = host_memory_bytes().map_err(RuntimeError::Memory)?;
        let host = Host {
            installation: config.installation.clone(),
            cgroup_parent: config.cgroup_parent.clone(),
            memory_bytes,
            lowest_oom_score: lowest_oom_score(),
            logs: config.logs,
        };

        let images = Images::open(&config)?;
        let http = HttpClient::new().map_err(RuntimeError::Http)?;
        let engine = Arc::new(Engine::new(
            config.socket.clone(),
            config.call_timeout,
            config.start_timeout,
        ));
        let observer = Arc::new(Observer::new(
            engine,
            config.installation.clone(),
            config.pods_dir.clone(),
        ));

        let events = tokio::spawn(events::follow(Arc::clone(&observer))).abort_handle();
        let pulse = tokio::spawn(pulse::follow(Arc::clone(&observer))).abort_handle();
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                host,
                observer,
                images,
                http,
                exec_starts: Semaphore::new(EXEC_STARTS),
                overdue: Arc::default(),
                events,
                pulse,
            }),
        })
    }

    /// All containers of this installation, and the images. Inspects only what has changed since
    /// the last call.
    pub async fn observe(&self) -> Result<Observation, Fault> {
        self.inner.observer.observe().await
    }

    /// Makes the next `observe` inspect everything: recovers from a lost event.
    pub fn resync(&self) {
        self.inner.observer.everything_dirty();
    }

    /// A counter that changes whenever `observe` may return something new.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.observer.subscribe()
    }

    /// The last lines that containers printed before they failed. They are read from the call on,
    /// and at first also of containers that had failed before.
    pub fn last_outputs(&self) -> watch::Receiver<LastOutputs> {
        self.inner.observer.output_reader.subscribe()
    }

    /// Adds outputs that were kept before a restart.
    pub fn restore_outputs(&self, outputs: Vec<LastOutput>) {
        self.inner.observer.output_reader.add(outputs);
    }

    /// Waits, for at most a second, until the outputs are read of all containers that were observed
    /// to have failed.
    pub async fn outputs_are_read(&self) {
        self.inner.observer.output_reader.all_are_read().await;
    }

    /// Creates a pod's directory, its etc files and its volumes. Idempotent.
    pub async fn prepare_files(&self, files: &PodFiles) -> Result<(), Fault> {
        let (pods, files, rules) = (self.pods_dir(), files.clone(), self.host_path_rules());
        blocking(move || volume::prepare(&pods, &files, &rules)).await
    }

    /// Removes a pod's directory with its volumes.
    pub async fn remove_files(&self, pod: &PodUid) -> Result<(), Fault> {
        let (pods, pod) = (self.pods_dir(), pod.clone());
        blocking(move || volume::remove(&pods, &pod)).await
    }

    /// The pods that have a directory; a directory of a pod that is in no plan was left over by a
    /// crash.
    pub async fn pods_on_disk(&self) -> Result<Vec<PodUid>, Fault> {
        let pods = self.pods_dir();
        blocking(move || volume::pods(&pods)).await
    }

    /// Unpauses a container. A container that is not paused is not an error.
    pub async fn unpause(&self, container: &ContainerId) -> Result<(), Fault> {
        let id = container.as_str();
        let unpaused = self
            .engine()
            .call(|docker| async move { docker.unpause_container(id).await })
            .await;
        self.inner.observer.container_dirty(container);
        match unpaused {
            Err(CallError::Refused { message, .. }) if message.contains("is not paused") => Ok(()),
            other => {
                other.map_err(|error| error.into_fault(&format!("cannot unpause container {id}")))
            }
        }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.inner.observer.engine
    }

    pub(crate) fn host_path_rules(&self) -> HostPathRules {
        let config = &self.inner.config;
        HostPathRules {
            forbidden: config.forbidden_paths.clone(),
            allowed: config.allowed_paths.clone(),
        }
    }

    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.inner.config.pods_dir.clone()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.events.abort();
        self.pulse.abort();
    }
}

/// Runs blocking work on a thread where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(Fault::new(
                reconciler::fault::FaultKind::Other,
                format!("work on the disk ended early: {error}"),
            ))
        })
}

fn host_memory_bytes() -> io::Result<u64> {
    // `MemTotal:       16314116 kB`, in units of 1024 bytes whatever the unit is called.
    let total_kib = |line: &str| {
        let amount = line.strip_prefix("MemTotal:")?.trim();
        amount.strip_suffix(" kB")?.parse::<u64>().ok()
    };
    match fs::read_to_string("/proc/meminfo")?
        .lines()
        .find_map(total_kib)
    {
        Some(kib) => Ok(kib * 1024),
        None => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// `CAP_SYS_RESOURCE`, as a bit of the masks in `/proc/<pid>/status`.
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// A capability that the first process cannot have, no container can have here. Where the
/// capabilities cannot be read, the score is 0, which works everywhere.
fn lowest_oom_score() -> i64 {
    let status = fs::read_to_string("/proc/1/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    match bounding.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) {
        Some(mask) if mask & CAP_SYS_RESOURCE != 0 => -1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use self::logs::LogOptions;
    use super::*;

    /// Never called: callers spawn these futures, and the test is that this compiles.
    #[expect(dead_code, reason = "only compiled")]
    fn everything_can_be_spawned(runtime: &Runtime, container: &ContainerId) {
        fn spawnable<T: Send>(_: T) {}
        spawnable(runtime.observe());
        spawnable(runtime.exec(container, &[], Duration::ZERO));
        spawnable(runtime.logs(container, LogOptions::default()));
        spawnable(runtime.collect_garbage(&BTreeSet::new(), 80));
        spawnable(runtime.engine_info());
        spawnable(runtime.pods_on_disk());
        spawnable(runtime.uninstall());
    }
}
