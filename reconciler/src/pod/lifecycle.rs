//! What one pod does next: pure, from what must be, what is, and what is remembered.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use jiff::Timestamp;

use super::{
    environment::{PodFacts, environment, expand_all},
    files::{DnsFacts, config_digest, has_config_volumes, hostname, mounts, pod_files},
    memory::PodMemory,
    phase::{self, Standing},
};
use crate::{
    commit::Commit,
    fault::{Fault, FaultKind},
    name::{CommitId, ContainerId, ImageId, NodeName, PodUid},
    network::PodLink,
    object::{Container, PodSpec, PullPolicy, RestartPolicy, Workload},
    observed::{ContainerState, Observed, ObservedContainer},
    plan::{
        ContainerSpec, Drift, ImagePin, Lane, LaneKey, Next, PodFiles, PodIdentity, ProbeKind, ProbeTask,
        Role, SandboxSpec, Step, StopSpec, Why,
    },
    state::PodRecord,
    status::{PodPhase, PodStatus},
};

/// What the pod's host is.
#[derive(Debug)]
pub struct HostFacts<'a> {
    /// The node's name.
    pub node: &'a NodeName,
    /// The node's address.
    pub address: Ipv4Addr,
    /// MTU of pod links.
    pub mtu: u32,
    /// Resolvers.
    pub dns: &'a DnsFacts,
    /// Which image each reference of each commit is.
    pub pins: &'a BTreeMap<CommitId, BTreeMap<String, ImagePin>>,
    /// How long a stopping pod that takes traffic drains.
    pub drain: Duration,
}

/// What is looked at for one pod.
#[derive(Debug)]
pub struct PodInput<'a> {
    /// The time.
    pub now: Timestamp,
    /// The host.
    pub host: &'a HostFacts<'a>,
    /// What was decided.
    pub record: &'a PodRecord,
    /// The commit of the record, if this host has it.
    pub commit: Option<&'a Commit>,
    /// The owner, resolved in this host's own verified clone; `None` if it has not the template of the record.
    pub workload: Option<&'a Workload>,
    /// Service variables of the pod's namespace.
    pub services: &'a BTreeMap<String, String>,
    /// Whether a Service selects the pod.
    pub in_service: bool,
    /// Its containers.
    pub containers: &'a [(&'a ContainerId, &'a ObservedContainer)],
    /// Everything found on the host.
    pub observed: &'a Observed,
    /// What is remembered; it has an address, unless there is none left.
    pub memory: PodMemory,
}

/// What is done about one pod.
#[derive(Debug)]
pub struct PodOutput {
    /// Its next steps.
    pub lane: Option<Lane>,
    /// Images that must be pinned or pulled first.
    pub images: Vec<ImageNeed>,
    /// What it is doing.
    pub status: PodStatus,
    /// The probes that must be running.
    pub probes: Vec<ProbeTask>,
    /// What is remembered from now on; `None` once nothing is left of the pod.
    pub memory: Option<PodMemory>,
    /// When to look again.
    pub next: Next,
}

/// An image that a pod cannot do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageNeed {
    /// The commit it is pinned for.
    pub commit: CommitId,
    /// As written.
    pub image: String,
    /// How hard to try.
    pub pull: PullPolicy,
    /// `name@sha256:...` where it was pinned before and has gone from the disk.
    pub digest: Option<String>,
}

/// What one pod does next.
pub fn live(input: &PodInput<'_>) -> PodOutput {
    let found = Found::new(input.containers);
    if input.record.stop.is_some() {
        return stop(input, &found);
    }
    let mut memory = input.memory.clone();
    memory.started.get_or_insert(input.now);
    let Some(workload) = input.workload else { return unresolved(input, &found, memory) };
    let mut pod = Pod { input, workload, found: &found, memory, next: Next::AwaitChange };
    pod.take_note();
    let decision = pod.decide();
    pod.output(decision)
}

