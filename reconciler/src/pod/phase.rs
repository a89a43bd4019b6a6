//! The status of a pod in Kubernetes' terms, and the probes that must run to determine it.

use std::{net::Ipv4Addr, time::Duration};

use jiff::Timestamp;

use super::{
    lifecycle::PodInput,
    memory::{ContainerMemory, PodMemory},
    observation::ObservedPod,
};
use crate::{
    fault::{Fault, FaultKind},
    name::ContainerId,
    object::{Container, PodSpec, Probe},
    observed::{ContainerState, Observed, ObservedContainer},
    plan::{LaneKey, ProbeKind, ProbeTask},
    status::{ContainerPhase, ContainerStatus, PodPhase, PodStatus, Termination},
};

/// The values from which a status is computed.
pub(super) struct PhaseInput<'a> {
    pub(super) now: Timestamp,
    pub(super) spec: &'a PodSpec,
    pub(super) found: &'a ObservedPod<'a>,
    pub(super) observed: &'a Observed,
    pub(super) address: Ipv4Addr,
    pub(super) fault: Option<&'a Fault>,
}

/// The status of a pod that has no stop record.
pub(super) fn status(input: &PhaseInput<'_>, memory: &PodMemory) -> PodStatus {
    let list = |containers: &[Container], main: bool| -> Vec<ContainerStatus> {
        containers
            .iter()
            .map(|container| container_status(input, memory, container, main))
            .collect()
    };

    let init_containers = list(&input.spec.init_containers, false);
    let containers = list(&input.spec.containers, true);
    let all_ready = containers.iter().all(|container| container.ready) && memory.ended.is_none();
    // If the clock was set back since, its new time is trusted.
    let ready = match memory.ready {
        Some(since) if all_ready => Some(since.min(input.now)),
        None if all_ready => Some(input.now),
        _ => None,
    };
    let (phase, ended) = match &memory.ended {
        Some((phase, message)) => (
            *phase,
            Some(message.clone()).filter(|message| !message.is_empty()),
        ),
        None => (running_phase(&containers), None),
    };

    let waiting = init_containers
        .iter()
        .chain(&containers)
        .find_map(|container| match &container.state {
            ContainerPhase::Waiting { reason, message } if !message.is_empty() => Some((
                reason.clone(),
                format!("container {}: {message}", container.name),
            )),
            _ => None,
        });
    let not_ready = input.spec.containers.iter().find_map(|container| {
        let (id, _) = input.found.latest.get(container.name.as_str())?;
        let fact = input
            .observed
            .probes
            .get(&((*id).clone(), ProbeKind::Readiness))?;
        if fact.ok {
            return None;
        }
        let probe = container.readiness.as_ref()?;
        Some(format!(
            "container {} is not ready: {}",
            container.name,
            probe_failure(ProbeKind::Readiness, probe, &fact.message)
        ))
    });

    let reason = input
        .fault
        .map(|fault| fault.kind.waiting_reason().to_owned());
    PodStatus {
        phase,
        reason: reason.or_else(|| waiting.as_ref().map(|(reason, _)| reason.clone())),
        message: input
            .fault
            .map(|fault| fault.message.clone())
            .or(ended)
            .or_else(|| waiting.map(|(_, message)| message))
            .or(not_ready),
        address: Some(input.address),
        started: memory.started,
        initialized: memory.initialized || input.spec.init_containers.is_empty(),
        ready,
        ready_for: Duration::ZERO,
        terminating: false,
        serving: false,
        init_containers,
        containers,
        fault: input.fault.map(|fault| fault.kind),
    }
}

/// Running once every container was started; Pending until then.
fn running_phase(containers: &[ContainerStatus]) -> PodPhase {
    let begun = containers.iter().all(|container| {
        container.restarts > 0
            || container.last.is_some()
            || !matches!(container.state, ContainerPhase::Waiting { .. })
    });
    if begun && !containers.is_empty() {
        PodPhase::Running
    } else {
        PodPhase::Pending
    }
}

fn container_status(
    input: &PhaseInput<'_>,
    memory: &PodMemory,
    container: &Container,
    main: bool,
) -> ContainerStatus {
    let found = input.found.latest.get(container.name.as_str());
    let remembered = memory.containers.get(&container.name);
    let running = found.is_some_and(|(_, one)| matches!(one.state, ContainerState::Running { .. }));
    let hooked = container.post_start.is_none()
        || found.is_some_and(|(id, _)| input.observed.hooked.contains(*id));
    let past_startup =
        container.startup.is_none() || remembered.is_some_and(|memory| memory.past_startup);
    let started = running && hooked && past_startup;
    let probed = container.readiness.is_none()
        || remembered.is_some_and(|memory| memory.ready == Some(true));
    let completed = remembered.is_some_and(|memory| memory.completed == Some(0));

    let state = state(input, memory, container);
    let causes = Causes {
        memory: remembered,
        spec: Some(container),
    };
    let previous = input
        .found
        .previous
        .get(container.name.as_str())
        .and_then(|(id, one)| termination(id, one, causes));
    // While the next start is delayed by back-off, the last exit is that of the exited container.
    let last = match &state {
        ContainerPhase::Waiting { .. } => found
            .and_then(|(id, one)| termination(id, one, causes))
            .or(previous),
        ContainerPhase::Running { .. } | ContainerPhase::Terminated(_) => previous,
    };
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.to_string(),
        image_id: found.map(|(_, one)| one.image.clone()),
        container_id: found.map(|(id, _)| (*id).clone()),
        ready: if main { started && probed } else { completed },
        started,
        restarts: found.map_or_else(
            || remembered.map_or(0, |one| one.next_attempt.saturating_sub(1)),
            |(_, one)| one.attempt,
        ),
        state,
        last,
    }
}

