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

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_requirement_compares_the_value_of_a_label() {
        let values = || vec!["5".to_owned(), "x".to_owned()];
        let all = [
            NodeOperator::In(values()),
            NodeOperator::NotIn(values()),
            NodeOperator::Exists,
            NodeOperator::DoesNotExist,
            NodeOperator::Gt(5),
            NodeOperator::Lt(5),
        ];
        for (value, expected) in [
            (Some("5"), [true, false, true, false, false, false]),
            (Some("6"), [false, true, true, false, true, false]),
            (Some("4"), [false, true, true, false, false, true]),
            (Some("x"), [true, false, true, false, false, false]),
            (None, [false, true, false, true, false, false]),
        ] {
            let labels = value.map_or_else(BTreeMap::new, |value| labels(&[("size", value)]));
            let holds = all.clone().map(|operator| {
                let key = "size".to_owned();
                NodeRequirement { key, operator }.holds(&labels)
            });
            assert_eq!(holds, expected, "{value:?}");
        }
    }

    #[test]
    fn a_term_holds_if_all_its_requirements_do_and_an_empty_one_never() {
        let node = NodeName::new("one");
        let ssd = NodeRequirement {
            key: "disk".to_owned(),
            operator: NodeOperator::In(vec!["ssd".to_owned()]),
        };
        let is = |name: &str| NameRequirement::Is(NodeName::new(name));
        let is_not = |name: &str| NameRequirement::IsNot(NodeName::new(name));
        let (fast, slow) = (labels(&[("disk", "ssd")]), labels(&[("disk", "hdd")]));
        for (requirements, names, of, expected) in [
            (vec![], vec![], &fast, false),
            (vec![ssd.clone()], vec![], &fast, true),
            (vec![ssd.clone()], vec![], &slow, false),
            (vec![], vec![is("one")], &slow, true),
            (vec![], vec![is("two")], &slow, false),
            (vec![], vec![is_not("one")], &slow, false),
            (vec![], vec![is_not("two")], &slow, true),
            (vec![ssd.clone()], vec![is("one")], &fast, true),
            (vec![ssd.clone()], vec![is("two")], &fast, false),
            (vec![ssd], vec![is("one")], &slow, false),
        ] {
            let term = NodeTerm {
                labels: requirements,
                names,
            };
            assert_eq!(term.holds(&node, of), expected, "{term:?} with {of:?}");
        }
    }

    #[test]
    fn a_node_is_allowed_by_one_of_the_required_terms_or_if_none_are_required() {
        let allows = |required: Option<&[&str]>| {
            let term = |name: &&str| NodeTerm {
                names: vec![NameRequirement::Is(NodeName::new(*name))],
                ..NodeTerm::default()
            };
            let affinity = NodeAffinity {
                required: required.map(|names| names.iter().map(term).collect()),
                preferred: Vec::new(),
            };
            affinity.allows(&NodeName::new("one"), &BTreeMap::new())
        };
        assert!(allows(None));
        assert!(!allows(Some(&[])));
        assert!(!allows(Some(&["two"])));
        assert!(allows(Some(&["two", "one"])));
    }

    #[test]
    fn keys_of_a_selector_take_the_values_of_the_pods_own_labels() {
        let own = labels(&[("app", "web"), ("version", "1"), ("zone", "a")]);
        let selector = PodSelector {
            labels: Some(Selector {
                labels: labels(&[("app", "web")]),
                expressions: Vec::new(),
            }),
            same: vec!["version".to_owned(), "absent".to_owned()],
            other: vec!["zone".to_owned(), "absent".to_owned()],
        };
        let expected = Selector {
            labels: labels(&[("app", "web"), ("version", "1")]),
            expressions: vec![Requirement {
                key: "zone".to_owned(),
                operator: Operator::NotIn(vec!["a".to_owned()]),
            }],
        };
        assert_eq!(selector.resolve(&own), Some(expected));

        let without_labels = PodSelector {
            labels: None,
            ..selector
        };
        assert_eq!(without_labels.resolve(&own), None);
    }
}
