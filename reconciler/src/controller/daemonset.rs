//! DaemonSet: one pod on every node that accepts it.

use super::{
    Action, OwnedPod, OwnerView, PodNaming,
    replicas::{all_but_one, stop, stop_failed},
};
use crate::{
    name::NodeName,
    object::DaemonSetUpdate,
    placement::{Candidate, daemon_may_stay, eligible_for_daemon},
    state::StopReason,
};

pub(super) fn control(view: &OwnerView<'_>, update: DaemonSetUpdate) -> Vec<Action> {
    let mut actions = stop_failed(view.pods);
    actions.extend(stop_elsewhere(view));

    // No pod is started on an absent node; the pod there is updated when the node returns.
    let eligible: Vec<&Candidate> = view
        .nodes
        .iter()
        .filter(|node| eligible_for_daemon(&view.workload.template.spec, node))
        .filter(|node| !view.conditions.absent.contains(&node.name))
        .collect();
    let mut limits = NodeLimits::of(view, update, &eligible);
    for node in eligible {
        actions.extend(control_node(view, update, node, &mut limits));
    }
    actions
}

/// How many nodes may be changed in this cycle.
struct NodeLimits {
    /// `maxSurge` as a number of nodes; with zero each pod is replaced in place.
    max_surge: u32,
    /// Number of nodes on which a new pod may be made beside an old one.
    may_surge: usize,
    /// Number of nodes on which an available pod may be stopped.
    may_go_down: usize,
}

impl NodeLimits {
    fn of(view: &OwnerView<'_>, update: DaemonSetUpdate, eligible: &[&Candidate]) -> Self {
        let nodes = u32::try_from(eligible.len()).unwrap_or(u32::MAX);
        let (max_surge, max_unavailable) = match update {
            // A requested restart proceeds node by node.
            DaemonSetUpdate::OnDelete => (0, 1),
            DaemonSetUpdate::RollingUpdate {
                max_surge,
                max_unavailable,
            } => {
                let surge = max_surge.round_up(nodes);
                let unavailable = max_unavailable.round_up(nodes);
                // With both at zero no pod could ever be replaced, so one may be down.
                let least = u32::from(surge == 0);
                (surge, unavailable.max(least))
            }
        };

        let counts = |node: &Candidate| !view.conditions.faulty.contains(&node.name);
        let is_down = |node: &Candidate| !on(view, &node.name).any(|pod| view.is_available(&pod));
        let down = eligible
            .iter()
            .filter(|node| counts(node) && is_down(node))
            .count();
        // An absent node is not eligible, but a pod that was down there may still be.
        let left_down = view
            .nodes
            .iter()
            .filter(|node| counts(node) && view.conditions.left_down(&node.name, view.pods))
            .count();
        let down_elsewhere = view.canary.map_or(0, |canary| canary.down_elsewhere);
        let all_down = down + left_down + down_elsewhere;

        let surging = eligible
            .iter()
            .filter(|node| on(view, &node.name).filter(OwnedPod::is_active).count() > 1)
            .count();
        Self {
            max_surge,
            may_surge: (max_surge as usize).saturating_sub(surging),
            may_go_down: (max_unavailable as usize).saturating_sub(all_down),
        }
    }
}

/// The actions for the pods of one eligible node.
fn control_node(
    view: &OwnerView<'_>,
    update: DaemonSetUpdate,
    node: &Candidate,
    limits: &mut NodeLimits,
) -> Vec<Action> {
    let active: Vec<OwnedPod<'_>> = on(view, &node.name).filter(OwnedPod::is_active).collect();
    // `OnDelete` replaces no pod by itself, but a requested restart applies all the same.
    let stays = |pod: &OwnedPod<'_>| match update {
        DaemonSetUpdate::OnDelete => !view.must_restart(pod),
        DaemonSetUpdate::RollingUpdate { .. } => view.is_current(pod),
    };
    let (new, old): (Vec<OwnedPod<'_>>, Vec<OwnedPod<'_>>) =
        active.iter().copied().partition(stays);

    // If more pods run than may, the surplus is stopped first.
    let alike = if limits.max_surge == 0 {
        vec![&active]
    } else {
        vec![&new, &old]
    };
    if alike.iter().any(|pods| pods.len() > 1) {
        let surplus = alike.into_iter().flat_map(|pods| all_but_one(pods));
        return stop(surplus, StopReason::ScaledDown);
    }

    if old.is_empty() {
        // No new pod is started before a stopping pod has ended.
        let is_free = on(view, &node.name).next().is_none();
        return if is_free {
            vec![create(view, node)]
        } else {
            Vec::new()
        };
    }
    if !new.is_empty() {
        // A surge: the old pod stays until the new one is available.
        let is_up = new.iter().any(|pod| view.is_available(pod));
        return if is_up {
            replace(view, &old)
        } else {
            Vec::new()
        };
    }

    // On a faulty node, the pod of an earlier commit may be the only one that runs there, so it
    // stays.
    if view.conditions.faulty.contains(&node.name) {
        return Vec::new();
    }
    // A pod without a recent report does not count as down.
    let may_be_up =
        |pod: &OwnedPod<'_>| pod.status.is_none() || pod.unreachable || view.is_available(pod);
    if !old.iter().any(may_be_up) {
        return replace(view, &old);
    }
    if limits.may_surge > 0 {
        limits.may_surge -= 1;
        return vec![create(view, node)];
    }
    if limits.may_go_down > 0 {
        limits.may_go_down -= 1;
        return replace(view, &old);
    }
    Vec::new()
}

/// The owner's pods on a node, stopping ones included.
fn on<'v>(view: &'v OwnerView<'_>, node: &'v NodeName) -> impl Iterator<Item = OwnedPod<'v>> {
    view.pods
        .iter()
        .copied()
        .filter(move |pod| pod.record.place.node() == Some(node))
}

fn stop_elsewhere(view: &OwnerView<'_>) -> Vec<Action> {
    // A node that is not known is no evidence; only a known node can refuse a pod.
    let spec = &view.workload.template.spec;
    let refused = |node: &NodeName| {
        view.nodes
            .iter()
            .any(|known| known.name == *node && !daemon_may_stay(spec, known))
    };
    view.pods
        .iter()
        .filter(|pod| pod.is_active() && !view.conditions.is_absent(pod))
        .filter(|pod| pod.record.place.node().is_some_and(refused))
        .map(|pod| Action::Stop(pod.record.uid.clone(), StopReason::NodeExcluded))
        .collect()
}

fn replace(view: &OwnerView<'_>, old: &[OwnedPod<'_>]) -> Vec<Action> {
    let reason = |pod: &OwnedPod<'_>| {
        if view.must_restart(pod) {
            StopReason::Restarted
        } else {
            view.outdated_reason(pod)
        }
    };
    old.iter()
        .map(|pod| Action::Stop(pod.record.uid.clone(), reason(pod)))
        .collect()
}

fn create(view: &OwnerView<'_>, node: &Candidate) -> Action {
    let name = PodNaming::Generated(format!("{}-", view.workload.key.object.name));
    Action::Create {
        name,
        node: Some(node.name.clone()),
        like: None,
    }
}
