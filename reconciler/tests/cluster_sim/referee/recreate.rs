//! What `strategy: Recreate` promises: a Deployment has no pod of one template as long as one of
//! another is there.

use reconciler::{
    name::{PodUid, WorkloadKey},
    object::{Control, DeploymentStrategy, Workload},
    plan::{PodIdentity, Role},
    state::{ClusterState, PodRecord},
};

use crate::world::World;

impl World {
    /// Where a pod is made, all others are of its template and none of them is still stopping.
    pub(super) fn judge_recreate(
        &mut self,
        workload: &Workload,
        before: &ClusterState,
        after: &ClusterState,
    ) {
        if !recreates(workload) {
            return;
        }
        let key = &workload.key;
        let owned = || after.pods.values().filter(|record| record.owner == *key);
        // Whoever moves when its node is lost waits for nobody who may run there still: that is
        // what moving means.
        let left_behind: Vec<PodUid> = owned()
            .filter(|record| record.stop.is_some() && !self.has_disk(record))
            .filter(|record| {
                let outage = record.place.node().and_then(|node| after.outages.get(node));
                outage.is_some_and(|outage| outage.lost)
            })
            .map(|record| record.uid.clone())
            .collect();
        let beside = |made: &PodRecord| {
            let mut others = owned()
                .filter(|other| other.uid != made.uid && !left_behind.contains(&other.uid))
                .filter(|other| other.template != made.template || other.stop.is_some());
            others.next().cloned()
        };
        let made = owned().filter(|record| !before.pods.contains_key(&record.uid));
        let made = made.filter(|record| self.is_made(&record.uid));
        let wrong = made
            .filter_map(|made| Some((made.clone(), beside(made)?)))
            .next();
        self.referee.left_behind.extend(left_behind);
        self.require(wrong.is_none(), || {
            format!("{key} recreates, and one is made beside another: {wrong:#?}")
        });
    }

    /// Where a container starts, none of another template runs, on whichever host.
    pub(super) fn judge_one_template(&mut self, starts: &PodIdentity) {
        let owner = &starts.owner;
        if !self
            .pushed
            .iter()
            .any(|commit| commit.objects.workloads.get(owner).is_some_and(recreates))
        {
            return;
        }
        let apart = |uid: &PodUid| {
            self.referee.left_behind.contains(uid) || self.referee.may_both_run(&starts.uid, uid)
        };
        let other = self
            .hosts
            .iter()
            .flat_map(|host| host.engine.containers.values())
            .find(|one| {
                let identity = &one.identity;
                identity.owner == *owner
                    && identity.template != starts.template
                    && one.role != Role::Sandbox
                    && one.state.is_alive()
                    && !apart(&identity.uid)
            });
        let other = other.filter(|_| !apart(&starts.uid)).cloned();
        self.require(other.is_none(), || {
            format!(
                "{owner} recreates, and {} of {} starts beside {other:?}",
                starts.uid, starts.template
            )
        });
    }

    /// Whether a pod writes to its host's disk.
    pub(super) fn has_disk(&self, record: &PodRecord) -> bool {
        let spec = |owner: &WorkloadKey| {
            self.pushed
                .iter()
                .find_map(|commit| commit.resolve(owner, &record.template))
        };
        spec(&record.owner).is_some_and(|workload| workload.template.spec.writes_to_host())
    }
}

pub(super) fn recreates(workload: &Workload) -> bool {
    matches!(
        workload.control,
        Control::Deployment {
            strategy: DeploymentStrategy::Recreate,
            ..
        }
    )
}