/// The veth pair of a pod: name and MAC are made from its uid.
pub fn link_of(uid: &PodUid, address: Ipv4Addr, mtu: u32) -> PodLink {
    let hash = crate::digest::sha256_hex(format!("pod link\n{uid}").as_bytes());
    let byte = |at: usize| u8::from_str_radix(&hash[at..at + 2], 16).unwrap_or(0);
    // Locally administered, not multicast.
    let host_mac = [0x02, byte(20), byte(22), byte(24), byte(26), byte(28)];
    PodLink { name: link_name(uid), address, host_mac, mtu }
}

/// The name of a pod's link: at most 15 characters.
pub fn link_name(uid: &PodUid) -> String {
    let hash = crate::digest::sha256_hex(format!("pod link\n{uid}").as_bytes());
    format!("wdl{}", &hash[..11])
}

/// A pod's containers: the newest sandbox, and of each name the newest one.
pub(super) struct Found<'a> {
    pub(super) all: Vec<(&'a ContainerId, &'a ObservedContainer)>,
    sandbox: Option<(&'a ContainerId, &'a ObservedContainer)>,
    pub(super) latest: BTreeMap<&'a str, (&'a ContainerId, &'a ObservedContainer)>,
    pub(super) previous: BTreeMap<&'a str, (&'a ContainerId, &'a ObservedContainer)>,
}

impl<'a> Found<'a> {
    fn new(containers: &[(&'a ContainerId, &'a ObservedContainer)]) -> Self {
        let mut all = containers.to_vec();
        all.sort_by_key(|(id, container)| (container.role, container.attempt, *id));
        let mut found =
            Self { all: all.clone(), sandbox: None, latest: BTreeMap::new(), previous: BTreeMap::new() };
        for (id, container) in all {
            if container.role == Role::Sandbox {
                found.sandbox = Some((id, container));
            } else if let Some(older) = found.latest.insert(&container.name, (id, container)) {
                found.previous.insert(&container.name, older);
            }
        }
        found
    }

    fn alive(&self) -> impl Iterator<Item = (&'a ContainerId, &'a ObservedContainer)> + '_ {
        self.all.iter().copied().filter(|(_, one)| one.state.is_alive() && one.role != Role::Sandbox)
    }

    /// All ids, the sandbox last, so that no container outlives its network.
    fn ids(&self) -> Vec<ContainerId> {
        self.all.iter().rev().map(|(id, _)| (*id).clone()).collect()
    }
}

/// What is decided for one pod in one look.
enum Decision {
    Nothing,
    Do(Why, Vec<Step>),
    /// Nothing can be done until this has changed.
    Blocked(Fault),
    /// Images first.
    Fetch(Vec<ImageNeed>),
    /// It has ended for good.
    End(PodPhase, String),
}

struct Pod<'a> {
    input: &'a PodInput<'a>,
    workload: &'a Workload,
    found: &'a Found<'a>,
    memory: PodMemory,
    next: Next,
}

impl<'a> Pod<'a> {
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

    /// Takes what is observed into the memory: which container is the current one, what its probes say, how it ended.
    fn take_note(&mut self) {
        for (name, (id, container)) in &self.found.latest {
            let memory = self.memory.containers.entry((*name).to_owned()).or_default();
            // Somebody removed the newest one: what its predecessor says is known already.
            if memory.next_attempt > container.attempt + 1 {
                continue;
            }
            if memory.id.as_ref() != Some(*id) {
                memory.id = Some((*id).clone());
                memory.next_attempt = memory.next_attempt.max(container.attempt + 1);
                memory.past_startup = false;
                memory.ready = None;
                memory.completed = None;
            }
            let probe = |kind| self.input.observed.probes.get(&((*id).clone(), kind));
            if let Some(fact) = probe(ProbeKind::Startup) {
                memory.past_startup |= fact.ok;
            }
            if let Some(fact) = probe(ProbeKind::Readiness) {
                memory.ready = Some(fact.ok);
            }
            if let ContainerState::Exited { started, finished, code, .. } = &container.state {
                memory.ready = None;
                memory.backoff = memory.backoff.count(container.attempt, *started, *finished);
                let policy = self.workload.template.spec.restart_policy;
                let ok = *code == 0;
                let over = match (container.role, policy) {
                    (Role::Init, RestartPolicy::Never) | (Role::Main, RestartPolicy::Never) => true,
                    (Role::Init, _) | (Role::Main, RestartPolicy::OnFailure) => ok,
                    (Role::Main, RestartPolicy::Always) | (Role::Sandbox, _) => false,
                };
                if over {
                    memory.completed = Some(*code);
                }
            }
        }
        if let Some((_, sandbox)) = self.found.sandbox {
            self.memory.sandboxes = self.memory.sandboxes.max(sandbox.attempt + 1);
        }
    }

