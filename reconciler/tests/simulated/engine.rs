//! A simulated engine and disk: what each step does, as `plan.rs` documents it.

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

/// What a step that is done leaves for the daemon to record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Nothing,
    Pin(CommitId, ImageReference, ImagePin),
    Hooked(ContainerId),
}

/// The engine and the disk of one host. It survives the daemon.
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
    made: u64,
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

    /// Does a step.
    pub(crate) fn apply(
        &mut self,
        step: &Step,
        registry: &Registry,
        now: Timestamp,
    ) -> Result<Record, Fault> {
        let network_only = matches!(
            step,
            Step::PrepareFiles(_) | Step::RemoveFiles(_) | Step::Drain(_)
        );
        if self.engine_down && !network_only {
            return Err(Fault::new(
                FaultKind::EngineUnreachable,
                "the engine does not answer",
            ));
        }
        if self.disk_full && matches!(step, Step::PrepareFiles(_) | Step::StartContainer(_)) {
            return Err(Fault::new(FaultKind::DiskFull, "no space left on the disk"));
        }
        let done = self.effect(step, registry, now);
        self.drop_dead_links();
        done
    }

    /// Whether a step does several things one after another.
    pub(crate) fn has_middle(step: &Step) -> bool {
        match step {
            Step::StartSandbox(_) | Step::StartContainer(_) => true,
            Step::Stop(specs) => specs.len() > 1,
            Step::Remove(ids) => ids.len() > 1,
            _ => false,
        }
    }

    /// As far as a daemon comes that is killed in the middle of a step.
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
                    .is_some_and(|one| one.state.is_alive());
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
                let Some(one) = self.containers.get_mut(id) else {
                    return Err(Fault::new(FaultKind::Gone, "the container is gone"));
                };
                if let ContainerState::Paused { started } = one.state {
                    one.state = ContainerState::Running { started };
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
        let found = self.containers.iter().find(|(_, one)| {
            one.identity.uid == *pod && one.role == Role::Sandbox && one.state.is_alive()
        });
        found.map(|(id, _)| id)
    }

    /// Creates and starts a container, or starts the one of that name which was created before a
    /// crash.
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
        let Some(one) = self.containers.get_mut(&id) else {
            return;
        };
        if one.state == ContainerState::Created {
            one.state = ContainerState::Running { started: now };
        }
    }

    /// Only creates it: as far as a daemon comes that is killed in between.
    pub(crate) fn create(
        &mut self,
        identity: &PodIdentity,
        role: Role,
        name: &str,
        attempt: u32,
        image: &ImageId,
    ) -> ContainerId {
        let known = self.containers.iter().find(|(_, one)| {
            one.identity.uid == identity.uid
                && one.role == role
                && one.name == name
                && one.attempt == attempt
        });
        if let Some((id, one)) = known {
            let usable = one.state == ContainerState::Created || one.state.is_alive();
            assert!(
                usable,
                "the engine has a container of this name that has ended: {one:?}"
            );
            return id.clone();
        }
        self.made += 1;
        let id = ContainerId::new(format!("c{:05}", self.made));
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
        if let Some(one) = self.containers.get_mut(id)
            && let ContainerState::Running { started } | ContainerState::Paused { started } =
                one.state
        {
            one.state = ContainerState::Exited {
                started,
                finished: now,
                code,
                oom: false,
                message: String::new(),
            };
        }
        self.drop_dead_links();
    }

    /// The engine and everything in it ends; with a reboot.
    pub(crate) fn end_all(&mut self, now: Timestamp) {
        let ids: Vec<ContainerId> = self.containers.keys().cloned().collect();
        for id in ids {
            self.end(&id, 255, now);
        }
    }

    /// Somebody removes a container by force.
    pub(crate) fn remove(&mut self, id: &ContainerId) {
        self.containers.remove(id);
        self.drop_dead_links();
    }

    /// Somebody pauses a container.
    pub(crate) fn pause(&mut self, id: &ContainerId) {
        if let Some(one) = self.containers.get_mut(id)
            && let ContainerState::Running { started } = one.state
        {
            one.state = ContainerState::Paused { started };
        }
    }

    /// Somebody removes an image from the disk.
    pub(crate) fn remove_image(&mut self, id: &ImageId) {
        self.images.remove(id);
    }

    /// A pair of links goes with the last process of its namespace.
    fn drop_dead_links(&mut self) {
        let alive: BTreeSet<&PodUid> = self
            .containers
            .values()
            .filter(|one| one.state.is_alive())
            .map(|one| &one.identity.uid)
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

    /// Time passes.
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
