//! Workloads that left the commit: their pods run until their successors are available, or the
//! rollout is over. Only where both need the same resource the old pod makes room first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{ClusterDecision, HeldDeletions, Note, parts::Part, stop};
use crate::{
    commit::Commit,
    controller::OwnedPod,
    endpoints::{is_proven, selects},
    name::{CommitId, NodeName, PodUid, WorkloadKey, WorkloadKind},
    object::{Control, Workload},
    placement::{eligible_for_daemon, host_ports},
    rollout::{Judgement, judge},
    state::{Change, Record, StopReason, Unfit},
};

/// An owner of pods that is not in the driving commit, but was in a commit that ran before.
#[derive(Debug)]
pub(super) struct Removed<'a> {
    pub(super) owner: &'a WorkloadKey,
    /// The workload in the newest of those commits.
    was: &'a Workload,
    pods: Vec<OwnedPod<'a>>,
    /// The workloads that the driving commit has and the earlier commit did not have.
    added: Arc<BTreeSet<&'a WorkloadKey>>,
    /// The successors that are not available yet: the removed workload's pods wait for them.
    pub(super) awaited: Vec<&'a WorkloadKey>,
}

impl Removed<'_> {
    /// Whether no pod of the other workload may be on a node with a pod of this one. Host ports are
    /// only compared for DaemonSets: for all other kinds placement checks them.
    fn excludes(&self, other: &Workload) -> bool {
        if !self.added.contains(&other.key) {
            return false;
        }
        let (old, new) = (&self.was.template.spec, &other.template.spec);
        let daemon = other.key.kind == WorkloadKind::DaemonSet;
        let ports = || {
            let taken = host_ports(old);
            host_ports(new).iter().any(|port| taken.contains(port))
        };
        let paths = || {
            let written = old.written_host_paths();
            let meets = |path: &str| {
                written
                    .iter()
                    .any(|other| is_within(path, other) || is_within(other, path))
            };
            new.written_host_paths().iter().any(|path| meets(path))
        };
        daemon && ports() || paths()
    }

    /// The owner's pods that may still hold something on a node.
    fn there<'r>(
        &'r self,
        decision: &'r ClusterDecision<'_>,
    ) -> impl Iterator<Item = (&'r NodeName, &'r OwnedPod<'r>)> {
        let placed = self.pods.iter().filter(|pod| !pod.is_final());
        placed.filter_map(|pod| {
            let node = pod
                .record
                .place
                .node()
                .filter(|node| !decision.conditions.lost.contains(*node))?;
            Some((node, pod))
        })
    }
}

