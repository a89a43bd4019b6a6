//! How many pods an owner may have at most, and how many of them must be available.

use std::collections::{BTreeMap, BTreeSet};

use reconciler::{
    commit::Commit,
    name::NodeName,
    object::{Control, DaemonSetUpdate, DeploymentStrategy, Workload},
    state::{ClusterState, PodRecord, StopReason},
};

use crate::world::World;

impl World {
    /// Checks `maxSurge` if a pod was made, and `maxUnavailable` if an available pod was stopped.
    pub(super) fn check_bounds(
        &mut self,
        workload: &Workload,
        commit: &Commit,
        before: &ClusterState,
        after: &ClusterState,
    ) {
        let key = &workload.key;
        let owned: Vec<&PodRecord> = after
            .pods
            .values()
            .filter(|record| record.owner == *key)
            .collect();
        let is_new = |record: &PodRecord| !before.pods.contains_key(&record.uid);
        let made = owned
            .iter()
            .any(|record| is_new(record) && self.is_made(&record.uid));
        let now = self.now;
        let ready = |record: &PodRecord| self.referee.could_be_ready(now, &record.uid);
        // A pod that restarted is ready before it is available.
        let is_available = |record: &PodRecord| {
            let report = record
                .place
                .node()
                .and_then(|node| self.store.contents.reports.get(node));
            let status = report.and_then(|report| report.pods.get(&record.uid));
            status.is_some_and(|status| status.available(workload.control.min_ready()))
        };
        // Available pods that the leader has chosen to stop.
        let chosen = owned
            .iter()
            .filter(|record| {
                before
                    .pods
                    .get(&record.uid)
                    .is_some_and(|old| old.stop.is_none())
            })
            .filter(|record| {
                record.stop.as_ref().is_some_and(|stop| {
                    matches!(
                        stop.reason,
                        StopReason::Replaced
                            | StopReason::ScaledDown
                            | StopReason::Restarted
                            | StopReason::Drained
                    )
                })
            })
            .filter(|record| self.referee.must_be_ready(now, &record.uid))
            .filter(|record| is_available(record))
            .count();
        let staying: Vec<&PodRecord> = owned
            .iter()
            .copied()
            .filter(|record| record.stop.is_none())
            .collect();
        let ended = |record: &PodRecord| {
            let reports = self.store.contents.reports.values();
            reports
                .flat_map(|report| report.pods.get(&record.uid))
                .any(|status| status.phase.is_final())
        };
        let active = staying.iter().filter(|record| !ended(record)).count();
        let available = staying.iter().filter(|record| ready(record)).count();
        // During the canary wave the other nodes keep the pods of the healthy commit: the bounds of
        // both commits count.
        let waves = [before, after]
            .into_iter()
            .filter(|state| state.rollout.wave.is_some());
        let healthy = waves
            .filter_map(|state| state.rollout.healthy.clone())
            .next();
        let old = self
            .pushed
            .iter()
            .find(|commit| Some(&commit.id) == healthy.as_ref());
        let old = old
            .and_then(|commit| commit.objects.workloads.get(key))
            .and_then(replicas);
        let range = |now: u32| {
            let old = old.unwrap_or(now);
            (now.max(old) as usize, now.min(old) as usize)
        };
        let (most, least) = match &workload.control {
            Control::Pod => (1, 0),
            // A drain starts the replacement before it stops the pod: there is one pod more.
            Control::Replicas { replicas, .. } => {
                let drains = commit.objects.nodes.values().any(|node| node.drain);
                let (most, least) = range(*replicas);
                (most + usize::from(drains), least)
            }
            Control::Deployment {
                replicas, strategy, ..
            } => {
                let (most, least) = range(*replicas);
                match strategy {
                    DeploymentStrategy::Recreate => (most, 0),
                    DeploymentStrategy::RollingUpdate {
                        max_surge,
                        max_unavailable,
                    } => {
                        let surge = max_surge.round_up(*replicas) as usize;
                        let down = max_unavailable.round_down(*replicas) as usize;
                        let down = if surge == 0 { down.max(1) } else { down };
                        (most + surge, least.saturating_sub(down))
                    }
                }
            }
            Control::DaemonSet { update, .. } => {
                let DaemonSetUpdate::RollingUpdate { .. } = update else {
                    return;
                };
                // Pods on tainted nodes do not count: the other nodes do not make up for them.
                let fits = |record: &&&PodRecord| {
                    let object = record
                        .place
                        .node()
                        .and_then(|node| commit.objects.nodes.get(node));
                    object.is_none_or(|object| object.taints.is_empty())
                };
                let owned: Vec<&PodRecord> = owned.iter().filter(fits).copied().collect();
                return self.check_daemons(workload, &owned, chosen, [before, after]);
            }
        };
        self.require(!made || active <= most, || {
            format!(
                "{key}: a pod was made, and there are {active} where at most {most} are allowed"
            )
        });
        self.require(chosen == 0 || available >= least, || {
            format!(
                "{key}: {chosen} available pods were stopped, {available} are left where {least} are required"
            )
        });
    }

