//! Deployment: old pods are replaced by new ones within maxSurge and maxUnavailable, or all at
//! once.

use super::{
    Action, MOST_AT_ONCE, OwnedPod, OwnerView, PodNaming,
    drain::{drain, drained},
    replicas::{scale_down, stop, stop_failed},
};
use crate::{
    name::NodeName,
    object::{Control, DeploymentStrategy},
    state::StopReason,
};

pub(super) fn control(
    view: &OwnerView<'_>,
    replicas: u32,
    strategy: DeploymentStrategy,
    paused: bool,
) -> Vec<Action> {
    let mut actions = stop_failed(view.pods);
    let active: Vec<OwnedPod<'_>> = view
        .pods
        .iter()
        .filter(|pod| pod.is_active())
        .copied()
        .collect();
    let (new, old): (Vec<_>, Vec<_>) = active.into_iter().partition(|pod| view.is_current(pod));
    let (given_up, new): (Vec<_>, Vec<_>) = new
        .into_iter()
        .partition(|pod| !paused && is_given_up(view, pod));
    actions.extend(stop(given_up, StopReason::Failed));
    actions.extend(match (paused, strategy.bounds(replicas)) {
        (true, _) => scale_only(view, replicas, &new, &old),
        // Pods that are stopped in this cycle may still run: they are replaced in a later cycle.
        (false, None) if !actions.is_empty() => stop_old(view, &old),
        (false, None) => {
            let alone = old.is_empty() && !drained(view, &new).is_empty();
            if alone && !view.pods.iter().any(OwnedPod::is_stopping) {
                drain(view, (replicas as usize, 0, 1), &new, &generated_new(view))
            } else {
                recreate(view, replicas, &new, &old)
            }
        }
        (false, Some((surge, unavailable))) => {
            if old.is_empty() && !drained(view, &new).is_empty() {
                let bounds = (replicas as usize, surge as usize, unavailable as usize);
                drain(view, bounds, &new, &generated_new(view))
            } else {
                roll(
                    view,
                    Bounds {
                        replicas,
                        surge,
                        unavailable,
                    },
                    &new,
                    &old,
                )
            }
        }
    });
    actions
}

/// Whether a pod on a faulty node is given up: another node gets its successor, unless the pod's
/// data is on the node.
fn is_given_up(view: &OwnerView<'_>, pod: &OwnedPod<'_>) -> bool {
    let faulty = pod
        .record
        .place
        .node()
        .is_some_and(|node| view.conditions.faulty.contains(node));
    faulty
        && !view.is_available(pod)
        && view
            .conditions
            .clock
            .is_some_and(|found| pod.record.created < found)
        && view.workload.moves_when_lost()
}

/// The limits of a rolling update, as numbers of pods.
#[derive(Clone, Copy)]
struct Bounds {
    replicas: u32,
    /// `maxSurge`, rounded up as in Kubernetes.
    surge: u32,
    /// `maxUnavailable`, rounded down as in Kubernetes.
    unavailable: u32,
}

