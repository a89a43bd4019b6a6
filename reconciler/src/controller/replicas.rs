//! ReplicaSet and ReplicationController: a number of pods. A changed template does not affect
//! existing pods.

use std::cmp::Reverse;

use super::{
    Action, MOST_AT_ONCE, OwnedPod, OwnerView, PodNaming,
    drain::{drain, drained},
};
use crate::state::StopReason;

pub(super) fn control(view: &OwnerView<'_>, replicas: u32) -> Vec<Action> {
    let mut actions = stop_failed(view.pods);
    let active: Vec<OwnedPod<'_>> = view
        .pods
        .iter()
        .filter(|pod| pod.is_active())
        .copied()
        .collect();
    let (restarting, staying): (Vec<_>, Vec<_>) = active
        .iter()
        .copied()
        .partition(|pod| view.must_restart(pod));
    let wanted = replicas as usize;
    // One more pod than wanted may exist during a drain, since none may be missing.
    if restarting.is_empty() && !drained(view, &active).is_empty() {
        actions.extend(drain(view, (wanted, 1, 0), &active, &naming(view)));
        return actions;
    }
    if staying.len() + restarting.len() > wanted {
        let surplus = staying.len() + restarting.len() - wanted;
        let mut first: Vec<OwnedPod<'_>> = restarting;
        first.sort_by_key(scale_down_order);
        first.extend(scale_down(&staying));
        actions.extend(stop(
            first.into_iter().take(surplus),
            StopReason::ScaledDown,
        ));
        return actions;
    }
    // A restart proceeds pod by pod: the next pod stops when all others are available. Pods that
    // are down stop at once, since a person restarts an owner to replace such pods.
    let (up, down): (Vec<_>, Vec<_>) = restarting
        .into_iter()
        .filter(|pod| pod.status.is_some())
        .partition(|pod| view.is_available(pod));
    let all_available = active.len() == wanted && active.iter().all(|pod| view.is_available(pod));
    actions.extend(stop(down, StopReason::Restarted));
    actions.extend(stop(
        up.into_iter().take(usize::from(all_available)),
        StopReason::Restarted,
    ));
    // One unplaced pod is enough to report the reason; more would report the same.
    let unplaced = active.iter().any(|pod| pod.record.place.node().is_none());
    if !unplaced {
        actions.extend(create(view, wanted - active.len()));
    }
    actions
}

/// Stops a controller's pods that have ended for good, so that they are replaced.
pub(super) fn stop_failed(pods: &[OwnedPod<'_>]) -> Vec<Action> {
    stop(
        pods.iter()
            .filter(|pod| pod.is_final() && !pod.is_stopping())
            .copied(),
        StopReason::Failed,
    )
}

pub(super) fn stop<'a>(
    pods: impl IntoIterator<Item = OwnedPod<'a>>,
    reason: StopReason,
) -> Vec<Action> {
    pods.into_iter()
        .map(|pod| Action::Stop(pod.record.uid.clone(), reason))
        .collect()
}

fn create(view: &OwnerView<'_>, count: usize) -> impl Iterator<Item = Action> {
    std::iter::repeat_n(
        Action::Create {
            name: naming(view),
            node: None,
            like: None,
        },
        count.min(MOST_AT_ONCE),
    )
}

fn naming(view: &OwnerView<'_>) -> PodNaming {
    PodNaming::Generated(format!("{}-", view.workload.key.object.name))
}

/// The pods in the order in which they are given up.
pub(super) fn scale_down<'a>(pods: &[OwnedPod<'a>]) -> Vec<OwnedPod<'a>> {
    let mut order = pods.to_vec();
    order.sort_by_key(scale_down_order);
    order
}

/// All but the best of several pods where only one may exist: pods that run without a record may
/// have been added. Nothing is decided before each of the pods was reported.
pub(super) fn all_but_one<'a>(pods: &[OwnedPod<'a>]) -> Vec<OwnedPod<'a>> {
    if pods
        .iter()
        .any(|pod| pod.status.is_none() && !pod.unreachable)
    {
        return Vec::new();
    }
    let mut order = scale_down(pods);
    order.pop();
    order
}

/// Sort key for scaling down; the first pod is given up first: unplaced, not ready, low deletion
/// cost, on a node with many pods of the owner, newest.
fn scale_down_order(pod: &OwnedPod<'_>) -> (bool, bool, i32, Reverse<usize>, Reverse<u64>) {
    let placed = pod.record.place.node().is_some();
    (
        placed,
        pod.is_ready(),
        pod.cost,
        Reverse(pod.crowd),
        Reverse(pod.record.serial),
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        ids::commit_id,
        name::{NodeName, ObjectKey, PodUid, TemplateHash, WorkloadKey, WorkloadKind},
        state::{PodPlace, PodRecord},
        status::PodStatus,
    };

    fn record(serial: u64, node: Option<&str>) -> PodRecord {
        let object = ObjectKey::new("default", "web");
        PodRecord {
            uid: PodUid::new(serial.to_string()),
            key: object.clone(),
            owner: WorkloadKey {
                kind: WorkloadKind::ReplicaSet,
                object,
            },
            place: node.map_or(
                PodPlace::Unplaced(crate::state::Refusal::default()),
                |node| PodPlace::Node(NodeName::new(node)),
            ),
            commit: commit_id("c1"),
            template: TemplateHash::new("1-0"),
            created: Timestamp::UNIX_EPOCH,
            serial,
            stop: None,
        }
    }

    #[test]
    fn pods_are_given_up_in_the_order_of_kubernetes() {
        let ready = PodStatus {
            ready: Some(Timestamp::UNIX_EPOCH),
            ..PodStatus::pending()
        };
        let records: Vec<PodRecord> = (1..=6)
            .map(|serial| record(serial, (serial != 3).then_some("one")))
            .collect();
        // Number, ready, cost, crowd.
        let facts = [
            (true, 0, 1),
            (true, 0, 2),
            (false, 9, 0),
            (false, 9, 1),
            (true, -5, 1),
            (true, 0, 1),
        ];
        let pods: Vec<OwnedPod<'_>> = records
            .iter()
            .zip(facts)
            .map(|(record, (is_ready, cost, crowd))| OwnedPod {
                record,
                status: is_ready.then_some(&ready),
                cost,
                crowd,
                unreachable: false,
                clock: None,
            })
            .collect();
        let order: Vec<u64> = scale_down(&pods)
            .iter()
            .map(|pod| pod.record.serial)
            .collect();
        assert_eq!(
            order,
            [3, 4, 5, 2, 6, 1],
            "not placed, not ready, cheap, crowded, newest, the last"
        );
    }
}
