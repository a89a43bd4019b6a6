//! What left the commit: its pods run on until what takes their place is available, or the roll-out is over; only where
//! both need the same thing the old one makes room first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Decision, parts::Part};
use crate::{
    commit::Commit,
    controller::OwnedPod,
    endpoints::selects,
    name::{CommitId, NodeName, PodUid, WorkloadKey, WorkloadKind},
    object::{Control, Workload},
    placement::{Unfit, eligible_for_daemon, host_ports},
    rollout::{Judgement, judge},
};

/// An owner of pods that is not in the driving commit, and was in one that ran before.
#[derive(Debug)]
pub(super) struct Removed<'a> {
    pub(super) owner: &'a WorkloadKey,
    /// What it was in the newest of those commits.
    was: &'a Workload,
    pods: Vec<OwnedPod<'a>>,
    /// What the driving commit has and that one had not.
    added: Arc<BTreeSet<&'a WorkloadKey>>,
    /// What its pods wait for: it takes their place, and is not available yet.
    pub(super) awaited: Vec<&'a WorkloadKey>,
}

impl Removed<'_> {
    /// Whether a pod of the other one must not be on a node where one of this is. Placement asks about ports for all but
    /// DaemonSets.
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
            let meets =
                |path: &str| written.iter().any(|other| is_within(path, other) || is_within(other, path));
            new.written_host_paths().iter().any(|path| meets(path))
        };
        daemon && ports() || paths()
    }

    /// Its pods that may still hold something on a node.
    fn there<'r>(
        &'r self,
        decision: &'r Decision<'_>,
    ) -> impl Iterator<Item = (&'r NodeName, &'r OwnedPod<'r>)> {
        let placed = self.pods.iter().filter(|pod| !pod.is_final());
        placed.filter_map(|pod| {
            let node = pod.record.place.node().filter(|node| !decision.standing.lost.contains(*node))?;
            Some((node, pod))
        })
    }
}

