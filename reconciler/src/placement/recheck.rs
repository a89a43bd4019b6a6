//! Rechecks the required rules between pods: whether these rules can have allowed a pod on its
//! node.
//!
//! The node checks a decision that the leader made earlier, and other pods were started and stopped
//! since. Circumstances that may have been different at that time therefore count in favour of the
//! pod: a spread is measured against domains in which every existing pod counts, and a pod that
//! `podAffinity` requires may be stopping by now.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Candidate,
    candidate::{taints_tolerated, wanted_by_labels},
    shape::{PodSelection, pod_labels},
};
use crate::{
    name::{NodeName, PodUid},
    object::{Meta, PodTerm, SpreadConstraint, Workload},
    state::Unfit,
};

/// An existing pod that has not ended.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour<'a> {
    /// Uid of the pod.
    pub uid: &'a PodUid,
    /// Node of the pod.
    pub node: &'a NodeName,
    /// Workload of the pod, in the pod's own commit.
    pub workload: &'a Workload,
    /// Whether the pod is stopping.
    pub stopping: bool,
}

/// What one host knows about the pods of the cluster.
#[derive(Debug)]
pub struct Surroundings<'a> {
    nodes: BTreeMap<&'a NodeName, &'a Candidate>,
    namespaces: &'a BTreeMap<String, Meta>,
    pods: Vec<Neighbour<'a>>,
    /// Whether some pods are unknown to this host: such a pod may be the required one, or be
    /// counted in any domain.
    blind: bool,
    /// The distinct templates of existing pods, with the labels of their pods, and the template of
    /// each pod.
    kinds: Vec<(&'a Workload, BTreeMap<String, String>)>,
    kind_of: Vec<usize>,
}

/// Whether a workload has required rules about other pods.
pub fn relates(workload: &Workload) -> bool {
    let spec = &workload.template.spec;
    let affinity = &spec.affinity;
    !affinity.pods.required.is_empty()
        || repels(workload)
        || spec.spread.iter().any(|one| one.required)
}

/// Whether a workload keeps other pods away by required `podAntiAffinity`.
pub fn repels(workload: &Workload) -> bool {
    !workload.template.spec.affinity.anti.required.is_empty()
}

impl<'a> Surroundings<'a> {
    /// Takes all nodes, the namespaces that Git declares, and all known pods; `blind` tells whether
    /// there are pods that this host does not know.
    pub fn new(
        nodes: &'a [Candidate],
        namespaces: &'a BTreeMap<String, Meta>,
        pods: Vec<Neighbour<'a>>,
        blind: bool,
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
        let nodes = nodes.iter().map(|node| (&node.name, node)).collect();
        Self {
            nodes,
            namespaces,
            pods,
            blind,
            kinds,
            kind_of,
        }
    }

    /// Why a pod cannot have been placed on a node; `None` if it can. `before` returns whether
    /// another pod existed already at that time, so that it counts against the pod.
    pub fn forbid(
        &self,
        workload: &Workload,
        uid: &PodUid,
        node: &NodeName,
        before: &dyn Fn(&Neighbour<'_>) -> bool,
    ) -> Option<Unfit> {
        let at = self.nodes.get(node)?;
        let asked = Asked {
            workload,
            uid,
            labels: pod_labels(workload),
            at,
            before,
            around: self,
        };
        let anti = || asked.anti_affinity();
        match self.blind {
            true => anti(),
            false => asked.affinity().or_else(anti).or_else(|| asked.spread()),
        }
    }

    /// For each template, whether `holds` is true for it.
    fn which(&self, holds: impl Fn(&Workload, &BTreeMap<String, String>) -> bool) -> Vec<bool> {
        self.kinds
            .iter()
            .map(|(kind, labels)| holds(kind, labels))
            .collect()
    }
}

struct Asked<'s, 'a> {
    workload: &'s Workload,
    uid: &'s PodUid,
    /// Labels of the pod that is checked.
    labels: BTreeMap<String, String>,
    at: &'s Candidate,
    before: &'s dyn Fn(&Neighbour<'_>) -> bool,
    around: &'s Surroundings<'a>,
}

