//! Whether a workload has settled on the target, still makes progress, waits for something outside
//! of the commit, or has failed.

mod tally;

use std::collections::BTreeMap;

use jiff::Timestamp;

use self::tally::Tally;
use super::{
    pod_failure::{first_unready, reported_message, unplaced},
    progress::progress_deadline,
    stopping::unfinished_stop,
};
use crate::{
    controller::{OwnedPod, OwnerView},
    fault::FaultKind,
    name::WorkloadKey,
    object::Control,
    state::{
        AvailablePods, Failure, FailureClass, FailureReason, Obstacle, UnreadyPod, UnreadyReason,
        Unsettled, WorkloadProgress,
    },
};

/// The judgement of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The workload is as the commit wants it. Old pods that a workload's kind does not replace by
    /// design count as settled.
    Settled,
    /// The workload is being updated.
    Progressing(Unsettled),
    /// Something outside of the commit prevents progress.
    Waiting(Obstacle),
    /// The workload has failed, and the commit is at fault.
    Failed(Failure),
}

/// The judgement of a workload without known faults, see [`suspects`](super::suspects). `progress`
/// is the stored progress of the workload; deadlines and crashes count from `clock`.
pub fn judge(
    view: &OwnerView<'_>,
    progress: Option<&WorkloadProgress>,
    clock: Option<Timestamp>,
) -> Judgement {
    let current = view.current();
    let tally = Tally::of(view, &current);

    if tally.settled {
        return Judgement::Settled;
    }
    if let Some(obstacle) = obstacle(view, &current, &tally) {
        return Judgement::Waiting(obstacle);
    }

    let pods = AvailablePods {
        workload: view.workload.key.clone(),
        available: tally.available,
        wanted: tally.wanted,
        unready: first_unready(&current),
    };
    let deadline = progress_deadline(view.workload, progress, clock, view.now);
    if deadline.is_some_and(|deadline| deadline <= view.now) {
        return Judgement::Failed(Failure {
            class: FailureClass::Deadline,
            reason: FailureReason::ProgressDeadline(pods),
        });
    }
    Judgement::Progressing(Unsettled::Pods(pods))
}

/// What is in the way of a workload that is not settled; `None` if nothing outside of the commit
/// is. The obstacles that a person can remove by `windlass node rm` come first.
fn obstacle(view: &OwnerView<'_>, current: &[&OwnedPod<'_>], tally: &Tally) -> Option<Obstacle> {
    let workload = || view.workload.key.clone();
    if let Some(obstacle) = left_down(view).or_else(|| ends_on_absent_node(view)) {
        return Some(obstacle);
    }

    let all_nodes_ready = view.nodes.iter().all(|node| node.ready);
    // A template that is available on no node has not shown that it works, so the pods on nodes
    // that are at fault count as well.
    let counted = current
        .iter()
        .filter(|pod| tally.available == 0 || !view.conditions.is_aside(pod));
    if let Some(pod) = counted
        .into_iter()
        .find_map(|pod| pod_obstacle(pod, all_nodes_ready))
    {
        return Some(Obstacle::Pod {
            workload: workload(),
            pod,
        });
    }

    unfinished_stop(view, current).map(|stop| Obstacle::Unfinished {
        workload: workload(),
        stop,
    })
}

/// A node that is out while the DaemonSet's pod on it was down in the node's last report.
fn left_down(view: &OwnerView<'_>) -> Option<Obstacle> {
    let Control::DaemonSet { .. } = view.workload.control else {
        return None;
    };
    let node = view
        .nodes
        .iter()
        .find(|node| view.conditions.left_down(&node.name, view.pods))?;
    Some(Obstacle::LeftDown {
        workload: view.workload.key.clone(),
        node: node.name.clone(),
    })
}

/// A stopping pod on a node that is out, where no new pod may be made before that pod has ended.
fn ends_on_absent_node(view: &OwnerView<'_>) -> Option<Obstacle> {
    if !view.never_overlaps() {
        return None;
    }
    let pod = view
        .pods
        .iter()
        .find(|pod| view.may_still_run(pod) && view.conditions.is_absent(pod))?;
    Some(Obstacle::EndsOnAbsentNode {
        workload: view.workload.key.clone(),
        pod: pod.record.key.clone(),
        node: pod.record.place.node()?.clone(),
    })
}

/// The obstacle outside of the commit that keeps a pod from starting. If no node accepts the pod
/// although all nodes are ready, the commit itself may be the cause, so the deadline applies.
fn pod_obstacle(pod: &OwnedPod<'_>, all_nodes_ready: bool) -> Option<UnreadyPod> {
    let Some(node) = pod.record.place.node() else {
        return if all_nodes_ready { None } else { unplaced(pod) };
    };
    let obstacle = |why| {
        Some(UnreadyPod {
            pod: pod.record.key.clone(),
            why,
        })
    };
    if pod.unreachable {
        return obstacle(UnreadyReason::NodeUnreachable(node.clone()));
    }

    let status = pod.status?;
    let is_outside = status.fault.is_some_and(FaultKind::is_outside);
    if !is_outside && !status.is_pulling() {
        return None;
    }
    obstacle(UnreadyReason::Reported(reported_message(status)))
}

/// The most important of several judgements: a failure first, then waiting, then progress.
pub fn worst(judgements: BTreeMap<&WorkloadKey, Judgement>) -> Judgement {
    let mut waiting = None;
    let mut progressing = None;
    for judgement in judgements.into_values() {
        match judgement {
            Judgement::Failed(_) => return judgement,
            Judgement::Waiting(_) => waiting = waiting.or(Some(judgement)),
            Judgement::Progressing(_) => progressing = progressing.or(Some(judgement)),
            Judgement::Settled => {}
        }
    }
    waiting.or(progressing).unwrap_or(Judgement::Settled)
}

#[cfg(test)]
mod tests;
