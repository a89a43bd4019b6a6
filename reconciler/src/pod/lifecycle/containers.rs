//! The next step of a pod whose sandbox runs: its hooks, probes, init containers, main containers
//! and files, in this order.

use super::{PodDecision, PodLifecycle, make::blocked};
use crate::{
    object::Container,
    observed::{ContainerState, ObservedContainer},
    plan::{Drift, ProbeKind, Role, Step, Why},
    pod::{
        files::{config_volumes, has_config_volumes, volumes_digest},
        link::link_name,
        memory::UnhealthyContainer,
        phase::probe_failure,
    },
    status::PodPhase,
    time::still_to_come,
};

/// Whether a container must be started.
enum Start {
    Now(Why),
    /// After its back-off; a cycle is requested for that time.
    Later,
    Not,
}

impl PodLifecycle<'_> {
    /// Decides the next step in a sandbox that runs.
    pub(super) fn go_on(&mut self) -> PodDecision {
        let pod = self.input.record.key.clone();
        let uid = &self.input.record.uid;
        if !self.spec().host_network && !self.input.observed.links.contains(&link_name(uid)) {
            return PodDecision::Do(
                Why::Repair {
                    pod,
                    drift: Drift::LinkGone,
                },
                vec![self.connect()],
            );
        }

        if !self.input.observed.files.contains_key(uid) {
            return match self.files() {
                Ok(files) => {
                    PodDecision::Do(Why::Continue { pod }, vec![Step::PrepareFiles(files)])
                }
                Err(missing) => blocked(missing.to_string()),
            };
        }

        let paused = |(_, container): &&(_, &ObservedContainer)| {
            matches!(container.state, ContainerState::Paused { .. })
        };
        if let Some((id, _)) = self.found.all.iter().find(paused) {
            let why = Why::Repair {
                pod,
                drift: Drift::ContainerPaused,
            };
            return PodDecision::Do(why, vec![Step::Unpause((*id).clone())]);
        }

        // A container that fails its probes is stopped before anything else is started.
        if let Some(decision) = self.run_hook() {
            return decision;
        }
        if let Some(decision) = self.stop_unhealthy() {
            return decision;
        }
        if let Some(decision) = self.initialize() {
            return decision;
        }
        if let Some(decision) = self.run_main() {
            return decision;
        }
        self.refresh().unwrap_or(PodDecision::Nothing)
    }

    /// A postStart hook that has not run yet.
    fn run_hook(&self) -> Option<PodDecision> {
        for container in &self.spec().containers {
            let Some(handler) = &container.post_start else {
                continue;
            };
            let Some((id, found)) = self.found.latest.get(container.name.as_str()) else {
                continue;
            };
            let running = matches!(found.state, ContainerState::Running { .. });
            if running && !self.input.observed.hooked.contains(*id) {
                let step = Step::PostStart {
                    container: (*id).clone(),
                    handler: handler.clone(),
                    address: self.address(),
                };
                return Some(PodDecision::Do(
                    Why::Continue {
                        pod: self.input.record.key.clone(),
                    },
                    vec![step],
                ));
            }
        }
        None
    }

    /// Restarts a container whose liveness or startup probe has failed.
    fn stop_unhealthy(&mut self) -> Option<PodDecision> {
        for container in &self.workload.template.spec.containers {
            let Some((id, found)) = self.found.latest.get(container.name.as_str()) else {
                continue;
            };
            if !matches!(found.state, ContainerState::Running { .. }) {
                continue;
            }
            for (kind, probe) in [
                (ProbeKind::Startup, &container.startup),
                (ProbeKind::Liveness, &container.liveness),
            ] {
                let Some(probe) = probe else { continue };
                let Some(fact) = self.input.observed.probes.get(&((*id).clone(), kind)) else {
                    continue;
                };
                if fact.ok {
                    continue;
                }
                let grace = probe
                    .termination_grace
                    .unwrap_or(self.spec().termination_grace);
                let specs = self.stop_specs(grace, |one| one == container.name);
                let message = probe_failure(kind, probe, &fact.message);
                let why = Why::Unhealthy {
                    pod: self.input.record.key.clone(),
                    container: container.name.clone(),
                    message: message.clone(),
                };
                let memory = self.memory.containers.entry(container.name.clone());
                memory.or_default().unhealthy = Some(UnhealthyContainer {
                    id: (*id).clone(),
                    why: message,
                });
                return Some(PodDecision::Do(why, vec![Step::Stop(specs)]));
            }
        }
        None
    }

    /// The next init container; `None` once all have succeeded.
    fn initialize(&mut self) -> Option<PodDecision> {
        let main_exists = self.found.all.iter().any(|(_, one)| one.role == Role::Main);
        if self.memory.initialized
            || main_exists
            || self.workload.template.spec.init_containers.is_empty()
        {
            self.memory.initialized = true;
            return None;
        }

        // One init container runs at a time, and each must succeed before the next one starts.
        for container in &self.workload.template.spec.init_containers {
            let memory = self.memory.containers.get(&container.name);
            match memory.and_then(|memory| memory.completed) {
                Some(0) => continue,
                Some(code) => {
                    let message = format!(
                        "init container {} ended with exit code {code}",
                        container.name
                    );
                    return Some(PodDecision::End(PodPhase::Failed, message));
                }
                None => {}
            }
            return Some(match self.needs_start(container) {
                Start::Now(why) => self.start(why, &[(Role::Init, container)]),
                Start::Later | Start::Not => PodDecision::Nothing,
            });
        }
        self.memory.initialized = true;
        None
    }

    /// Main containers that must be started, or the end of the pod.
    fn run_main(&mut self) -> Option<PodDecision> {
        let containers = &self.workload.template.spec.containers;
        let mut due = Vec::new();
        let mut reason = None;
        for container in containers {
            let memory = self.memory.containers.get(&container.name);
            if memory.is_some_and(|memory| memory.completed.is_some()) {
                continue;
            }
            if let Start::Now(why) = self.needs_start(container) {
                due.push((Role::Main, container));
                reason.get_or_insert(why);
            }
        }

        self.end(&self.completed())
            .or_else(|| reason.map(|why| self.start(why, &due)))
    }

    fn needs_start(&mut self, container: &Container) -> Start {
        let pod = self.input.record.key.clone();
        let known = self.memory.containers.get(&container.name);
        // The remains of a container whose successor was removed are no evidence about the
        // successor.
        let is_newest = |found: &ObservedContainer| {
            known.is_none_or(|memory| memory.next_attempt <= found.attempt + 1)
        };
        let latest = self.found.latest.get(container.name.as_str());

        match latest {
            Some((_, found)) if is_newest(found) => match &found.state {
                ContainerState::Created => Start::Now(Why::Continue { pod }),
                ContainerState::Running { .. } | ContainerState::Paused { .. } => Start::Not,
                ContainerState::Dead => Start::Now(Why::Restart {
                    pod,
                    container: container.name.clone(),
                }),
                ContainerState::Exited { finished, .. } => {
                    let backoff = known.map(|memory| memory.backoff);
                    let delay = backoff.unwrap_or_default().delay();
                    if let Some(due) = still_to_come(*finished, delay, self.input.now) {
                        self.wake_at(due);
                        return Start::Later;
                    }
                    Start::Now(Why::Restart {
                        pod,
                        container: container.name.clone(),
                    })
                }
            },
            _ => {
                let existed = known.is_some_and(|memory| memory.id.is_some());
                Start::Now(if existed {
                    Why::Repair {
                        pod,
                        drift: Drift::ContainerRemoved,
                    }
                } else {
                    Why::Continue { pod }
                })
            }
        }
    }

    /// Replaces the files of a ConfigMap or Secret that the pod mounts and that has changed; the
    /// pod keeps running.
    fn refresh(&self) -> Option<PodDecision> {
        if !has_config_volumes(self.spec()) {
            return None;
        }
        let written = self.input.observed.files.get(&self.input.record.uid)?;
        let objects = &self.input.commit?.objects;
        let volumes =
            config_volumes(self.spec(), &self.input.record.key.namespace, objects).ok()?;
        if *written == volumes_digest(&volumes) {
            return None;
        }

        let files = self.files().ok()?;
        Some(PodDecision::Do(
            Why::Refresh {
                pod: self.input.record.key.clone(),
            },
            vec![Step::PrepareFiles(files)],
        ))
    }
}
