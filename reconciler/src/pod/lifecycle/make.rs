//! Makes a pod's sandbox and containers: the steps contain every parameter.

use std::collections::BTreeMap;

use super::{ImageNeed, PodDecision, PodLifecycle};
use crate::{
    fault::{Fault, FaultKind},
    name::{ContainerId, ImageId},
    object::Container,
    observed::ContainerState,
    plan::{ContainerSpec, Drift, PodFiles, PodIdentity, Role, SandboxSpec, Step, Why},
    pod::{
        environment::{environment, expand_all},
        files::{hostname, mounts, pod_files},
        link::link_of,
        missing::MissingContent,
    },
};

/// The longest host name that the kernel takes (`__NEW_UTS_LEN`).
const HOSTNAME_BYTES: usize = 64;

impl PodLifecycle<'_> {
    /// Makes the whole pod, or makes it again with the same address, if no sandbox runs.
    pub(super) fn begin(&mut self) -> PodDecision {
        let first = self.memory.sandboxes == 0;
        // A sandbox that a crash left between creation and start is started; a sandbox that could
        // not be started is made again.
        let mut steps = Vec::new();
        let attempt = match self.found.sandbox {
            Some((_, sandbox))
                if sandbox.state == ContainerState::Created && !self.has_failed() =>
            {
                sandbox.attempt
            }
            _ => {
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
        let mains: Vec<&str> = self
            .spec()
            .containers
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        for (name, memory) in &mut self.memory.containers {
            // Containers that have succeeded are not run again, but init containers are.
            if memory.completed != Some(0) || !mains.contains(&name.as_str()) {
                memory.completed = None;
                memory.id = None;
            }
        }

        let files = match self.files() {
            Ok(files) => files,
            Err(missing) => return blocked(missing.to_string()),
        };
        let hostname = hostname(self.spec(), &self.facts(), &self.input.host.dns.zone);
        if hostname.len() > HOSTNAME_BYTES {
            return blocked(format!(
                "with setHostnameAsFQDN its host name is {hostname}, of {} characters, and {HOSTNAME_BYTES} is the \
                 most: write a shorter hostname or subdomain, or leave setHostnameAsFQDN out",
                hostname.len()
            ));
        }
        steps.push(Step::PrepareFiles(files));
        steps.push(Step::StartSandbox(SandboxSpec {
            identity: self.identity(),
            attempt,
            hostname,
            host_network: self.spec().host_network,
            host_ipc: self.spec().host_ipc,
            sysctls: self.spec().sysctls.clone(),
        }));
        if !self.spec().host_network {
            steps.push(self.connect());
        }

        let firsts: Vec<(Role, &Container)> =
            match self.workload.template.spec.init_containers.first() {
                Some(init) => vec![(Role::Init, init)],
                None => self
                    .workload
                    .template
                    .spec
                    .containers
                    .iter()
                    .filter(|one| {
                        self.memory
                            .containers
                            .get(&one.name)
                            .is_none_or(|memory| memory.completed.is_none())
                    })
                    .map(|one| (Role::Main, one))
                    .collect(),
            };
        match self.starts(&firsts) {
            Ok(starts) => steps.extend(starts),
            Err(decision) => return decision,
        }

        let pod = self.input.record.key.clone();
        let why = if first {
            Why::Start {
                pod,
                commit: self.input.record.commit.clone(),
            }
        } else {
            Why::Repair {
                pod,
                drift: Drift::SandboxGone,
            }
        };
        PodDecision::Do(why, steps)
    }

    pub(super) fn connect(&self) -> Step {
        let uid = self.input.record.uid.clone();
        let link = link_of(&uid, self.address(), self.input.host.mtu);
        Step::Connect { pod: uid, link }
    }

    pub(super) fn start(&self, why: Why, containers: &[(Role, &Container)]) -> PodDecision {
        match self.starts(containers) {
            Ok(steps) => PodDecision::Do(why, steps),
            Err(decision) => decision,
        }
    }

    /// The steps that start containers and then remove their predecessors, except the last
    /// predecessor of each, which keeps its logs.
    pub(super) fn starts(
        &self,
        containers: &[(Role, &Container)],
    ) -> Result<Vec<Step>, PodDecision> {
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
            return Err(PodDecision::Fetch(needs));
        }

        let mut steps = Vec::new();
        let restarting = self
            .found
            .sandbox
            .is_some_and(|(_, sandbox)| sandbox.state.is_alive());
        for (role, container) in containers {
            // A container that was created and could not be started would fail again.
            if let Some((id, latest)) = self.found.latest.get(container.name.as_str())
                && restarting
                && latest.state == ContainerState::Created
                && self.has_failed()
            {
                steps.push(Step::Remove(vec![(*id).clone()]));
            }
            let Some(image) = images.get(container.name.as_str()) else {
                continue;
            };
            let spec = self
                .container_spec(*role, container, image.clone(), restarting)
                .map_err(|missing| blocked(format!("container {}: {missing}", container.name)))?;
            steps.push(Step::StartContainer(Box::new(spec)));
        }

        // The removal is the last step: a container that the engine cannot remove must not prevent
        // the start of its successors.
        if restarting {
            let stale: Vec<ContainerId> = containers
                .iter()
                .filter_map(|(_, container)| self.found.previous.get(container.name.as_str()))
                .map(|(id, _)| (*id).clone())
                .collect();
            if !stale.is_empty() {
                steps.push(Step::Remove(stale));
            }
        }
        Ok(steps)
    }

    fn image(&self, container: &Container) -> Result<ImageId, ImageNeed> {
        let commit = &self.input.record.commit;
        let pin = self
            .input
            .host
            .pins
            .get(commit)
            .and_then(|pins| pins.get(&container.image));
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
    ) -> Result<ContainerSpec, MissingContent> {
        let commit = self.input.commit.ok_or(MissingContent::Commit)?;
        let empty = BTreeMap::new();
        let services = if self.spec().enable_service_links {
            self.input.services.get()
        } else {
            &empty
        };
        let env = environment(container, &self.facts(), &commit.objects, services)?;

        // A container of this sandbox that was created and not started yet is started.
        let attempt = match self.found.latest.get(container.name.as_str()) {
            Some((_, latest)) if in_sandbox && latest.state == ContainerState::Created => {
                latest.attempt
            }
            _ => self
                .memory
                .containers
                .get(&container.name)
                .map_or(0, |memory| memory.next_attempt),
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
            stop_signal: container.stop_signal.clone(),
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
            // The commit from which the container is really made: the commit in the record only
            // locates the template, and comes from the store.
            commit: self
                .input
                .commit
                .map_or_else(|| record.commit.clone(), |commit| commit.id.clone()),
            template: record.template.clone(),
        }
    }

    pub(super) fn files(&self) -> Result<PodFiles, MissingContent> {
        let commit = self.input.commit.ok_or(MissingContent::Commit)?;
        pod_files(
            self.spec(),
            &self.facts(),
            &commit.objects,
            self.input.host.dns,
        )
    }
}

/// The decision for a pod that cannot be made from its commit: no attempt on the engine would end
/// otherwise.
pub(super) fn blocked(message: String) -> PodDecision {
    PodDecision::Blocked(Fault::new(FaultKind::Rejected, message))
}