fn state(input: &PhaseInput<'_>, memory: &PodMemory, container: &Container) -> ContainerPhase {
    let waiting = |reason: &str, message: &str| ContainerPhase::Waiting {
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    let Some((id, found)) = input.found.latest.get(container.name.as_str()) else {
        return match input.fault {
            Some(fault) => waiting(fault.kind.waiting_reason(), &fault.message),
            None if !input.spec.init_containers.is_empty() && !memory.initialized => {
                waiting("PodInitializing", "")
            }
            None => waiting("ContainerCreating", ""),
        };
    };
    match &found.state {
        ContainerState::Created | ContainerState::Dead => match input.fault {
            Some(fault) => waiting(fault.kind.waiting_reason(), &fault.message),
            None => waiting("ContainerCreating", ""),
        },
        ContainerState::Running { started } | ContainerState::Paused { started } => {
            ContainerPhase::Running { started: *started }
        }
        ContainerState::Exited { .. } => {
            let remembered = memory.containers.get(&container.name);
            let causes = Causes {
                memory: remembered,
                spec: Some(container),
            };
            let ended = termination(id, found, causes);
            let completed = remembered.is_some_and(|memory| memory.completed.is_some())
                || memory.ended.is_some();
            match ended {
                Some(ended) if completed => ContainerPhase::Terminated(ended),
                Some(ended) => waiting_for_restart(
                    &ended,
                    remembered.map(|memory| memory.backoff.delay().as_secs()),
                ),
                None => waiting("ContainerCreating", ""),
            }
        }
    }
}

/// The state of a container that has exited and waits for its next start.
fn waiting_for_restart(ended: &Termination, delay_seconds: Option<u64>) -> ContainerPhase {
    let words = if ended.message.is_empty() {
        String::new()
    } else {
        format!(": {}", ended.message.trim_end())
    };
    let delay = delay_seconds.unwrap_or(0);
    ContainerPhase::Waiting {
        reason: "CrashLoopBackOff".to_owned(),
        message: format!(
            "ended with exit code {}{words}; back-off {delay} s",
            ended.code
        ),
    }
}

/// What may explain the end of a container, beside what the engine reports.
#[derive(Clone, Copy)]
struct Causes<'a> {
    memory: Option<&'a ContainerMemory>,
    spec: Option<&'a Container>,
}

impl Causes<'_> {
    /// The cause of an end; empty if the container ended by itself.
    fn of(&self, id: &ContainerId, oom: bool) -> String {
        if oom {
            let limit = self.spec.and_then(|spec| spec.resources.memory_limit_bytes);
            return match limit {
                Some(bytes) => format!("out of memory, the limit is {} MiB", bytes >> 20),
                None => "out of memory".to_owned(),
            };
        }
        let unhealthy = self.memory.and_then(|memory| memory.unhealthy.as_ref());
        match unhealthy.filter(|unhealthy| unhealthy.id == *id) {
            Some(unhealthy) => format!("stopped: {}", unhealthy.why),
            None => String::new(),
        }
    }
}

/// Which probe failed, and how.
pub(super) fn probe_failure(kind: ProbeKind, probe: &Probe, message: &str) -> String {
    let kind = match kind {
        ProbeKind::Startup => "startup",
        ProbeKind::Readiness => "readiness",
        ProbeKind::Liveness => "liveness",
    };
    format!("{kind} probe {}: {message}", probe.handler)
}

fn termination(
    id: &ContainerId,
    container: &ObservedContainer,
    causes: Causes<'_>,
) -> Option<Termination> {
    let ContainerState::Exited {
        started,
        finished,
        code,
        oom,
        message,
    } = &container.state
    else {
        return None;
    };
    let reason = match (oom, code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, _) => "Error",
    };
    Some(Termination {
        code: *code,
        reason: reason.to_owned(),
        message: match (causes.of(id, *oom), message.as_str()) {
            (cause, "") => cause,
            (cause, message) if cause.is_empty() => message.to_owned(),
            (cause, message) => format!("{cause}: {message}"),
        },
        started: *started,
        finished: *finished,
    })
}