    fn decide(&mut self) -> Decision {
        let key = LaneKey::Pod(self.input.record.uid.clone());
        if self.input.observed.lanes.contains(&key) {
            return Decision::Nothing;
        }
        if self.memory.ended.is_some() {
            return self.clean_up();
        }
        if let Some(failure) = self.input.observed.failures.get(&key) {
            let retry = failure.retry_at();
            if retry > self.input.now {
                self.look_again_at(retry);
                return Decision::Blocked(failure.fault.clone());
            }
        }
        if self.is_past_deadline() {
            return Decision::End(
                PodPhase::Failed,
                "it was active longer than activeDeadlineSeconds".to_owned(),
            );
        }
        match self.found.sandbox {
            Some((_, sandbox)) if sandbox.state.is_alive() => self.go_on(),
            _ => self.over_with_sandbox().unwrap_or_else(|| self.begin()),
        }
    }

    /// A sandbox that has gone does not make what has run run again: with restartPolicy Never the pod ends, with
    /// OnFailure it ends if all has ended well.
    fn over_with_sandbox(&self) -> Option<Decision> {
        let created = |(_, one): &(_, &ObservedContainer)| one.state == ContainerState::Created;
        let ran = self.memory.containers.values().any(|memory| memory.next_attempt > 0)
            && (self.found.latest.is_empty() || !self.found.latest.values().all(created));
        let policy = self.spec().restart_policy;
        if policy == RestartPolicy::Always || !ran {
            return None;
        }
        let codes = self.completed();
        match self.end(&codes) {
            Some(end) if policy == RestartPolicy::Never || codes.iter().all(|code| *code == 0) => Some(end),
            _ if policy == RestartPolicy::Never => Some(Decision::End(
                PodPhase::Failed,
                "its sandbox ended before its containers did".to_owned(),
            )),
            _ => None,
        }
    }

    /// The exit codes of the main containers that are not started again.
    fn completed(&self) -> Vec<i64> {
        let memory = |container: &Container| self.memory.containers.get(&container.name);
        self.spec().containers.iter().filter_map(|container| memory(container)?.completed).collect()
    }

    /// The end of the pod, if these are the exit codes of all its main containers.
    fn end(&self, codes: &[i64]) -> Option<Decision> {
        if codes.len() < self.spec().containers.len() {
            return None;
        }
        Some(if codes.iter().all(|code| *code == 0) {
            Decision::End(PodPhase::Succeeded, String::new())
        } else {
            let words = self.last_words();
            Decision::End(PodPhase::Failed, format!("its containers ended with exit codes {codes:?}{words}"))
        })
    }

    /// What the containers that ended badly left as termination messages.
    fn last_words(&self) -> String {
        let words = |container: &ObservedContainer| match &container.state {
            ContainerState::Exited { code, message, .. } if *code != 0 && !message.trim().is_empty() => {
                Some(format!("; {}: {}", container.name, message.trim()))
            }
            _ => None,
        };
        self.found.latest.values().filter_map(|(_, container)| words(container)).collect()
    }

    /// Whether the last lane of this pod failed.
    fn has_failed(&self) -> bool {
        self.input.observed.failures.contains_key(&LaneKey::Pod(self.input.record.uid.clone()))
    }

    fn look_again_at(&mut self, time: Timestamp) {
        let wait = Duration::try_from(time.duration_since(self.input.now)).unwrap_or_default();
        self.next = self.next.sooner(Next::After(wait.max(Duration::from_millis(1))));
    }

