//! What `strategy: Recreate` promises: no pod of one template is made as long as a pod of another
//! template exists.

use reconciler::{
    name::{PodUid, WorkloadKey},
    object::{Control, DeploymentStrategy, Workload},
    plan::{PodIdentity, Role},
    state::{ClusterState, PodRecord},
};

use crate::world::World;

impl World {
    /// If a pod was made, all other pods are of its template and none of them is still stopping.
    pub(super) fn check_recreate(
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
        // A pod that is replaced because its node is lost may still run there: its replacement does
        // not wait.
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
        let violation = made
            .filter_map(|made| Some((made.clone(), beside(made)?)))
            .next();
        self.referee.left_behind.extend(left_behind);
        self.require(violation.is_none(), || {
            format!("{key} recreates, and a pod is made beside another: {violation:#?}")
        });
    }

    /// If a container starts, no pod of another template runs on any host.
    pub(super) fn check_one_template(&mut self, starts: &PodIdentity) {
        let owner = &starts.owner;
        if !self
            .pushed
            .iter()
            .any(|commit| commit.objects.workloads.get(owner).is_some_and(recreates))
        {
            return;
        }
        let may_run_beside = |uid: &PodUid| {
            self.referee.left_behind.contains(uid)
                || self.referee.may_run_together(&starts.uid, uid)
        };
        let other = self
            .hosts
            .iter()
            .flat_map(|host| host.engine.containers.values())
            .find(|container| {
                let identity = &container.identity;
                identity.owner == *owner
                    && identity.template != starts.template
                    && container.role != Role::Sandbox
                    && container.state.is_alive()
                    && !may_run_beside(&identity.uid)
            });
        let other = if may_run_beside(&starts.uid) {
            None
        } else {
            other.cloned()
        };
        self.require(other.is_none(), || {
            format!(
                "{owner} recreates, and {} of {} starts beside {other:?}",
                starts.uid, starts.template
            )
        });
    }

    /// Whether a pod writes to the disk of its host.
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