impl Asked<'_, '_> {
    /// The other pods whose template is among these.
    fn others(&self, which: &[bool]) -> impl Iterator<Item = &Neighbour<'_>> {
        let all = self.around.pods.iter().zip(&self.around.kind_of);
        all.filter(|(pod, kind)| which[**kind] && pod.uid != self.uid)
            .map(|(pod, _)| pod)
    }

    fn selection(&self, term: &PodTerm) -> PodSelection {
        PodSelection::of_term(term, self.workload, &self.labels)
    }

    fn is_meant(
        &self,
        selection: &PodSelection,
        pod: &Workload,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        selection.selects(&pod.key.object.namespace, labels, self.around.namespaces)
    }

    fn is_near(&self, pod: &Neighbour<'_>, key: &str) -> bool {
        let value = self
            .around
            .nodes
            .get(pod.node)
            .and_then(|node| node.labels.get(key));
        value.is_some() && value == self.at.labels.get(key)
    }

    fn affinity(&self) -> Option<Unfit> {
        let terms = &self.workload.template.spec.affinity.pods.required;
        let selections: Vec<PodSelection> = terms.iter().map(|term| self.selection(term)).collect();
        // As in Kubernetes, a pod counts only if all terms select it.
        let wanted = |pod: &Workload, labels: &BTreeMap<String, String>| {
            selections
                .iter()
                .all(|selection| self.is_meant(selection, pod, labels))
        };
        let which = self.around.which(wanted);
        let has_domain = |pod: &Neighbour<'_>| {
            let node = self.around.nodes.get(pod.node);
            node.is_some_and(|node| {
                terms
                    .iter()
                    .any(|term| node.labels.contains_key(&term.topology_key))
            })
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
            self.others(which)
                .any(|pod| (self.before)(pod) && self.is_near(pod, key))
        };
        for term in &self.workload.template.spec.affinity.anti.required {
            let selection = self.selection(term);
            let which = self
                .around
                .which(|pod, labels| self.is_meant(&selection, pod, labels));
            if near(&which, &term.topology_key) {
                return Some(Unfit::PodAntiAffinity);
            }
        }
        for (number, (kind, labels)) in self.around.kinds.iter().enumerate() {
            for term in &kind.template.spec.affinity.anti.required {
                if !self.is_meant(
                    &PodSelection::of_term(term, kind, labels),
                    self.workload,
                    &self.labels,
                ) {
                    continue;
                }
                let which: Vec<bool> = (0..self.around.kinds.len())
                    .map(|one| one == number)
                    .collect();
                if near(&which, &term.topology_key) {
                    return Some(Unfit::ExistingPodAntiAffinity);
                }
            }
        }
        None
    }

    fn spread(&self) -> Option<Unfit> {
        let required = || {
            self.workload
                .template
                .spec
                .spread
                .iter()
                .filter(|one| one.required)
        };
        let keys: BTreeSet<&str> = required().map(|one| one.topology_key.as_str()).collect();
        required().find_map(
            |constraint| match self.at.labels.get(&constraint.topology_key) {
                None => Some(Unfit::SpreadLabel),
                Some(here) => self
                    .is_above(constraint, here, &keys)
                    .then_some(Unfit::Spread),
            },
        )
    }

    /// Whether one more pod in a domain exceeds `maxSkew` of the constraint.
    fn is_above(&self, constraint: &SpreadConstraint, here: &str, keys: &BTreeSet<&str>) -> bool {
        let spec = &self.workload.template.spec;
        let counts = |node: &Candidate| {
            keys.iter().all(|key| node.labels.contains_key(*key))
                && (!constraint.honor_affinity || wanted_by_labels(spec, node))
                && (!constraint.honor_taints || taints_tolerated(spec, node))
        };
        let nodes = self.around.nodes.iter().filter(|(_, node)| counts(node));
        let domain_of: BTreeMap<&NodeName, &str> = nodes
            .filter_map(|(name, node)| {
                Some((*name, node.labels.get(&constraint.topology_key)?.as_str()))
            })
            .collect();
        let mut domains: BTreeMap<&str, u32> =
            domain_of.values().map(|domain| (*domain, 0)).collect();
        let selection =
            PodSelection::own_namespace(constraint.pods.resolve(&self.labels), self.workload);
        let which = self
            .around
            .which(|pod, labels| self.is_meant(&selection, pod, labels));
        let mut own = u32::from(self.is_meant(&selection, self.workload, &self.labels));
        for pod in self.others(&which) {
            let Some(domain) = domain_of.get(pod.node) else {
                continue;
            };
            own += u32::from(*domain == here && !pod.stopping && (self.before)(pod));
            *domains.entry(domain).or_default() += 1;
        }
        // As in Kubernetes: with fewer domains than `minDomains` the global minimum counts as 0.
        let enough_domains = domains.len() >= constraint.min_domains as usize;
        let least = if enough_domains {
            domains.into_values().min().unwrap_or(0)
        } else {
            0
        };
        own > least.saturating_add(constraint.max_skew)
    }
}