    fn is_past_deadline(&mut self) -> bool {
        let (Some(deadline), Some(started)) = (self.spec().active_deadline, self.memory.started) else {
            return false;
        };
        let end = started + deadline;
        if end > self.input.now {
            self.look_again_at(end);
        }
        end <= self.input.now
    }

    /// No sandbox is alive: the whole pod is made, or made again, with the same address.
    fn begin(&mut self) -> Decision {
        let first = self.memory.sandboxes == 0;
        // One that a crash left between its creation and its start is started; one that would not start is made anew.
        let unstarted = self.found.sandbox.filter(|(_, sandbox)| sandbox.state == ContainerState::Created);
        let restarting = unstarted.filter(|_| !self.has_failed());
        let mut steps = Vec::new();
        let attempt = match restarting {
            Some((_, sandbox)) => sandbox.attempt,
            None => {
                let alive = self.stop_specs(self.spec().termination_grace, |_| true);
                if !alive.is_empty() {
                    steps.push(Step::Stop(alive));
                }
                if !self.found.all.is_empty() {
                    steps.push(Step::Remove(self.found.ids()));
                }
                self.memory.sandboxes
            }
        };
        self.memory.initialized = false;
        let mains: Vec<&str> = self.spec().containers.iter().map(|one| one.name.as_str()).collect();
        for (name, memory) in &mut self.memory.containers {
            // What has ended well is not run again, but the init containers are.
            if memory.completed != Some(0) || !mains.contains(&name.as_str()) {
                memory.completed = None;
                memory.id = None;
            }
        }
        let files = match self.files() {
            Ok(files) => files,
            Err(message) => return Decision::Blocked(Fault::new(FaultKind::Rejected, message)),
        };
        steps.push(Step::PrepareFiles(files));
        steps.push(Step::StartSandbox(SandboxSpec {
            identity: self.identity(),
            attempt,
            hostname: hostname(self.spec(), &self.facts()),
            host_network: self.spec().host_network,
            host_ipc: self.spec().host_ipc,
        }));
        if !self.spec().host_network {
            steps.push(self.connect());
        }
        let firsts: Vec<(Role, &Container)> = match self.workload.template.spec.init_containers.first() {
            Some(init) => vec![(Role::Init, init)],
            None => self
                .workload
                .template
                .spec
                .containers
                .iter()
                .filter(|one| {
                    self.memory.containers.get(&one.name).is_none_or(|memory| memory.completed.is_none())
                })
                .map(|one| (Role::Main, one))
                .collect(),
        };
        let starts = self.starts(&firsts);
        match starts {
            Ok(starts) => steps.extend(starts),
            Err(decision) => return decision,
        }
        let pod = self.input.record.key.clone();
        let why = if first {
            Why::Start { pod, commit: self.input.record.commit.clone() }
        } else {
            Why::Repair { pod, drift: Drift::SandboxGone }
        };
        Decision::Do(why, steps)
    }

    fn connect(&self) -> Step {
        let uid = self.input.record.uid.clone();
        let link = link_of(&uid, self.address(), self.input.host.mtu);
        Step::Connect { pod: uid, link }
    }

    /// The sandbox is alive: whatever comes next in it.
    fn go_on(&mut self) -> Decision {
        let pod = self.input.record.key.clone();
        let uid = &self.input.record.uid;
        if !self.spec().host_network && !self.input.observed.links.contains(&link_name(uid)) {
            return Decision::Do(Why::Repair { pod, drift: Drift::LinkGone }, vec![self.connect()]);
        }
        if !self.input.observed.files.contains_key(uid) {
            return match self.files() {
                Ok(files) => Decision::Do(Why::Continue { pod }, vec![Step::PrepareFiles(files)]),
                Err(message) => Decision::Blocked(Fault::new(FaultKind::Rejected, message)),
            };
        }
        if let Some((id, _)) =
            self.found.all.iter().find(|(_, one)| matches!(one.state, ContainerState::Paused { .. }))
        {
            let why = Why::Repair { pod, drift: Drift::ContainerPaused };
            return Decision::Do(why, vec![Step::Unpause((*id).clone())]);
        }
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
        self.refresh().unwrap_or(Decision::Nothing)
    }

