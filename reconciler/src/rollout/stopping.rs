//! An old pod that does not end: the engine or the kernel has not finished stopping it, and the
//! commit is not at fault for that.

use std::time::Duration;

use jiff::Timestamp;

use super::Judgement;
use crate::state::FailureClass;
use crate::{
    controller::{NodeConditions, OwnedPod, OwnerView},
    state::{PodPlace, Refusal, Unfit},
};

/// How long a pod may be stopping before the rollout waits for it without a reason from its host: a
/// stop within the default grace period (30 s) is ordinary.
const PATIENCE: Duration = Duration::from_secs(30);

/// The obstacle that keeps an owner from settling, if the only one is a pod with a stop record: all
/// existing new pods are available, and the missing ones may be waiting for the old pod to end.
pub(super) fn unfinished_stop(view: &OwnerView<'_>, current: &[&OwnedPod<'_>]) -> Option<String> {
    let is_up = |pod: &&OwnedPod<'_>| view.is_available(pod) || pod.record.place.node().is_none();
    if !current.iter().all(is_up) {
        return None;
    }
    first_unfinished(view.pods.iter(), view.conditions, view.now)
}

/// The first of these pods that has a stop record and does not end.
pub fn first_unfinished<'p>(
    mut pods: impl Iterator<Item = &'p OwnedPod<'p>>,
    standing: &NodeConditions,
    now: Timestamp,
) -> Option<String> {
    pods.find_map(|pod| {
        words(pod, now).filter(|_| !standing.is_absent(pod) && !standing.is_aside(pod))
    })
}

/// A judgement, adjusted for a pod of any owner that does not end: new pods that no node accepts
/// may be waiting for what that pod still holds.
pub fn with_regard_to(
    unfinished: Option<&str>,
    judgement: Judgement,
    view: &OwnerView<'_>,
) -> Judgement {
    let is_unsettled = match &judgement {
        Judgement::Progressing(_) => true,
        Judgement::Failed(failure) => failure.class == FailureClass::Deadline,
        Judgement::Settled | Judgement::Waiting(_) => false,
    };
    let Some(reason) = unfinished else {
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
    Judgement::Waiting(format!(
        "{}: no node takes a pod of it while {reason}",
        view.workload.key
    ))
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

/// A sentence with the time that a pod has been stopping, and the class of the obstacle. The
/// engine's own text stays on its host.
fn words(pod: &OwnedPod<'_>, now: Timestamp) -> Option<String> {
    let stop = pod.record.stop.as_ref()?;
    let node = pod.record.place.node()?;
    let stopping = Duration::try_from(now.duration_since(stop.at)).unwrap_or_default();
    let why = match pod.status.and_then(|status| status.fault) {
        Some(fault) => fault.stopping_reason(),
        None if stopping >= PATIENCE => "it has not ended yet",
        None => return None,
    };
    let (name, time) = (&pod.record.key.name, rounded(stopping));
    Some(format!(
        "the old pod {name} has been stopping for {time}: {why}; `windlass status` on node {node} says more"
    ))
}

/// Rounds a time to 10 s, or to minutes from one minute on, so that the message does not change
/// every second.
fn rounded(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{} s", seconds - seconds % 10),
        seconds => format!("{} min", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_told_in_steps() {
        let told = |seconds| rounded(Duration::from_secs(seconds));
        assert_eq!(
            [told(0), told(59), told(60), told(119), told(1800)],
            ["0 s", "50 s", "1 min", "1 min", "30 min"]
        );
    }
}
