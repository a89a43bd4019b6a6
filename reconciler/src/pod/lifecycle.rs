//! The next step of one pod: a pure function of the record, the observed containers, and the
//! memory.

mod containers;
mod make;
mod note;
mod stop;

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use jiff::Timestamp;

use super::{
    environment::{PodFacts, ServiceVariables},
    files::DnsFacts,
    memory::{Origin, PodMemory},
    observation::{ObservedPod, stop_specs},
    phase::{self, PhaseInput},
};
use crate::{
    commit::Commit,
    fault::{Fault, FaultKind},
    name::{CommitId, ContainerId, ImageReference, NodeName},
    object::{Container, PodSpec, PullPolicy, RestartPolicy, Workload},
    observed::{ContainerState, Observed, ObservedContainer},
    plan::{ImagePin, Lane, LaneKey, Next, ProbeTask, Role, Step, StopSpec, Why},
    state::PodRecord,
    status::{PULLING, PodPhase, PodStatus, STEADY},
    time::later,
};

/// Facts about the pod's host.
#[derive(Debug)]
pub struct HostFacts<'a> {
    /// Name of the node.
    pub node: &'a NodeName,
    /// Address of the node.
    pub address: Ipv4Addr,
    /// MTU of pod links, in bytes.
    pub mtu: u32,
    /// Resolvers of the host and of the cluster.
    pub dns: &'a DnsFacts,
    /// The image that each reference of each commit resolves to on this host.
    pub pins: &'a BTreeMap<CommitId, BTreeMap<ImageReference, ImagePin>>,
    /// How long a stopping pod that receives traffic drains.
    pub drain: Duration,
}

/// The snapshot from which one pod is decided.
#[derive(Debug)]
pub struct PodInput<'a> {
    /// The host's clock at the start of the cycle.
    pub now: Timestamp,
    /// Facts about the host.
    pub host: &'a HostFacts<'a>,
    /// The record of the pod.
    pub record: &'a PodRecord,
    /// The commit of the record; `None` if this host does not have it.
    pub commit: Option<&'a Commit>,
    /// The owner, resolved in this host's own verified clone; `None` if the owner does not have the
    /// template of the record there.
    pub workload: Option<&'a Workload>,
    /// Service variables of the pod's namespace.
    pub services: &'a ServiceVariables<'a>,
    /// Whether a Service selects the pod.
    pub in_service: bool,
    /// The pod's containers on the host.
    pub containers: &'a [(&'a ContainerId, &'a ObservedContainer)],
    /// Everything that was observed on the host.
    pub observed: &'a Observed,
    /// The memory of the pod; it contains an address, unless none is left.
    pub memory: PodMemory,
}

/// The decision for one pod.
#[derive(Debug)]
pub struct PodOutput {
    /// The next lane of the pod; `None` if nothing can or must be done now.
    pub lane: Option<Lane>,
    /// Images that must be pinned or pulled first.
    pub images: Vec<ImageNeed>,
    /// The status to report.
    pub status: PodStatus,
    /// The probes that must run.
    pub probes: Vec<ProbeTask>,
    /// What to remember from now on; `None` once nothing is left of the pod.
    pub memory: Option<PodMemory>,
    /// When the next cycle is due.
    pub next: Next,
}

/// An image that a pod needs before it can start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageNeed {
    /// The commit for which the image is pinned.
    pub commit: CommitId,
    /// The image as written in the manifest.
    pub image: ImageReference,
    /// Whether the registry is asked.
    pub pull: PullPolicy,
    /// `name@sha256:...` of an image that was pinned before and is no longer on the disk.
    pub digest: Option<String>,
}

/// Decides the next step of one pod.
pub fn live(input: &PodInput<'_>) -> PodOutput {
    let found = ObservedPod::new(input.containers);
    if input.record.stop.is_some() {
        return stop::stop(input, &found);
    }

    let mut memory = input.memory.clone();
    memory.stopping = false;
    // The pod is not started: once this host has its commit, it is checked as a new pod.
    let Some(workload) = input.workload else {
        return unresolved(input, &found, memory);
    };

    memory.started.get_or_insert(input.now);
    if let Some(commit) = input.commit {
        let template = input.record.template.clone();
        memory.origin = Some(Origin {
            commit: commit.id.clone(),
            template,
        });
    }

    let mut pod = PodLifecycle {
        input,
        workload,
        found: &found,
        memory,
        next: Next::AwaitChange,
    };
    pod.take_note();
    let decision = pod.decide();
    pod.output(decision)
}

/// The decision for one pod in one cycle.
enum PodDecision {
    Nothing,
    Do(Why, Vec<Step>),
    /// Nothing can be done until this fault is gone.
    Blocked(Fault),
    /// Images must be pulled first.
    Fetch(Vec<ImageNeed>),
    /// The pod has ended for good, with its phase and the reason.
    End(PodPhase, String),
}

