//! Checks of a node and a pod that do not involve other pods.

use std::collections::BTreeMap;

use super::{Leave, ResourceAmounts};
use crate::{
    name::NodeName,
    object::{NodeObject, PodSpec, Taint, TaintEffect},
    state::{KnownNode, NodeSystem, Unfit},
};

/// A node with its own facts and those from Git.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Name of the node.
    pub name: NodeName,
    /// Labels of the node's configuration, overridden by those from Git.
    pub labels: BTreeMap<String, String>,
    /// Taints of the node's configuration, and those from Git.
    pub taints: Vec<Taint>,
    /// Whether Git cordons the node.
    pub cordoned: bool,
    /// Whether the node is ready for new pods.
    pub ready: bool,
    /// Total of the requests that the node's pods may have; `None` if unknown, which sets no limit.
    pub allocatable: Option<ResourceAmounts>,
    /// Maximum number of pods; `None` sets no limit.
    pub max_pods: Option<usize>,
}

/// Combines what nodes publish about themselves with the Node objects from Git.
pub fn candidates(
    nodes: &BTreeMap<NodeName, KnownNode>,
    objects: &BTreeMap<NodeName, NodeObject>,
) -> Vec<Candidate> {
    nodes
        .values()
        .map(|node| Candidate::new(node, objects))
        .collect()
}

impl Candidate {
    /// Combines what one node publishes about itself with its Node object from Git.
    pub fn new(
        KnownNode { facts, life }: &KnownNode,
        objects: &BTreeMap<NodeName, NodeObject>,
    ) -> Self {
        let object = objects.get(&facts.name).cloned().unwrap_or_default();
        let mut labels = facts.labels.clone();
        labels.extend(object.labels);
        let mut taints = facts.taints.clone();
        taints.extend(
            object
                .taints
                .into_iter()
                .filter(|taint| !facts.taints.contains(taint)),
        );
        Self {
            name: facts.name.clone(),
            labels,
            taints,
            cordoned: object.unschedulable,
            ready: life.is_ready(),
            allocatable: allocatable(&facts.system),
            max_pods: Some(facts.system.max_pods).filter(|most| *most > 0),
        }
    }
}

/// Total of the requests that pods may have on a node of this size; `None` if the size is unknown.
pub fn allocatable(system: &NodeSystem) -> Option<ResourceAmounts> {
    let cpus = u64::try_from(system.cpus).unwrap_or(u64::MAX);
    let known = cpus > 0 && system.memory_kib > 0;
    known.then(|| ResourceAmounts {
        cpu_millis: cpus.saturating_mul(1000),
        memory_bytes: system.memory_kib.saturating_mul(1024),
    })
}

/// Whether a node may run a DaemonSet's pod: the rules are those of any pod, except that cordons
/// and readiness are ignored.
pub fn eligible_for_daemon(spec: &PodSpec, node: &Candidate) -> bool {
    let kept_off = |taint: &Taint| {
        taint.effect != TaintEffect::PreferNoSchedule && !daemon_tolerates(spec, taint)
    };
    named_and_selected(spec, node).is_none() && !node.taints.iter().any(kept_off)
}

/// Why a pod must stop on its node; `None` if it may stay. For pods of DaemonSets see
/// [`daemon_may_stay`].
pub fn must_leave(spec: &PodSpec, node: &Candidate) -> Option<Leave> {
    let taint = node
        .taints
        .iter()
        .find(|taint| taint.effect == TaintEffect::NoExecute && !tolerates(spec, taint))?;
    Some(Leave::NoExecute(taint.key.clone()))
}

/// Whether a DaemonSet's pod may stay on a node: a NoSchedule taint only keeps new pods away and
/// does not stop the pod.
pub fn daemon_may_stay(spec: &PodSpec, node: &Candidate) -> bool {
    let stopped =
        |taint: &Taint| taint.effect == TaintEffect::NoExecute && !daemon_tolerates(spec, taint);
    named_and_selected(spec, node).is_none() && !node.taints.iter().any(stopped)
}

