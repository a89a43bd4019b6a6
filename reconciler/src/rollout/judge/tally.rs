//! How many of a workload's pods are available, and whether that is enough, by its controller.

use std::collections::BTreeSet;

use crate::{
    controller::{OwnedPod, OwnerView},
    name::NodeName,
    object::{Control, DaemonSetUpdate},
    placement::eligible_for_daemon,
};

/// The pods of a workload, counted. Pods on nodes that are unreachable or at fault are no evidence
/// about the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    /// Whether the workload is as the commit wants it.
    pub(super) settled: bool,
    /// Number of pods that must be available.
    pub(super) wanted: usize,
    /// Number of pods that count as available.
    pub(super) available: usize,
}

impl Tally {
    /// Counts the pods of an owner; `current` are those with its present template that do not stop.
    pub(super) fn of(view: &OwnerView<'_>, current: &[&OwnedPod<'_>]) -> Self {
        match &view.workload.control {
            Control::Deployment { paused: true, .. } => Self {
                settled: true,
                wanted: 0,
                available: 0,
            },
            Control::Deployment { replicas, .. } => deployment(view, current, *replicas),
            Control::DaemonSet { update, .. } => daemon_set(view, current, *update),
            Control::Replicas { replicas, .. } => replica_set(view, *replicas),
            Control::Pod => bare_pod(view, current),
        }
    }
}

fn deployment(view: &OwnerView<'_>, current: &[&OwnedPod<'_>], replicas: u32) -> Tally {
    let wanted = view.updated_wanted(replicas);
    let available = count(current, |pod| view.is_available(pod));
    let aside = count(current, |pod| {
        !view.is_available(pod) && view.conditions.is_aside(pod)
    });
    // A pod on a lost node counts as gone: its successor runs elsewhere.
    let old = view
        .pods
        .iter()
        .any(|pod| is_outdated(view, pod) && !is_on_lost_node(view, pod));

    let is_exact = available + aside == wanted
        && current.len() == wanted
        // Pods that no node runs show nothing about the template.
        && (aside == 0 || available > 0);
    Tally {
        // While only the canaries follow the commit, the old pods of the other nodes stay.
        settled: is_exact && (!old || view.canary.is_some()) && !is_any_stopping(view),
        wanted,
        available,
    }
}

fn daemon_set(view: &OwnerView<'_>, current: &[&OwnedPod<'_>], update: DaemonSetUpdate) -> Tally {
    let conditions = view.conditions;
    let counted: BTreeSet<&NodeName> = view
        .nodes
        .iter()
        .filter(|node| eligible_for_daemon(&view.workload.template.spec, node))
        .map(|node| &node.name)
        .filter(|node| !conditions.absent.contains(*node) && !conditions.faulty.contains(*node))
        .collect();
    let is_counted = |pod: &OwnedPod<'_>| {
        pod.record
            .place
            .node()
            .is_some_and(|node| counted.contains(node))
    };
    let wanted = counted.len();

    match update {
        // As in Kubernetes, an old pod stays until somebody deletes it, so its template does not
        // matter.
        DaemonSetUpdate::OnDelete => {
            let up = view.pods.iter().filter(|pod| is_counted(pod));
            let available = up.filter(|pod| view.is_available(pod)).count();
            Tally {
                settled: available >= wanted,
                wanted,
                available,
            }
        }
        DaemonSetUpdate::RollingUpdate { .. } => {
            let available = count(current, |pod| is_counted(pod) && view.is_available(pod));
            // Old pods on a node that accepts no new ones are not replaced, so the rollout does not
            // wait for them.
            let old = view
                .pods
                .iter()
                .any(|pod| is_outdated(view, pod) && is_counted(pod));
            let stopping = view.pods.iter().any(|pod| {
                pod.is_stopping() && !conditions.is_absent(pod) && !conditions.is_aside(pod)
            });
            // A pod that was down in the last report of its node has not shown that the commit
            // works.
            let left_down = view
                .nodes
                .iter()
                .any(|node| conditions.left_down(&node.name, view.pods));
            Tally {
                settled: available >= wanted && !old && !stopping && !left_down,
                wanted,
                available,
            }
        }
    }
}

/// A ReplicaSet or ReplicationController: as in Kubernetes, pods of an earlier template stay, and
/// count.
fn replica_set(view: &OwnerView<'_>, replicas: u32) -> Tally {
    let wanted = replicas as usize;
    let available = view
        .pods
        .iter()
        .filter(|pod| view.is_available(pod))
        .count();
    let aside = view
        .pods
        .iter()
        .filter(|pod| pod.is_active() && !view.is_available(pod) && view.conditions.is_aside(pod))
        .count();
    Tally {
        settled: available + aside == wanted && !is_any_stopping(view),
        wanted,
        available,
    }
}

fn bare_pod(view: &OwnerView<'_>, current: &[&OwnedPod<'_>]) -> Tally {
    let available = count(current, |pod| view.is_available(pod));
    let has_ended = current.iter().any(|pod| pod.is_final());
    Tally {
        settled: has_ended || (available == 1 && !is_any_stopping(view)),
        wanted: 1,
        available,
    }
}

fn count(pods: &[&OwnedPod<'_>], is: impl Fn(&OwnedPod<'_>) -> bool) -> usize {
    pods.iter().filter(|pod| is(pod)).count()
}

fn is_outdated(view: &OwnerView<'_>, pod: &OwnedPod<'_>) -> bool {
    pod.is_active() && !view.is_current(pod)
}

fn is_on_lost_node(view: &OwnerView<'_>, pod: &OwnedPod<'_>) -> bool {
    pod.record
        .place
        .node()
        .is_some_and(|node| view.conditions.lost.contains(node))
}

/// Whether a pod of the owner is stopping on a node that is not absent.
fn is_any_stopping(view: &OwnerView<'_>) -> bool {
    view.pods
        .iter()
        .any(|pod| pod.is_stopping() && !view.conditions.is_absent(pod))
}
