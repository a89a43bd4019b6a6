//! A simulated engine and disk. Each step has the effect that `plan.rs` documents.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use jiff::Timestamp;
use reconciler::{
    fault::{Fault, FaultKind},
    name::{CommitId, ContainerId, ImageId, ImageReference, LinkName, PodUid},
    observed::{ContainerState, ObservedContainer},
    plan::{ContainerSpec, ImagePin, PodIdentity, PullMode, Role, Step},
    pod::files::config_digest,
};

use crate::registry::{Behaviour, Registry};

/// What the daemon must record after a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Nothing,
    Pin(CommitId, ImageReference, ImagePin),
    Hooked(ContainerId),
}

/// The engine and the disk of one host. Both survive a crash of the daemon.
#[derive(Clone, Debug, Default)]
pub(crate) struct Engine {
    pub(crate) containers: BTreeMap<ContainerId, ObservedContainer>,
    pub(crate) images: BTreeMap<ImageId, Behaviour>,
    pub(crate) links: BTreeMap<LinkName, (PodUid, Ipv4Addr)>,
    pub(crate) files: BTreeMap<PodUid, String>,
    pub(crate) engine_down: bool,
    pub(crate) disk_full: bool,
    /// Containers that the engine cannot remove.
    pub(crate) stuck: BTreeSet<ContainerId>,
    tags: BTreeMap<String, ImageId>,
    created_count: u64,
}

impl Engine {
    /// How long a step takes.
    pub(crate) fn duration(&self, step: &Step) -> Duration {
        match step {
            Step::PullImage { .. } => Duration::from_secs(2),
            Step::StartSandbox(_) | Step::StartContainer(_) => Duration::from_millis(100),
            Step::Drain(duration) => *duration,
            Step::Stop(specs) => {
                let stubborn = specs
                    .iter()
                    .filter(|spec| self.behaviour(&spec.container) == Some(Behaviour::IgnoresTerm));
                stubborn
                    .map(|spec| spec.grace)
                    .max()
                    .unwrap_or_default()
                    .max(Duration::from_millis(200))
            }
            _ => Duration::from_millis(10),
        }
    }

    /// What the container's image makes it do.
    pub(crate) fn behaviour(&self, id: &ContainerId) -> Option<Behaviour> {
        self.images.get(&self.containers.get(id)?.image).copied()
    }

    /// Carries out a step.
    pub(crate) fn apply(
        &mut self,
        step: &Step,
        registry: &Registry,
        now: Timestamp,
    ) -> Result<Record, Fault> {
        let without_engine = matches!(
            step,
            Step::PrepareFiles(_) | Step::RemoveFiles(_) | Step::Drain(_)
        );
        if self.engine_down && !without_engine {
            return Err(Fault::new(
                FaultKind::EngineUnreachable,
                "the engine does not answer",
            ));
        }
        if self.disk_full && matches!(step, Step::PrepareFiles(_) | Step::StartContainer(_)) {
            return Err(Fault::new(FaultKind::DiskFull, "no space left on the disk"));
        }
        let result = self.effect(step, registry, now);
        self.drop_dead_links();
        result
    }

    /// Whether a step has several effects, so that a daemon can be killed between two of them.
    pub(crate) fn has_middle(step: &Step) -> bool {
        match step {
            Step::StartSandbox(_) | Step::StartContainer(_) => true,
            Step::Stop(specs) => specs.len() > 1,
            Step::Remove(ids) => ids.len() > 1,
            _ => false,
        }
    }

    /// Carries out the part of a step that comes before its middle, where the daemon is killed.
    pub(crate) fn begin(&mut self, step: &Step, now: Timestamp) {
        match step {
            Step::StartSandbox(spec) => {
                self.create(
                    &spec.identity,
                    Role::Sandbox,
                    "",
                    spec.attempt,
                    &ImageId::new("pause"),
                );
            }
            Step::StartContainer(spec) if self.sandbox(&spec.identity.uid).is_some() => {
                self.create(
                    &spec.identity,
                    spec.role,
                    &spec.name,
                    spec.attempt,
                    &spec.image,
                );
            }
            Step::Stop(specs) => specs
                .iter()
                .take(1)
                .for_each(|spec| self.end(&spec.container, 143, now)),
            Step::Remove(ids) => ids.iter().take(1).for_each(|id| self.remove(id)),
            _ => {}
        }
    }

