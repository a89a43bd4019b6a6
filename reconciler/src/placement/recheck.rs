//! The hard rules of pods about each other once more: whether they can have let a pod come to its node.
//!
//! That node asks, of a decision that somebody else has made some time ago, and others came and went since. So what may have
//! been different then speaks for the pod: anti-affinity is broken only by pods that were decided before
//! it; a spread is measured against domains in which everything counts that is still there; a pod that it wants to be near
//! may be stopping by now.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Candidate, Unfit,
    candidate::{taints_tolerated, wanted_by_labels},
    shape::{Selection, pod_labels},
};
use crate::{
    name::NodeName,
    object::{Meta, PodTerm, SpreadConstraint, Workload},
};

/// A pod that is there and has not ended.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour<'a> {
    /// Its node.
    pub node: &'a NodeName,
    /// What it is.
    pub workload: &'a Workload,
    /// In which order it was decided.
    pub serial: u64,
    /// It stops.
    pub stopping: bool,
}

/// What one host knows of the cluster.
#[derive(Debug)]
pub struct Surroundings<'a> {
    nodes: BTreeMap<&'a NodeName, &'a Candidate>,
    namespaces: &'a BTreeMap<String, Meta>,
    pods: Vec<Neighbour<'a>>,
    /// What pods there are, each template once, with the labels of its pods; and which of them each pod is.
    kinds: Vec<(&'a Workload, BTreeMap<String, String>)>,
    kind_of: Vec<usize>,
    /// Whether one of them keeps others off.
    repels: bool,
}

impl<'a> Surroundings<'a> {
    /// All nodes, the namespaces that were declared, and all pods.
    pub fn new(
        nodes: &'a [Candidate],
        namespaces: &'a BTreeMap<String, Meta>,
        pods: Vec<Neighbour<'a>>,
    ) -> Self {
        let mut kinds: Vec<(&Workload, BTreeMap<String, String>)> = Vec::new();
        let mut numbers = BTreeMap::new();
        let kind_of = pods
            .iter()
            .map(|pod| {
                let key = (&pod.workload.key, &pod.workload.template.hash);
                *numbers.entry(key).or_insert_with(|| {
                    kinds.push((pod.workload, pod_labels(pod.workload)));
                    kinds.len() - 1
                })
            })
            .collect();
        let repels = kinds.iter().any(|(kind, _)| !kind.template.spec.affinity.anti.required.is_empty());
        let nodes = nodes.iter().map(|node| (&node.name, node)).collect();
        Self { nodes, namespaces, pods, kinds, kind_of, repels }
    }

    /// Why a pod of this serial cannot have been placed on a node, if it cannot.
    pub fn forbid(&self, workload: &Workload, serial: u64, node: &NodeName) -> Option<Unfit> {
        let spec = &workload.template.spec;
        let says = !spec.affinity.pods.required.is_empty() || !spec.affinity.anti.required.is_empty();
        if !says && !self.repels && !spec.spread.iter().any(|one| one.required) {
            return None;
        }
        let at = self.nodes.get(node)?;
        let asked = Asked { workload, serial, labels: pod_labels(workload), at, around: self };
        asked.affinity().or_else(|| asked.anti_affinity()).or_else(|| asked.spread())
    }

    /// Which of the kinds something is said of.
    fn which(&self, said: impl Fn(&Workload, &BTreeMap<String, String>) -> bool) -> Vec<bool> {
        self.kinds.iter().map(|(kind, labels)| said(kind, labels)).collect()
    }
}

struct Asked<'s, 'a> {
    workload: &'s Workload,
    serial: u64,
    /// Of its pods.
    labels: BTreeMap<String, String>,
    at: &'s Candidate,
    around: &'s Surroundings<'a>,
}

