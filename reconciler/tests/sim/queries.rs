//! What tests read from a simulated host, and what they expect of it.

use std::net::Ipv4Addr;

use reconciler::{
    name::{ContainerId, ImageId, ObjectKey, PodUid},
    network::ServiceTable,
    object::{PortKey, Protocol},
    observed::{ContainerState, ObservedContainer},
    plan::Role,
    state::{CommitState, Phase, PodRecord},
    status::PodStatus,
};

use crate::{build::commit_id, daemon::Sim};

impl Sim {
    /// The pods of an owner without a stop record, oldest first.
    pub(crate) fn pods(&self, owner: &str) -> Vec<&PodRecord> {
        let mut pods: Vec<&PodRecord> = self
            .state
            .pods
            .values()
            .filter(|record| record.owner.object.name == owner && record.stop.is_none())
            .collect();
        pods.sort_by_key(|record| record.serial);
        pods
    }

    /// The only pod of an owner.
    pub(crate) fn pod(&self, owner: &str) -> &PodRecord {
        let pods = self.pods(owner);
        if pods.len() != 1 {
            self.fail(&format!("{owner} has {} pods", pods.len()));
        }
        pods[0]
    }

    pub(crate) fn uids(&self, owner: &str) -> Vec<PodUid> {
        self.pods(owner)
            .into_iter()
            .map(|record| record.uid.clone())
            .collect()
    }

    pub(crate) fn status(&self, uid: &PodUid) -> &PodStatus {
        match self.report.as_ref().and_then(|report| report.pods.get(uid)) {
            Some(status) => status,
            None => self.fail(&format!("the report does not contain {uid}")),
        }
    }

    /// How many pods of an owner are ready and have no stop record.
    pub(crate) fn ready(&self, owner: &str) -> usize {
        let Some(report) = &self.report else { return 0 };
        let ready = |record: &&&PodRecord| {
            report
                .pods
                .get(&record.uid)
                .is_some_and(|status| status.ready.is_some())
        };
        self.pods(owner).iter().filter(ready).count()
    }

    /// The newest container of a pod with this name. The name of a sandbox is empty.
    pub(crate) fn container(
        &self,
        uid: &PodUid,
        name: &str,
    ) -> Option<(&ContainerId, &ObservedContainer)> {
        let named = self
            .host
            .containers
            .iter()
            .filter(|(_, container)| container.identity.uid == *uid && container.name == name);
        named.max_by_key(|(_, container)| container.attempt)
    }

    /// The image of the newest `main` container of a pod.
    pub(crate) fn image(&self, uid: &PodUid) -> ImageId {
        match self.container(uid, "main") {
            Some((_, container)) => container.image.clone(),
            None => self.fail(&format!("{uid} has no container")),
        }
    }

    pub(crate) fn main(&self, owner: &str) -> ContainerId {
        let uid = self.pod(owner).uid.clone();
        match self.container(&uid, "main") {
            Some((id, _)) => id.clone(),
            None => self.fail(&format!("{owner} has no container")),
        }
    }

    pub(crate) fn sandbox(&self, uid: &PodUid) -> Option<ContainerId> {
        self.container(uid, "")
            .filter(|(_, container)| container.role == Role::Sandbox)
            .map(|(id, _)| id.clone())
    }

    pub(crate) fn address(&self, uid: &PodUid) -> Option<Ipv4Addr> {
        self.host
            .links
            .values()
            .find(|(pod, _)| pod == uid)
            .map(|(_, address)| *address)
    }

    /// All running containers with the sandboxes, sorted.
    pub(crate) fn alive(&self) -> Vec<ContainerId> {
        let alive = self
            .host
            .containers
            .iter()
            .filter(|(_, container)| container.state.is_alive());
        alive.map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn phase(&self) -> &'static str {
        self.state.rollout.phase.as_str()
    }

    pub(crate) fn is_target(&self, commit: &str) -> bool {
        self.state.rollout.target == Some(commit_id(commit))
    }

    pub(crate) fn is_bad(&self, commit: &str) -> bool {
        self.state.rollout.bad.contains_key(&commit_id(commit))
    }

    /// The last entry of the history for a commit: its state and reason.
    pub(crate) fn outcome(&self, commit: &str) -> Option<(CommitState, String)> {
        let commit = commit_id(commit);
        let entry = self
            .state
            .rollout
            .history
            .iter()
            .rev()
            .find(|entry| entry.commit == commit)?;
        Some((entry.state, entry.reason.to_string()))
    }

    #[track_caller]
    pub(crate) fn expect_healthy(&self, commit: &str) {
        if self.state.rollout.phase != Phase::Healthy || !self.is_target(commit) {
            self.fail(&format!("{commit} is not healthy"));
        }
    }

    #[track_caller]
    pub(crate) fn expect(&self, holds: bool, otherwise: &str) {
        if !holds {
            self.fail(otherwise);
        }
    }

    /// Expects that five more cycles change nothing.
    #[track_caller]
    pub(crate) fn expect_idle(&mut self) {
        for _ in 0..5 {
            let change = self.decision();
            if !change.changes.is_empty() {
                self.fail(&format!("not idle: {:#?}", change.changes));
            }
            let plan = self.planned();
            if !plan.lanes.is_empty() {
                self.fail(&format!("not idle: {:#?}", plan.lanes));
            }
            self.cycle();
        }
        if self.is_busy() {
            self.fail("a lane still runs");
        }
    }

    /// The wanted content of the NAT table.
    pub(crate) fn services(&self) -> &ServiceTable {
        match self
            .last_plan
            .as_ref()
            .and_then(|plan| plan.services.as_ref())
        {
            Some(table) => table,
            None => self.fail("the plan does not change the NAT table"),
        }
    }

    pub(crate) fn node_port(&self, service: &str) -> Option<u16> {
        let allocation = self
            .state
            .services
            .get(&ObjectKey::new("default", service))?;
        allocation
            .node_ports
            .get(&PortKey::new(Protocol::Tcp, 80))
            .copied()
    }

    pub(crate) fn state_of(&self, id: &ContainerId) -> Option<&ContainerState> {
        self.host
            .containers
            .get(id)
            .map(|container| &container.state)
    }
}
