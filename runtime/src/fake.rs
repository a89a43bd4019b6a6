//! A fake of the engine that keeps its state in memory: a started container runs until a test ends
//! it.
//!
//! The fake follows the rules of the real engine where they matter to a plan: a container needs its
//! running sandbox and its image; starting a running container does nothing; starting an attempt
//! that has ended returns `Gone`; a second sandbox does not replace the first. The time is that of
//! the clock that the test passes in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bollard::models::ContainerInspectResponse;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use reconciler::{
    fault::{Fault, FaultKind},
    name::{ContainerId, ImageId, Installation, PodUid},
    object::Handler,
    observed::{ContainerState, ObservedContainer},
    plan::{ContainerSpec, ImagePin, PodFiles, PullMode, Role, SandboxSpec, StopSpec},
};
use tokio::sync::watch;

use crate::{Collected, Observation, Pods, observer::from_inspect, tree::remove_tree};

mod prober;
#[cfg(test)]
mod tests;

pub use prober::FakeProber;

/// Why recorded containers cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The record is not a list of inspections.
    #[error("the recorded containers cannot be read")]
    Json(#[from] serde_json::Error),
    /// The labels of a container cannot be read.
    #[error("the labels of container {0} cannot be read: {1}")]
    Labels(ContainerId, String),
}

/// The pods of a host, in memory. Clones share the same host.
#[derive(Clone)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

struct State {
    containers: BTreeMap<ContainerId, ObservedContainer>,
    images: BTreeSet<ImageId>,
    registry: BTreeMap<String, ImageId>,
    files: BTreeMap<PodUid, PodFiles>,
    faults: Vec<(String, Fault)>,
    /// The fault of each call that fails until [`FakeRuntime::mend`], by the beginning of its line.
    broken: BTreeMap<String, Fault>,
    /// Whether the engine does not respond.
    is_frozen: bool,
    stop_takes: Duration,
    calls: Vec<String>,
    made: u64,
    clock: fn() -> Timestamp,
    pods_dir: PathBuf,
}

