//! Whether a pod fails because of its commit or because of its node.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::pod_failure::{first_unready, last_end, pod_failure};
use crate::{
    controller::{OwnedPod, OwnerView},
    name::NodeName,
    state::{Failure, FailureClass, FailureReason, NodeFault},
    status::{PodStatus, STEADY},
    time::later,
};

/// How long a new pod may take to show that its template runs on another node.
const GRACE: Duration = Duration::from_secs(30);

/// The faults of one owner's pods: nodes or the commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspects {
    /// Nodes with failing pods whose template is available on another node.
    pub nodes: BTreeMap<NodeName, Failure>,
    /// Nodes that are not ready, where pods of the owner are not available.
    pub unready: BTreeMap<NodeName, NodeFault>,
    /// The failure, where the commit is at fault.
    pub failure: Option<Failure>,
    /// A failing pod for which other pods may still show that its node is at fault, with the time
    /// until which they may.
    pub undecided: Option<(FailureReason, Timestamp)>,
}

/// Classifies the failures of an owner's updated pods. With `late` the deadline has passed, and
/// every pod that is not available counts as failed.
pub fn suspects(view: &OwnerView<'_>, clock: Option<Timestamp>, late: bool) -> Suspects {
    let mut found = Suspects::default();
    let current = view.current();
    for pod in &current {
        // The last report of an absent node is not evidence.
        if view.conditions.is_absent(pod) {
            continue;
        }
        let node = pod.record.place.node();
        let not_ready = node.and_then(|node| view.conditions.unready.get(node));
        if let (Some(node), Some(why)) = (node, not_ready) {
            if !view.is_available(pod) {
                found.blame(node, || NodeFault::NotReady {
                    node: node.clone(),
                    why: why.clone(),
                });
            }
            continue;
        }

        let failure = pod_failure(pod, clock);
        let witness = || Witness::collect(view, &current, pod, clock);
        // The duration of a pull depends on the node and the registry, not on the commit.
        if failure.is_none() && pod.status.is_some_and(PodStatus::is_pulling) {
            let is_slow = later(pod.record.created, GRACE) <= view.now;
            if let Some(node) = node
                && is_slow
                && matches!(witness(), Witness::Proof)
            {
                found.blame(node, || NodeFault::SlowPull {
                    node: node.clone(),
                    workload: view.workload.key.clone(),
                });
            }
            continue;
        }

        let is_overdue = failure.is_none() && late && !view.is_available(pod);
        let Some(failure) = failure.or_else(|| is_overdue.then(|| overdue(pod))) else {
            continue;
        };
        match (witness(), node) {
            (Witness::Proof, Some(node)) => {
                found.nodes.entry(node.clone()).or_insert(failure);
            }
            // After the deadline the commit or the node is at fault; nothing stays undecided.
            _ if is_overdue => {}
            (Witness::Until(time), Some(_)) => {
                let until = found.undecided.map_or(time, |(_, before)| before.min(time));
                found.undecided = Some((failure.reason, until));
            }
            _ => found.failure = found.failure.or(Some(failure)),
        }
    }
    found
}

impl Suspects {
    /// Records that a node is at fault; its first fault is kept.
    fn blame(&mut self, node: &NodeName, fault: impl FnOnce() -> NodeFault) {
        self.unready.entry(node.clone()).or_insert_with(fault);
    }
}

fn overdue(pod: &OwnedPod<'_>) -> Failure {
    Failure {
        class: FailureClass::Deadline,
        reason: FailureReason::PodLate {
            workload: pod.record.owner.clone(),
            pod: pod.record.key.clone(),
            why: first_unready(&[pod]),
        },
    }
}

/// Whether another node shows that a template works.
enum Witness {
    Proof,
    /// A pod on another node may show it until this time.
    Until(Timestamp),
    None,
}

impl Witness {
    fn collect(
        view: &OwnerView<'_>,
        current: &[&OwnedPod<'_>],
        failing: &OwnedPod<'_>,
        clock: Option<Timestamp>,
    ) -> Self {
        let mut until: Option<Timestamp> = None;
        for pod in current {
            let elsewhere = pod.record.place.node().is_some()
                && pod.record.place.node() != failing.record.place.node()
                && pod.record.template == failing.record.template;
            if !elsewhere
                || pod.unreachable
                || view.conditions.is_absent(pod)
                || has_crashed(pod, clock)
            {
                continue;
            }
            if view.is_available(pod) && pod.is_available(STEADY) {
                return Self::Proof;
            }
            // An available pod will soon be ready for long enough, and its host will report that.
            let enough = match view.is_available(pod) {
                true => later(view.now, STEADY),
                false => later(pod.record.created, GRACE),
            };
            if enough > view.now {
                until = Some(until.map_or(enough, |before| before.min(enough)));
            }
        }
        until.map_or(Self::None, Self::Until)
    }
}

/// Whether a pod also crashed, so that it does not show that the template works.
fn has_crashed(pod: &OwnedPod<'_>, clock: Option<Timestamp>) -> bool {
    let Some(status) = pod.status else {
        return false;
    };
    let crashed = |end: Timestamp| pod.is_since(clock, end);
    pod_failure(pod, clock).is_some()
        || status
            .containers
            .iter()
            .any(|container| container.restarts > 0 && last_end(container).is_some_and(crashed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::tests::scene::rolling;

    #[test]
    fn a_node_that_still_pulls_is_slow_once_another_has_shown_that_the_template_runs() {
        let slow = |pods: &str| {
            let found = rolling(2, 1, 0).view(pods, |view| suspects(view, None, false));
            assert_eq!((found.nodes, found.failure), (BTreeMap::new(), None));
            let slow = |fault: &NodeFault| matches!(fault, NodeFault::SlowPull { .. });
            assert!(found.unready.values().all(slow));
            let nodes: Vec<String> = found.unready.keys().map(NodeName::to_string).collect();
            nodes.join(" ")
        };
        // The pods were made 100 s ago.
        assert_eq!(slow("new@a+ new@b^"), "b");
        assert_eq!(slow("new@a+ new@b"), "");
        assert_eq!(slow("new@a new@b^"), "");
        assert_eq!(slow("old@a+ new@b^"), "");
        assert_eq!(slow("new@a+~ new@b^"), "");
        assert_eq!(slow("new@b+ new@b^"), "");
    }
}