    /// A postStart hook that is not done yet.
    fn run_hook(&self) -> Option<Decision> {
        for container in &self.spec().containers {
            let Some(handler) = &container.post_start else { continue };
            let Some((id, found)) = self.found.latest.get(container.name.as_str()) else { continue };
            let running = matches!(found.state, ContainerState::Running { .. });
            if running && !self.input.observed.hooked.contains(*id) {
                let step = Step::PostStart {
                    container: (*id).clone(),
                    handler: handler.clone(),
                    address: self.address(),
                };
                return Some(Decision::Do(Why::Continue { pod: self.input.record.key.clone() }, vec![step]));
            }
        }
        None
    }

    /// A container whose liveness or startup probe has failed.
    fn stop_unhealthy(&self) -> Option<Decision> {
        for container in &self.spec().containers {
            let Some((id, found)) = self.found.latest.get(container.name.as_str()) else { continue };
            if !matches!(found.state, ContainerState::Running { .. }) {
                continue;
            }
            for (kind, probe) in
                [(ProbeKind::Startup, &container.startup), (ProbeKind::Liveness, &container.liveness)]
            {
                let Some(probe) = probe else { continue };
                let Some(fact) = self.input.observed.probes.get(&((*id).clone(), kind)) else { continue };
                if fact.ok {
                    continue;
                }
                let grace = probe.termination_grace.unwrap_or(self.spec().termination_grace);
                let specs = self.stop_specs(grace, |one| one == container.name);
                let why = Why::Unhealthy {
                    pod: self.input.record.key.clone(),
                    container: container.name.clone(),
                    message: fact.message.clone(),
                };
                return Some(Decision::Do(why, vec![Step::Stop(specs)]));
            }
        }
        None
    }

    /// The next init container, if they are not all done.
    fn initialize(&mut self) -> Option<Decision> {
        let main_exists = self.found.all.iter().any(|(_, one)| one.role == Role::Main);
        if self.memory.initialized || main_exists || self.workload.template.spec.init_containers.is_empty() {
            self.memory.initialized = true;
            return None;
        }
        for container in &self.workload.template.spec.init_containers {
            let memory = self.memory.containers.get(&container.name);
            match memory.and_then(|memory| memory.completed) {
                Some(0) => continue,
                Some(code) => {
                    let message = format!("init container {} ended with exit code {code}", container.name);
                    return Some(Decision::End(PodPhase::Failed, message));
                }
                None => {}
            }
            return Some(match self.needs_start(container) {
                Start::Now(why) => self.start(why, &[(Role::Init, container)]),
                Start::Later | Start::Not => Decision::Nothing,
            });
        }
        self.memory.initialized = true;
        None
    }

    /// Main containers that must be started, or the end of the pod.
    fn run_main(&mut self) -> Option<Decision> {
        let containers = &self.workload.template.spec.containers;
        let mut due = Vec::new();
        let mut reason = None;
        for container in containers {
            if self.memory.containers.get(&container.name).is_some_and(|memory| memory.completed.is_some()) {
                continue;
            }
            if let Start::Now(why) = self.needs_start(container) {
                due.push((Role::Main, container));
                reason.get_or_insert(why);
            }
        }
        self.end(&self.completed()).or_else(|| reason.map(|why| self.start(why, &due)))
    }

