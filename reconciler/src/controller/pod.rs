//! Bare pods: one, replaced when it changes, and not before the old one is gone, since both have one name.

use super::{Action, OwnerView, PodNaming};

pub(super) fn control(view: &OwnerView<'_>) -> Vec<Action> {
    let outdated: Vec<Action> = view
        .pods
        .iter()
        .filter(|pod| !pod.is_stopping() && !view.is_current(pod))
        .map(|pod| Action::Stop(pod.record.uid.clone(), view.outdated_reason(pod)))
        .collect();
    if view.pods.is_empty() {
        return vec![Action::Create { name: PodNaming::Exact, node: None, like: None }];
    }
    outdated
}
