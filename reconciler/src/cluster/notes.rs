//! Remarks for people about conditions that are not errors.

use super::ClusterDecision;
use crate::{
    controller::leaves_when_drained,
    name::WorkloadKind,
    object::{Control, DaemonSetUpdate, Workload},
    placement::Candidate,
    state::PodPlace,
};

impl ClusterDecision<'_> {
    pub(super) fn take_notes(&mut self) {
        let Some(driving) = self.driving() else {
            return;
        };
        let mut notes = Vec::new();
        for workload in driving.objects.workloads.values() {
            notes.extend(self.old_template(workload));
            if !self.conditions.draining.is_empty() {
                notes.extend(self.not_drained(workload));
            }
        }
        self.notes.extend(notes);
    }

    /// A remark for kinds whose existing pods keep the template they were made from.
    fn old_template(&self, workload: &Workload) -> Option<String> {
        let keeps = match &workload.control {
            Control::Replicas { .. } => true,
            Control::DaemonSet { update, .. } => *update == DaemonSetUpdate::OnDelete,
            Control::Pod | Control::Deployment { .. } => false,
        };
        let pods = self.owned.get(&workload.key).filter(|_| keeps)?;
        let old = pods
            .iter()
            .filter(|pod| pod.is_active() && pod.record.template != workload.template.hash)
            .count();
        (old > 0).then(|| {
            let run = if old == 1 { "pod runs" } else { "pods run" };
            let key = &workload.key;
            format!("{key}: {old} {run} the old template; `windlass restart {key}` replaces them")
        })
    }

    /// A remark about pods that stay on nodes being drained, with the reason. A DaemonSet's pods
    /// are meant to stay.
    fn not_drained(&self, workload: &Workload) -> Option<String> {
        if workload.key.kind == WorkloadKind::DaemonSet {
            return None;
        }
        let pods = self.owned.get(&workload.key)?;
        let here = |node: &&Candidate| {
            self.conditions.draining.contains(&node.name)
                && pods
                    .iter()
                    .any(|pod| pod.is_active() && pod.record.place.node() == Some(&node.name))
        };
        let nodes: Vec<&str> = self
            .nodes
            .iter()
            .filter(here)
            .map(|node| node.name.as_str())
            .collect();
        if nodes.is_empty() {
            return None;
        }
        let key = &workload.key;
        let on = nodes.join(", ");
        if key.kind == WorkloadKind::Pod {
            return Some(format!(
                "{key} stays on {on}, which is drained: nothing makes a bare Pod anew elsewhere"
            ));
        }
        if !leaves_when_drained(workload) {
            return Some(format!(
                "{key} stays on {on}, which is drained: it writes to the host's disk and would start elsewhere \
                 without its data"
            ));
        }
        let unplaced = pods.iter().find_map(|pod| match &pod.record.place {
            PodPlace::Unplaced(why) if pod.is_active() => Some(why.clone()),
            _ => None,
        })?;
        Some(format!(
            "{key} stays on {on}, which is drained: no node takes its replacement: {unplaced}"
        ))
    }
}