/// Whether a taint is among those that every DaemonSet's pod tolerates, as in Kubernetes: such pods
/// often manage nodes in exactly these conditions.
fn daemon_tolerates(spec: &PodSpec, taint: &Taint) -> bool {
    let by_itself = match (taint.key.as_str(), taint.effect) {
        (
            "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable",
            TaintEffect::NoExecute,
        ) => true,
        (
            "node.kubernetes.io/disk-pressure"
            | "node.kubernetes.io/memory-pressure"
            | "node.kubernetes.io/pid-pressure"
            | "node.kubernetes.io/unschedulable",
            TaintEffect::NoSchedule,
        ) => true,
        ("node.kubernetes.io/network-unavailable", TaintEffect::NoSchedule) => spec.host_network,
        _ => false,
    };
    by_itself || tolerates(spec, taint)
}

/// Why the node itself does not accept the pod, whatever other pods run there.
///
/// In Kubernetes a pod with `nodeName` is not scheduled at all: neither a cordon nor a NoSchedule
/// taint keeps it away, but the kubelet still checks selector, affinity and NoExecute taints.
pub fn unfit_by_itself(spec: &PodSpec, node: &Candidate) -> Option<Unfit> {
    if let Some(unfit) = named_and_selected(spec, node) {
        return Some(unfit);
    }
    let named = spec.node_name.is_some();
    if !named && !node.ready {
        return Some(Unfit::NotReady);
    }
    if !named && node.cordoned {
        return Some(Unfit::Cordoned);
    }
    let keeps_off = |taint: &&Taint| match taint.effect {
        TaintEffect::NoExecute => true,
        TaintEffect::NoSchedule => !named,
        TaintEffect::PreferNoSchedule => false,
    };
    let taint = node
        .taints
        .iter()
        .filter(keeps_off)
        .find(|taint| !tolerates(spec, taint))?;
    Some(Unfit::Taint(taint.key.clone()))
}

fn named_and_selected(spec: &PodSpec, node: &Candidate) -> Option<Unfit> {
    if spec
        .node_name
        .as_ref()
        .is_some_and(|name| *name != node.name)
    {
        return Some(Unfit::OtherNodeName);
    }
    selected(spec, node)
}

fn selected(spec: &PodSpec, node: &Candidate) -> Option<Unfit> {
    if !spec
        .node_selector
        .iter()
        .all(|(key, value)| node.labels.get(key) == Some(value))
    {
        return Some(Unfit::Selector);
    }
    (!spec.affinity.node.allows(&node.name, &node.labels)).then_some(Unfit::NodeAffinity)
}

fn tolerates(spec: &PodSpec, taint: &Taint) -> bool {
    spec.tolerations
        .iter()
        .any(|toleration| toleration.tolerates(taint))
}

/// Whether `nodeSelector` and `nodeAffinity` match the node: `nodeAffinityPolicy: Honor` checks
/// this.
pub(super) fn wanted_by_labels(spec: &PodSpec, node: &Candidate) -> bool {
    selected(spec, node).is_none()
}

/// Whether the pod tolerates all taints that keep pods away: `nodeTaintsPolicy: Honor` checks this.
pub(super) fn taints_tolerated(spec: &PodSpec, node: &Candidate) -> bool {
    let hard = |taint: &&Taint| taint.effect != TaintEffect::PreferNoSchedule;
    node.taints
        .iter()
        .filter(hard)
        .all(|taint| tolerates(spec, taint))
}

/// Number of PreferNoSchedule taints that the pod does not tolerate.
pub(super) fn avoided(spec: &PodSpec, node: &Candidate) -> u32 {
    let soft =
        |taint: &&Taint| taint.effect == TaintEffect::PreferNoSchedule && !tolerates(spec, taint);
    count(node.taints.iter().filter(soft).count())
}

/// Sum of the weights of preferred node affinity terms that the node does not match.
pub(super) fn unmet_by_labels(spec: &PodSpec, node: &Candidate) -> u32 {
    let terms = spec.affinity.node.preferred.iter();
    terms
        .filter(|(_, term)| !term.holds(&node.name, &node.labels))
        .map(|(weight, _)| weight)
        .sum()
}

