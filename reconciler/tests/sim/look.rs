//! What tests ask of a simulated host.

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
    /// The pods of an owner that are not told to stop, oldest first.
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
            None => self.fail(&format!("nothing is reported of {uid}")),
        }
    }

    /// How many pods of an owner are ready and not told to stop.
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

    /// The newest container of a pod with this name; the sandbox has none.
    pub(crate) fn container(
        &self,
        uid: &PodUid,
        name: &str,
    ) -> Option<(&ContainerId, &ObservedContainer)> {
        let mine = self
            .host
            .containers
            .iter()
            .filter(|(_, one)| one.identity.uid == *uid && one.name == name);
        mine.max_by_key(|(_, one)| one.attempt)
    }

    /// The image that the newest `main` container of a pod was made from.
    pub(crate) fn image(&self, uid: &PodUid) -> ImageId {
        match self.container(uid, "main") {
            Some((_, one)) => one.image.clone(),
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
            .filter(|(_, one)| one.role == Role::Sandbox)
            .map(|(id, _)| id.clone())
    }

    pub(crate) fn address(&self, uid: &PodUid) -> Option<Ipv4Addr> {
        self.host
            .links
            .values()
            .find(|(pod, _)| pod == uid)
            .map(|(_, address)| *address)
    }

    /// All containers that live, with the sandboxes, sorted.
    pub(crate) fn alive(&self) -> Vec<ContainerId> {
        let alive = self
            .host
            .containers
            .iter()
            .filter(|(_, one)| one.state.is_alive());
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

    /// The last word of the history on a commit.
    pub(crate) fn fate(&self, commit: &str) -> Option<(CommitState, String)> {
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

    /// Five more looks change nothing.
    #[track_caller]
    pub(crate) fn expect_quiet(&mut self) {
        for _ in 0..5 {
            let change = self.ask_cluster();
            if !change.changes.is_empty() {
                self.fail(&format!("not quiet: {:#?}", change.changes));
            }
            let plan = self.ask_node();
            if !plan.lanes.is_empty() {
                self.fail(&format!("not quiet: {:#?}", plan.lanes));
            }
            self.cycle();
        }
        if self.is_busy() {
            self.fail("something is still under way");
        }
    }

    /// What the NAT table must hold.
    pub(crate) fn services(&self) -> &ServiceTable {
        match self.last.as_ref().and_then(|plan| plan.services.as_ref()) {
            Some(table) => table,
            None => self.fail("what is published is left as it is"),
        }
    }

    pub(crate) fn node_port(&self, service: &str) -> Option<u16> {
        let given = self
            .state
            .services
            .get(&ObjectKey::new("default", service))?;
        given
            .node_ports
            .get(&PortKey::new(Protocol::Tcp, 80))
            .copied()
    }

    pub(crate) fn state_of(&self, id: &ContainerId) -> Option<&ContainerState> {
        self.host.containers.get(id).map(|one| &one.state)
    }
}
