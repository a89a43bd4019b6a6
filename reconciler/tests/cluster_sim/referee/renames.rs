//! What a rename promises: the old workload is not told to stop before the new one can take its
//! place.

use reconciler::{
    commit::Commit,
    endpoints::selects,
    name::{ObjectKey, WorkloadKind},
    object::Workload,
    state::{ClusterState, Phase, PodRecord, StopReason},
};

use crate::world::World;

impl World {
    /// As long as the rollout lasts. Where both write to the host's disk the old one goes first.
    pub(super) fn judge_renames(
        &mut self,
        before: &ClusterState,
        after: &ClusterState,
        driven: Option<&Commit>,
    ) {
        let lasts = |state: &ClusterState| {
            matches!(
                state.rollout.phase,
                Phase::Progressing { .. } | Phase::Soaking
            )
        };
        let Some(driven) = driven.filter(|_| lasts(before) && lasts(after)) else {
            return;
        };
        let is_told = |record: &&PodRecord| {
            record
                .stop
                .as_ref()
                .is_some_and(|stop| stop.reason == StopReason::OwnerRemoved)
                && before
                    .pods
                    .get(&record.uid)
                    .is_some_and(|old| old.stop.is_none())
        };
        let early = after.pods.values().filter(is_told).find_map(|record| {
            // Where the state was lost nobody knows what ran before.
            let known = before.rollout.left.iter().chain(&before.rollout.healthy);
            let mut known = self
                .pushed
                .iter()
                .filter(|commit| known.clone().any(|id| *id == commit.id));
            known.find(|commit| commit.objects.workloads.contains_key(&record.owner))?;
            let heir = self.heir(record, driven)?;
            let mut pods = after.pods.values().filter(|pod| pod.owner == heir.key);
            let any_ready = pods.any(|pod| self.referee.could_be_ready(self.now, &pod.uid));
            (!any_ready).then(|| (record.uid.clone(), heir.key.clone()))
        });
        self.require(early.is_none(), || {
            format!("{early:?} is stopped before the other one is ready")
        });
    }

    /// The Deployment that a pod's owner has become, where its Service leads to that now.
    fn heir<'c>(&self, record: &PodRecord, driven: &'c Commit) -> Option<&'c Workload> {
        let was = self
            .pushed
            .iter()
            .find_map(|commit| commit.objects.workloads.get(&record.owner))?;
        if was.template.spec.writes_to_host() {
            return None;
        }
        let old = &record.owner.object.name;
        let mut heirs = self.renames.iter().filter(|(from, _)| from == old);
        let heir = heirs.find_map(|(_, to)| {
            let workloads = driven.objects.workloads.values();
            workloads
                .filter(|one| one.key.kind == WorkloadKind::Deployment)
                .find(|one| one.key.object.name == *to)
        })?;
        let replicas = super::bounds::replicas(heir)?;
        let led = |service: &ObjectKey| {
            let mut services = self
                .pushed
                .iter()
                .filter_map(|commit| commit.objects.services.get(service));
            services.any(|service| selects(service, &was.template.meta.labels))
        };
        let mut services = driven.objects.services.iter().filter(|(key, _)| led(key));
        let all = services.all(|(_, service)| selects(service, &heir.template.meta.labels));
        (all && replicas > 0).then_some(heir)
    }
}