    pub(super) fn check_daemons(
        &mut self,
        workload: &Workload,
        owned: &[&PodRecord],
        chosen: usize,
        states: [&ClusterState; 2],
    ) {
        let key = &workload.key;
        let mut nodes: BTreeMap<&NodeName, usize> = BTreeMap::new();
        // After an adoption there may be a second pod, which was running and not in the copy, until
        // the leader stops one of the two.
        let counted = owned
            .iter()
            .filter(|record| !self.referee.is_unknown(&record.uid));
        for record in counted.filter(|record| record.stop.is_none()) {
            if let Some(node) = record.place.node() {
                *nodes.entry(node).or_default() += 1;
            }
        }
        let duplicate_on = nodes
            .iter()
            .find(|(_, count)| **count > 1)
            .map(|(node, _)| (*node).clone());
        self.require(duplicate_on.is_none(), || {
            format!("{key}: two pods for {duplicate_on:?}")
        });
        let now = self.now;
        // Nodes that the rollout does not wait for: removed and lost ones, those with a fault of
        // their own, and those that the leader does not know, because it joined or was cut off when
        // the store was adopted.
        let not_waited_for = |node: &NodeName| {
            !self.leaders_view().facts.contains_key(node)
                || self
                    .hosts
                    .iter()
                    .any(|host| host.name == *node && host.removed)
                || states.iter().any(|state| {
                    state.outages.get(node).is_some_and(|outage| outage.lost)
                        || state.rollout.faulty.contains_key(node)
                        || state
                            .rollout
                            .wave
                            .as_ref()
                            .is_some_and(|wave| wave.broken.contains(node))
                })
        };
        let reports = &self.leaders_view().reports;
        // A node that has not reported since the adoption counts by its last report, as a silent
        // node does.
        let has_not_reported = |node: &NodeName| {
            let stock = self
                .store
                .contents
                .reports
                .get(node)
                .and_then(|report| report.stock);
            let adopted = states[0].rollout.adopted.map(|adoption| adoption.at);
            adopted.is_some() && stock != adopted
        };
        let down = |record: &&&PodRecord| {
            let Some(node) = record.place.node().filter(|node| !not_waited_for(node)) else {
                return false;
            };
            let status = reports
                .get(node)
                .and_then(|report| report.pods.get(&record.uid));
            let silent = self.referee.may_be_silent(now, node) || has_not_reported(node);
            let last_up = silent && status.is_some_and(|status| status.ready.is_some());
            let replaced = record
                .stop
                .as_ref()
                .is_some_and(|stop| stop.reason == StopReason::Replaced);
            let down = !last_up && !self.referee.could_be_ready(now, &record.uid);
            replaced || record.stop.is_none() && down
        };
        let down: BTreeSet<NodeName> = owned
            .iter()
            .filter(down)
            .filter_map(|record| record.place.node().cloned())
            .collect();
        self.require(chosen == 0 || down.len() <= 1, || {
            format!(
                "{key}: {chosen} available pods were stopped, and its pods are down on {down:?}"
            )
        });
    }
}

pub(super) fn replicas(workload: &Workload) -> Option<u32> {
    match &workload.control {
        Control::Deployment { replicas, .. } | Control::Replicas { replicas, .. } => {
            Some(*replicas)
        }
        Control::Pod | Control::DaemonSet { .. } => None,
    }
}
