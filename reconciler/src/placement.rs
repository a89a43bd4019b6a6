//! Which node takes a pod, and why not the others.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    name::{NodeName, WorkloadKey},
    object::{NodeObject, PodSpec, Protocol, Taint, TaintEffect},
    state::{KnownNode, PodRecord},
};

/// Why one node does not take a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// `spec.nodeName` names another one.
    OtherNodeName,
    /// Its labels do not satisfy `nodeSelector`.
    Selector,
    /// It is cordoned.
    Cordoned,
    /// It is not ready.
    NotReady,
    /// It has a taint that the pod does not tolerate.
    Taint(String),
    /// A pod on it holds this host port.
    HostPort(u16),
    /// It has as many pods as it may have.
    Full,
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherNodeName => f.write_str("not the one of spec.nodeName"),
            Self::Selector => f.write_str("do not match spec.nodeSelector"),
            Self::Cordoned => f.write_str("cordoned"),
            Self::NotReady => f.write_str("not ready"),
            Self::Taint(key) => write!(f, "have taint {key}"),
            Self::HostPort(port) => write!(f, "have host port {port} in use"),
            Self::Full => f.write_str("full"),
        }
    }
}

/// A node with what Git says about it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub name: NodeName,
    /// Labels of its configuration with those of Git laid over.
    pub labels: BTreeMap<String, String>,
    /// Taints of its configuration and those of Git.
    pub taints: Vec<Taint>,
    /// Cordoned in Git.
    pub cordoned: bool,
    /// Takes new pods at all.
    pub ready: bool,
}

/// Joins what a node says of itself and what Git says of it.
pub fn candidates(
    nodes: &BTreeMap<NodeName, KnownNode>,
    objects: &BTreeMap<NodeName, NodeObject>,
) -> Vec<Candidate> {
    nodes
        .values()
        .map(|KnownNode { facts, life }| {
            let object = objects.get(&facts.name).cloned().unwrap_or_default();
            let mut labels = facts.labels.clone();
            labels.extend(object.labels);
            let mut taints = facts.taints.clone();
            taints.extend(object.taints.into_iter().filter(|taint| !facts.taints.contains(taint)));
            Candidate {
                name: facts.name.clone(),
                labels,
                taints,
                cordoned: object.unschedulable,
                ready: life.is_ready(),
            }
        })
        .collect()
}

/// Whether a node may run a DaemonSet's pod: as any pod, but cordons and readiness do not matter.
pub fn eligible_for_daemon(spec: &PodSpec, node: &Candidate) -> bool {
    let kept_off =
        |taint: &Taint| taint.effect != TaintEffect::PreferNoSchedule && !daemon_tolerates(spec, taint);
    named_and_selected(spec, node).is_none() && !node.taints.iter().any(kept_off)
}

/// Whether a node that runs a pod must stop it: a NoExecute taint that the pod does not tolerate.
pub fn evicts(spec: &PodSpec, node: &Candidate) -> bool {
    node.taints.iter().any(|taint| {
        taint.effect == TaintEffect::NoExecute && !spec.tolerations.iter().any(|t| t.tolerates(taint))
    })
}

/// Whether a DaemonSet's pod may stay on a node: a taint that only keeps new pods off does not stop it.
pub fn daemon_may_stay(spec: &PodSpec, node: &Candidate) -> bool {
    let stopped = |taint: &Taint| taint.effect == TaintEffect::NoExecute && !daemon_tolerates(spec, taint);
    named_and_selected(spec, node).is_none() && !node.taints.iter().any(stopped)
}

