//! Creates, names, places and keeps pods, as the controllers want it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{ClusterDecision, parts::Part, removed::Removed, stop};
use crate::{
    commit::Commit,
    controller::{Action, OwnedPod, PodNaming},
    digest::{name_suffix, pod_uid},
    name::{NodeName, ObjectKey, PodUid, WorkloadKind},
    object::Workload,
    placement::{Choice, Placer, must_leave},
    state::{Change, NodeLife, NodeReport, PodPlace, PodRecord, Refused, StopReason},
};

impl<'a> ClusterDecision<'a> {
    /// A placer that knows all existing pods. It offers no node where a workload that left the
    /// commit still holds what the new pods need.
    pub(super) fn placer(&self, driving: &'a Commit, removed: &[Removed<'a>]) -> Placer<'a> {
        self.placer_without(driving, removed, |_| false)
    }

    /// As [`Self::placer`], without some of the pods.
    pub(super) fn placer_without(
        &self,
        driving: &'a Commit,
        removed: &[Removed<'a>],
        gone: impl Fn(&PodRecord) -> bool,
    ) -> Placer<'a> {
        let input = self.input;
        let max_pods = self.input.settings.max_pods;
        let mut placer = Placer::new(
            Arc::clone(&self.nodes),
            max_pods,
            &driving.objects.namespaces,
        );

        // A pod that has ended uses no resources any more.
        let there = self.owned.values().flatten().filter(|pod| !pod.is_final());
        for record in there.map(|pod| pod.record).filter(|record| !gone(record)) {
            placer.add(record, || {
                input
                    .readable(&record.commit)?
                    .resolve(&record.owner, &record.template)
            });
        }

        // A pod that its node refuses, or has just given up, is not assigned to the same node again
        // at once.
        for record in self.input.state.pods.values() {
            let Some(node) = record.place.node() else {
                continue;
            };
            let report = self.input.reports.get(node);
            let refused = report.and_then(|report| report.refused.get(&record.uid));
            let excluded = record
                .stop
                .as_ref()
                .is_some_and(|stop| stop.reason == StopReason::NodeExcluded);
            if excluded || refused.is_some_and(Refused::is_for_the_template) {
                placer.turn_away(node, record);
            }
        }

        if !removed.is_empty() {
            for workload in driving.objects.workloads.values() {
                for node in self.nodes_held(removed, workload) {
                    placer.keep_off(node, workload);
                }
            }
        }
        self.prefer_warm(driving, &mut placer);
        placer
    }

    /// Executes what a controller wants: stops pods, and makes and places new ones.
    pub(super) fn act(
        &mut self,
        driving: &Commit,
        workload: &'a Workload,
        actions: Vec<Action>,
        removed: &[Removed<'a>],
        placer: &mut Placer<'a>,
        names: &mut BTreeSet<ObjectKey>,
    ) {
        for action in actions {
            match action {
                Action::Stop(uid, reason) => {
                    if let Some(record) = self.input.state.pods.get(&uid) {
                        self.changes.push(stop(record, reason, self.input.now));
                    }
                }
                // Two pods never have the same name.
                Action::Create { .. } if self.has_namesake(workload) => {}
                Action::Create { name, node, like } => {
                    let Some((place, why)) = self.place(node, workload, removed, placer) else {
                        continue;
                    };
                    let is_unplaced = place.node().is_none();

                    let (commit, template) = like
                        .unwrap_or_else(|| (driving.id.clone(), workload.template.hash.clone()));
                    let key = self.name(workload, &name, names);
                    names.insert(key.clone());
                    let uid = pod_uid(&self.seed(), self.serial);
                    self.placed.extend(why.map(|why| (uid.clone(), why)));
                    self.changes.push(Change::put(PodRecord {
                        uid,
                        key,
                        owner: workload.key.clone(),
                        place,
                        commit,
                        template,
                        created: self.input.now,
                        serial: self.serial,
                        stop: None,
                    }));
                    // One pod that no node accepts is enough to report the reason.
                    if is_unplaced {
                        break;
                    }
                }
            }
        }
    }

    /// The place of a new pod, and the reason for a node that placement chose; `None` if the pod
    /// must wait until its node has room.
    fn place(
        &self,
        node: Option<NodeName>,
        workload: &'a Workload,
        removed: &[Removed<'a>],
        placer: &mut Placer<'a>,
    ) -> Option<(PodPlace, Option<Choice>)> {
        let Some(node) = node else {
            return Some(choose(placer, workload));
        };
        if self.is_blocked(&node, workload, removed, placer) {
            return None;
        }
        placer.pin(&node, workload);
        Some((PodPlace::Node(node), None))
    }

    /// Whether what runs on a node is in the way of a pod that may only run on that node.
    fn is_blocked(
        &self,
        node: &NodeName,
        workload: &'a Workload,
        removed: &[Removed<'a>],
        placer: &mut Placer<'a>,
    ) -> bool {
        // A canary of a Deployment: an old pod may still be in the way for a short time.
        if workload.key.kind != WorkloadKind::DaemonSet {
            return placer.unfit(node, workload).is_some();
        }
        // As in Kubernetes, a DaemonSet's pod is assigned to its node whatever else runs there;
        // only pods that left the commit are waited for.
        if removed.is_empty() {
            return false;
        }
        self.nodes_held(removed, workload).contains(node)
            || self.waits_for_room(removed, node, placer.unfit(node, workload))
    }

    /// Increases the serial until uid and name are unused; every pod has its own serial.
    pub(super) fn name(
        &mut self,
        workload: &Workload,
        naming: &PodNaming,
        names: &BTreeSet<ObjectKey>,
    ) -> ObjectKey {
        loop {
            self.serial += 1;
            let name = match naming {
                PodNaming::Exact => workload.key.object.name.clone(),
                PodNaming::Generated(prefix) => {
                    format!("{prefix}{}", name_suffix(&self.seed(), self.serial))
                }
            };
            let key = ObjectKey::new(workload.key.object.namespace.clone(), name);
            if self.is_fresh(self.serial) && (*naming == PodNaming::Exact || !names.contains(&key))
            {
                return key;
            }
        }
    }

    /// The seed of names and uids, beside the serial. A store that was restored from a backup, or
    /// an adopted copy, assigns serials again that existing but unknown pods already have: the time
    /// in the seed makes their uids differ.
    fn seed(&self) -> String {
        format!(
            "{}\n{}",
            self.input.state.cluster,
            self.input.now.as_nanosecond()
        )
    }

    /// Whether no pod has the uid of this serial. Serials start again where the state was lost,
    /// while the adopted pods still have their uids from before.
    pub(super) fn is_fresh(&self, serial: u64) -> bool {
        let uid = pod_uid(&self.seed(), serial);
        let has = |report: &NodeReport| {
            report.pods.contains_key(&uid) || report.orphans.iter().any(|one| one.uid == uid)
        };
        !self.input.state.pods.contains_key(&uid) && !self.input.reports.values().any(has)
    }

    /// Pods that must stop because of a NoExecute taint, the loss of their node or its refusal,
    /// even if their owner wants to keep them.
    pub(super) fn leaving(&self, part: &Part<'a>) -> BTreeMap<PodUid, StopReason> {
        let workload = part.workload;
        let reason = |pod: &OwnedPod<'_>| {
            let node = pod.record.place.node()?;
            let candidate = self
                .nodes
                .binary_search_by(|known| known.name.cmp(node))
                .ok();
            let evicted = candidate.is_some_and(|node| {
                workload.key.kind != WorkloadKind::DaemonSet
                    && must_leave(&workload.template.spec, &self.nodes[node]).is_some()
            });
            let lost = self
                .input
                .nodes
                .get(node)
                .is_some_and(|node| node.life == NodeLife::Lost);
            if evicted || self.is_turned_away(pod.record) {
                Some(StopReason::NodeExcluded)
            } else if lost && workload.moves_when_lost() {
                Some(StopReason::NodeLost)
            } else {
                None
            }
        };
        let pods = self.part_pods(part).iter().filter(|pod| !pod.is_stopping());
        pods.filter_map(|pod| Some((pod.record.uid.clone(), reason(pod)?)))
            .collect()
    }

    /// Whether a pod's node has refused it for some time. A DaemonSet has no other node for the
    /// pod.
    fn is_turned_away(&self, record: &PodRecord) -> bool {
        let report = record
            .place
            .node()
            .and_then(|node| self.input.reports.get(node));
        record.owner.kind != WorkloadKind::DaemonSet
            && report.is_some_and(|report| report.turned_away.contains(&record.uid))
    }

    /// Corrects stop records that, by the commit, no leader can have decided: their hosts refuse
    /// them, and the pods that were replaced meanwhile keep running. The surplus pods are stopped
    /// with the reason `ScaledDown`, which their hosts accept.
    pub(super) fn mend_stops(&mut self) {
        let Some(driving) = self.driving() else {
            return;
        };
        for (node, report) in self.input.reports {
            let refused = report.refused.iter().filter(|(_, why)| why.is_of_a_stop());
            for record in refused.filter_map(|(uid, _)| self.input.state.pods.get(uid)) {
                let is_stop_recorded = record
                    .stop
                    .as_ref()
                    .is_some_and(|stop| stop.reason == StopReason::OwnerRemoved);
                let stays = driving.objects.workloads.contains_key(&record.owner);
                if is_stop_recorded && stays && record.place.node() == Some(node) {
                    self.changes
                        .push(stop(record, StopReason::ScaledDown, self.input.now));
                }
            }
        }
    }

    /// Updates pods that stay: their record names the driving commit while the template is the
    /// same, and pods that no node accepted are placed again. Pods that must leave are stopped.
    pub(super) fn keep_in_place(
        &mut self,
        part: &Part<'a>,
        stopped: &BTreeSet<PodUid>,
        leaving: &BTreeMap<PodUid, StopReason>,
        placer: &mut Placer<'a>,
    ) {
        let (driving, workload) = (part.commit, part.workload);
        let (mut changes, mut placed) = (Vec::new(), BTreeMap::new());
        for pod in self.part_pods(part).iter().filter(|pod| !pod.is_stopping()) {
            if stopped.contains(&pod.record.uid) {
                continue;
            }
            if let Some(reason) = leaving.get(&pod.record.uid) {
                changes.push(stop(pod.record, *reason, self.input.now));
                continue;
            }
            let mut record = pod.record.clone();
            if record.template == workload.template.hash {
                record.commit = driving.id.clone();
            }
            if record.place.node().is_none() {
                let (place, why) = choose(placer, workload);
                record.place = place;
                placed.extend(why.map(|why| (record.uid.clone(), why)));
            }
            if record != *pod.record {
                changes.push(Change::put(record));
            }
        }
        self.changes.extend(changes);
        self.placed.extend(placed);
    }
}

/// The node for a new pod, and the reason for that node.
fn choose<'a>(placer: &mut Placer<'a>, workload: &'a Workload) -> (PodPlace, Option<Choice>) {
    match placer.place(workload) {
        Ok(chosen) => (PodPlace::Node(chosen.node), Some(chosen.why)),
        Err(refusal) => (PodPlace::Unplaced(refusal), None),
    }
}