/// The probes of all running containers; until a startup probe has succeeded, only the startup
/// probe.
pub(super) fn probes(input: &PhaseInput<'_>, memory: &PodMemory) -> Vec<ProbeTask> {
    let mut tasks = Vec::new();
    for container in &input.spec.containers {
        let Some((id, found)) = input.found.latest.get(container.name.as_str()) else {
            continue;
        };
        let ContainerState::Running { started } = found.state else {
            continue;
        };
        let remembered = memory.containers.get(&container.name);
        let hooked = container.post_start.is_none() || input.observed.hooked.contains(*id);
        // As in Kubernetes, a container is not probed before its postStart hook has run.
        if !hooked {
            continue;
        }

        let mut add = |kind, probe: &Option<crate::object::Probe>, initial| {
            if let Some(probe) = probe {
                tasks.push(ProbeTask {
                    container: (*id).clone(),
                    kind,
                    probe: probe.clone(),
                    address: input.address,
                    started,
                    initial,
                });
            }
        };
        if container.startup.is_some() && !remembered.is_some_and(|memory| memory.past_startup) {
            add(ProbeKind::Startup, &container.startup, None);
            continue;
        }

        add(
            ProbeKind::Readiness,
            &container.readiness,
            remembered.and_then(|memory| memory.ready),
        );
        add(ProbeKind::Liveness, &container.liveness, None);
    }
    tasks
}

/// The status of a pod that stops, or that cannot be resolved: only what is observed.
pub(super) fn terminating(input: &PodInput<'_>, found: &ObservedPod<'_>) -> PodStatus {
    let mut status = PodStatus::pending();
    let host_network = input
        .workload
        .is_some_and(|workload| workload.template.spec.host_network);
    status.address = input
        .memory
        .address
        .or(host_network.then_some(input.host.address));
    status.started = input.memory.started;
    status.terminating = input.record.stop.is_some();

    let key = LaneKey::Pod(input.record.uid.clone());
    if let Some(failure) = input.observed.failures.get(&key) {
        status.message = Some(failure.fault.message.clone());
        // A lane that the plan cancelled has not failed.
        if failure.fault.kind != FaultKind::Cancelled {
            status.fault = Some(failure.fault.kind);
        }
    }

    let spec = input.workload.map(|workload| &workload.template.spec);
    let causes = |name: &str| Causes {
        memory: input.memory.containers.get(name),
        spec: spec.and_then(|spec| spec.containers.iter().find(|one| one.name == name)),
    };
    for (name, (id, one)) in &found.latest {
        let state = match &one.state {
            ContainerState::Running { started } | ContainerState::Paused { started } => {
                status.phase = PodPhase::Running;
                ContainerPhase::Running { started: *started }
            }
            ContainerState::Exited { .. } => termination(id, one, causes(name)).map_or_else(
                || ContainerPhase::Waiting {
                    reason: "Unknown".into(),
                    message: String::new(),
                },
                ContainerPhase::Terminated,
            ),
            ContainerState::Created | ContainerState::Dead => ContainerPhase::Waiting {
                reason: "ContainerCreating".into(),
                message: String::new(),
            },
        };
        status.containers.push(ContainerStatus {
            name: (*name).to_owned(),
            image: one.image.to_string(),
            image_id: Some(one.image.clone()),
            container_id: Some((*id).clone()),
            ready: false,
            started: false,
            restarts: one.attempt,
            state,
            last: None,
        });
    }
    status.serving = status.terminating && input.memory.ready.is_some() && all_run(input, found);
    status
}

/// Whether all containers that must run do.
fn all_run(input: &PodInput<'_>, found: &ObservedPod<'_>) -> bool {
    let runs = |container: &Container| {
        let latest = found.latest.get(container.name.as_str());
        latest.is_some_and(|(_, one)| matches!(one.state, ContainerState::Running { .. }))
    };
    input
        .workload
        .is_some_and(|workload| workload.template.spec.containers.iter().all(runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_runs_once_each_of_its_containers_was_started_whatever_they_do_now() {
        let waiting = || ContainerPhase::Waiting {
            reason: "ContainerCreating".to_owned(),
            message: String::new(),
        };
        let started = Timestamp::UNIX_EPOCH;
        let ended = Termination {
            code: 1,
            reason: "Error".to_owned(),
            message: String::new(),
            started,
            finished: started,
        };
        let container = |restarts, last: Option<&Termination>, state| ContainerStatus {
            name: "main".to_owned(),
            image: "web:1".to_owned(),
            image_id: None,
            container_id: None,
            ready: false,
            started: false,
            restarts,
            state,
            last: last.cloned(),
        };
        let fresh = container(0, None, waiting());
        let begun = [
            container(0, None, ContainerPhase::Running { started }),
            container(0, None, ContainerPhase::Terminated(ended.clone())),
            container(0, Some(&ended), waiting()),
            container(1, None, waiting()),
        ];
        for one in &begun {
            let alone = std::slice::from_ref(one);
            assert_eq!(running_phase(alone), PodPhase::Running, "{one:?}");
            let beside = [one.clone(), fresh.clone()];
            assert_eq!(running_phase(&beside), PodPhase::Pending, "{one:?}");
        }
        assert_eq!(running_phase(&begun), PodPhase::Running);
        assert_eq!(running_phase(&[fresh]), PodPhase::Pending);
        assert_eq!(running_phase(&[]), PodPhase::Pending);
    }
}