struct PodLifecycle<'a> {
    input: &'a PodInput<'a>,
    workload: &'a Workload,
    found: &'a ObservedPod<'a>,
    memory: PodMemory,
    next: Next,
}

impl<'a> PodLifecycle<'a> {
    fn spec(&self) -> &'a PodSpec {
        &self.workload.template.spec
    }

    fn address(&self) -> Ipv4Addr {
        if self.spec().host_network {
            return self.input.host.address;
        }
        self.input.memory.address.unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    fn facts(&self) -> PodFacts<'_> {
        PodFacts {
            key: &self.input.record.key,
            uid: &self.input.record.uid,
            meta: &self.workload.template.meta,
            node: self.input.host.node,
            address: self.address(),
            host_address: self.input.host.address,
        }
    }

    fn decide(&mut self) -> PodDecision {
        let key = LaneKey::Pod(self.input.record.uid.clone());
        if self.input.observed.lanes.contains(&key) {
            return PodDecision::Nothing;
        }

        let failure = self.input.observed.failures.get(&key);
        let is_over = self.memory.ended.is_some();
        // A failure from before the pod's end was a failed start: it does not delay the cleanup.
        if let Some(failure) = failure
            && (!is_over || failure.removes)
            && let Some(retry) = failure.retry_at(self.input.now)
        {
            self.wake_at(retry);
            return PodDecision::Blocked(failure.fault.clone());
        }

        if is_over {
            return self.clean_up();
        }
        if self.is_past_deadline() {
            return PodDecision::End(
                PodPhase::Failed,
                "it was active longer than activeDeadlineSeconds".to_owned(),
            );
        }
        match self.found.sandbox {
            Some((_, sandbox)) if sandbox.state.is_alive() => self.go_on(),
            _ => self.over_with_sandbox().unwrap_or_else(|| self.begin()),
        }
    }

    /// If the sandbox is gone, containers that ran are not run again: with `restartPolicy: Never`
    /// the pod ends, with `OnFailure` the pod ends if all its containers succeeded.
    fn over_with_sandbox(&self) -> Option<PodDecision> {
        let created = |(_, one): &(_, &ObservedContainer)| one.state == ContainerState::Created;
        let ran = self
            .memory
            .containers
            .values()
            .any(|memory| memory.next_attempt > 0)
            && (self.found.latest.is_empty() || !self.found.latest.values().all(created));
        let policy = self.spec().restart_policy;
        if policy == RestartPolicy::Always || !ran {
            return None;
        }

        let codes = self.completed();
        match self.end(&codes) {
            Some(end) if policy == RestartPolicy::Never || codes.iter().all(|code| *code == 0) => {
                Some(end)
            }
            _ if policy == RestartPolicy::Never => Some(PodDecision::End(
                PodPhase::Failed,
                "its sandbox ended before its containers did".to_owned(),
            )),
            _ => None,
        }
    }

    /// Exit codes of the main containers that are not started again.
    fn completed(&self) -> Vec<i64> {
        let memory = |container: &Container| self.memory.containers.get(&container.name);
        self.spec()
            .containers
            .iter()
            .filter_map(|container| memory(container)?.completed)
            .collect()
    }

    /// The end of the pod, if `codes` are the exit codes of all its main containers.
    fn end(&self, codes: &[i64]) -> Option<PodDecision> {
        if codes.len() < self.spec().containers.len() {
            return None;
        }
        Some(if codes.iter().all(|code| *code == 0) {
            PodDecision::End(PodPhase::Succeeded, String::new())
        } else {
            let words = self.last_words();
            PodDecision::End(
                PodPhase::Failed,
                format!("its containers ended with exit codes {codes:?}{words}"),
            )
        })
    }

    /// The termination messages of the containers that failed.
    fn last_words(&self) -> String {
        let words = |container: &ObservedContainer| match &container.state {
            ContainerState::Exited { code, message, .. }
                if *code != 0 && !message.trim().is_empty() =>
            {
                Some(format!("; {}: {}", container.name, message.trim()))
            }
            _ => None,
        };
        self.found
            .latest
            .values()
            .filter_map(|(_, container)| words(container))
            .collect()
    }

    /// Whether the last lane of this pod failed.
    fn has_failed(&self) -> bool {
        self.input
            .observed
            .failures
            .contains_key(&LaneKey::Pod(self.input.record.uid.clone()))
    }

    fn wake_at(&mut self, time: Timestamp) {
        self.next = self.next.sooner(Next::at(time, self.input.now));
    }

    /// How long the pod has been ready, as far as anything depends on it; requests a cycle for the
    /// next relevant time. A value that was reached stays while the pod is ready, even if the clock
    /// is set back.
    fn ready_for(&mut self) -> Duration {
        let Some(ready) = self.memory.ready else {
            return Duration::ZERO;
        };
        let mut longest = self.memory.ready_for;
        for wanted in [STEADY, self.workload.control.min_ready()] {
            let reached = later(ready, wanted);
            if wanted <= longest || reached <= self.input.now {
                longest = longest.max(wanted);
            } else {
                self.wake_at(reached);
            }
        }
        longest
    }

    fn is_past_deadline(&mut self) -> bool {
        let (Some(deadline), Some(started)) = (self.spec().active_deadline, self.memory.started)
        else {
            return false;
        };
        let end = later(started, deadline);
        if end > self.input.now {
            self.wake_at(end);
        }
        end <= self.input.now
    }

    /// The pod has ended for good: only its exited containers stay, for their logs.
    fn clean_up(&self) -> PodDecision {
        let alive: Vec<ContainerId> = self
            .found
            .all
            .iter()
            .filter(|(_, one)| one.state.is_alive() && one.role == Role::Sandbox)
            .map(|(id, _)| (*id).clone())
            .collect();
        let specs = self.stop_specs(self.spec().termination_grace, |_| true);
        if alive.is_empty() && specs.is_empty() {
            return PodDecision::Nothing;
        }

        let mut steps = Vec::new();
        if !specs.is_empty() {
            steps.push(Step::Stop(specs));
        }
        steps.push(Step::Remove(alive));
        PodDecision::Do(
            Why::Clean {
                pod: self.input.record.key.clone(),
            },
            steps,
        )
    }

    fn stop_specs(&self, grace: Duration, wanted: impl Fn(&str) -> bool) -> Vec<StopSpec> {
        stop_specs(self.found, Some(self.spec()), self.address(), grace, wanted)
    }

    fn output(mut self, decision: PodDecision) -> PodOutput {
        let mut images = Vec::new();
        let mut lane = None;
        let mut fault = None;
        let key = LaneKey::Pod(self.input.record.uid.clone());
        let failed = self
            .input
            .observed
            .failures
            .get(&key)
            .map(|failure| failure.fault.clone());

        match decision {
            // The fault of a failed lane remains until the retry has succeeded.
            PodDecision::Nothing if self.input.observed.lanes.contains(&key) => fault = failed,
            PodDecision::Nothing => {}
            PodDecision::Do(why, steps) => {
                fault = failed;
                lane = Some(Lane { key, why, steps });
            }
            PodDecision::Blocked(why) => fault = Some(why),
            PodDecision::Fetch(needs) => {
                fault = needs.iter().find_map(|need| {
                    let key = LaneKey::Image(need.commit.clone(), need.image.clone());
                    self.input
                        .observed
                        .failures
                        .get(&key)
                        .map(|failure| failure.fault.clone())
                });
                images = needs;
            }
            PodDecision::End(phase, message) => {
                self.memory.ended = Some((phase, message));
                // Containers that still run are stopped in the next cycle.
                self.next = self.next.sooner(Next::After(Duration::from_millis(1)));
            }
        }

        let phase_input = PhaseInput {
            now: self.input.now,
            spec: self.spec(),
            found: self.found,
            observed: self.input.observed,
            address: self.address(),
            fault: fault.as_ref(),
        };
        let mut status = phase::status(&phase_input, &self.memory);
        let probes = phase::probes(&phase_input, &self.memory);
        if let (None, Some(need)) = (&fault, images.first())
            && status.reason.is_none()
        {
            status.reason = Some(PULLING.to_owned());
            status.message = Some(format!("image {} is being pulled", need.image));
        }

        self.memory.ready = status.ready;
        self.memory.ready_for = self.ready_for();
        status.ready_for = self.memory.ready_for;
        PodOutput {
            lane,
            images,
            status,
            probes,
            memory: Some(self.memory),
            next: self.next,
        }
    }
}

/// Handles a record that this host cannot resolve in its own verified clone: running containers
/// stay, and nothing is started.
fn unresolved(input: &PodInput<'_>, found: &ObservedPod<'_>, memory: PodMemory) -> PodOutput {
    let mut status = phase::terminating(input, found);
    let message = format!(
        "commit {} has no {} with template {}: this host runs only what is in its own verified clone",
        input.record.commit.short(),
        input.record.owner,
        input.record.template
    );
    status.message = Some(message);
    status.fault = Some(FaultKind::Other);
    PodOutput {
        lane: None,
        images: Vec::new(),
        status,
        probes: Vec::new(),
        memory: Some(memory),
        next: Next::AwaitChange,
    }
}

#[cfg(test)]
mod tests;
