//! Compares two manifests field by field.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::text;

/// The fields that identify an element of a list, most specific first. Kubernetes merges most lists
/// by one of them.
const IDENTITIES: [&str; 7] = [
    "name",
    "mountPath",
    "containerPort",
    "port",
    "key",
    "topologyKey",
    "ip",
];

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldDifference {
    /// The path of the field, such as `spec.template.spec.containers[web].image`. Elements of lists
    /// are named by what identifies them, or by their index. The order of a list is
    /// `containers (order)`.
    pub field: String,
    /// The number of the first line that differs, counted from 1, in a value of several lines.
    pub line: Option<u32>,
    /// The earlier value, or its lines that differ; empty if the field was absent.
    pub old: Vec<String>,
    /// The later value, or its lines that differ; empty if the field is absent.
    pub new: Vec<String>,
}

/// The fields that differ between two manifests.
pub(super) fn compare(old: Option<&Value>, new: Option<&Value>) -> Vec<FieldDifference> {
    let mut found = Vec::new();
    descend("", old, new, &mut found);
    found
}

/// Compares two values of one field. The nesting is bounded by that of manifests.
fn descend(path: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<FieldDifference>) {
    if old == new {
        return;
    }
    if let (Some(old), Some(new)) = (entries(old), entries(new)) {
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let field = format!("{path}{}", text::part(key));
            let field = field.trim_start_matches('.');
            descend(field, old.get(key.as_str()), new.get(key.as_str()), found);
        }
    } else if let (Some(old), Some(new)) = (elements(old), elements(new)) {
        compare_lists(path, &old, &new, found);
    } else {
        found.push(leaf(path, old, new));
    }
}

/// The entries of a map; those of an absent field are none.
fn entries(value: Option<&Value>) -> Option<Map<String, Value>> {
    match value {
        None => Some(Map::new()),
        Some(Value::Object(entries)) if !entries.is_empty() => Some(entries.clone()),
        Some(_) => None,
    }
}

/// The elements of a list of maps; those of an absent field are none.
fn elements(value: Option<&Value>) -> Option<Vec<&Value>> {
    match value {
        None => Some(Vec::new()),
        Some(Value::Array(elements))
            if !elements.is_empty() && elements.iter().all(Value::is_object) =>
        {
            Some(elements.iter().collect())
        }
        Some(_) => None,
    }
}

fn compare_lists(path: &str, old: &[&Value], new: &[&Value], found: &mut Vec<FieldDifference>) {
    let named = IDENTITIES
        .iter()
        .find_map(|identity| Some((names(old, identity)?, names(new, identity)?)));
    let is_named = named.is_some();
    let numbers = |list: &[&Value]| (0..list.len()).map(|index| index.to_string()).collect();
    let (old_names, new_names): (Vec<String>, Vec<String>) =
        named.unwrap_or_else(|| (numbers(old), numbers(new)));

    let by_name = |names: &[String], list: &[&'_ Value]| -> BTreeMap<String, Value> {
        let values = list.iter().map(|value| (*value).clone());
        names.iter().cloned().zip(values).collect()
    };
    let (olds, news) = (by_name(&old_names, old), by_name(&new_names, new));
    let added = new_names.iter().filter(|name| !olds.contains_key(*name));
    for name in old_names.iter().chain(added) {
        let field = format!("{path}{}", text::element(name));
        descend(&field, olds.get(name), news.get(name), found);
    }

    let common = |names: &[String], other: &BTreeMap<String, Value>| -> Vec<String> {
        let names = names.iter().filter(|name| other.contains_key(*name));
        names.cloned().collect()
    };
    let (before, after) = (common(&old_names, &news), common(&new_names, &olds));
    if is_named && before != after {
        found.push(FieldDifference {
            field: format!("{path} (order)"),
            line: None,
            old: vec![text::value(&before.into())],
            new: vec![text::value(&after.into())],
        });
    }
}

/// The names of a list's elements, if the field names each of them and no two of them alike.
fn names(list: &[&Value], identity: &str) -> Option<Vec<String>> {
    let name = |element: &&Value| match element.get(identity)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let names: Vec<String> = list.iter().map(name).collect::<Option<_>>()?;
    let distinct: BTreeSet<&String> = names.iter().collect();
    (distinct.len() == names.len()).then_some(names)
}

fn leaf(path: &str, old: Option<&Value>, new: Option<&Value>) -> FieldDifference {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let has_lines = |value: Option<&Value>| text(value).is_some_and(|text| text.contains('\n'));
    let (line, old, new) = match (text(old), text(new)) {
        (Some(before), Some(after)) if has_lines(old) || has_lines(new) => {
            let (line, before, after) = text::lines(&before, &after);
            (Some(line), before, after)
        }
        (before, after) if has_lines(old) || has_lines(new) => {
            let shown = |text: Option<String>, value: Option<&Value>| match text {
                Some(text) => text::shown(&text.lines().collect::<Vec<_>>()),
                None => value.map(text::value).into_iter().collect(),
            };
            (Some(1), shown(before, old), shown(after, new))
        }
        _ => {
            let shown = |value: Option<&Value>| value.map(text::value).into_iter().collect();
            (None, shown(old), shown(new))
        }
    };
    FieldDifference {
        field: path.to_owned(),
        line,
        old,
        new,
    }
}