/// Whether a path equals the other path, or lies below it.
fn is_within(path: &str, other: &str) -> bool {
    let rest = path.strip_prefix(other.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl<'a> ClusterDecision<'a> {
    /// All owners with pods that a commit removed.
    pub(super) fn removed(&self, driving: &'a Commit) -> Vec<Removed<'a>> {
        let rollout = &self.input.state.rollout;
        let before: Vec<&'a Commit> = rollout
            .before()
            .into_iter()
            .filter_map(|id| self.input.readable(id))
            .map(AsRef::as_ref)
            .collect();
        let mut added: BTreeMap<&CommitId, Arc<BTreeSet<&'a WorkloadKey>>> = BTreeMap::new();
        let mut removed = Vec::new();
        for (owner, pods) in &self.owned {
            if driving.objects.workloads.contains_key(*owner) {
                continue;
            }
            let find = |commit: &&'a Commit| Some((*commit, commit.objects.workloads.get(*owner)?));
            let Some((commit, was)) = before.iter().find_map(find) else {
                continue;
            };
            let added = added
                .entry(&commit.id)
                .or_insert_with(|| Arc::new(added_to(commit, driving)));
            let mut awaited = Vec::new();
            if self.is_under_way() {
                awaited = successors(commit, was, driving, added);
            }
            let added = Arc::clone(added);
            removed.push(Removed {
                owner,
                was,
                pods: pods.clone(),
                added,
                awaited,
            });
        }
        let mut available: BTreeMap<&WorkloadKey, bool> = BTreeMap::new();
        for one in &mut removed {
            one.awaited.retain(|key| {
                !*available
                    .entry(*key)
                    .or_insert_with(|| self.is_settled(driving, key))
            });
        }
        removed
    }

    /// Whether the rollout continues after this decision: pods that wait are stopped by the
    /// decision that ends the rollout, while the commits that explain them are still known.
    fn is_under_way(&self) -> bool {
        let ends = |change: &Change| match change {
            Change::Put(Record::Rollout(after)) => !after.is_under_way(),
            _ => false,
        };
        self.input.state.rollout.is_under_way() && !self.changes.iter().any(ends)
    }

    /// Whether a workload has settled on the driving commit, and its pods have been ready long
    /// enough.
    fn is_settled(&self, driving: &'a Commit, key: &WorkloadKey) -> bool {
        let Some(workload) = driving.objects.workloads.get(key) else {
            return true;
        };
        let part = Part::whole(driving, workload, true);
        let progress = self.input.state.workloads.get(key);
        let view = self.part_view(&part, &self.conditions);
        let proven = |pod: &OwnedPod<'_>| {
            let shown = pod
                .status
                .is_none_or(|status| is_proven(&workload.template, status));
            shown
                || !pod.is_active()
                || self.conditions.is_aside(pod)
                || self.conditions.is_absent(pod)
        };
        judge(&view, progress, self.input.state.rollout.clock) == Judgement::Settled
            && view.pods.iter().all(proven)
    }

    /// The nodes where no pod of a workload may be started yet, because its predecessor holds what
    /// both need. Data may lie on any node where the predecessor ran, so the workload starts
    /// nowhere before all pods of the predecessor are gone; for a DaemonSet each node has its own
    /// data.
    pub(super) fn nodes_held(
        &self,
        removed: &[Removed<'a>],
        workload: &Workload,
    ) -> BTreeSet<&NodeName> {
        let holding = removed.iter().filter(|one| one.excludes(workload));
        let there: BTreeSet<&NodeName> = holding
            .flat_map(|one| one.there(self))
            .map(|(node, _)| node)
            .collect();
        if workload.key.kind == WorkloadKind::DaemonSet || there.is_empty() {
            return self
                .nodes
                .iter()
                .map(|node| &node.name)
                .filter(|node| there.contains(node))
                .collect();
        }
        self.nodes.iter().map(|node| &node.name).collect()
    }

    /// Whether a bare Pod's name is still used by another owner's pod.
    pub(super) fn has_namesake(&self, workload: &Workload) -> bool {
        let namesake = |pod: &OwnedPod<'_>| {
            pod.record.key == workload.key.object && pod.record.owner != workload.key
        };
        workload.control == Control::Pod && self.owned.values().flatten().any(namesake)
    }

    /// Whether a DaemonSet's pod must wait on a node until a pod that left the commit is gone from
    /// it.
    pub(super) fn waits_for_room(
        &self,
        removed: &[Removed<'a>],
        node: &NodeName,
        unfit: Option<Unfit>,
    ) -> bool {
        let leaves = |one: &Removed<'_>| one.there(self).any(|(on, _)| on == node);
        unfit == Some(Unfit::Full) && removed.iter().any(leaves)
    }

    /// Stops the pods whose owners are not in the driving commit, unless these pods wait for their
    /// successors. If a commit that ran before contained the owners, a push or a rollback removed
    /// them, and the deletion budget was checked at that time. If no commit explains the pods
    /// (another `source.paths`, a lost state), their number must itself keep to the budget.
    pub(super) fn stop_removed(&mut self, driving: &'a Commit, removed: &[Removed<'a>]) {
        let live: Vec<(&WorkloadKey, &Vec<OwnedPod<'_>>)> = self
            .owned
            .iter()
            .filter(|(_, pods)| !pods.iter().all(OwnedPod::is_stopping))
            .map(|(owner, pods)| (*owner, pods))
            .collect();
        let (explained, unexplained): (Vec<_>, Vec<_>) = live
            .iter()
            .copied()
            .filter(|(owner, _)| !driving.objects.workloads.contains_key(*owner))
            .partition(|(owner, _)| removed.iter().any(|one| one.owner == *owner));
        let allowed = self.input.settings.rollout.deletion_budget(live.len());
        let is_held = unexplained.len() > allowed && !driving.allow_deletions;
        if is_held {
            self.held = Some(HeldDeletions {
                workloads: unexplained
                    .iter()
                    .map(|(owner, _)| (*owner).clone())
                    .collect(),
                running: live.len(),
                commit: driving.id.clone(),
                allowed,
            });
        }

        let room = self.make_room(driving, removed);
        let waits = |owner: &WorkloadKey| {
            removed
                .iter()
                .any(|one| one.owner == owner && !one.awaited.is_empty())
        };
        let mut going = explained;
        if !is_held {
            going.extend(unexplained);
        }
        let stops: Vec<Change> = going
            .into_iter()
            .flat_map(|(owner, pods)| pods.iter().map(move |pod| (owner, pod)))
            .filter(|(owner, pod)| !waits(owner) || room.contains(&pod.record.uid))
            .filter(|(_, pod)| !pod.is_stopping())
            .map(|(_, pod)| stop(pod.record, StopReason::OwnerRemoved, self.input.now))
            .collect();
        self.changes.extend(stops);

        for one in removed.iter().filter(|one| !one.awaited.is_empty()) {
            self.notes.push(Note::RunsOn {
                workload: one.owner.clone(),
                awaited: one.awaited.iter().copied().cloned().collect(),
            });
        }
    }

    /// The old pods that make room next, where a new pod cannot be started without that: one at a
    /// time, the next one when all started pods of the new workload are available; all at once
    /// where the new workload may start nowhere before.
    pub(super) fn make_room(
        &self,
        driving: &'a Commit,
        removed: &[Removed<'a>],
    ) -> BTreeSet<PodUid> {
        // A pod that is stopping makes room already.
        let stops = |pod: &OwnedPod<'_>| pod.is_stopping() && !self.conditions.is_absent(pod);
        let is_any_waiting = removed.iter().any(|one| !one.awaited.is_empty());
        if !is_any_waiting || removed.iter().flat_map(|one| &one.pods).any(stops) {
            return BTreeSet::new();
        }

        let workloads = driving.objects.workloads.values();
        workloads
            .filter(|workload| self.is_calm(workload))
            .find_map(|workload| self.room_for(driving, removed, workload))
            .unwrap_or_default()
    }

    /// The old pods that make room for a workload: those that hold what it needs first, then those
    /// that wait for it, the oldest first. `None` if nothing holds the workload up.
    fn room_for(
        &self,
        driving: &'a Commit,
        removed: &[Removed<'a>],
        workload: &'a Workload,
    ) -> Option<BTreeSet<PodUid>> {
        let need = self.wanted_nodes(driving, removed, workload)?;
        let is_in_the_way = |one: &Removed<'_>, pod: &OwnedPod<'_>| match &need {
            OldPodNeed::Name => pod.record.key == workload.key.object,
            OldPodNeed::Nodes(nodes) => {
                let node = pod.record.place.node();
                node.is_some_and(|node| nodes.contains(node)) || Self::excludes_whole(one, workload)
            }
        };
        let mut candidates: Vec<(&Removed<'_>, &OwnedPod<'_>)> = removed
            .iter()
            .filter(|one| !one.awaited.is_empty())
            .flat_map(|one| one.pods.iter().map(move |pod| (one, pod)))
            .filter(|(_, pod)| !pod.is_stopping() && !pod.is_final())
            .filter(|(one, pod)| is_in_the_way(one, pod))
            .collect();
        candidates.sort_by_key(|(one, pod)| {
            (
                !one.excludes(workload),
                !one.awaited.contains(&&workload.key),
                pod.record.serial,
            )
        });

        let (first, pod) = candidates.first()?;
        let stopped = if Self::excludes_whole(first, workload) {
            &first.pods[..]
        } else {
            std::slice::from_ref(*pod)
        };
        Some(stopped.iter().map(|pod| pod.record.uid.clone()).collect())
    }

    /// Whether a workload may start nowhere before all pods of the removed one are gone.
    fn excludes_whole(removed: &Removed<'_>, workload: &Workload) -> bool {
        workload.key.kind != WorkloadKind::DaemonSet && removed.excludes(workload)
    }

    /// Whether all started pods of a workload are available, apart from nodes that are unreachable
    /// or at fault.
    fn is_calm(&self, workload: &Workload) -> bool {
        let min_ready = workload.control.min_ready();
        let pods = self.owned.get(&workload.key).map_or(&[][..], Vec::as_slice);
        pods.iter()
            .filter(|pod| pod.record.place.node().is_some())
            .all(|pod| {
                pod.is_available(min_ready)
                    || self.conditions.is_aside(pod)
                    || self.conditions.is_absent(pod)
            })
    }

    /// The nodes where a workload could start a pod if all waiting old pods were gone; `None` where
    /// nothing holds the workload up.
    fn wanted_nodes(
        &self,
        driving: &'a Commit,
        removed: &[Removed<'a>],
        workload: &'a Workload,
    ) -> Option<OldPodNeed> {
        if workload.key.kind == WorkloadKind::DaemonSet {
            return self
                .held_daemon_nodes(driving, removed, workload)
                .map(OldPodNeed::Nodes);
        }
        let pods = self.owned.get(&workload.key).map_or(&[][..], Vec::as_slice);
        if pods.is_empty() && self.has_namesake(workload) {
            return Some(OldPodNeed::Name);
        }
        // A pod that has a node now needs no old pod to make room.
        let unplaced = pods
            .iter()
            .any(|pod| pod.is_active() && pod.record.place.node().is_none());
        if !unplaced || self.placer(driving, removed).place(workload).is_ok() {
            return None;
        }
        let is_waiting = |owner: &WorkloadKey| {
            removed
                .iter()
                .any(|one| one.owner == owner && !one.awaited.is_empty())
        };
        let mut trial = self.placer_without(driving, &[], |record| is_waiting(&record.owner));
        let chosen = trial.place(workload).ok()?;
        Some(OldPodNeed::Nodes(BTreeSet::from([chosen.node])))
    }

    /// The nodes where a DaemonSet needs a pod and has none, if all of these nodes are held.
    fn held_daemon_nodes(
        &self,
        driving: &'a Commit,
        removed: &[Removed<'a>],
        workload: &'a Workload,
    ) -> Option<BTreeSet<NodeName>> {
        let pods = self.owned.get(&workload.key).map_or(&[][..], Vec::as_slice);
        let on = |node: &NodeName| pods.iter().any(|pod| pod.record.place.node() == Some(node));
        let wants = self
            .nodes
            .iter()
            .filter(|node| eligible_for_daemon(&workload.template.spec, node));
        let nodes: BTreeSet<NodeName> = wants
            .map(|node| &node.name)
            .filter(|name| !self.conditions.absent.contains(*name) && !on(name))
            .cloned()
            .collect();
        if nodes.is_empty() {
            return None;
        }
        let held = self.nodes_held(removed, workload);
        let mut placer = self.placer(driving, removed);
        let mut is_held = |node: &NodeName| {
            held.contains(node) || self.waits_for_room(removed, node, placer.unfit(node, workload))
        };
        nodes.iter().all(&mut is_held).then_some(nodes)
    }
}

/// What a new pod needs and an old pod holds.
enum OldPodNeed {
    /// The old pod's name.
    Name,
    /// Room on one of these nodes.
    Nodes(BTreeSet<NodeName>),
}

/// The workloads that a commit has and an earlier commit did not have, or had with zero pods.
fn added_to<'a>(before: &Commit, driving: &'a Commit) -> BTreeSet<&'a WorkloadKey> {
    let workloads = driving.objects.workloads.values();
    let is_new = |workload: &&Workload| match before.objects.workloads.get(&workload.key) {
        None => true,
        Some(before) => wants_none(before) && !wants_none(workload),
    };
    workloads
        .filter(is_new)
        .map(|workload| &workload.key)
        .collect()
}

fn wants_none(workload: &Workload) -> bool {
    match &workload.control {
        Control::Deployment { replicas, .. } | Control::Replicas { replicas, .. } => *replicas == 0,
        Control::Pod | Control::DaemonSet { .. } => false,
    }
}

/// The successors of a workload: those added workloads that its Services select now; all added
/// workloads where it has no Service, or none of its Services still exists.
fn successors<'a>(
    before: &Commit,
    was: &Workload,
    driving: &Commit,
    added: &BTreeSet<&'a WorkloadKey>,
) -> Vec<&'a WorkloadKey> {
    let namespace = &was.key.object.namespace;
    let labels = &was.template.meta.labels;
    let followed: Vec<_> = driving
        .objects
        .services
        .iter()
        .filter(|(key, service)| {
            let old = before.objects.services.get(*key);
            let is_its = selects(service, labels) || old.is_some_and(|old| selects(old, labels));
            key.namespace == *namespace && is_its
        })
        .map(|(_, service)| service)
        .collect();
    let is_selected = |key: &WorkloadKey| {
        // A Service selects pods of its own namespace only.
        if key.object.namespace != *namespace {
            return false;
        }
        let workload = driving.objects.workloads.get(key);
        workload.is_some_and(|workload| {
            let labels = &workload.template.meta.labels;
            followed.iter().any(|service| selects(service, labels))
        })
    };
    added
        .iter()
        .copied()
        .filter(|key| followed.is_empty() || is_selected(key))
        .collect()
}