    fn needs_start(&mut self, container: &Container) -> Start {
        let pod = self.input.record.key.clone();
        let known = self.memory.containers.get(&container.name);
        // What is left of one whose successor was removed says nothing about it.
        let newest = self
            .found
            .latest
            .get(container.name.as_str())
            .filter(|(_, found)| known.is_none_or(|memory| memory.next_attempt <= found.attempt + 1));
        match newest {
            None => {
                let existed = known.is_some_and(|memory| memory.id.is_some());
                Start::Now(if existed {
                    Why::Repair { pod, drift: Drift::ContainerRemoved }
                } else {
                    Why::Continue { pod }
                })
            }
            Some((_, found)) => match &found.state {
                ContainerState::Created => Start::Now(Why::Continue { pod }),
                ContainerState::Running { .. } | ContainerState::Paused { .. } => Start::Not,
                ContainerState::Dead => Start::Now(Why::Restart { pod, container: container.name.clone() }),
                ContainerState::Exited { finished, .. } => {
                    let backoff = known.map(|memory| memory.backoff);
                    let due = *finished + backoff.unwrap_or_default().delay();
                    if due > self.input.now {
                        self.look_again_at(due);
                        return Start::Later;
                    }
                    Start::Now(Why::Restart { pod, container: container.name.clone() })
                }
            },
        }
    }

    fn start(&self, why: Why, containers: &[(Role, &Container)]) -> Decision {
        match self.starts(containers) {
            Ok(steps) => Decision::Do(why, steps),
            Err(decision) => decision,
        }
    }

    /// The steps that start containers, after what remains of their predecessors but the last is removed.
    fn starts(&self, containers: &[(Role, &Container)]) -> Result<Vec<Step>, Decision> {
        let mut images = BTreeMap::new();
        let mut needs = Vec::new();
        for (_, container) in containers {
            match self.image(container) {
                Ok(id) => {
                    images.insert(container.name.as_str(), id);
                }
                Err(need) => needs.push(need),
            }
        }
        if !needs.is_empty() {
            return Err(Decision::Fetch(needs));
        }
        let mut steps = Vec::new();
        let restarting = self.found.sandbox.is_some_and(|(_, sandbox)| sandbox.state.is_alive());
        for (role, container) in containers {
            let stale = self.found.previous.get(container.name.as_str()).filter(|_| restarting);
            if let Some((id, _)) = stale {
                steps.push(Step::Remove(vec![(*id).clone()]));
            }
            let latest = self.found.latest.get(container.name.as_str()).filter(|_| restarting);
            let would_not_start =
                latest.filter(|(_, one)| one.state == ContainerState::Created && self.has_failed());
            if let Some((id, _)) = would_not_start {
                steps.push(Step::Remove(vec![(*id).clone()]));
            }
            let Some(image) = images.get(container.name.as_str()) else { continue };
            let spec =
                self.container_spec(*role, container, image.clone(), restarting).map_err(|message| {
                    Decision::Blocked(Fault::new(
                        FaultKind::Rejected,
                        format!("container {}: {message}", container.name),
                    ))
                })?;
            steps.push(Step::StartContainer(Box::new(spec)));
        }
        Ok(steps)
    }

    fn image(&self, container: &Container) -> Result<ImageId, ImageNeed> {
        let commit = &self.input.record.commit;
        let pin = self.input.host.pins.get(commit).and_then(|pins| pins.get(&container.image));
        match pin {
            Some(pin) if self.input.observed.images.contains(&pin.id) => Ok(pin.id.clone()),
            _ => Err(ImageNeed {
                commit: commit.clone(),
                image: container.image.clone(),
                pull: container.pull,
                digest: pin.and_then(|pin| pin.digest.clone()),
            }),
        }
    }

    fn container_spec(
        &self,
        role: Role,
        container: &Container,
        image: ImageId,
        in_sandbox: bool,
    ) -> Result<ContainerSpec, String> {
        let commit = self.input.commit.ok_or("its commit is not here")?;
        let empty = BTreeMap::new();
        let services = if self.spec().enable_service_links { self.input.services } else { &empty };
        let env = environment(container, &self.facts(), &commit.objects, services)?;
        let latest = self.found.latest.get(container.name.as_str()).filter(|_| in_sandbox);
        let attempt = match latest {
            Some((_, found)) if found.state == ContainerState::Created => found.attempt,
            _ => self.memory.containers.get(&container.name).map_or(0, |memory| memory.next_attempt),
        };
        Ok(ContainerSpec {
            identity: self.identity(),
            role,
            name: container.name.clone(),
            attempt,
            image,
            image_name: container.image.clone(),
            command: expand_all(&container.command, &env),
            args: expand_all(&container.args, &env),
            working_dir: container.working_dir.clone(),
            env,
            mounts: mounts(container, self.spec()),
            resources: container.resources,
            host_pid: self.spec().host_pid,
            stdin: container.stdin,
            tty: container.tty,
            security: container.security.clone(),
            termination_message_path: container.termination_message_path.clone(),
            message_from_logs: container.message_from_logs,
        })
    }

