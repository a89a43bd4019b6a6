//! The progress of a workload's rollout, and the deadline of a Deployment that makes none.

use jiff::Timestamp;

use crate::{
    controller::{OwnedPod, OwnerView},
    object::{Control, Workload},
    state::WorkloadProgress,
    time::later,
};

/// When a Deployment that makes no progress is late, if it has such a deadline; `clock` is
/// [`Rollout::clock`].
///
/// [`Rollout::clock`]: crate::state::Rollout::clock
pub fn progress_deadline(
    workload: &Workload,
    progress: Option<&WorkloadProgress>,
    clock: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let Control::Deployment {
        progress_deadline: Some(deadline),
        ..
    } = workload.control
    else {
        return None;
    };
    let progress = progress.filter(|progress| progress.template == workload.template.hash)?;
    // A previous leader's clock may have been ahead of this leader's clock.
    let since = progress.since.min(now);
    Some(later(
        clock.map_or(since, |clock| clock.max(since)),
        deadline,
    ))
}

/// The new progress of a workload to be stored; `None` if it has not changed.
pub fn progress(
    view: &OwnerView<'_>,
    before: Option<&WorkloadProgress>,
) -> Option<WorkloadProgress> {
    let current: Vec<&OwnedPod<'_>> = view
        .pods
        .iter()
        .filter(|pod| pod.is_active() && view.is_current(pod))
        .collect();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let updated = count(current.len());
    let available = count(current.iter().filter(|pod| view.is_available(pod)).count());
    let template = view.workload.template.hash.clone();
    // Only a new maximum is progress: a number that falls and rises again is not.
    let (updated, available, since) = match before.filter(|before| before.template == template) {
        Some(before) if updated <= before.updated && available <= before.available => {
            (before.updated, before.available, before.since)
        }
        Some(before) => (
            updated.max(before.updated),
            available.max(before.available),
            view.now,
        ),
        None => (updated, available, view.now),
    };
    let now = WorkloadProgress {
        updated,
        available,
        since,
        template,
    };
    (before != Some(&now)).then_some(now)
}
