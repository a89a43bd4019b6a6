//! The invariants of a decision about the pods of each owner: how many are made and stopped, and
//! which owners are deleted.

use std::collections::{BTreeMap, BTreeSet};

use reconciler::{
    cluster::ClusterChange,
    name::{NodeName, WorkloadKey},
    object::{Control, DaemonSetUpdate, DeploymentStrategy, IntOrPercent, Workload},
    placement::{candidates, eligible_for_daemon},
    state::{Change, ClusterState, NodeLife, PodRecord, Record, StopReason},
};

use super::decision::DecisionCheck;

impl<'a> DecisionCheck<'a> {
    /// Checks the pods that are made and stopped for each owner in the driving commit.
    pub(super) fn owners(&mut self) {
        let Some(driving) = self.driving() else {
            return;
        };
        for workload in driving.objects.workloads.values() {
            let owned = |state: &'a ClusterState| {
                state
                    .pods
                    .values()
                    .filter(|record| record.owner == workload.key)
                    .collect::<Vec<&PodRecord>>()
            };
            let before = owned(self.input.state);
            let after = owned(self.after);
            let made: Vec<&PodRecord> = after
                .iter()
                .copied()
                .filter(|record| !before.iter().any(|old| old.uid == record.uid))
                .filter(|record| record.created == self.input.now && record.commit == driving.id)
                .filter(|record| !self.is_observed(&record.uid))
                .collect();
            let stopped: Vec<&PodRecord> = after
                .iter()
                .copied()
                .filter(|record| record.stop.is_some())
                .filter(|record| {
                    before
                        .iter()
                        .any(|old| old.uid == record.uid && old.stop.is_none())
                })
                .collect();
            if !made.is_empty() || !stopped.is_empty() {
                self.owner(workload, &after, &made, &stopped);
            }
        }
    }

    /// Checks that owners which no commit removed are deleted only within the budget.
    pub(super) fn deletions(&mut self, change: &ClusterChange) {
        let state = self.input.state;
        if self.driving().is_none_or(|commit| commit.allow_deletions) {
            return;
        }
        let from = state
            .rollout
            .rollback
            .as_ref()
            .map(|rollback| &rollback.from);
        let healthy = state.rollout.healthy.as_ref();
        let taken_away = |owner: &WorkloadKey| {
            let before = state.rollout.left.iter().chain(from).chain(healthy);
            let mut before = before.filter_map(|id| self.input.commits.get(id));
            before.any(|commit| commit.objects.workloads.contains_key(owner))
        };
        let live: BTreeSet<&WorkloadKey> = state
            .pods
            .values()
            .filter(|record| record.stop.is_none())
            .map(|record| &record.owner)
            .collect();
        let removed: BTreeSet<&WorkloadKey> = change
            .changes
            .iter()
            .filter_map(|change| match change {
                Change::Put(Record::Pod(record)) => Some(record),
                _ => None,
            })
            .filter(|record| {
                let stop = record.stop.as_ref().map(|stop| stop.reason);
                stop == Some(StopReason::OwnerRemoved) && live.contains(&record.owner)
            })
            .map(|record| &record.owner)
            .filter(|owner| !taken_away(owner))
            .collect();
        let percent = self.input.settings.rollout.deletion_percent as usize;
        let allowed = (live.len() * percent / 100).max(1);
        self.findings.require(removed.len() <= allowed, || {
            format!(
                "{} owners are stopped that no commit took away: {removed:?}",
                removed.len()
            )
        });
    }

    fn is_active(&self, record: &PodRecord) -> bool {
        record.stop.is_none()
            && !self
                .statuses
                .get(&record.uid)
                .is_some_and(|status| status.phase.is_final())
    }

    pub(super) fn is_available(&self, workload: &Workload, record: &PodRecord) -> bool {
        let out = |node| {
            self.input
                .nodes
                .get(node)
                .is_some_and(|known| known.life.is_out())
        };
        if record.place.node().is_some_and(out) {
            return false;
        }
        let status = self
            .statuses
            .get(&record.uid)
            .filter(|status| status.ready.is_some());
        status.is_some_and(|status| status.ready_for >= workload.control.min_ready())
    }

    /// How many pods must exist and may exist: while only the canaries follow the new commit, the
    /// number of pods from before is valid as well.
    fn wanted(&self, workload: &Workload, replicas: u32) -> (usize, usize) {
        let rollout = &self.input.state.rollout;
        let healthy = rollout.healthy.as_ref().filter(|_| rollout.wave.is_some());
        let before = healthy.and_then(|id| {
            self.input
                .commits
                .get(id)?
                .objects
                .workloads
                .get(&workload.key)
        });
        let before = match before.map(|before| &before.control) {
            Some(Control::Deployment { replicas, .. } | Control::Replicas { replicas, .. }) => {
                *replicas
            }
            _ => replicas,
        };
        (replicas.min(before) as usize, replicas.max(before) as usize)
    }

    /// Checks maxSurge where pods are made, and maxUnavailable where available ones are stopped.
    fn owner(
        &mut self,
        workload: &Workload,
        after: &[&PodRecord],
        made: &[&PodRecord],
        stopped: &[&PodRecord],
    ) {
        let key = &workload.key;
        let active = after.iter().filter(|record| self.is_active(record)).count();
        let up =
            |record: &&&PodRecord| self.is_active(record) && self.is_available(workload, record);
        let available = after.iter().filter(up).count();
        let down_by_choice = |reasons: &[StopReason]| {
            stopped.iter().any(|record| {
                let chosen = record
                    .stop
                    .as_ref()
                    .is_some_and(|stop| reasons.contains(&stop.reason));
                chosen && self.is_available(workload, record)
            })
        };
        let changed = down_by_choice(&[StopReason::Replaced]);
        let replaced = down_by_choice(&[
            StopReason::Replaced,
            StopReason::Restarted,
            StopReason::Drained,
        ]);
        let scaled = down_by_choice(&[StopReason::ScaledDown]);
        match &workload.control {
            Control::Pod => {
                let one = made.is_empty() || after.len() == 1;
                self.findings
                    .require(one, || format!("{key}: made beside another one"));
            }
            Control::Replicas { replicas, .. } => {
                let (least, most) = self.wanted(workload, *replicas);
                let draining = after.iter().any(|record| {
                    record
                        .place
                        .node()
                        .is_some_and(|node| self.is_drained(node))
                });
                let bound = made.is_empty() || active <= most + usize::from(draining);
                self.findings
                    .require(bound, || format!("{key}: {active} pods, {most} are wanted"));
                let enough = !replaced || available + 1 >= least;
                self.findings.require(enough, || {
                    format!("{key}: a restart leaves {available} of {least}")
                });
                let enough = !scaled || active >= least;
                self.findings.require(enough, || {
                    format!("{key}: scaled down to {active} of {least}")
                });
            }
            Control::Deployment {
                replicas, strategy, ..
            } => {
                let wanted = self.wanted(workload, *replicas);
                let enough = !scaled || active >= wanted.0;
                self.findings.require(enough, || {
                    format!("{key}: scaled down to {active} of {}", wanted.0)
                });
                self.strategy(workload, *strategy, wanted, after, made, replaced);
            }
            Control::DaemonSet { update, .. } => match update {
                DaemonSetUpdate::OnDelete => {
                    self.findings.require(!changed, || {
                        format!("{key}: OnDelete stopped a pod by itself")
                    });
                }
                DaemonSetUpdate::RollingUpdate {
                    max_unavailable,
                    max_surge,
                } => {
                    self.daemons(workload, *max_unavailable, *max_surge, after, replaced);
                }
            },
        }
    }

    fn strategy(
        &mut self,
        workload: &Workload,
        strategy: DeploymentStrategy,
        (least, most): (usize, usize),
        after: &[&PodRecord],
        made: &[&PodRecord],
        replaced: bool,
    ) {
        let key = &workload.key;
        let active = after.iter().filter(|record| self.is_active(record)).count();
        let up =
            |record: &&&PodRecord| self.is_active(record) && self.is_available(workload, record);
        let available = after.iter().filter(up).count();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        match strategy {
            DeploymentStrategy::Recreate => {
                let asked = self.input.state.rollout.restarts.get(key);
                let lost = |record: &PodRecord| {
                    let node = record
                        .place
                        .node()
                        .and_then(|node| self.input.nodes.get(node));
                    node.is_some_and(|node| node.life == NodeLife::Lost)
                };
                // If pods of the owner may be replaced when their node is lost, pods that may still
                // run there do not count.
                let old = after
                    .iter()
                    .filter(|record| {
                        record.stop.is_none() || !(workload.moves_when_lost() && lost(record))
                    })
                    .any(|record| {
                        record.template != workload.template.hash
                            || record.stop.is_some()
                            || asked.is_some_and(|asked| record.serial <= *asked)
                    });
                let alone = made.is_empty() || !old;
                self.findings.require(alone, || {
                    format!("{key}: Recreate made a pod beside an old one")
                });
            }
            DeploymentStrategy::RollingUpdate {
                max_surge,
                max_unavailable,
            } => {
                let surge = max_surge.round_up(number(most)) as usize;
                let unavailable = max_unavailable.round_down(number(least)) as usize;
                let unavailable = if surge == 0 {
                    unavailable.max(1)
                } else {
                    unavailable
                };
                let bound = made.is_empty() || active <= most + surge;
                self.findings.require(bound, || {
                    format!("{key}: {active} pods, {most} + {surge} allowed")
                });
                let enough = !replaced || available + unavailable >= least;
                self.findings.require(enough, || {
                    format!("{key}: {available} left of {least}, {unavailable} may be unavailable")
                });
            }
        }
    }

    fn daemons(
        &mut self,
        workload: &Workload,
        max_unavailable: IntOrPercent,
        max_surge: IntOrPercent,
        after: &[&PodRecord],
        replaced: bool,
    ) {
        let key = &workload.key;
        let Some(objects) = self.driving().map(|commit| &commit.objects.nodes) else {
            return;
        };
        // Nodes that are lost or at fault are ignored, and so are unreachable nodes, unless their
        // pod was down in the last report.
        let was_down = |name: &NodeName| {
            let on = || {
                after
                    .iter()
                    .filter(|record| record.place.node() == Some(name))
            };
            let ready = |record: &&&PodRecord| {
                self.is_active(record)
                    && self
                        .statuses
                        .get(&record.uid)
                        .is_some_and(|status| status.ready.is_some())
            };
            on().next().is_some() && !on().any(|record| ready(&record))
        };
        let wave = self.input.state.rollout.wave.as_ref();
        let counted: BTreeSet<NodeName> = candidates(self.input.nodes, objects)
            .into_iter()
            .filter(|node| eligible_for_daemon(&workload.template.spec, node))
            .map(|node| node.name)
            // While only the canaries follow the new commit, no new owner needs pods on other
            // nodes.
            .filter(|name| {
                let has = || after.iter().any(|record| record.place.node() == Some(name));
                wave.is_none() || self.old_workload(key).is_some() || has()
            })
            .filter(|name| {
                let life = self.input.nodes.get(name).map(|known| &known.life);
                let aside = life.is_some_and(|life| match life {
                    NodeLife::Lost => true,
                    NodeLife::Silent(_) | NodeLife::Away => !was_down(name),
                    NodeLife::Ready | NodeLife::NotReady(_) => {
                        self.has_not_taken_stock(name) && !was_down(name)
                    }
                });
                !aside
                    && !self.input.state.rollout.faulty.contains_key(name)
                    && !wave.is_some_and(|wave| wave.broken.contains(name))
            })
            .collect();
        let mut nodes: BTreeMap<&NodeName, (usize, usize)> = BTreeMap::new();
        for record in after.iter().filter(|record| self.is_active(record)) {
            let Some(node) = record.place.node().filter(|node| counted.contains(*node)) else {
                continue;
            };
            let counts = nodes.entry(node).or_default();
            counts.0 += 1;
            counts.1 += usize::from(self.is_available(workload, record));
        }
        let all = u32::try_from(counted.len()).unwrap_or(u32::MAX);
        let surge = max_surge.round_up(all) as usize;
        let most = if surge == 0 { 1 } else { 2 };
        for (node, (active, _)) in &nodes {
            self.findings.require(*active <= most, || {
                format!("{key}: {active} pods on node {node}")
            });
        }
        let up = nodes
            .values()
            .filter(|(_, available)| *available > 0)
            .count();
        let unavailable = (max_unavailable.round_up(all) as usize).max(usize::from(surge == 0));
        let enough = !replaced || up + unavailable >= all as usize;
        self.findings.require(enough, || {
            format!("{key}: available on {up} of {all} nodes")
        });
    }
}