    fn effect(
        &mut self,
        step: &Step,
        registry: &Registry,
        now: Timestamp,
    ) -> Result<Record, Fault> {
        match step {
            Step::PullImage {
                commit,
                image,
                reference,
                mode,
            } => {
                let pin = self.pull(reference, *mode, registry)?;
                return Ok(Record::Pin(commit.clone(), image.clone(), pin));
            }
            Step::PrepareFiles(files) => {
                self.files.insert(files.pod.clone(), config_digest(files));
            }
            Step::StartSandbox(spec) => {
                self.start(
                    &spec.identity,
                    Role::Sandbox,
                    "",
                    spec.attempt,
                    &ImageId::new("pause"),
                    now,
                );
            }
            Step::Connect { pod, link } => {
                if self.sandbox(pod).is_none() {
                    return Err(Fault::new(FaultKind::Gone, "the sandbox does not run"));
                }
                self.links
                    .insert(link.name.clone(), (pod.clone(), link.address));
            }
            Step::StartContainer(spec) => self.start_container(spec, now)?,
            Step::PostStart { container, .. } => {
                let running = self
                    .containers
                    .get(container)
                    .is_some_and(|container| container.state.is_alive());
                if !running {
                    return Err(Fault::new(FaultKind::Gone, "the container does not run"));
                }
                if self.behaviour(container) == Some(Behaviour::HookFails) {
                    self.end(container, 137, now);
                    return Err(Fault::new(
                        FaultKind::HookFailed,
                        "the postStart hook failed",
                    ));
                }
                return Ok(Record::Hooked(container.clone()));
            }
            Step::Unpause(id) => {
                let Some(container) = self.containers.get_mut(id) else {
                    return Err(Fault::new(FaultKind::Gone, "the container is gone"));
                };
                if let ContainerState::Paused { started } = container.state {
                    container.state = ContainerState::Running { started };
                }
            }
            Step::Drain(_) => {}
            Step::Stop(specs) => {
                for spec in specs {
                    self.end(&spec.container, 143, now);
                }
            }
            Step::Remove(ids) => {
                for id in ids.iter().filter(|id| !self.stuck.contains(*id)) {
                    self.containers.remove(id);
                }
                if ids.iter().any(|id| self.stuck.contains(id)) {
                    return Err(Fault::new(
                        FaultKind::Other,
                        "unable to remove filesystem: not permitted",
                    ));
                }
            }
            Step::Disconnect(name) => {
                self.links.remove(name);
            }
            Step::RemoveFiles(pod) => {
                self.files.remove(pod);
            }
        }
        Ok(Record::Nothing)
    }

    fn pull(
        &mut self,
        reference: &str,
        mode: PullMode,
        registry: &Registry,
    ) -> Result<ImagePin, Fault> {
        let local = self
            .tags
            .get(reference)
            .filter(|id| self.images.contains_key(*id))
            .cloned();
        let pin = |id: ImageId, warning: Option<&str>| {
            let digest = registry.find(reference).map(|image| image.digest.clone());
            ImagePin {
                id,
                digest,
                warning: warning.map(ToOwned::to_owned),
            }
        };
        match (mode, local) {
            (PullMode::Never | PullMode::IfNotPresent, Some(id)) => return Ok(pin(id, None)),
            (PullMode::Never, None) => {
                return Err(Fault::new(
                    FaultKind::ImageMissing,
                    format!("{reference} is not here"),
                ));
            }
            (PullMode::Always, Some(id)) if !registry.reachable => {
                return Ok(pin(
                    id,
                    Some("the registry did not answer, the local image is used"),
                ));
            }
            _ => {}
        }
        if !registry.reachable {
            return Err(Fault::new(
                FaultKind::RegistryUnreachable,
                "the registry does not answer",
            ));
        }
        if registry.strange {
            return Err(Fault::new(
                FaultKind::Other,
                format!("{reference}: the layers do not unpack"),
            ));
        }
        let Some(image) = registry.find(reference) else {
            return Err(Fault::new(
                FaultKind::ImageMissing,
                format!("there is no image {reference}"),
            ));
        };
        self.images.insert(image.id.clone(), image.behaviour);
        self.tags.insert(reference.to_owned(), image.id.clone());
        self.tags.insert(image.digest.clone(), image.id.clone());
        Ok(ImagePin {
            id: image.id.clone(),
            digest: Some(image.digest.clone()),
            warning: None,
        })
    }

    fn sandbox(&self, pod: &PodUid) -> Option<&ContainerId> {
        let sandbox = self.containers.iter().find(|(_, container)| {
            container.identity.uid == *pod
                && container.role == Role::Sandbox
                && container.state.is_alive()
        });
        sandbox.map(|(id, _)| id)
    }

    /// Creates and starts a container, or starts the container of that name that was created before
    /// a crash.
    fn start(
        &mut self,
        identity: &PodIdentity,
        role: Role,
        name: &str,
        attempt: u32,
        image: &ImageId,
        now: Timestamp,
    ) {
        let id = self.create(identity, role, name, attempt, image);
        let Some(container) = self.containers.get_mut(&id) else {
            return;
        };
        if container.state == ContainerState::Created {
            container.state = ContainerState::Running { started: now };
        }
    }

