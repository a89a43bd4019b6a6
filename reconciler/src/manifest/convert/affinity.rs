//! `affinity` of a pod to nodes and to other pods.

use std::collections::BTreeSet;

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::LabelSelector};

use super::selector::label_selector;
use crate::{
    manifest::at::At,
    name::NodeName,
    object::{
        Affinity, NameRequirement, NodeAffinity, NodeOperator, NodeRequirement, NodeTerm,
        PodAffinity, PodSelector, PodTerm, Selector,
    },
    syntax,
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// `affinity` of a pod.
pub(super) fn affinity(affinity: Option<core::Affinity>, at: &At<'_>) -> Affinity {
    let core::Affinity {
        node_affinity,
        pod_affinity,
        pod_anti_affinity,
    } = affinity.unwrap_or_default();
    let core::PodAffinity {
        preferred_during_scheduling_ignored_during_execution: preferred,
        required_during_scheduling_ignored_during_execution: required,
    } = pod_affinity.unwrap_or_default();
    let pods = pod_terms(required, preferred, &at.field("podAffinity"));

    let core::PodAntiAffinity {
        preferred_during_scheduling_ignored_during_execution: preferred,
        required_during_scheduling_ignored_during_execution: required,
    } = pod_anti_affinity.unwrap_or_default();
    let anti = pod_terms(required, preferred, &at.field("podAntiAffinity"));

    Affinity {
        node: node_affinity_of(node_affinity, &at.field("nodeAffinity")),
        pods,
        anti,
    }
}

fn node_affinity_of(affinity: Option<core::NodeAffinity>, at: &At<'_>) -> NodeAffinity {
    let core::NodeAffinity {
        preferred_during_scheduling_ignored_during_execution: preferred,
        required_during_scheduling_ignored_during_execution: required,
    } = affinity.unwrap_or_default();
    let required = required.map(|selector| {
        let at = at.field(REQUIRED);
        node_terms(selector, &at.field("nodeSelectorTerms"))
    });

    let at = at.field(PREFERRED);
    let preferred = preferred
        .unwrap_or_default()
        .into_iter()
        .enumerate()
        .map(|(index, term)| {
            let core::PreferredSchedulingTerm {
                preference,
                weight: weighs,
            } = term;
            let at = at.index(index);
            let term = node_term(preference, &at.field("preference"));
            (weight(weighs, &at), term)
        })
        .collect();

    NodeAffinity {
        required,
        preferred,
    }
}

fn node_terms(selector: core::NodeSelector, at: &At<'_>) -> Vec<NodeTerm> {
    let core::NodeSelector {
        node_selector_terms: terms,
    } = selector;
    if terms.is_empty() {
        at.error("required: without a term no node would take the pod; add one");
    }

    terms
        .into_iter()
        .enumerate()
        .map(|(index, term)| node_term(term, &at.index(index)))
        .collect()
}

fn weight(weight: i32, at: &At<'_>) -> u32 {
    u32::try_from(at.field("weight").within(weight.into(), 1, 100)).unwrap_or(1)
}

fn node_term(term: core::NodeSelectorTerm, at: &At<'_>) -> NodeTerm {
    let core::NodeSelectorTerm {
        match_expressions,
        match_fields,
    } = term;
    let expressions = match_expressions
        .unwrap_or_default()
        .into_iter()
        .enumerate();
    let labels = expressions
        .filter_map(|(index, one)| {
            node_requirement(one, &at.field("matchExpressions").index(index))
        })
        .collect();

    let fields = match_fields.unwrap_or_default().into_iter().enumerate();
    let names = fields
        .filter_map(|(index, one)| name_requirement(one, &at.field("matchFields").index(index)))
        .collect();
    NodeTerm { labels, names }
}

#[derive(Clone, Copy)]
enum NodeSelectorOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

const OPERATORS: &[(&str, Option<NodeSelectorOperator>)] = &[
    ("In", Some(NodeSelectorOperator::In)),
    ("NotIn", Some(NodeSelectorOperator::NotIn)),
    ("Exists", Some(NodeSelectorOperator::Exists)),
    ("DoesNotExist", Some(NodeSelectorOperator::DoesNotExist)),
    ("Gt", Some(NodeSelectorOperator::Gt)),
    ("Lt", Some(NodeSelectorOperator::Lt)),
];

fn node_requirement(
    requirement: core::NodeSelectorRequirement,
    at: &At<'_>,
) -> Option<NodeRequirement> {
    let core::NodeSelectorRequirement {
        key,
        operator,
        values,
    } = requirement;
    let key = at.field("key").checked(key, syntax::qualified_name);
    let values = values.unwrap_or_default();
    let operator = match operator_of(&operator, OPERATORS, at)? {
        NodeSelectorOperator::In => NodeOperator::In(some_values(values, at)?),
        NodeSelectorOperator::NotIn => NodeOperator::NotIn(some_values(values, at)?),
        NodeSelectorOperator::Exists => no_values(&values, NodeOperator::Exists, at)?,
        NodeSelectorOperator::DoesNotExist => no_values(&values, NodeOperator::DoesNotExist, at)?,
        NodeSelectorOperator::Gt => NodeOperator::Gt(one_number(&values, at)?),
        NodeSelectorOperator::Lt => NodeOperator::Lt(one_number(&values, at)?),
    };
    Some(NodeRequirement { key, operator })
}

fn operator_of<T: Copy>(text: &str, words: &[(&str, Option<T>)], at: &At<'_>) -> Option<T> {
    let at = at.field("operator");
    if text.is_empty() {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        at.error(format_args!("required: write one of {}", words.join(", ")));
    }
    at.word(Some(text), words, None)
}

fn some_values(values: Vec<String>, at: &At<'_>) -> Option<Vec<String>> {
    if values.is_empty() {
        at.field("values")
            .error("required: this operator needs at least one value");
        return None;
    }
    for (index, value) in values.iter().enumerate() {
        if let Err(rule) = syntax::label_value(value) {
            at.field("values")
                .index(index)
                .error(format_args!("{value:?} is not valid: it must be {rule}"));
        }
    }
    Some(values)
}

fn no_values(values: &[String], operator: NodeOperator, at: &At<'_>) -> Option<NodeOperator> {
    if !values.is_empty() {
        at.field("values")
            .error("this operator takes no values: remove them");
    }
    Some(operator)
}

fn one_number(values: &[String], at: &At<'_>) -> Option<i64> {
    let number = match values {
        [one] => one.parse().ok(),
        _ => None,
    };
    if number.is_none() {
        at.field("values")
            .error("must be one whole number, in quotes: correct it");
    }
    number
}

/// `matchFields` supports one field only, `metadata.name`, with a single value.
fn name_requirement(
    requirement: core::NodeSelectorRequirement,
    at: &At<'_>,
) -> Option<NameRequirement> {
    let core::NodeSelectorRequirement {
        key,
        operator,
        values,
    } = requirement;
    if key != "metadata.name" {
        at.field("key")
            .error("the only field to select nodes by is metadata.name: write that");
    }

    let words = [("In", Some(true)), ("NotIn", Some(false))];
    let is = operator_of(&operator, &words, at)?;
    match <[String; 1]>::try_from(values.unwrap_or_default()) {
        Ok([name]) => {
            let at = at.field("values");
            let name = NodeName::new(at.index(0).checked(name, syntax::subdomain));
            Some(if is {
                NameRequirement::Is(name)
            } else {
                NameRequirement::IsNot(name)
            })
        }
        Err(_) => {
            at.field("values")
                .error("must be the name of one node: write a term for each");
            None
        }
    }
}

fn pod_terms(
    required: Option<Vec<core::PodAffinityTerm>>,
    preferred: Option<Vec<core::WeightedPodAffinityTerm>>,
    at: &At<'_>,
) -> PodAffinity {
    let required = required.unwrap_or_default().into_iter().enumerate();
    let preferred = preferred.unwrap_or_default().into_iter().enumerate();
    PodAffinity {
        required: required
            .map(|(index, term)| pod_term(term, &at.field(REQUIRED).index(index)))
            .collect(),
        preferred: preferred
            .map(|(index, term)| {
                let core::WeightedPodAffinityTerm {
                    pod_affinity_term,
                    weight: weighs,
                } = term;
                let at = at.field(PREFERRED);
                let at = at.index(index);
                let term = pod_term(pod_affinity_term, &at.field("podAffinityTerm"));
                (weight(weighs, &at), term)
            })
            .collect(),
    }
}

fn pod_term(term: core::PodAffinityTerm, at: &At<'_>) -> PodTerm {
    let core::PodAffinityTerm {
        label_selector,
        match_label_keys,
        mismatch_label_keys,
        namespace_selector,
        namespaces,
        topology_key,
    } = term;
    let namespaces: BTreeSet<String> = namespaces
        .unwrap_or_default()
        .into_iter()
        .enumerate()
        .map(|(index, name)| {
            at.field("namespaces")
                .index(index)
                .checked(name, syntax::label)
        })
        .collect();
    PodTerm {
        pods: pod_selector(label_selector, match_label_keys, mismatch_label_keys, at),
        namespaces,
        namespace_selector: namespace_selector
            .map(|selector| self::label_selector(selector, &at.field("namespaceSelector"))),
        topology_key: at
            .field("topologyKey")
            .checked(topology_key, syntax::qualified_name),
    }
}

/// `labelSelector`, `matchLabelKeys` and `mismatchLabelKeys` of a term or constraint.
pub(super) fn pod_selector(
    selector: Option<LabelSelector>,
    same: Option<Vec<String>>,
    other: Option<Vec<String>>,
    at: &At<'_>,
) -> PodSelector {
    let labels = selector.map(|selector| label_selector(selector, &at.field("labelSelector")));
    let mut seen = BTreeSet::new();
    let mut keys = |keys: Option<Vec<String>>, field: &str| -> Vec<String> {
        let at = at.field(field);
        let keys = keys.unwrap_or_default();
        if !keys.is_empty() && labels.is_none() {
            at.error("only beside a labelSelector: add one, or remove this");
        }

        let keys = keys.into_iter().enumerate();
        keys.map(|(index, key)| {
            let at = at.index(index);
            let key = at.checked(key, syntax::qualified_name);
            // Kubernetes would add a second requirement for the same key to the selector.
            if labels.as_ref().is_some_and(|labels| mentions(labels, &key)) {
                at.error(format_args!(
                    "labelSelector selects by {key:?} too: keep one of them"
                ));
            } else if !seen.insert(key.clone()) {
                at.error(format_args!("{key:?} is there twice: keep one"));
            }
            key
        })
        .collect()
    };

    let same = keys(same, "matchLabelKeys");
    let other = keys(other, "mismatchLabelKeys");
    PodSelector {
        labels,
        same,
        other,
    }
}

fn mentions(selector: &Selector, key: &str) -> bool {
    selector.labels.contains_key(key) || selector.expressions.iter().any(|one| one.key == key)
}
