//! An old pod that does not end: the engine or the kernel has not finished stopping it, and the
//! commit is not at fault for that.

use std::time::Duration;

use jiff::Timestamp;

use super::Judgement;
use crate::{
    controller::{NodeConditions, OwnedPod, OwnerView},
    state::{FailureClass, Obstacle, PodPlace, Refusal, UnfinishedStop, Unfit},
};

/// How long a pod may be stopping before the rollout waits for it without a reason from its host: a
/// stop within the default grace period (30 s) is ordinary.
const PATIENCE: Duration = Duration::from_secs(30);

/// The obstacle that keeps an owner from settling, if the only one is a pod with a stop record: all
/// existing new pods are available, and the missing ones may be waiting for the old pod to end.
pub(super) fn unfinished_stop(
    view: &OwnerView<'_>,
    current: &[&OwnedPod<'_>],
) -> Option<UnfinishedStop> {
    let is_up = |pod: &&OwnedPod<'_>| view.is_available(pod) || pod.record.place.node().is_none();
    if !current.iter().all(is_up) {
        return None;
    }
    first_unfinished(view.pods.iter(), view.conditions, view.now)
}

/// The first of these pods that has a stop record and does not end.
pub fn first_unfinished<'p>(
    mut pods: impl Iterator<Item = &'p OwnedPod<'p>>,
    conditions: &NodeConditions,
    now: Timestamp,
) -> Option<UnfinishedStop> {
    pods.find_map(|pod| {
        // What a node that is out or at fault does with the pod is not waited for.
        if conditions.is_absent(pod) || conditions.is_aside(pod) {
            return None;
        }
        unfinished(pod, now)
    })
}

/// A judgement, adjusted for a pod of any owner that does not end: new pods that no node accepts
/// may be waiting for what that pod still holds.
pub fn with_regard_to(
    unfinished: Option<&UnfinishedStop>,
    judgement: Judgement,
    view: &OwnerView<'_>,
) -> Judgement {
    let is_unsettled = match &judgement {
        Judgement::Progressing(_) => true,
        Judgement::Failed(failure) => failure.class == FailureClass::Deadline,
        Judgement::Settled | Judgement::Waiting(_) => false,
    };
    let Some(stop) = unfinished else {
        return judgement;
    };
    if !is_unsettled {
        return judgement;
    }

    let is_missing =
        |pod: &&OwnedPod<'_>| pod.is_active() && view.is_current(pod) && !view.is_available(pod);
    let mut missing = view.pods.iter().filter(is_missing).peekable();
    if missing.peek().is_none() || !missing.all(|pod| lacks_what_is_held(&pod.record.place)) {
        return judgement;
    }
    Judgement::Waiting(Obstacle::Occupied {
        workload: view.workload.key.clone(),
        stop: stop.clone(),
    })
}

/// Whether no node accepts a pod while a pod that still runs may be the reason.
fn lacks_what_is_held(place: &PodPlace) -> bool {
    let PodPlace::Unplaced(Refusal::Counted { reasons, .. }) = place else {
        return false;
    };
    reasons.iter().any(|(unfit, _)| {
        matches!(
            unfit,
            Unfit::HostPort(_)
                | Unfit::Full
                | Unfit::Cpu
                | Unfit::Memory
                | Unfit::PodAntiAffinity
                | Unfit::ExistingPodAntiAffinity
                | Unfit::Spread
        )
    })
}

/// A stopping pod that does not end: its host reports a fault, or an ordinary stop would be over.
fn unfinished(pod: &OwnedPod<'_>, now: Timestamp) -> Option<UnfinishedStop> {
    let stop = pod.record.stop.as_ref()?;
    let node = pod.record.place.node()?;
    let stopping = Duration::try_from(now.duration_since(stop.at)).unwrap_or_default();
    let fault = pod.status.and_then(|status| status.fault);
    if fault.is_none() && stopping < PATIENCE {
        return None;
    }
    Some(UnfinishedStop {
        pod: pod.record.key.clone(),
        node: node.clone(),
        stopping,
        fault,
    })
}
