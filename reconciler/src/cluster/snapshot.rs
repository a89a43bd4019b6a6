//! What a decision reads from its input: the pods of each owner, and the conditions of the nodes.

use std::collections::BTreeMap;

use super::ClusterInput;
use crate::{
    controller::{NodeConditions, OwnedPod},
    name::{NodeName, WorkloadKey},
    object::NodeObject,
    state::{NodeLife, PodRecord},
};

/// The annotation that orders an owner's pods when some of them are deleted, as in Kubernetes.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The pods of each owner, oldest first, each with what its node reports.
pub(super) fn owned_pods<'a>(
    input: &'a ClusterInput<'a>,
) -> BTreeMap<&'a WorkloadKey, Vec<OwnedPod<'a>>> {
    let mut owned: BTreeMap<&WorkloadKey, Vec<OwnedPod<'a>>> = BTreeMap::new();
    for record in input.state.pods.values() {
        // A node reports its own pods only: what it reports about pods of other nodes is
        // ignored.
        let report = record.place.node().and_then(|node| input.reports.get(node));
        let node = record.place.node().and_then(|node| input.nodes.get(node));
        let pod = OwnedPod {
            record,
            status: report.and_then(|report| report.pods.get(&record.uid)),
            cost: deletion_cost(input, record),
            crowd: 0,
            unreachable: node.is_some_and(|node| node.life.is_out()),
            clock: report.and_then(|report| report.clock),
        };
        owned.entry(&record.owner).or_default().push(pod);
    }
    for pods in owned.values_mut() {
        pods.sort_by_key(|pod| pod.record.serial);
        count_crowds(pods);
    }
    owned
}

/// The conditions of all nodes, from their lives, from the faults that the rollout observed, and
/// from Git.
pub(super) fn node_conditions(
    input: &ClusterInput<'_>,
    objects: &BTreeMap<NodeName, NodeObject>,
) -> NodeConditions {
    let rollout = &input.state.rollout;
    let mut conditions = NodeConditions {
        faulty: rollout
            .faulty
            .keys()
            .filter(|node| input.nodes.contains_key(*node))
            .cloned()
            .collect(),
        clock: rollout.clock,
        ..NodeConditions::default()
    };
    for (name, node) in input.nodes {
        match &node.life {
            NodeLife::Ready => {}
            NodeLife::NotReady(why) => {
                conditions.unready.insert(name.clone(), why.clone());
            }
            NodeLife::Away | NodeLife::Silent(_) => {
                conditions.absent.insert(name.clone());
            }
            NodeLife::Lost => {
                conditions.absent.insert(name.clone());
                conditions.lost.insert(name.clone());
            }
        }
        if objects.get(name).is_some_and(|object| object.drain) {
            conditions.draining.insert(name.clone());
        }
    }
    conditions
}

/// The deletion cost in the pod's template in its own commit; 0 where the template has none.
fn deletion_cost(input: &ClusterInput<'_>, record: &PodRecord) -> i32 {
    let commit = input.commits.get(&record.commit);
    let workload = commit.and_then(|commit| commit.resolve(&record.owner, &record.template));
    let annotations = workload.map(|workload| &workload.template.meta.annotations);
    let cost = annotations.and_then(|annotations| annotations.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// For each pod, counts the pods of the same owner that stay on its node.
fn count_crowds(pods: &mut [OwnedPod<'_>]) {
    let mut crowds: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.is_active()) {
        if let Some(node) = pod.record.place.node() {
            *crowds.entry(node).or_default() += 1;
        }
    }
    for pod in pods {
        pod.crowd = pod
            .record
            .place
            .node()
            .and_then(|node| crowds.get(node))
            .copied()
            .unwrap_or(0);
    }
}