/// What every DaemonSet's pod tolerates by itself, as in Kubernetes: it is there to look after just such nodes.
fn daemon_tolerates(spec: &PodSpec, taint: &Taint) -> bool {
    let by_itself = match (taint.key.as_str(), taint.effect) {
        ("node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable", TaintEffect::NoExecute) => true,
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
    by_itself || spec.tolerations.iter().any(|toleration| toleration.tolerates(taint))
}

fn named_and_selected(spec: &PodSpec, node: &Candidate) -> Option<Unfit> {
    if spec.node_name.as_ref().is_some_and(|name| *name != node.name) {
        return Some(Unfit::OtherNodeName);
    }
    let selected = spec.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    (!selected).then_some(Unfit::Selector)
}

/// Why the node itself does not take the pod, whatever else runs there.
pub fn unfit_by_itself(spec: &PodSpec, node: &Candidate) -> Option<Unfit> {
    if let Some(unfit) = named_and_selected(spec, node) {
        return Some(unfit);
    }
    // A pod that names its node is not scheduled at all in Kubernetes: neither cordon nor taint keeps it off.
    if spec.node_name.is_some() {
        return None;
    }
    if !node.ready {
        return Some(Unfit::NotReady);
    }
    if node.cordoned {
        return Some(Unfit::Cordoned);
    }
    untolerated(spec, node)
}

fn untolerated(spec: &PodSpec, node: &Candidate) -> Option<Unfit> {
    let hard = |taint: &&Taint| taint.effect != TaintEffect::PreferNoSchedule;
    node.taints
        .iter()
        .filter(hard)
        .find(|taint| !spec.tolerations.iter().any(|toleration| toleration.tolerates(taint)))
        .map(|taint| Unfit::Taint(taint.key.clone()))
}

/// What is placed where so far; placing a pod counts it at once, so that the next one sees it.
#[derive(Debug)]
pub struct Placer {
    nodes: Vec<Candidate>,
    max_pods: usize,
    pods: BTreeMap<NodeName, usize>,
    owned: BTreeMap<(NodeName, WorkloadKey), usize>,
    ports: BTreeSet<(NodeName, Protocol, u16)>,
}

impl Placer {
    /// Starts from the pods that are there; `ports_of` gives the host ports of a record's template.
    pub fn new<'a>(
        nodes: Vec<Candidate>,
        max_pods: usize,
        records: impl Iterator<Item = &'a PodRecord>,
        ports_of: impl Fn(&PodRecord) -> Vec<(Protocol, u16)>,
    ) -> Self {
        let mut placer =
            Self { nodes, max_pods, pods: BTreeMap::new(), owned: BTreeMap::new(), ports: BTreeSet::new() };
        for record in records {
            if let Some(node) = record.place.node() {
                placer.count(node, &record.owner, &ports_of(record));
            }
        }
        placer
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Candidate] {
        &self.nodes
    }

    fn count(&mut self, node: &NodeName, owner: &WorkloadKey, ports: &[(Protocol, u16)]) {
        *self.pods.entry(node.clone()).or_default() += 1;
        *self.owned.entry((node.clone(), owner.clone())).or_default() += 1;
        self.ports.extend(ports.iter().map(|(protocol, port)| (node.clone(), *protocol, *port)));
    }

    fn unfit(&self, spec: &PodSpec, ports: &[(Protocol, u16)], node: &Candidate) -> Option<Unfit> {
        if let Some(unfit) = unfit_by_itself(spec, node) {
            return Some(unfit);
        }
        let taken =
            |(protocol, port): &&(Protocol, u16)| self.ports.contains(&(node.name.clone(), *protocol, *port));
        if let Some((_, port)) = ports.iter().find(taken) {
            return Some(Unfit::HostPort(*port));
        }
        (self.pods.get(&node.name).copied().unwrap_or(0) >= self.max_pods).then_some(Unfit::Full)
    }

    /// Chooses a node: fewest pods of the same owner, then fewest pods, then by name. Refusals are counted by reason.
    pub fn place(&mut self, owner: &WorkloadKey, spec: &PodSpec) -> Result<NodeName, String> {
        let ports = host_ports(spec);
        let mut refusals: BTreeMap<Unfit, usize> = BTreeMap::new();
        let mut best: Option<(usize, usize, usize, NodeName)> = None;
        for node in &self.nodes {
            if let Some(unfit) = self.unfit(spec, &ports, node) {
                *refusals.entry(unfit).or_default() += 1;
                continue;
            }
            let avoided = node
                .taints
                .iter()
                .filter(|taint| !spec.tolerations.iter().any(|toleration| toleration.tolerates(taint)))
                .count();
            let owned = self.owned.get(&(node.name.clone(), owner.clone())).copied().unwrap_or(0);
            let pods = self.pods.get(&node.name).copied().unwrap_or(0);
            let score = (avoided, owned, pods, node.name.clone());
            if best.as_ref().is_none_or(|best| score < *best) {
                best = Some(score);
            }
        }
        match best {
            Some((.., node)) => {
                self.count(&node, owner, &ports);
                Ok(node)
            }
            None => Err(explain(self.nodes.len(), &refusals)),
        }
    }

    /// Counts a pod that must run on a given node.
    pub fn pin(&mut self, node: &NodeName, owner: &WorkloadKey, spec: &PodSpec) {
        self.count(node, owner, &host_ports(spec));
    }
}

fn explain(nodes: usize, refusals: &BTreeMap<Unfit, usize>) -> String {
    let reasons: Vec<String> = refusals.iter().map(|(unfit, count)| format!("{count} {unfit}")).collect();
    format!(
        "0 of {nodes} nodes: {}",
        if reasons.is_empty() { "there are none".into() } else { reasons.join(", ") }
    )
}

/// The ports of the host that a pod holds; with `hostNetwork` every declared port is one.
pub fn host_ports(spec: &PodSpec) -> Vec<(Protocol, u16)> {
    spec.containers
        .iter()
        .chain(&spec.init_containers)
        .flat_map(|container| &container.ports)
        .filter_map(|port| {
            let number = if spec.host_network { Some(port.port) } else { port.host_port };
            number.map(|number| (port.protocol, number))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(key: &str, effect: TaintEffect) -> Candidate {
        let taint = Taint { key: format!("node.kubernetes.io/{key}"), value: String::new(), effect };
        Candidate {
            name: NodeName::new("one"),
            labels: BTreeMap::new(),
            taints: vec![taint],
            cordoned: false,
            ready: true,
        }
    }

    #[test]
    fn daemons_tolerate_the_trouble_of_a_node_by_themselves() {
        let spec = PodSpec::default();
        for key in ["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"] {
            assert!(eligible_for_daemon(&spec, &node(key, TaintEffect::NoSchedule)), "{key}");
            assert!(!eligible_for_daemon(&spec, &node(key, TaintEffect::NoExecute)), "{key}");
        }
        for key in ["not-ready", "unreachable"] {
            assert!(daemon_may_stay(&spec, &node(key, TaintEffect::NoExecute)), "{key}");
            assert!(evicts(&spec, &node(key, TaintEffect::NoExecute)), "{key}");
        }
        assert!(!eligible_for_daemon(&spec, &node("other", TaintEffect::NoSchedule)));
        let unavailable = node("network-unavailable", TaintEffect::NoSchedule);
        assert!(!eligible_for_daemon(&spec, &unavailable));
        assert!(eligible_for_daemon(&PodSpec { host_network: true, ..spec }, &unavailable));
    }
}
