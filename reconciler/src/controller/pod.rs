//! Bare pods: one pod, replaced when its manifest changes. The old pod must be gone first, since
//! both have the same name.

use super::{
    Action, OwnedPod, OwnerView, PodNaming,
    replicas::{all_but_one, stop},
};
use crate::state::StopReason;

pub(super) fn control(view: &OwnerView<'_>) -> Vec<Action> {
    if view.pods.is_empty() {
        return vec![Action::Create {
            name: PodNaming::Exact,
            node: None,
            like: None,
        }];
    }
    let (current, outdated): (Vec<OwnedPod<'_>>, Vec<_>) = view
        .pods
        .iter()
        .filter(|pod| !pod.is_stopping())
        .partition(|pod| view.is_current(pod));
    let outdated = outdated
        .iter()
        .map(|pod| Action::Stop(pod.record.uid.clone(), view.outdated_reason(pod)));
    outdated
        .chain(stop(all_but_one(&current), StopReason::ScaledDown))
        .collect()
}
