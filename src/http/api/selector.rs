//! The `labelSelector` and `fieldSelector` of a query.

use std::collections::BTreeMap;

use reconciler::object::{Operator, Requirement, Selector};
use serde_json::Value;
use thiserror::Error;

use super::resource::Resource;

/// Why a selector is refused. The operand is the part of it that cannot be used.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum SelectorError {
    #[error(
        "unable to parse label selector: `{0}`; expected key=value, key!=value, key in (a,b), key notin (a,b), key or !key"
    )]
    LabelTerm(String),
    #[error("invalid field selector: `{0}`; expected field=value")]
    FieldTerm(String),
    /// The wording of Kubernetes.
    #[error("field label not supported: {0}")]
    UnsupportedField(String),
}

/// A label selector such as `app=web,tier in (a,b),!legacy`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LabelSelector(Selector);

/// A field selector such as `metadata.name=web,status.phase!=Running`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSelector(Vec<FieldRequirement>);

#[derive(Debug, PartialEq, Eq)]
struct FieldRequirement {
    pointer: String,
    equal: bool,
    value: String,
}

impl LabelSelector {
    /// Parses the text; an empty one selects everything.
    pub(super) fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut selector = Selector::default();
        for term in split_terms(text) {
            let requirement =
                requirement(term).ok_or_else(|| SelectorError::LabelTerm(term.to_owned()))?;
            selector.expressions.push(requirement);
        }
        Ok(Self(selector))
    }

    /// Whether the object's labels match the selector.
    pub(super) fn matches(&self, object: &Value) -> bool {
        if self.0.expressions.is_empty() {
            return true;
        }
        let labels = object
            .pointer("/metadata/labels")
            .and_then(Value::as_object);
        let labels: BTreeMap<String, String> = labels
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        self.0.matches(&labels)
    }
}

/// Splits at commas outside of parentheses.
fn split_terms(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
}

fn requirement(term: &str) -> Option<Requirement> {
    let one = |key: &str, operator: Operator| {
        let key = key.trim();
        let plain = !key.is_empty() && !key.contains([' ', '(', ')', '=', '!', '<', '>']);
        plain.then(|| Requirement {
            key: key.to_owned(),
            operator,
        })
    };
    let value = |text: &str| {
        let text = text.trim();
        (!text.contains([' ', '(', ')', '='])).then(|| vec![text.to_owned()])
    };
    if let Some(open) = term.strip_suffix(')') {
        let (head, values) = open.split_once('(')?;
        let values = values
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        return match word {
            "in" => one(key, Operator::In(values)),
            "notin" => one(key, Operator::NotIn(values)),
            _ => None,
        };
    }
    if let Some((key, text)) = term.split_once("!=") {
        return one(key, Operator::NotIn(value(text)?));
    }
    if let Some((key, text)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return one(key, Operator::In(value(text)?));
    }
    match term.strip_prefix('!') {
        Some(key) => one(key, Operator::DoesNotExist),
        None => one(term, Operator::Exists),
    }
}

impl FieldSelector {
    /// Parses the text. An unsupported field is refused, because a selector without it would select
    /// too much.
    pub(super) fn parse(text: &str, resource: &Resource) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in text
            .split(',')
            .map(str::trim)
            .filter(|term| !term.is_empty())
        {
            let (field, equal, value) = match (term.split_once("!="), term.split_once("==")) {
                (Some((field, value)), _) => (field, false, value),
                (None, Some((field, value))) => (field, true, value),
                (None, None) => term
                    .split_once('=')
                    .map(|(field, value)| (field, true, value))
                    .ok_or_else(|| SelectorError::FieldTerm(term.to_owned()))?,
            };
            if !is_selectable(field, resource) {
                return Err(SelectorError::UnsupportedField(field.to_owned()));
            }
            let pointer = format!("/{}", field.replace('.', "/"));
            requirements.push(FieldRequirement {
                pointer,
                equal,
                value: value.to_owned(),
            });
        }
        Ok(Self(requirements))
    }

    /// Whether the object's fields match the selector; an absent field is empty.
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|requirement| {
            let found = object
                .pointer(&requirement.pointer)
                .and_then(Value::as_str)
                .unwrap_or_default();
            (found == requirement.value) == requirement.equal
        })
    }

    /// The value of `metadata.name=`, if the selector contains it.
    pub(super) fn name(&self) -> Option<&str> {
        let by_name = |requirement: &&FieldRequirement| {
            requirement.equal && requirement.pointer == "/metadata/name"
        };
        self.0
            .iter()
            .find(by_name)
            .map(|requirement| requirement.value.as_str())
    }
}

fn is_selectable(field: &str, resource: &Resource) -> bool {
    match field {
        "metadata.name" => true,
        "metadata.namespace" => resource.namespaced,
        "status.phase" => matches!(resource.kind, "Pod" | "Namespace"),
        "spec.nodeName" | "spec.restartPolicy" | "status.podIP" => resource.kind == "Pod",
        "spec.unschedulable" => resource.kind == "Node",
        "type" => matches!(resource.kind, "Secret" | "Event"),
        "reason" => resource.kind == "Event",
        _ => resource.kind == "Event" && field.starts_with("involvedObject."),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_of_every_form_select_what_they_say() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}});
        let holds = [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "app in (web, db),tier",
            "x notin (y)",
            "!legacy",
            " app = web ",
        ];
        let fails = [
            "app=db",
            "app!=web",
            "app in (db)",
            "app notin (web)",
            "!app",
            "legacy",
            "app=web,legacy",
        ];
        for text in holds {
            assert!(
                LabelSelector::parse(text).unwrap().matches(&object),
                "{text}"
            );
        }
        for text in fails {
            assert!(
                !LabelSelector::parse(text).unwrap().matches(&object),
                "{text}"
            );
        }
        for text in ["app in web", "a b", "app in (web", "=x", "app>1"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn field_selectors_select_or_are_refused() {
        let pods = Resource::of_word("po").unwrap();
        let object = json!({"metadata": {"name": "a"}, "status": {"phase": "Running"}, "spec": {"nodeName": "n1"}});
        let matches =
            |text: &str| FieldSelector::parse(text, pods).map(|selector| selector.matches(&object));
        assert_eq!(
            matches("metadata.name=a,status.phase!=Pending,spec.nodeName==n1"),
            Ok(true)
        );
        assert_eq!(matches("status.phase=Pending"), Ok(false));
        assert_eq!(
            matches("spec.replicas=1"),
            Err(SelectorError::UnsupportedField("spec.replicas".to_owned()))
        );
        assert!(matches("status.phase").is_err());
    }
}