/// Whether a path is another one, or lies below it.
fn is_within(path: &str, other: &str) -> bool {
    let rest = path.strip_prefix(other.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl<'a> Decision<'a> {
    /// Everything with pods that a commit took away.
    pub(super) fn removed(&self, driving: &'a Commit) -> Vec<Removed<'a>> {
        let rollout = &self.input.state.rollout;
        let before: Vec<&'a Commit> = rollout
            .before()
            .into_iter()
            .filter_map(|id| self.input.commits.get(id))
            .map(AsRef::as_ref)
            .collect();
        let mut added: BTreeMap<&CommitId, Arc<BTreeSet<&'a WorkloadKey>>> = BTreeMap::new();
        let mut removed = Vec::new();
        for (owner, pods) in &self.owned {
            if driving.objects.workloads.contains_key(*owner) {
                continue;
            }
            let find = |commit: &&'a Commit| Some((*commit, commit.objects.workloads.get(*owner)?));
            let Some((commit, was)) = before.iter().find_map(find) else { continue };
            let added = added.entry(&commit.id).or_insert_with(|| Arc::new(added_to(commit, driving)));
            let mut awaited = Vec::new();
            if rollout.is_under_way() {
                awaited = successors(commit, was, driving, added);
            }
            let added = Arc::clone(added);
            removed.push(Removed { owner, was, pods: pods.clone(), added, awaited });
        }
        let mut available: BTreeMap<&WorkloadKey, bool> = BTreeMap::new();
        for one in &mut removed {
            one.awaited
                .retain(|key| !*available.entry(*key).or_insert_with(|| self.is_settled(driving, key)));
        }
        removed
    }

    /// Whether a workload is as the driving commit wants it.
    fn is_settled(&self, driving: &'a Commit, key: &WorkloadKey) -> bool {
        let Some(workload) = driving.objects.workloads.get(key) else { return true };
        let part = Part::whole(driving, workload, true);
        let progress = self.input.state.workloads.get(key);
        let view = self.part_view(&part, &self.standing);
        judge(&view, progress, self.input.state.rollout.clock) == Judgement::Settled
    }

    /// The nodes where nothing of a workload may be begun yet: what it takes the place of holds what both need.
    pub(super) fn nodes_held<'r>(
        &'r self,
        removed: &'r [Removed<'a>],
        workload: &'r Workload,
    ) -> impl Iterator<Item = &'r NodeName> {
        let holding = removed.iter().filter(|one| one.excludes(workload));
        holding.flat_map(|one| one.there(self)).map(|(node, _)| node)
    }

    /// Whether a bare Pod's name is still that of another owner's pod.
    pub(super) fn has_namesake(&self, workload: &Workload) -> bool {
        let namesake =
            |pod: &OwnedPod<'_>| pod.record.key == workload.key.object && pod.record.owner != workload.key;
        workload.control == Control::Pod && self.owned.values().flatten().any(namesake)
    }

    /// Whether a DaemonSet's pod has to wait for room on a node until a pod that left the commit is gone.
    pub(super) fn waits_for_room(
        &self,
        removed: &[Removed<'a>],
        node: &NodeName,
        unfit: Option<Unfit>,
    ) -> bool {
        let leaves = |one: &Removed<'_>| one.there(self).any(|(on, _)| on == node);
        unfit == Some(Unfit::Full) && removed.iter().any(leaves)
    }

    /// The pod that makes room next, where something cannot be begun for want of it: one at a time, and the next when all
    /// that was begun of the new one is available.
    pub(super) fn makes_room(&self, driving: &'a Commit, removed: &[Removed<'a>]) -> Option<PodUid> {
        let waiting = || removed.iter().filter(|one| !one.awaited.is_empty());
        let stops = |pod: &OwnedPod<'_>| pod.is_stopping() && !self.standing.is_absent(pod);
        if waiting().next().is_none() || removed.iter().flat_map(|one| &one.pods).any(stops) {
            return None;
        }
        let workloads = driving.objects.workloads.values();
        workloads.filter(|workload| self.is_calm(workload)).find_map(|workload| {
            let nodes = self.wanted_nodes(driving, removed, workload)?;
            let mut pods: Vec<(&Removed<'_>, &OwnedPod<'_>)> = waiting()
                .flat_map(|one| one.pods.iter().map(move |pod| (one, pod)))
                .filter(|(_, pod)| !pod.is_stopping() && !pod.is_final())
                .filter(|(_, pod)| match nodes {
                    Wanted::Name => pod.record.key == workload.key.object,
                    Wanted::Nodes(ref nodes) => {
                        pod.record.place.node().is_some_and(|node| nodes.contains(node))
                    }
                })
                .collect();
            pods.sort_by_key(|(one, pod)| {
                (!one.excludes(workload), !one.awaited.contains(&&workload.key), pod.record.serial)
            });
            pods.first().map(|(_, pod)| pod.record.uid.clone())
        })
    }

    /// Whether all that was begun of a workload is available, nodes apart that are out or at fault themselves.
    fn is_calm(&self, workload: &Workload) -> bool {
        let min_ready = workload.control.min_ready();
        let pods = self.owned.get(&workload.key).map_or(&[][..], Vec::as_slice);
        pods.iter().filter(|pod| pod.record.place.node().is_some()).all(|pod| {
            pod.is_available(min_ready) || self.standing.is_aside(pod) || self.standing.is_absent(pod)
        })
    }

    /// Where a workload could begin a pod, if all that waits were gone; `None` where nothing holds it up.
    fn wanted_nodes(
        &self,
        driving: &'a Commit,
        removed: &[Removed<'a>],
        workload: &'a Workload,
    ) -> Option<Wanted> {
        let pods = self.owned.get(&workload.key).map_or(&[][..], Vec::as_slice);
        if workload.key.kind == WorkloadKind::DaemonSet {
            let on = |node: &NodeName| pods.iter().any(|pod| pod.record.place.node() == Some(node));
            let held: BTreeSet<&NodeName> = self.nodes_held(removed, workload).collect();
            let mut placer = self.placer(driving, removed);
            let nodes = self.nodes.iter().filter(|node| {
                let name = &node.name;
                eligible_for_daemon(&workload.template.spec, node)
                    && !self.standing.absent.contains(name)
                    && !on(name)
                    && (held.contains(name)
                        || self.waits_for_room(removed, name, placer.unfit(name, workload)))
            });
            let nodes: BTreeSet<NodeName> = nodes.map(|node| node.name.clone()).collect();
            return (!nodes.is_empty()).then_some(Wanted::Nodes(nodes));
        }
        if pods.is_empty() && self.has_namesake(workload) {
            return Some(Wanted::Name);
        }
        if !pods.iter().any(|pod| pod.is_active() && pod.record.place.node().is_none()) {
            return None;
        }
        let is_waiting =
            |owner: &WorkloadKey| removed.iter().any(|one| one.owner == owner && !one.awaited.is_empty());
        let staying: Vec<Removed<'a>> = Vec::new();
        let mut trial = self.placer_without(driving, &staying, |record| is_waiting(&record.owner));
        let chosen = trial.place(workload).ok()?;
        Some(Wanted::Nodes(BTreeSet::from([chosen.node])))
    }
}

/// What a new pod needs that an old one has.
enum Wanted {
    /// Its name.
    Name,
    /// Room on one of these nodes.
    Nodes(BTreeSet<NodeName>),
}

/// The workloads that a commit has and another one had not, or had none of.
fn added_to<'a>(before: &Commit, driving: &'a Commit) -> BTreeSet<&'a WorkloadKey> {
    let workloads = driving.objects.workloads.values();
    let is_new = |workload: &&Workload| match before.objects.workloads.get(&workload.key) {
        None => true,
        Some(before) => wants_none(before) && !wants_none(workload),
    };
    workloads.filter(is_new).map(|workload| &workload.key).collect()
}

fn wants_none(workload: &Workload) -> bool {
    match &workload.control {
        Control::Deployment { replicas, .. } | Control::Replicas { replicas, .. } => *replicas == 0,
        Control::Pod | Control::DaemonSet { .. } => false,
    }
}

/// What takes a workload's place: of what was added the workloads that its Services select now; all of it where it has
/// none, or none that is still there.
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
        let workload = driving.objects.workloads.get(key).filter(|_| key.object.namespace == *namespace);
        let labels = workload.map(|workload| &workload.template.meta.labels);
        labels.is_some_and(|labels| followed.iter().any(|service| selects(service, labels)))
    };
    added.iter().copied().filter(|key| followed.is_empty() || is_selected(key)).collect()
}