    fn identity(&self) -> PodIdentity {
        let record = self.input.record;
        PodIdentity {
            uid: record.uid.clone(),
            pod: record.key.clone(),
            owner: record.owner.clone(),
            commit: record.commit.clone(),
            template: record.template.clone(),
        }
    }

    fn files(&self) -> Result<PodFiles, String> {
        let commit = self.input.commit.ok_or("its commit is not here")?;
        pod_files(self.spec(), &self.facts(), &commit.objects, self.input.host.dns)
    }

    /// A ConfigMap or Secret that the pod mounts has changed: its files are swapped, the pod keeps running.
    fn refresh(&self) -> Option<Decision> {
        if !has_config_volumes(self.spec()) {
            return None;
        }
        let written = self.input.observed.files.get(&self.input.record.uid)?;
        let files = self.files().ok()?;
        (*written != config_digest(&files)).then(|| {
            Decision::Do(Why::Refresh { pod: self.input.record.key.clone() }, vec![Step::PrepareFiles(files)])
        })
    }

    /// The pod has ended for good: only its ended containers stay, for their logs.
    fn clean_up(&self) -> Decision {
        let alive: Vec<ContainerId> = self
            .found
            .all
            .iter()
            .filter(|(_, one)| one.state.is_alive() && one.role == Role::Sandbox)
            .map(|(id, _)| (*id).clone())
            .collect();
        let specs = self.stop_specs(self.spec().termination_grace, |_| true);
        if alive.is_empty() && specs.is_empty() {
            return Decision::Nothing;
        }
        let mut steps = Vec::new();
        if !specs.is_empty() {
            steps.push(Step::Stop(specs));
        }
        steps.push(Step::Remove(alive));
        Decision::Do(Why::Clean { pod: self.input.record.key.clone() }, steps)
    }

    fn stop_specs(&self, grace: Duration, wanted: impl Fn(&str) -> bool) -> Vec<StopSpec> {
        stop_specs(self.found, Some(self.spec()), self.address(), grace, wanted)
    }

    fn output(mut self, decision: Decision) -> PodOutput {
        let mut images = Vec::new();
        let mut lane = None;
        let mut fault = None;
        let key = LaneKey::Pod(self.input.record.uid.clone());
        let failed = self.input.observed.failures.get(&key).map(|failure| failure.fault.clone());
        match decision {
            // What failed is still in the way while it is tried again.
            Decision::Nothing if self.input.observed.lanes.contains(&key) => fault = failed,
            Decision::Nothing => {}
            Decision::Do(why, steps) => {
                fault = failed;
                lane = Some(Lane { key, why, steps });
            }
            Decision::Blocked(why) => fault = Some(why),
            Decision::Fetch(needs) => {
                fault = needs.iter().find_map(|need| {
                    let key = LaneKey::Image(need.commit.clone(), need.image.clone());
                    self.input.observed.failures.get(&key).map(|failure| failure.fault.clone())
                });
                images = needs;
            }
            Decision::End(phase, message) => {
                self.memory.ended = Some((phase, message));
                // What still runs is stopped in the next look.
                self.next = self.next.sooner(Next::After(Duration::from_millis(1)));
            }
        }
        let standing = Standing {
            now: self.input.now,
            spec: self.spec(),
            found: self.found,
            observed: self.input.observed,
            address: self.address(),
            fault: fault.as_ref(),
        };
        let status = phase::status(&standing, &self.memory);
        self.memory.ready = status.ready;
        let probes = phase::probes(&standing, &self.memory);
        PodOutput { lane, images, status, probes, memory: Some(self.memory), next: self.next }
    }
}

