//! Label selectors of controllers.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::meta::labels;
use crate::{
    manifest::at::At,
    object::{Operator, Requirement, Selector},
    syntax,
};

/// `spec.selector`, which is required and must match the labels of the template.
pub(super) fn selector(
    selector: LabelSelector,
    template_labels: &BTreeMap<String, String>,
    spec: &At<'_>,
) -> Selector {
    let at = spec.field("selector");
    let selector = label_selector(selector, &at);
    check_matches(&selector, template_labels, &at);
    selector
}

/// A label selector; an empty selector matches everything.
pub(super) fn label_selector(selector: LabelSelector, at: &At<'_>) -> Selector {
    let LabelSelector {
        match_expressions,
        match_labels,
    } = selector;
    let match_labels = match_labels.unwrap_or_default();
    labels(&match_labels, &at.field("matchLabels"));
    let expressions: Vec<Requirement> = match_expressions
        .unwrap_or_default()
        .into_iter()
        .enumerate()
        .filter_map(|(index, expression)| {
            requirement(expression, &at.field("matchExpressions").index(index))
        })
        .collect();
    Selector {
        labels: match_labels,
        expressions,
    }
}

/// A ReplicationController's plain map; an empty map becomes the template's labels.
pub(super) fn plain_selector(
    selector: Option<BTreeMap<String, String>>,
    template_labels: &BTreeMap<String, String>,
    spec: &At<'_>,
) -> Selector {
    let at = spec.field("selector");
    let given = selector.filter(|selector| !selector.is_empty());
    let selector = Selector {
        labels: given.unwrap_or_else(|| template_labels.clone()),
        expressions: Vec::new(),
    };
    labels(&selector.labels, &at);
    check_matches(&selector, template_labels, &at);
    selector
}

fn check_matches(selector: &Selector, template_labels: &BTreeMap<String, String>, at: &At<'_>) {
    if selector.labels.is_empty() && selector.expressions.is_empty() {
        at.error(
            "required: write under matchLabels the labels that spec.template.metadata.labels has",
        );
    } else if !selector.matches(template_labels) {
        at.error(
            "does not match the labels of the template: make spec.template.metadata.labels and this selector agree",
        );
    }
}

fn requirement(requirement: LabelSelectorRequirement, at: &At<'_>) -> Option<Requirement> {
    let LabelSelectorRequirement {
        key,
        operator,
        values,
    } = requirement;
    let key = at.field("key").checked(key, syntax::qualified_name);
    let values = values.unwrap_or_default();

    let takes_values = matches!(operator.as_str(), "In" | "NotIn");
    let takes_none = matches!(operator.as_str(), "Exists" | "DoesNotExist");
    if takes_values && values.is_empty() {
        at.field("values").error(format_args!(
            "required: {operator} needs at least one value"
        ));
    } else if takes_none && !values.is_empty() {
        at.field("values")
            .error(format_args!("{operator} takes no values: remove them"));
    }

    let operator = match operator.as_str() {
        "In" => Operator::In(values),
        "NotIn" => Operator::NotIn(values),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            at.field("operator").error(format_args!(
                "{other:?} is not known here: write one of In, NotIn, Exists, DoesNotExist"
            ));
            return None;
        }
    };
    Some(Requirement { key, operator })
}
