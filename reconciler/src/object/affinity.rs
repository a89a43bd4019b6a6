//! Where a pod wants to run: affinity to nodes and to other pods, and how pods spread over domains.

use std::collections::{BTreeMap, BTreeSet};

use super::{Operator, Requirement, Selector};
use crate::name::NodeName;

/// `affinity` of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// `nodeAffinity`.
    pub node: NodeAffinity,
    /// `podAffinity`.
    pub pods: PodAffinity,
    /// `podAntiAffinity`.
    pub anti: PodAffinity,
}

/// `nodeAffinity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeAffinity {
    /// `requiredDuringSchedulingIgnoredDuringExecution`: one of the terms must hold; `None` asks
    /// for nothing.
    pub required: Option<Vec<NodeTerm>>,
    /// `preferredDuringSchedulingIgnoredDuringExecution`.
    pub preferred: Vec<(u32, NodeTerm)>,
}

/// One of `nodeSelectorTerms`: all of it must hold; an empty one holds for no node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeTerm {
    /// `matchExpressions`, over labels.
    pub labels: Vec<NodeRequirement>,
    /// `matchFields`, over `metadata.name`.
    pub names: Vec<NameRequirement>,
}

/// One of `matchExpressions` of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRequirement {
    /// The label.
    pub key: String,
    /// What must hold for it.
    pub operator: NodeOperator,
}

/// The operators over labels of nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeOperator {
    /// One of these values.
    In(Vec<String>),
    /// None of these values, or absent.
    NotIn(Vec<String>),
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
    /// A whole number above this one.
    Gt(i64),
    /// A whole number below this one.
    Lt(i64),
}

/// One of `matchFields`: the name of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameRequirement {
    /// This one.
    Is(NodeName),
    /// Any but this one.
    IsNot(NodeName),
}

impl NodeAffinity {
    /// Whether a node may take the pod.
    pub fn allows(&self, name: &NodeName, labels: &BTreeMap<String, String>) -> bool {
        self.required
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|term| term.holds(name, labels)))
    }
}

impl NodeTerm {
    /// Whether all of it holds for a node.
    pub fn holds(&self, name: &NodeName, labels: &BTreeMap<String, String>) -> bool {
        let empty = self.labels.is_empty() && self.names.is_empty();
        !empty
            && self
                .labels
                .iter()
                .all(|requirement| requirement.holds(labels))
            && self.names.iter().all(|requirement| match requirement {
                NameRequirement::Is(one) => one == name,
                NameRequirement::IsNot(one) => one != name,
            })
    }
}

impl NodeRequirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            NodeOperator::In(values) => value.is_some_and(|value| values.contains(value)),
            NodeOperator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            NodeOperator::Exists => value.is_some(),
            NodeOperator::DoesNotExist => value.is_none(),
            NodeOperator::Gt(bound) => number().is_some_and(|number| number > *bound),
            NodeOperator::Lt(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

/// `podAffinity` or `podAntiAffinity`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodAffinity {
    /// `requiredDuringSchedulingIgnoredDuringExecution`: all terms must hold.
    pub required: Vec<PodTerm>,
    /// `preferredDuringSchedulingIgnoredDuringExecution`.
    pub preferred: Vec<(u32, PodTerm)>,
}

/// A `podAffinityTerm`: pods of these namespaces and labels, in the same domain of the topology.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodTerm {
    /// `labelSelector` with its `matchLabelKeys` and `mismatchLabelKeys`.
    pub pods: PodSelector,
    /// `namespaces`.
    pub namespaces: BTreeSet<String>,
    /// `namespaceSelector`. Neither this nor `namespaces` is the pod's own namespace.
    pub namespace_selector: Option<Selector>,
    /// `topologyKey`: nodes with the same value of this label are one domain.
    pub topology_key: String,
}

/// Which pods are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSelector {
    /// `labelSelector`; `None` is no pod, an empty one is all.
    pub labels: Option<Selector>,
    /// `matchLabelKeys`: labels that must be as the pod's own.
    pub same: Vec<String>,
    /// `mismatchLabelKeys`: labels that must not be as the pod's own.
    pub other: Vec<String>,
}

impl PodSelector {
    /// The selector with the pod's own labels filled in; keys that it does not have say nothing.
    pub fn resolve(&self, own: &BTreeMap<String, String>) -> Option<Selector> {
        let mut selector = self.labels.clone()?;
        for key in &self.same {
            if let Some(value) = own.get(key) {
                selector.labels.insert(key.clone(), value.clone());
            }
        }
        for key in &self.other {
            if let Some(value) = own.get(key) {
                let operator = Operator::NotIn(vec![value.clone()]);
                selector.expressions.push(Requirement {
                    key: key.clone(),
                    operator,
                });
            }
        }
        Some(selector)
    }
}

/// One of `topologySpreadConstraints`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpreadConstraint {
    /// `maxSkew`, at least 1.
    pub max_skew: u32,
    /// `topologyKey`.
    pub topology_key: String,
    /// `whenUnsatisfiable: DoNotSchedule`; otherwise it is a wish.
    pub required: bool,
    /// `labelSelector` with its `matchLabelKeys`, over pods of the same namespace.
    pub pods: PodSelector,
    /// `minDomains`, 1: with fewer domains the least count is taken for 0.
    pub min_domains: u32,
    /// `nodeAffinityPolicy: Honor`: only nodes count that the pod's selector and affinity take.
    pub honor_affinity: bool,
    /// `nodeTaintsPolicy: Honor`: only nodes count whose taints the pod tolerates.
    pub honor_taints: bool,
}
