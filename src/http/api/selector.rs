//! The `labelSelector` of a query.

use std::collections::BTreeMap;

use reconciler::object::{Operator, Requirement, Selector};
use thiserror::Error;

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

    /// Whether an object with these labels matches the selector; `None` is no label.
    pub(super) fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        match labels {
            Some(labels) => self.0.matches(labels),
            None => self.0.matches(&BTreeMap::new()),
        }
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn label_selectors_of_every_form_select_by_labels() {
        let labels = [("app", "web"), ("tier", "front")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
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
                LabelSelector::parse(text).unwrap().matches(Some(&labels)),
                "{text}"
            );
        }
        for text in fails {
            assert!(
                !LabelSelector::parse(text).unwrap().matches(Some(&labels)),
                "{text}"
            );
        }
        for text in ["app in web", "a b", "app in (web", "=x", "app>1"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }
}