impl Asked<'_, '_> {
    /// All other pods whose kind is among these.
    fn others(&self, which: &[bool]) -> impl Iterator<Item = &Neighbour<'_>> {
        let all = self.around.pods.iter().zip(&self.around.kind_of);
        all.filter(move |(pod, kind)| pod.serial != self.serial && which[**kind]).map(|(pod, _)| pod)
    }

    fn selection(&self, term: &PodTerm) -> Selection {
        Selection::of_term(term, self.workload, &self.labels)
    }

    fn is_meant(&self, selection: &Selection, pod: &Workload, labels: &BTreeMap<String, String>) -> bool {
        selection.selects(&pod.key.object.namespace, labels, self.around.namespaces)
    }

    fn is_near(&self, pod: &Neighbour<'_>, key: &str) -> bool {
        let value = self.around.nodes.get(pod.node).and_then(|node| node.labels.get(key));
        value.is_some() && value == self.at.labels.get(key)
    }

    fn affinity(&self) -> Option<Unfit> {
        let terms = &self.workload.template.spec.affinity.pods.required;
        let said: Vec<Selection> = terms.iter().map(|term| self.selection(term)).collect();
        // As in Kubernetes a pod counts only if all terms select it.
        let wanted = |pod: &Workload, labels: &BTreeMap<String, String>| {
            said.iter().all(|selection| self.is_meant(selection, pod, labels))
        };
        let which = self.around.which(wanted);
        let has_domain = |pod: &Neighbour<'_>| {
            let node = self.around.nodes.get(pod.node);
            node.is_some_and(|node| terms.iter().any(|term| node.labels.contains_key(&term.topology_key)))
        };
        let first = !self.others(&which).any(has_domain) && wanted(self.workload, &self.labels);
        let unmet = |term: &PodTerm| {
            let key = &term.topology_key;
            let near = first || self.others(&which).any(|pod| self.is_near(pod, key));
            !near || !self.at.labels.contains_key(key)
        };
        terms.iter().any(unmet).then_some(Unfit::PodAffinity)
    }

    fn anti_affinity(&self) -> Option<Unfit> {
        let near = |which: &[bool], key: &str| {
            self.others(which).any(|pod| pod.serial < self.serial && self.is_near(pod, key))
        };
        for term in &self.workload.template.spec.affinity.anti.required {
            let selection = self.selection(term);
            let which = self.around.which(|pod, labels| self.is_meant(&selection, pod, labels));
            if near(&which, &term.topology_key) {
                return Some(Unfit::PodAntiAffinity);
            }
        }
        for (number, (kind, labels)) in self.around.kinds.iter().enumerate() {
            for term in &kind.template.spec.affinity.anti.required {
                if !self.is_meant(&Selection::of_term(term, kind, labels), self.workload, &self.labels) {
                    continue;
                }
                let which: Vec<bool> = (0..self.around.kinds.len()).map(|one| one == number).collect();
                if near(&which, &term.topology_key) {
                    return Some(Unfit::ExistingPodAntiAffinity);
                }
            }
        }
        None
    }

    fn spread(&self) -> Option<Unfit> {
        let required = || self.workload.template.spec.spread.iter().filter(|one| one.required);
        let keys: BTreeSet<&str> = required().map(|one| one.topology_key.as_str()).collect();
        required().find_map(|constraint| match self.at.labels.get(&constraint.topology_key) {
            None => Some(Unfit::SpreadLabel),
            Some(here) => self.is_above(constraint, here, &keys).then_some(Unfit::Spread),
        })
    }

    /// Whether one more in a domain is more than the constraint allows.
    fn is_above(&self, constraint: &SpreadConstraint, here: &str, keys: &BTreeSet<&str>) -> bool {
        let spec = &self.workload.template.spec;
        // The domain of a node that counts.
        let domain = |node: &Candidate| {
            let counts = keys.iter().all(|key| node.labels.contains_key(*key))
                && (!constraint.honor_affinity || wanted_by_labels(spec, node))
                && (!constraint.honor_taints || taints_tolerated(spec, node));
            node.labels.get(&constraint.topology_key).filter(|_| counts).cloned()
        };
        let nodes = &self.around.nodes;
        let mut domains: BTreeMap<String, u32> =
            nodes.values().filter_map(|node| domain(node)).map(|domain| (domain, 0)).collect();
        let selection = Selection::own_namespace(constraint.pods.resolve(&self.labels), self.workload);
        let which = self.around.which(|pod, labels| self.is_meant(&selection, pod, labels));
        let mut own = u32::from(self.is_meant(&selection, self.workload, &self.labels));
        for pod in self.others(&which) {
            let Some(domain) = nodes.get(pod.node).and_then(|node| domain(node)) else { continue };
            own += u32::from(domain == here && pod.serial < self.serial && !pod.stopping);
            *domains.entry(domain).or_default() += 1;
        }
        let enough = domains.len() >= constraint.min_domains as usize;
        let least = domains.into_values().min().filter(|_| enough).unwrap_or(0);
        own > least.saturating_add(constraint.max_skew)
    }
}