/// Replaces old pods by new ones within the bounds. While only the canaries follow the new template,
/// as many pods stay as the canaries do not replace.
fn roll(
    view: &OwnerView<'_>,
    bounds: Bounds,
    new: &[OwnedPod<'_>],
    old: &[OwnedPod<'_>],
) -> Vec<Action> {
    let updated = view.updated_wanted(bounds.replicas);
    let mut actions = if new.len() > updated {
        let surplus = new.len() - updated;
        stop(
            scale_down(new).into_iter().take(surplus),
            StopReason::ScaledDown,
        )
    } else {
        make_new(view, bounds, updated, new, old)
    };
    let staying = bounds.replicas as usize - updated;
    actions.extend(keep_old(view, staying, old));
    actions.extend(replace_old(view, bounds, updated, new, old));
    actions
}

/// New pods, as many as are missing and as `maxSurge` leaves room for.
fn make_new(
    view: &OwnerView<'_>,
    bounds: Bounds,
    updated: usize,
    new: &[OwnedPod<'_>],
    old: &[OwnedPod<'_>],
) -> Vec<Action> {
    // One pod that no node accepts is enough to report the reason.
    if new.iter().any(|pod| pod.record.place.node().is_none()) {
        return Vec::new();
    }
    let most = bounds.replicas as usize + bounds.surge as usize;
    let total = new.len() + old.len();
    let room = most.saturating_sub(total).min(updated - new.len());
    if view.canary.is_none() {
        return create(view, room).collect();
    }

    // Each canary gets one new pod.
    let is_free = |node: &&NodeName| !new.iter().any(|pod| pod.record.place.node() == Some(*node));
    let name = generated_new(view);
    let free = view.canaries().into_iter().filter(is_free).take(room);
    free.map(|node| Action::Create {
        name: name.clone(),
        node: Some(node.clone()),
        like: None,
    })
    .collect()
}

/// Stops old pods: those that are down already first, available ones only while enough other pods
/// are available.
fn replace_old(
    view: &OwnerView<'_>,
    bounds: Bounds,
    updated: usize,
    new: &[OwnedPod<'_>],
    old: &[OwnedPod<'_>],
) -> Vec<Action> {
    let wanted = bounds.replicas as usize;
    let least_available = wanted.saturating_sub(bounds.unavailable as usize);
    let new_available = new.iter().filter(|pod| view.is_available(pod)).count();
    let new_unavailable = new.len().min(wanted) - new_available.min(wanted);
    let old_available = old.iter().filter(|pod| view.is_available(pod)).count();

    let (old_up, old_down): (Vec<OwnedPod<'_>>, Vec<OwnedPod<'_>>) =
        stop_order(view, new.len() < updated, old)
            .into_iter()
            .partition(|pod| view.is_available(pod));
    // As in Kubernetes (`reconcileOldReplicaSets`), new pods that are not available yet count as
    // missing, so that no old pod is stopped before its successor works.
    let total = new.len() + old.len();
    let may_go = total.saturating_sub(least_available + new_unavailable);
    // While only the canaries follow the new template, all other pods stay.
    let may_go = may_go.min(old.len().saturating_sub(wanted - updated));
    let down: Vec<_> = old_down.into_iter().take(may_go).collect();
    let spare = (new_available + old_available).saturating_sub(least_available);
    let up = old_up.into_iter().take(spare.min(may_go - down.len()));
    down.into_iter()
        .chain(up)
        .map(|pod| Action::Stop(pod.record.uid.clone(), view.outdated_reason(&pod)))
        .collect()
}

/// The old pods that may stop, in the order in which they are stopped.
fn stop_order<'a>(
    view: &OwnerView<'_>,
    is_new_missing: bool,
    old: &[OwnedPod<'a>],
) -> Vec<OwnedPod<'a>> {
    let mut order = scale_down(old);
    if view.canary.is_none() {
        return order;
    }
    let canaries = view.canaries();
    let is_elsewhere = |pod: &OwnedPod<'_>| {
        pod.record
            .place
            .node()
            .is_some_and(|node| !canaries.contains(&node))
    };
    // Nodes that are not canaries give up a pod only where a canary still needs it to stop and has
    // no old pod itself.
    if is_new_missing {
        order.sort_by_key(is_elsewhere);
    } else {
        order.retain(|pod| !is_elsewhere(pod));
    }
    order
}

/// While only the canaries follow the new template, an old pod that ended is replaced by one of the
/// old template.
fn keep_old(view: &OwnerView<'_>, staying: usize, old: &[OwnedPod<'_>]) -> Option<Action> {
    let (commit, before) = view.canary?.before?;
    let lacking = staying > old.len() && old.iter().all(|pod| pod.record.place.node().is_some());
    let like = Some((commit.clone(), before.template.hash.clone()));
    let name = generated(view, before.template.hash.short());
    let scaled_up = matches!(before.control, Control::Deployment { replicas, .. } if old.len() >= replicas as usize);
    (lacking && !scaled_up).then_some(Action::Create {
        name,
        node: None,
        like,
    })
}

fn recreate(
    view: &OwnerView<'_>,
    replicas: u32,
    new: &[OwnedPod<'_>],
    old: &[OwnedPod<'_>],
) -> Vec<Action> {
    if !old.is_empty() {
        return stop_old(view, old);
    }
    // All old pods must have ended, not only be stopping, whatever their template: a rollback may
    // have made another template the current one.
    if view.pods.iter().any(|pod| view.may_still_run(pod)) {
        return Vec::new();
    }
    let wanted = replicas as usize;
    match new.len().cmp(&wanted) {
        std::cmp::Ordering::Less if new.iter().all(|pod| pod.record.place.node().is_some()) => {
            create(view, wanted - new.len()).collect()
        }
        std::cmp::Ordering::Greater => stop(
            scale_down(new).into_iter().take(new.len() - wanted),
            StopReason::ScaledDown,
        ),
        _ => Vec::new(),
    }
}

fn stop_old(view: &OwnerView<'_>, old: &[OwnedPod<'_>]) -> Vec<Action> {
    old.iter()
        .map(|pod| Action::Stop(pod.record.uid.clone(), view.outdated_reason(pod)))
        .collect()
}

/// A paused Deployment follows `replicas` with its existing templates, and makes no pod of a new
/// one.
fn scale_only(
    view: &OwnerView<'_>,
    replicas: u32,
    new: &[OwnedPod<'_>],
    old: &[OwnedPod<'_>],
) -> Vec<Action> {
    let all: Vec<OwnedPod<'_>> = new.iter().chain(old).copied().collect();
    let wanted = replicas as usize;
    if all.len() >= wanted {
        return stop(
            scale_down(&all).into_iter().take(all.len() - wanted),
            StopReason::ScaledDown,
        );
    }
    let Some(model) = all.iter().max_by_key(|pod| pod.record.serial) else {
        return Vec::new();
    };
    let like = (!view.is_current(model))
        .then(|| (model.record.commit.clone(), model.record.template.clone()));
    let name = generated(view, model.record.template.short());
    vec![
        Action::Create {
            name,
            node: None,
            like
        };
        (wanted - all.len()).min(MOST_AT_ONCE)
    ]
}

fn create(view: &OwnerView<'_>, count: usize) -> impl Iterator<Item = Action> {
    std::iter::repeat_n(
        Action::Create {
            name: generated_new(view),
            node: None,
            like: None,
        },
        count.min(MOST_AT_ONCE),
    )
}

fn generated_new(view: &OwnerView<'_>) -> PodNaming {
    generated(view, view.workload.template.hash.short())
}

fn generated(view: &OwnerView<'_>, hash: &str) -> PodNaming {
    PodNaming::Generated(format!("{}-{hash}-", view.workload.key.object.name))
}