    /// Creates a container without starting it: the state after a crash between both.
    pub(crate) fn create(
        &mut self,
        identity: &PodIdentity,
        role: Role,
        name: &str,
        attempt: u32,
        image: &ImageId,
    ) -> ContainerId {
        let known = self.containers.iter().find(|(_, container)| {
            container.identity.uid == identity.uid
                && container.role == role
                && container.name == name
                && container.attempt == attempt
        });
        if let Some((id, container)) = known {
            let usable = container.state == ContainerState::Created || container.state.is_alive();
            assert!(
                usable,
                "the engine has a container of this name that has ended: {container:?}"
            );
            return id.clone();
        }
        self.created_count += 1;
        let id = ContainerId::new(format!("c{:05}", self.created_count));
        self.containers.insert(
            id.clone(),
            ObservedContainer {
                identity: identity.clone(),
                role,
                name: name.to_owned(),
                attempt,
                image: image.clone(),
                state: ContainerState::Created,
            },
        );
        id
    }

    fn start_container(&mut self, spec: &ContainerSpec, now: Timestamp) -> Result<(), Fault> {
        if self.sandbox(&spec.identity.uid).is_none() {
            return Err(Fault::new(FaultKind::Gone, "the sandbox does not run"));
        }
        let Some(behaviour) = self.images.get(&spec.image) else {
            return Err(Fault::new(FaultKind::Gone, "the image is gone"));
        };
        if *behaviour == Behaviour::Rejected {
            self.create(
                &spec.identity,
                spec.role,
                &spec.name,
                spec.attempt,
                &spec.image,
            );
            return Err(Fault::new(
                FaultKind::Rejected,
                "exec: \"nosuch\": executable file not found",
            ));
        }
        self.start(
            &spec.identity,
            spec.role,
            &spec.name,
            spec.attempt,
            &spec.image,
            now,
        );
        Ok(())
    }

    /// A container ends.
    pub(crate) fn end(&mut self, id: &ContainerId, code: i64, now: Timestamp) {
        if let Some(container) = self.containers.get_mut(id)
            && let ContainerState::Running { started } | ContainerState::Paused { started } =
                container.state
        {
            container.state = ContainerState::Exited {
                started,
                finished: now,
                code,
                oom: false,
                message: String::new(),
            };
        }
        self.drop_dead_links();
    }

    /// All containers end, as in a reboot.
    pub(crate) fn end_all(&mut self, now: Timestamp) {
        let ids: Vec<ContainerId> = self.containers.keys().cloned().collect();
        for id in ids {
            self.end(&id, 255, now);
        }
    }

    /// A person removes a container by force.
    pub(crate) fn remove(&mut self, id: &ContainerId) {
        self.containers.remove(id);
        self.drop_dead_links();
    }

    /// A person pauses a container.
    pub(crate) fn pause(&mut self, id: &ContainerId) {
        if let Some(container) = self.containers.get_mut(id)
            && let ContainerState::Running { started } = container.state
        {
            container.state = ContainerState::Paused { started };
        }
    }

    /// A person removes an image.
    pub(crate) fn remove_image(&mut self, id: &ImageId) {
        self.images.remove(id);
    }

    /// The kernel removes a pair of veth links with the last process of their network namespace.
    fn drop_dead_links(&mut self) {
        let alive: BTreeSet<&PodUid> = self
            .containers
            .values()
            .filter(|container| container.state.is_alive())
            .map(|container| &container.identity.uid)
            .collect();
        self.links.retain(|_, (pod, _)| alive.contains(pod));
    }

    /// When the next container ends by itself.
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        self.containers
            .keys()
            .filter_map(|id| Some(self.natural_end(id)?.0))
            .min()
    }

    fn natural_end(&self, id: &ContainerId) -> Option<(Timestamp, i64)> {
        let ContainerState::Running { started } = self.containers.get(id)?.state else {
            return None;
        };
        match self.behaviour(id)? {
            Behaviour::ExitsAtOnce(code) => Some((started + Duration::from_millis(100), code)),
            Behaviour::Ends(after, code) => Some((started + after, code)),
            _ => None,
        }
    }

    /// Ends the containers that end by themselves up to this time.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        let ends: Vec<(ContainerId, Timestamp, i64)> = self
            .containers
            .keys()
            .filter_map(|id| {
                self.natural_end(id)
                    .map(|(at, code)| (id.clone(), at, code))
            })
            .filter(|(_, at, _)| *at <= now)
            .collect();
        for (id, at, code) in ends {
            self.end(&id, code, at);
        }
    }
}
