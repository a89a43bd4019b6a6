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
    // No pod is started on an absent node; the pod there is updated when the node returns.
    let eligible: Vec<&Candidate> = view
        .nodes
        .iter()
        .filter(|node| eligible_for_daemon(&view.workload.template.spec, node))
        .filter(|node| !view.conditions.absent.contains(&node.name))
        .collect();
    let faulty = |node: &Candidate| view.conditions.faulty.contains(&node.name);
    actions.extend(stop_elsewhere(view));

    let nodes = u32::try_from(eligible.len()).unwrap_or(u32::MAX);
    let (surge, unavailable) = match update {
        // A requested restart proceeds node by node.
        DaemonSetUpdate::OnDelete => (0, 1),
        DaemonSetUpdate::RollingUpdate {
            max_surge,
            max_unavailable,
        } => {
            let surge = max_surge.round_up(nodes);
            let unavailable = max_unavailable.round_up(nodes);
            (
                surge,
                if surge == 0 {
                    unavailable.max(1)
                } else {
                    unavailable
                },
            )
        }
    };
    let is_down = |node: &&&Candidate| !on(view, &node.name).any(|pod| view.is_available(&pod));
    let elsewhere = view.canary.map_or(0, |canary| canary.down_elsewhere);
    let down = eligible
        .iter()
        .filter(|node| !faulty(node))
        .filter(is_down)
        .count()
        + elsewhere;
    let left_down =
        |node: &&Candidate| !faulty(node) && view.conditions.left_down(&node.name, view.pods);
    let down = down + view.nodes.iter().filter(left_down).count();
    let mut may_go_down = (unavailable as usize).saturating_sub(down);
    let surging = eligible
        .iter()
        .filter(|node| on(view, &node.name).filter(OwnedPod::is_active).count() > 1)
        .count();
    let mut may_surge = (surge as usize).saturating_sub(surging);

    for node in eligible {
        let active: Vec<OwnedPod<'_>> = on(view, &node.name).filter(OwnedPod::is_active).collect();
        // `OnDelete` replaces no pod by itself, but a requested restart applies all the same.
        let stays = |pod: &OwnedPod<'_>| match update {
            DaemonSetUpdate::OnDelete => !view.must_restart(pod),
            DaemonSetUpdate::RollingUpdate { .. } => view.is_current(pod),
        };
        let (new, old): (Vec<OwnedPod<'_>>, Vec<OwnedPod<'_>>) =
            active.iter().copied().partition(stays);
        // If more pods run than may, the surplus is stopped first.
        let alike = if surge == 0 {
            vec![&active]
        } else {
            vec![&new, &old]
        };
        if alike.iter().any(|pods| pods.len() > 1) {
            let surplus = alike.into_iter().flat_map(|pods| all_but_one(pods));
            actions.extend(stop(surplus, StopReason::ScaledDown));
            continue;
        }
        match old.first() {
            // No new pod is started before a stopping pod has ended.
            None if new.is_empty() && on(view, &node.name).next().is_none() => {
                actions.push(create(view, node))
            }
            None => {}
            // On a faulty node, the pod of an earlier commit may be the only one that runs there,
            // so it stays.
            Some(_) if new.is_empty() && faulty(node) => {}
            Some(_) if new.iter().any(|pod| view.is_available(pod)) => {
                actions.extend(replace(view, &old))
            }
            Some(_) if !new.is_empty() => {}
            // A pod without a recent report does not count as down.
            Some(_)
                if !old.iter().any(|pod| {
                    pod.status.is_none() || pod.unreachable || view.is_available(pod)
                }) =>
            {
                actions.extend(replace(view, &old));
            }
            Some(_) if may_surge > 0 => {
                may_surge -= 1;
                actions.push(create(view, node));
            }
            Some(_) if may_go_down > 0 => {
                may_go_down -= 1;
                actions.extend(replace(view, &old));
            }
            Some(_) => {}
        }
    }
    actions
}

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