/// Whether a container must be started.
enum Start {
    Now(Why),
    Later,
    Not,
}

fn stop_specs(
    found: &Found<'_>,
    spec: Option<&PodSpec>,
    address: Ipv4Addr,
    grace: Duration,
    wanted: impl Fn(&str) -> bool,
) -> Vec<StopSpec> {
    found
        .alive()
        .filter(|(_, one)| wanted(&one.name))
        .map(|(id, one)| StopSpec {
            container: id.clone(),
            pre_stop: spec
                .and_then(|spec| spec.containers.iter().find(|container| container.name == one.name))
                .and_then(|container| container.pre_stop.clone())
                .filter(|_| !grace.is_zero()),
            address,
            grace,
        })
        .collect()
}

/// The stop record's work: drain, stop, remove, until nothing is left.
fn stop(input: &PodInput<'_>, found: &Found<'_>) -> PodOutput {
    let uid = &input.record.uid;
    let key = LaneKey::Pod(uid.clone());
    let link = link_name(uid);
    let left = !found.all.is_empty()
        || input.observed.links.contains(&link)
        || input.observed.files.contains_key(uid);
    let mut next = Next::AwaitChange;
    let mut status = phase::terminating(input, found);
    if !left && !input.observed.lanes.contains(&key) {
        status.terminating = true;
        return PodOutput { lane: None, images: Vec::new(), status, probes: Vec::new(), memory: None, next };
    }
    let mut lane = None;
    // A failure from before the stop record is one of starting: it is no reason to hold the stop back.
    let told = input.record.stop.as_ref().map(|stop| stop.at);
    let retry = input
        .observed
        .failures
        .get(&key)
        .filter(|failure| told.is_none_or(|told| failure.at > told))
        .map(|failure| failure.retry_at())
        .filter(|at| *at > input.now);
    if let Some(retry) = retry {
        next = Next::After(Duration::try_from(retry.duration_since(input.now)).unwrap_or_default());
    } else if !input.observed.lanes.contains(&key) {
        let reason = input.record.stop.as_ref().map_or("", |stop| stop.reason.as_str()).to_owned();
        let why = Why::Stop { pod: input.record.key.clone(), reason };
        lane = Some(Lane { key, why, steps: stop_steps(input, found, link) });
    }
    PodOutput {
        lane,
        images: Vec::new(),
        status,
        probes: Vec::new(),
        memory: Some(input.memory.clone()),
        next,
    }
}

fn stop_steps(input: &PodInput<'_>, found: &Found<'_>, link: String) -> Vec<Step> {
    let spec = input.workload.map(|workload| &workload.template.spec);
    let host_network = spec.is_some_and(|spec| spec.host_network);
    let address =
        if host_network { input.host.address } else { input.memory.address.unwrap_or(Ipv4Addr::UNSPECIFIED) };
    let grace = spec.map_or(Duration::from_secs(30), |spec| spec.termination_grace);
    let mut steps = Vec::new();
    if found.alive().next().is_some() {
        let drain = input.host.drain.min(grace);
        let drained = input.in_service && input.memory.ready.is_some() && !drain.is_zero();
        if drained {
            steps.push(Step::Drain(drain));
        }
        let rest = if drained { grace - drain } else { grace };
        steps.push(Step::Stop(stop_specs(found, spec, address, rest, |_| true)));
    }
    if !found.all.is_empty() {
        steps.push(Step::Remove(found.ids()));
    }
    if input.observed.links.contains(&link) {
        steps.push(Step::Disconnect(link));
    }
    steps.push(Step::RemoveFiles(input.record.uid.clone()));
    steps
}

/// A record that this host cannot resolve in its own verified clone: what runs of it is left alone, nothing is started.
fn unresolved(input: &PodInput<'_>, found: &Found<'_>, memory: PodMemory) -> PodOutput {
    let mut status = phase::terminating(input, found);
    let message = format!(
        "commit {} has no {} with template {}: this host runs only what it finds in its own verified clone",
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