/// Converts a count to its stored type; it saturates.
pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Toleration;

    fn node(key: &str, effect: TaintEffect) -> Candidate {
        let taint = Taint {
            key: format!("node.kubernetes.io/{key}"),
            value: String::new(),
            effect,
        };
        Candidate {
            name: NodeName::new("one"),
            labels: BTreeMap::new(),
            taints: vec![taint],
            cordoned: false,
            ready: true,
            allocatable: None,
            max_pods: None,
        }
    }

    #[test]
    fn daemons_tolerate_the_trouble_of_a_node_by_themselves() {
        let spec = PodSpec::default();
        for key in [
            "disk-pressure",
            "memory-pressure",
            "pid-pressure",
            "unschedulable",
        ] {
            assert!(
                eligible_for_daemon(&spec, &node(key, TaintEffect::NoSchedule)),
                "{key}"
            );
            assert!(
                !eligible_for_daemon(&spec, &node(key, TaintEffect::NoExecute)),
                "{key}"
            );
        }
        for key in ["not-ready", "unreachable"] {
            assert!(
                daemon_may_stay(&spec, &node(key, TaintEffect::NoExecute)),
                "{key}"
            );
            let leave = must_leave(&spec, &node(key, TaintEffect::NoExecute));
            assert_eq!(
                leave,
                Some(Leave::NoExecute(format!("node.kubernetes.io/{key}")))
            );
        }
        assert!(!eligible_for_daemon(
            &spec,
            &node("other", TaintEffect::NoSchedule)
        ));
        let unavailable = node("network-unavailable", TaintEffect::NoSchedule);
        assert!(!eligible_for_daemon(&spec, &unavailable));
        assert!(eligible_for_daemon(
            &PodSpec {
                host_network: true,
                ..spec
            },
            &unavailable
        ));
    }
    #[test]
    fn each_effect_of_a_taint_keeps_off_what_it_must() {
        let plain = PodSpec::default();
        let named = PodSpec {
            node_name: Some(NodeName::new("one")),
            ..PodSpec::default()
        };
        let elsewhere = PodSpec {
            node_name: Some(NodeName::new("two")),
            ..PodSpec::default()
        };
        let selecting = PodSpec {
            node_selector: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
            ..PodSpec::default()
        };
        let everything = Toleration {
            key: None,
            equal: None,
            effect: None,
            for_at_most: None,
        };
        let tolerating = PodSpec {
            tolerations: vec![everything],
            ..PodSpec::default()
        };
        let (no_execute, no_schedule, prefer) = (
            TaintEffect::NoExecute,
            TaintEffect::NoSchedule,
            TaintEffect::PreferNoSchedule,
        );
        // Whether the node takes the pod, may keep it, takes and may keep it for a DaemonSet, and
        // the number of taints to be avoided.
        for (spec, effect, expected) in [
            (&plain, no_execute, (false, false, false, false, 0)),
            (&plain, no_schedule, (false, true, false, true, 0)),
            (&plain, prefer, (true, true, true, true, 1)),
            (&named, no_execute, (false, false, false, false, 0)),
            (&named, no_schedule, (true, true, false, true, 0)),
            (&named, prefer, (true, true, true, true, 1)),
            (&elsewhere, prefer, (false, true, false, false, 1)),
            (&selecting, prefer, (false, true, false, false, 1)),
            (&tolerating, no_execute, (true, true, true, true, 0)),
            (&tolerating, no_schedule, (true, true, true, true, 0)),
            (&tolerating, prefer, (true, true, true, true, 0)),
        ] {
            let node = node("other", effect);
            let result = (
                unfit_by_itself(spec, &node).is_none(),
                must_leave(spec, &node).is_none(),
                eligible_for_daemon(spec, &node),
                daemon_may_stay(spec, &node),
                avoided(spec, &node),
            );
            assert_eq!(result, expected, "{effect:?} {spec:?}");
            let hard = effect != prefer;
            let tolerates = !spec.tolerations.is_empty();
            assert_eq!(taints_tolerated(spec, &node), tolerates || !hard);
            let selects = !spec.node_selector.is_empty();
            assert_eq!(wanted_by_labels(spec, &node), !selects);
        }
    }

    #[test]
    fn a_size_is_known_only_with_both_cpus_and_memory() {
        for (cpus, memory_kib, expected) in [
            (0, 0, None),
            (0, 1, None),
            (1, 0, None),
            (1, 1, Some((1000, 1024))),
            (4, 8, Some((4000, 8192))),
        ] {
            let system = NodeSystem {
                cpus,
                memory_kib,
                ..NodeSystem::default()
            };
            let size = allocatable(&system).map(|size| (size.cpu_millis, size.memory_bytes));
            assert_eq!(size, expected, "{cpus} CPUs, {memory_kib} KiB");
        }
    }
}