impl FakeRuntime {
    /// A host without containers and images. Each pod has an empty directory in `pods_dir`, for the
    /// files that the daemon itself writes there.
    pub fn new(clock: fn() -> Timestamp, pods_dir: impl Into<PathBuf>) -> Self {
        let state = State {
            containers: BTreeMap::new(),
            images: BTreeSet::new(),
            registry: BTreeMap::new(),
            files: BTreeMap::new(),
            faults: Vec::new(),
            broken: BTreeMap::new(),
            is_frozen: false,
            stop_takes: Duration::ZERO,
            calls: Vec::new(),
            made: 0,
            clock,
            pods_dir: pods_dir.into(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Adds an image to the registry, or replaces the image of that name.
    pub fn publish(&self, image: &str, id: ImageId) {
        self.state().registry.insert(image.to_owned(), id);
    }

    /// Makes the next call whose line in `calls` begins with this text fail, once.
    pub fn fail_next(&self, call: &str, fault: Fault) {
        self.state().faults.push((call.to_owned(), fault));
    }

    /// Makes every call whose line in `calls` begins with this text fail, until
    /// [`mend`](Self::mend).
    pub fn break_calls(&self, call: &str, fault: Fault) {
        self.state().broken.insert(call.to_owned(), fault);
    }

    /// Ends the failures that [`break_calls`](Self::break_calls) began.
    pub fn mend(&self, call: &str) {
        self.state().broken.remove(call);
    }

    /// Makes the engine stop responding, or respond again. Running containers continue to run.
    pub fn freeze(&self, is_frozen: bool) {
        self.state().is_frozen = is_frozen;
        self.notify();
    }

    /// Sets how long a container takes to end when it is stopped.
    pub fn set_stop_takes(&self, time: Duration) {
        self.state().stop_takes = time;
    }

    /// Adds containers of this installation from a recorded answer of a real engine, the list of
    /// its inspections as JSON. Each becomes an observation as those of the real engine do.
    pub fn load(&self, inspections: &[u8], installation: &Installation) -> Result<(), LoadError> {
        let inspections: Vec<ContainerInspectResponse> = serde_json::from_slice(inspections)?;

        let mut state = self.state();
        for inspection in inspections {
            let id = ContainerId::new(inspection.id.clone().unwrap_or_default());
            let (_, observed) = from_inspect(inspection, installation)
                .map_err(|error| LoadError::Labels(id.clone(), error.to_string()))?;
            state.images.insert(observed.image.clone());
            state.containers.insert(id, observed);
        }
        Ok(())
    }

    /// All containers, in any state.
    pub fn containers(&self) -> BTreeMap<ContainerId, ObservedContainer> {
        self.state().containers.clone()
    }

    /// Every call that changes something, in order, one line each: `start_container default/web app
    /// 0`.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// Makes a container end by itself.
    pub fn exit(&self, container: &ContainerId, code: i64) {
        self.state().end(container, code);
        self.notify();
    }

    /// Pauses a container, as somebody else would.
    pub fn pause(&self, container: &ContainerId) {
        if let Some(found) = self.state().containers.get_mut(container)
            && let ContainerState::Running { started } = found.state
        {
            found.state = ContainerState::Paused { started };
        }
        self.notify();
    }

    /// The files of the last `prepare_files` of a pod; `None` if there are none.
    pub fn files(&self, pod: &PodUid) -> Option<PodFiles> {
        self.state().files.get(pod).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn notify(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Records a call, and executes it unless a test lets it fail.
    fn call<T>(
        &self,
        line: String,
        work: impl FnOnce(&mut State) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut state = self.state();
        state.answers()?;
        let begins = |call: &String| line.starts_with(call.as_str());
        let once = state.faults.iter().position(|(call, _)| begins(call));
        let mut broken_calls = state.broken.iter();
        let broken = broken_calls
            .find(|(call, _)| begins(call))
            .map(|(_, fault)| fault.clone());
        state.calls.push(line);
        let result = match (once, broken) {
            (Some(index), _) => Err(state.faults.remove(index).1),
            (None, Some(fault)) => Err(fault),
            (None, None) => work(&mut state),
        };
        drop(state);
        self.notify();
        result
    }
}

impl State {
    fn answers(&self) -> Result<(), Fault> {
        if self.is_frozen {
            let message = "the container engine does not answer";
            return Err(Fault::new(FaultKind::EngineUnreachable, message));
        }
        Ok(())
    }

    fn end(&mut self, container: &ContainerId, code: i64) {
        let finished = (self.clock)();
        let Some(found) = self.containers.get_mut(container) else {
            return;
        };
        if let ContainerState::Running { started } | ContainerState::Paused { started } =
            found.state
        {
            found.state = ContainerState::Exited {
                started,
                finished,
                code,
                oom: false,
                message: String::new(),
            };
        }
    }

    fn start(&mut self, container: ObservedContainer) -> Result<(), Fault> {
        let is_same = |other: &&mut ObservedContainer| {
            other.identity.uid == container.identity.uid
                && other.role == container.role
                && other.name == container.name
                && other.attempt == container.attempt
        };
        if let Some(found) = self.containers.values_mut().find(is_same) {
            if found.state.is_alive() {
                return Ok(());
            }
            return Err(gone(&format!(
                "{} has already run and ended",
                container.name
            )));
        }
        self.made += 1;
        self.containers
            .insert(ContainerId::new(format!("{:064x}", self.made)), container);
        Ok(())
    }

    fn find(&self, pod: &PodUid, role: Role, name: &str) -> Option<ContainerId> {
        let is_wanted = |found: &ObservedContainer| {
            found.identity.uid == *pod
                && found.role == role
                && found.name == name
                && found.state.is_alive()
        };
        self.containers
            .iter()
            .find(|(_, found)| is_wanted(found))
            .map(|(id, _)| id.clone())
    }
}

fn disk_fault(error: &std::io::Error) -> Fault {
    Fault::new(FaultKind::Other, format!("a pod's directory: {error}"))
}

fn gone(message: &str) -> Fault {
    Fault::new(FaultKind::Gone, message)
}

#[async_trait]
impl Pods for FakeRuntime {
    async fn observe(&self) -> Result<Observation, Fault> {
        let state = self.state();
        state.answers()?;
        Ok(Observation {
            containers: state.containers.clone(),
            images: state.images.clone(),
            left_alone: BTreeMap::new(),
        })
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn resync(&self) {
        self.notify();
    }

    async fn collect_garbage(
        &self,
        _keep: &BTreeSet<ImageId>,
        _above_percent: u8,
    ) -> Result<Collected, Fault> {
        Ok(Collected::default())
    }

    async fn pods_on_disk(&self) -> Result<Vec<PodUid>, Fault> {
        let pods_dir = self.state().pods_dir.clone();
        let Ok(directories) = fs::read_dir(pods_dir) else {
            return Ok(Vec::new());
        };
        let names = directories.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.map(PodUid::new).collect())
    }

    async fn pull(&self, image: &str, mode: PullMode) -> Result<ImagePin, Fault> {
        self.call(format!("pull {image}"), |state| {
            // The fake's digest of an image is its id.
            let published = match image.split_once('@') {
                Some((_, digest)) => state.registry.values().find(|id| id.as_str() == digest),
                None => state.registry.get(image),
            };
            let id = published.cloned();
            let is_here = id.as_ref().is_some_and(|id| state.images.contains(id));
            match id {
                Some(id) if is_here || mode != PullMode::Never => {
                    let name = image.split(['@', ':']).next().unwrap_or(image);
                    let digest = Some(format!("{name}@{id}"));
                    state.images.insert(id.clone());
                    Ok(ImagePin {
                        id,
                        digest,
                        warning: None,
                    })
                }
                _ => Err(Fault::new(
                    FaultKind::ImageMissing,
                    format!("there is no image {image}"),
                )),
            }
        })
    }

    async fn prepare_files(&self, files: &PodFiles) -> Result<(), Fault> {
        self.call(format!("prepare_files {}", files.pod), |state| {
            let directory = state.pods_dir.join(files.pod.as_str());
            fs::create_dir_all(&directory).map_err(|error| disk_fault(&error))?;
            state.files.insert(files.pod.clone(), files.clone());
            Ok(())
        })
    }

    async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<(), Fault> {
        let SandboxSpec {
            identity, attempt, ..
        } = spec;
        self.call(
            format!("start_sandbox {} {attempt}", identity.pod),
            |state| {
                let started = (state.clock)();
                state.start(ObservedContainer {
                    identity: identity.clone(),
                    role: Role::Sandbox,
                    name: String::new(),
                    attempt: *attempt,
                    image: ImageId::new("sha256:sandbox"),
                    state: ContainerState::Running { started },
                })
            },
        )
    }

    async fn netns(&self, pod: &PodUid) -> Result<OwnedFd, Fault> {
        if self.state().find(pod, Role::Sandbox, "").is_none() {
            return Err(gone("the sandbox is not running"));
        }
        let null = File::open("/dev/null");
        null.map(OwnedFd::from)
            .map_err(|error| Fault::new(FaultKind::Network, format!("no namespace: {error}")))
    }

    async fn start_container(&self, spec: &ContainerSpec) -> Result<(), Fault> {
        let ContainerSpec {
            identity,
            role,
            name,
            attempt,
            image,
            ..
        } = spec;
        self.call(
            format!("start_container {} {name} {attempt}", identity.pod),
            |state| {
                if state.find(&identity.uid, Role::Sandbox, "").is_none() {
                    return Err(gone("the sandbox is not running"));
                }
                if !state.images.contains(image) {
                    return Err(gone(&format!("the image {image} is gone")));
                }
                let started = (state.clock)();
                state.start(ObservedContainer {
                    identity: identity.clone(),
                    role: *role,
                    name: name.clone(),
                    attempt: *attempt,
                    image: image.clone(),
                    state: ContainerState::Running { started },
                })
            },
        )
    }

    async fn post_start(
        &self,
        container: &ContainerId,
        _handler: &Handler,
        _address: Ipv4Addr,
    ) -> Result<(), Fault> {
        self.call(format!("post_start {container}"), |state| {
            let running = state
                .containers
                .get(container)
                .is_some_and(|one| one.state.is_alive());
            if running {
                Ok(())
            } else {
                Err(gone("the container is not running"))
            }
        })
    }

    async fn unpause(&self, container: &ContainerId) -> Result<(), Fault> {
        self.call(format!("unpause {container}"), |state| {
            let found = state
                .containers
                .get_mut(container)
                .ok_or_else(|| gone("the container is gone"))?;
            if let ContainerState::Paused { started } = found.state {
                found.state = ContainerState::Running { started };
            }
            Ok(())
        })
    }

    async fn stop(&self, stops: &[StopSpec]) -> Result<(), Fault> {
        let takes = self.state().stop_takes;
        tokio::time::sleep(takes).await;
        for stop in stops {
            self.call(format!("stop {}", stop.container), |state| {
                state.end(
                    &stop.container,
                    if stop.grace.is_zero() { 137 } else { 143 },
                );
                Ok(())
            })?;
        }
        Ok(())
    }

    async fn remove(&self, containers: &[ContainerId]) -> Result<(), Fault> {
        for container in containers {
            self.call(format!("remove {container}"), |state| {
                state.containers.remove(container);
                Ok(())
            })?;
        }
        Ok(())
    }

    async fn remove_files(&self, pod: &PodUid) -> Result<(), Fault> {
        self.call(format!("remove_files {pod}"), |state| {
            let directory = state.pods_dir.join(pod.as_str());
            remove_tree(&directory, Duration::from_secs(60)).map_err(|error| disk_fault(&error))?;
            state.files.remove(pod);
            Ok(())
        })
    }
}
