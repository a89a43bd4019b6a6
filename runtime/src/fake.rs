//! An engine that only remembers: what was started runs, until a test says otherwise.
//!
//! It keeps to the rules of the real one where they matter to a plan: a container needs its running
//! sandbox and its image; starting what already runs does nothing; what has ended with the same
//! attempt is `Gone`; a second sandbox does not replace a first. Time is what the test says it is,
//! and stands still.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    sync::Arc,
};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use reconciler::{
    fault::{Fault, FaultKind},
    name::{ContainerId, ImageId, PodUid},
    object::Handler,
    observed::{ContainerState, ObservedContainer},
    plan::{ContainerSpec, ImagePin, PodFiles, PullMode, Role, SandboxSpec, StopSpec},
};
use tokio::sync::watch;

use crate::{Observation, pods::Pods};

#[cfg(test)]
mod tests;

/// A host's pods, in memory. Clones are the same host.
#[derive(Clone)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct State {
    containers: BTreeMap<ContainerId, ObservedContainer>,
    images: BTreeSet<ImageId>,
    registry: BTreeMap<String, ImageId>,
    files: BTreeMap<PodUid, PodFiles>,
    faults: Vec<(String, Fault)>,
    calls: Vec<String>,
    made: u64,
    now: Timestamp,
}

impl FakeRuntime {
    /// A host with nothing on it, at this time.
    pub fn new(now: Timestamp) -> Self {
        let state = State {
            now,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Puts an image into the registry, under a name that already has one in its place.
    pub fn publish(&self, image: &str, id: ImageId) {
        self.state().registry.insert(image.to_owned(), id);
    }

    /// Makes the next call whose line in `calls` begins so fail, once.
    pub fn fail_next(&self, call: &str, fault: Fault) {
        self.state().faults.push((call.to_owned(), fault));
    }

    /// Every call that changes something, in order, one line each: `start_container default/web app
    /// 0`.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// A container ends by itself.
    pub fn exit(&self, container: &ContainerId, code: i64) {
        self.state().end(container, code);
        self.notify();
    }

    /// Somebody pauses a container.
    pub fn pause(&self, container: &ContainerId) {
        if let Some(found) = self.state().containers.get_mut(container)
            && let ContainerState::Running { started } = found.state
        {
            found.state = ContainerState::Paused { started };
        }
        self.notify();
    }

    /// What a pod's directory was last made to hold.
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

    /// Notes a call, lets it fail if a test wants that, or does it.
    fn call<T>(
        &self,
        line: String,
        work: impl FnOnce(&mut State) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut state = self.state();
        let fault = state
            .faults
            .iter()
            .position(|(call, _)| line.starts_with(call.as_str()));
        state.calls.push(line);
        let result = match fault {
            Some(index) => Err(state.faults.remove(index).1),
            None => work(&mut state),
        };
        drop(state);
        self.notify();
        result
    }
}

impl State {
    fn end(&mut self, container: &ContainerId, code: i64) {
        let finished = self.now;
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

fn gone(message: &str) -> Fault {
    Fault::new(FaultKind::Gone, message)
}

impl Pods for FakeRuntime {
    async fn observe(&self) -> Result<Observation, Fault> {
        let state = self.state();
        Ok(Observation {
            containers: state.containers.clone(),
            images: state.images.clone(),
            left_alone: BTreeMap::new(),
        })
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    async fn pull(&self, image: &str, mode: PullMode) -> Result<ImagePin, Fault> {
        self.call(format!("pull {image}"), |state| {
            let id = match image.split_once('@') {
                Some((_, digest)) => Some(ImageId::new(digest))
                    .filter(|id| state.registry.values().any(|it| it == id)),
                None => state.registry.get(image).cloned(),
            };
            let here = id.as_ref().is_some_and(|id| state.images.contains(id));
            match id {
                Some(id) if here || mode != PullMode::Never => {
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
                let started = state.now;
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
                let started = state.now;
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
            state.files.remove(pod);
            Ok(())
        })
    }
}
