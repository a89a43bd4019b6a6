//! Remarks about pods with an old template, and about pods that stay on drained nodes.

use super::{ClusterDecision, Note, Undrained};
use crate::{
    controller::{OwnedPod, leaves_when_drained},
    name::{NodeName, WorkloadKind},
    object::{Control, DaemonSetUpdate, Workload},
    state::{PodPlace, Refusal},
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
    fn old_template(&self, workload: &Workload) -> Option<Note> {
        let keeps = match &workload.control {
            Control::Replicas { .. } => true,
            Control::DaemonSet { update, .. } => *update == DaemonSetUpdate::OnDelete,
            Control::Pod | Control::Deployment { .. } => false,
        };
        if !keeps {
            return None;
        }

        let old_pods = self
            .owned
            .get(&workload.key)?
            .iter()
            .filter(|pod| pod.is_active() && pod.record.template != workload.template.hash)
            .count();
        (old_pods > 0).then(|| Note::OldTemplate {
            workload: workload.key.clone(),
            pods: old_pods,
        })
    }

    /// A remark about pods that stay on nodes being drained, with the reason. A DaemonSet's pods
    /// are meant to stay, as with `kubectl drain --ignore-daemonsets`.
    fn not_drained(&self, workload: &Workload) -> Option<Note> {
        if workload.key.kind == WorkloadKind::DaemonSet {
            return None;
        }
        let pods = self.owned.get(&workload.key)?;
        let has_pods = |node: &NodeName| {
            pods.iter()
                .any(|pod| pod.is_active() && pod.record.place.node() == Some(node))
        };
        let nodes: Vec<NodeName> = self
            .nodes
            .iter()
            .map(|node| &node.name)
            .filter(|node| self.conditions.draining.contains(*node) && has_pods(node))
            .cloned()
            .collect();
        if nodes.is_empty() {
            return None;
        }

        let why = if workload.key.kind == WorkloadKind::Pod {
            Undrained::BarePod
        } else if !leaves_when_drained(workload) {
            Undrained::WritesToDisk
        } else {
            // Without an unplaced pod the drain is under way.
            Undrained::Unplaced(unplaced(pods)?)
        };
        Some(Note::NotDrained {
            workload: workload.key.clone(),
            nodes,
            why,
        })
    }
}

/// Why no node accepts the first of these pods that is not placed.
fn unplaced(pods: &[OwnedPod<'_>]) -> Option<Refusal> {
    pods.iter().find_map(|pod| match &pod.record.place {
        PodPlace::Unplaced(refusal) if pod.is_active() => Some(refusal.clone()),
        PodPlace::Unplaced(_) | PodPlace::Node(_) => None,
    })
}
