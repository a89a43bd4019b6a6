//! Pods of which only one may run: a bare Pod, the pod of a DaemonSet on its node, the pods of one
//! template of a Deployment with `strategy: Recreate`.

use reconciler::{
    name::{NodeName, PodUid, WorkloadKind},
    object::Workload,
    plan::{PodIdentity, Role},
    state::{ClusterState, PodRecord},
};

use super::recreate::recreates;
use crate::{host::Host, world::World};

impl World {
    /// No such pod is made while another one runs.
    pub(super) fn check_duplicates(
        &mut self,
        workload: &Workload,
        before: &ClusterState,
        after: &ClusterState,
    ) {
        let owner = &workload.key;
        let made = after
            .pods
            .values()
            .filter(|record| record.owner == *owner && record.stop.is_none());
        let made = made
            .filter(|record| !before.pods.contains_key(&record.uid) && self.is_made(&record.uid));
        let beside: Vec<(PodUid, NodeName, PodUid)> = made
            .filter_map(|record| {
                let (node, other) = self.runs_beside(workload, record)?;
                Some((record.uid.clone(), node, other))
            })
            .collect();
        for (uid, node, other) in beside {
            let removed_nodes = after.outages.get(&node).is_some_and(|outage| outage.lost);
            let unknown_to_leader = !self.leaders_view().facts.contains_key(&node);
            if removed_nodes || unknown_to_leader || self.referee.is_in_doubt() {
                self.referee.allow_duplicate(&uid);
            } else {
                self.require(false, || {
                    format!("{owner}: {uid} is made while {other} runs on {node}")
                });
            }
        }
    }

    /// A running pod that excludes this one, and its node.
    fn runs_beside(&self, workload: &Workload, record: &PodRecord) -> Option<(NodeName, PodUid)> {
        let may_exclude = |host: &&Host| match workload.key.kind {
            WorkloadKind::Pod => !host.removed,
            WorkloadKind::DaemonSet => record.place.node() == Some(&host.name),
            WorkloadKind::Deployment => recreates(workload) && !host.removed,
            WorkloadKind::ReplicaSet | WorkloadKind::ReplicationController => false,
        };
        let other = |identity: &PodIdentity| match workload.key.kind {
            WorkloadKind::Deployment => identity.template != record.template,
            _ => identity.uid != record.uid,
        };
        self.hosts.iter().filter(may_exclude).find_map(|host| {
            let alive = host
                .engine
                .containers
                .values()
                .filter(|container| container.state.is_alive());
            let mut running = alive
                .filter(|container| container.role != Role::Sandbox)
                .map(|container| &container.identity);
            let other =
                running.find(|identity| identity.owner == workload.key && other(identity))?;
            Some((host.name.clone(), other.uid.clone()))
        })
    }

    /// A bare Pod runs on one node, and a DaemonSet has one pod on a node.
    pub(super) fn check_identities(&mut self, starts: &PodIdentity) {
        let (kind, uid) = (starts.owner.kind, &starts.uid);
        let here = |host: &Host| {
            host.engine
                .containers
                .values()
                .any(|container| container.identity.uid == *uid)
        };
        let others = self.hosts.iter().filter(|host| match kind {
            WorkloadKind::Pod => true,
            WorkloadKind::DaemonSet => here(host),
            _ => false,
        });
        let other = others
            .flat_map(|host| {
                host.engine
                    .containers
                    .values()
                    .map(move |container| (&host.name, container))
            })
            .filter(|(_, container)| container.role != Role::Sandbox && container.state.is_alive())
            .map(|(node, container)| (node, &container.identity))
            .filter(|(_, identity)| identity.owner == starts.owner && identity.uid != *uid)
            // A daemon observes the pods of its own host: there are no excuses for two of a
            // DaemonSet there.
            .find(|(_, identity)| {
                kind == WorkloadKind::DaemonSet
                    || !self.referee.may_run_together(uid, &identity.uid)
            });
        let violation = other.map(|(node, other)| {
            format!(
                "{} runs twice: {} on {node}, and {uid} starts",
                starts.owner, other.uid
            )
        });
        self.require(violation.is_none(), || {
            violation.clone().unwrap_or_default()
        });
    }
}
