//! What may be there once only: a bare Pod, a DaemonSet's pod on its node, one template of a
//! Deployment that recreates.

use reconciler::{
    name::{NodeName, PodUid, WorkloadKind},
    object::Workload,
    plan::{PodIdentity, Role},
    state::{ClusterState, PodRecord},
};

use super::recreate::recreates;
use crate::{host::Host, world::World};

impl World {
    /// It is not made beside another one that runs.
    pub(super) fn judge_alone(
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
            let given_up = after.outages.get(&node).is_some_and(|outage| outage.lost);
            let unheard_of = !self.leaders_view().facts.contains_key(&node);
            if given_up || unheard_of || self.referee.is_in_doubt() {
                self.referee.is_made_beside(&uid);
            } else {
                self.require(false, || {
                    format!("{owner}: {uid} is made while {other} runs on {node}")
                });
            }
        }
    }

    /// What runs where this one must be alone.
    fn runs_beside(&self, workload: &Workload, record: &PodRecord) -> Option<(NodeName, PodUid)> {
        let there = |host: &&Host| match workload.key.kind {
            WorkloadKind::Pod => !host.removed,
            WorkloadKind::DaemonSet => record.place.node() == Some(&host.name),
            WorkloadKind::Deployment => recreates(workload) && !host.removed,
            WorkloadKind::ReplicaSet | WorkloadKind::ReplicationController => false,
        };
        let other = |identity: &PodIdentity| match workload.key.kind {
            WorkloadKind::Deployment => identity.template != record.template,
            _ => identity.uid != record.uid,
        };
        self.hosts.iter().filter(there).find_map(|host| {
            let alive = host
                .engine
                .containers
                .values()
                .filter(|one| one.state.is_alive());
            let mut running = alive
                .filter(|one| one.role != Role::Sandbox)
                .map(|one| &one.identity);
            let other =
                running.find(|identity| identity.owner == workload.key && other(identity))?;
            Some((host.name.clone(), other.uid.clone()))
        })
    }

    /// A bare Pod is in one place, a DaemonSet's once on a node.
    pub(super) fn judge_identities(&mut self, starts: &PodIdentity) {
        let (kind, uid) = (starts.owner.kind, &starts.uid);
        let here = |host: &Host| {
            host.engine
                .containers
                .values()
                .any(|one| one.identity.uid == *uid)
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
                    .map(move |one| (&host.name, one))
            })
            .filter(|(_, one)| one.role != Role::Sandbox && one.state.is_alive())
            .map(|(node, one)| (node, &one.identity))
            .filter(|(_, identity)| identity.owner == starts.owner && identity.uid != *uid)
            // On its own host a daemon knows what runs.
            .find(|(_, identity)| {
                kind == WorkloadKind::DaemonSet || !self.referee.may_both_run(uid, &identity.uid)
            });
        let wrong = other.map(|(node, other)| {
            format!(
                "{} runs twice: {} on {node}, and {uid} starts",
                starts.owner, other.uid
            )
        });
        self.require(wrong.is_none(), || wrong.clone().unwrap_or_default());
    }
}
