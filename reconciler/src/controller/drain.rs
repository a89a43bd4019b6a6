//! A node that is drained gives up its pods, but never before their successors are available.

use super::{
    Action, OwnedPod, OwnerView, PodNaming,
    replicas::{scale_down, stop},
};
use crate::{object::Workload, placement::unfit_by_itself, state::StopReason};

/// Whether a drained node gives up pods of this owner. A bare Pod would be missing for some time, a
/// DaemonSet's pod belongs to its node, and a pod that writes to the host's own disk would start
/// elsewhere without its data.
pub fn leaves_when_drained(workload: &Workload) -> bool {
    workload.moves_when_lost()
}

/// The pods that a drain moves away.
pub(super) fn drained<'a>(view: &OwnerView<'_>, active: &[OwnedPod<'a>]) -> Vec<OwnedPod<'a>> {
    if view.conditions.draining.is_empty() || !leaves_when_drained(view.workload) {
        return Vec::new();
    }
    let leaves = |pod: &&OwnedPod<'_>| {
        !view.conditions.is_absent(pod)
            && pod
                .record
                .place
                .node()
                .is_some_and(|node| view.conditions.draining.contains(node))
    };
    active.iter().filter(leaves).copied().collect()
}

/// Moves pods away from drained nodes. At a time, `surge` more pods than wanted may exist. If
/// `surge` is zero, a pod stops before its successor starts, provided that another node accepts the
/// successor, and that `unavailable` allows it or the pod is down already.
pub(super) fn drain(
    view: &OwnerView<'_>,
    (wanted, surge, unavailable): (usize, usize, usize),
    active: &[OwnedPod<'_>],
    name: &PodNaming,
) -> Vec<Action> {
    let leaving = drained(view, active);
    let gone: Vec<_> = leaving.iter().map(|pod| &pod.record.uid).collect();
    let staying: Vec<OwnedPod<'_>> = active
        .iter()
        .filter(|pod| !gone.contains(&&pod.record.uid))
        .copied()
        .collect();
    let (up, mut down): (Vec<_>, Vec<_>) = scale_down(&leaving)
        .into_iter()
        .partition(|pod| view.is_available(pod));
    let available = active.iter().filter(|pod| view.is_available(pod)).count();
    let placed = active
        .iter()
        .filter(|pod| pod.record.place.node().is_some())
        .count();
    let surplus = placed.saturating_sub(wanted);
    let mut actions = Vec::new();
    // Staying pods beyond the wanted number are scaled down, whatever is drained.
    let too_many = staying.len().saturating_sub(wanted);
    actions.extend(stop(
        scale_down(&staying).into_iter().take(too_many),
        StopReason::ScaledDown,
    ));

    let unplaced = active.iter().any(|pod| pod.record.place.node().is_none());
    let stops_first = surge == 0 && surplus == 0 && has_another_node(view);
    let spare = if stops_first {
        (available + unavailable).saturating_sub(wanted).min(1)
    } else {
        available.saturating_sub(wanted)
    };
    if stops_first {
        // A pod that was not reported yet may be up.
        down.retain(|pod| pod.status.is_some());
    }
    let (down_goes, up_goes) = if stops_first && !down.is_empty() {
        // A pod that is down is not missed, but its successor must have a node before the next pod
        // stops.
        (usize::from(!unplaced && active.len() >= wanted), 0)
    } else {
        let down_goes = down.len().min(surplus);
        let most = if surge == 0 {
            surplus.max(1)
        } else {
            surplus - down_goes
        };
        (down_goes, spare.min(most))
    };
    let going = down
        .into_iter()
        .take(down_goes)
        .chain(up.into_iter().take(up_goes));
    actions.extend(stop(going, StopReason::Drained));

    if !unplaced {
        let missing = wanted.saturating_sub(staying.len());
        let room = (wanted + surge).saturating_sub(active.len());
        let create = Action::Create {
            name: name.clone(),
            node: None,
            like: None,
        };
        actions.extend(std::iter::repeat_n(create, missing.min(room)));
    }
    actions
}

fn has_another_node(view: &OwnerView<'_>) -> bool {
    // A pod with `nodeName` would return to its node, whose cordon does not count for it.
    view.nodes
        .iter()
        .filter(|node| !view.conditions.draining.contains(&node.name))
        .any(|node| unfit_by_itself(&view.workload.template.spec, node).is_none())
}
