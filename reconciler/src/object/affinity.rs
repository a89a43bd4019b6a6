//! Rules about a pod's node: affinity to nodes and to other pods, and the spread of pods over
//! domains.

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
    /// `requiredDuringSchedulingIgnoredDuringExecution`: one of the terms must match; `None` is no
    /// requirement.
    pub required: Option<Vec<NodeTerm>>,
    /// `preferredDuringSchedulingIgnoredDuringExecution`.
    pub preferred: Vec<(u32, NodeTerm)>,
}

/// One of `nodeSelectorTerms`: all its requirements must hold; an empty term matches no node.
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
    /// Key of the label.
    pub key: String,
    /// Operator and values.
    pub operator: NodeOperator,
}

/// The operators of requirements over node labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeOperator {
    /// The label has one of these values.
    In(Vec<String>),
    /// The label has none of these values, or is absent.
    NotIn(Vec<String>),
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label's value is an integer greater than this one.
    Gt(i64),
    /// The label's value is an integer less than this one.
    Lt(i64),
}

/// One of `matchFields`: the name of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameRequirement {
    /// The node has this name.
    Is(NodeName),
    /// The node has another name.
    IsNot(NodeName),
}

impl NodeAffinity {
    /// Whether the required terms allow a node.
    pub fn allows(&self, name: &NodeName, labels: &BTreeMap<String, String>) -> bool {
        self.required
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|term| term.holds(name, labels)))
    }
}

impl NodeTerm {
    /// Whether all requirements hold for a node.
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

/// A `podAffinityTerm`: pods with these namespaces and labels, in the same domain of the topology.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodTerm {
    /// `labelSelector` with its `matchLabelKeys` and `mismatchLabelKeys`.
    pub pods: PodSelector,
    /// `namespaces`.
    pub namespaces: BTreeSet<String>,
    /// `namespaceSelector`. If it is absent and `namespaces` is empty, the pod's own namespace is
    /// meant.
    pub namespace_selector: Option<Selector>,
    /// `topologyKey`: nodes with the same value of this label form one domain.
    pub topology_key: String,
}

/// Which pods a term or constraint selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSelector {
    /// `labelSelector`; `None` selects no pod, an empty selector all pods.
    pub labels: Option<Selector>,
    /// `matchLabelKeys`: labels that must have the same value as on the pod itself.
    pub same: Vec<String>,
    /// `mismatchLabelKeys`: labels that must have another value than on the pod itself.
    pub other: Vec<String>,
}

impl PodSelector {
    /// The selector with the values of the pod's own labels; keys that the pod does not have are
    /// ignored.
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
    /// `whenUnsatisfiable: DoNotSchedule`; if false, the constraint is only a preference.
    pub required: bool,
    /// `labelSelector` with its `matchLabelKeys`, over pods of the same namespace.
    pub pods: PodSelector,
    /// `minDomains`, 1 by default: with fewer domains the least count is taken as 0.
    pub min_domains: u32,
    /// `nodeAffinityPolicy: Honor`: only nodes count that match the pod's selector and affinity.
    pub honor_affinity: bool,
    /// `nodeTaintsPolicy: Honor`: only nodes count whose taints the pod tolerates.
    pub honor_taints: bool,
}
