//! What a rename promises: the old workload is not stopped before the new one is ready.

use reconciler::{
    commit::Commit,
    endpoints::selects,
    name::{ObjectKey, WorkloadKind},
    object::Workload,
    state::{ClusterState, Phase, PodRecord, StopReason},
};

use crate::world::World;

impl World {
    /// This holds during the rollout, unless both write to the disk of a host: then the old one
    /// must stop first.
    pub(super) fn check_renames(
        &mut self,
        before: &ClusterState,
        after: &ClusterState,
        driven: Option<&Commit>,
    ) {
        let is_rolling_out = |state: &ClusterState| {
            matches!(
                state.rollout.phase,
                Phase::Progressing { .. } | Phase::Soaking
            )
        };
        if !is_rolling_out(before) || !is_rolling_out(after) {
            return;
        }
        let Some(driven) = driven else {
            return;
        };
        let is_newly_stopped = |record: &&PodRecord| {
            record
                .stop
                .as_ref()
                .is_some_and(|stop| stop.reason == StopReason::OwnerRemoved)
                && before
                    .pods
                    .get(&record.uid)
                    .is_some_and(|old| old.stop.is_none())
        };
        let early = after
            .pods
            .values()
            .filter(is_newly_stopped)
            .find_map(|record| {
                // After a loss of the state the leader does not know which workload ran before.
                let known = before.rollout.left.iter().chain(&before.rollout.healthy);
                let mut known = self
                    .pushed
                    .iter()
                    .filter(|commit| known.clone().any(|id| *id == commit.id));
                known.find(|commit| commit.objects.workloads.contains_key(&record.owner))?;
                let successor = self.successor(record, driven)?;
                let mut pods = after.pods.values().filter(|pod| pod.owner == successor.key);
                let any_ready = pods.any(|pod| self.referee.could_be_ready(self.now, &pod.uid));
                (!any_ready).then(|| (record.uid.clone(), successor.key.clone()))
            });
        self.require(early.is_none(), || {
            format!("{early:?} is stopped before its successor is ready")
        });
    }

    /// The Deployment that a pod's owner was renamed to, if the Services of the owner select its
    /// pods now.
    fn successor<'c>(&self, record: &PodRecord, driven: &'c Commit) -> Option<&'c Workload> {
        let was = self
            .pushed
            .iter()
            .find_map(|commit| commit.objects.workloads.get(&record.owner))?;
        if was.template.spec.writes_to_host() {
            return None;
        }
        let old = &record.owner.object.name;
        let mut successors = self.renames.iter().filter(|(from, _)| from == old);
        let successor = successors.find_map(|(_, to)| {
            let workloads = driven.objects.workloads.values();
            workloads
                .filter(|workload| workload.key.kind == WorkloadKind::Deployment)
                .find(|workload| workload.key.object.name == *to)
        })?;
        let replicas = super::bounds::replicas(successor)?;
        let selected_old = |service: &ObjectKey| {
            let mut services = self
                .pushed
                .iter()
                .filter_map(|commit| commit.objects.services.get(service));
            services.any(|service| selects(service, &was.template.meta.labels))
        };
        let mut services = driven
            .objects
            .services
            .iter()
            .filter(|(key, _)| selected_old(key));
        let all = services.all(|(_, service)| selects(service, &successor.template.meta.labels));
        (all && replicas > 0).then_some(successor)
    }
}
