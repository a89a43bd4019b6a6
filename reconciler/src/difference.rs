//! What differs between the objects of two commits, per object and field, for people. Values of
//! Secrets are compared and never shown.

mod fields;
mod text;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use self::fields::FieldDifference;
use crate::{
    foreign::ForeignText,
    manifest::{Problem, Severity},
    object::{ManifestPosition, ObjectId, Objects, Original},
};

/// Maximum number of fields that are listed for one object.
const FIELDS_OF_OBJECT: usize = 60;
/// Maximum number of fields that are listed for all objects together.
const FIELDS: usize = 2000;

/// An object that differs between two commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectDifference {
    /// How the object differs.
    pub difference: DifferenceKind,
    /// The object's kind, such as `Deployment`.
    pub kind: String,
    /// The object's namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object's manifest: in the later commit, or in the earlier one if the object was deleted.
    pub position: Option<ManifestPosition>,
    /// The fields that differ, in the order of the manifest's lists and otherwise by name. Empty
    /// for an object that is deleted or cannot be read.
    pub fields: Vec<FieldDifference>,
    /// Number of further fields that differ and are not listed.
    pub more_fields: usize,
}

/// How an object differs between two commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DifferenceKind {
    /// Only the earlier commit contains the object.
    Deleted,
    /// Only the earlier commit contains the object, and the later commit has errors that may hide
    /// it: the object may be deleted or not.
    Unreadable,
    /// Both commits contain the object, with other fields.
    Changed,
    /// Only the later commit contains the object.
    Added,
}

/// What could not be read of a refused commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// The files with errors.
    files: BTreeSet<String>,
    /// The fields with errors, by their files and without the elements of lists.
    fields: BTreeSet<(String, String)>,
    /// Whether a document could not be read at all, so that it may contain any object.
    any_document: bool,
}

/// The new value of a field whose value is not valid: what was read of it is a default.
const NOT_VALID: &str = "(not valid)";

impl Unread {
    /// What these problems keep from being read.
    pub fn of(problems: &[Problem]) -> Self {
        let errors = || {
            problems
                .iter()
                .filter(|problem| problem.severity == Severity::Error)
        };
        Self {
            files: errors().map(|problem| problem.file.clone()).collect(),
            fields: errors()
                .map(|problem| (problem.file.clone(), without_elements(&problem.field)))
                .collect(),
            any_document: errors().any(|problem| problem.field.is_empty()),
        }
    }

    /// Replaces the values that are not valid.
    fn mark(&self, position: Option<&ManifestPosition>, fields: &mut [FieldDifference]) {
        let Some(position) = position.filter(|position| self.files.contains(&position.file)) else {
            return;
        };
        for field in fields {
            let key = (position.file.clone(), without_elements(&field.field));
            if self.fields.contains(&key) {
                field.new = vec![NOT_VALID.to_owned()];
            }
        }
    }

    fn may_hide(&self, position: Option<&ManifestPosition>) -> bool {
        self.any_document || position.is_some_and(|position| self.files.contains(&position.file))
    }
}

/// A field's path without the names and numbers of list elements, which differ between a problem and
/// a difference.
fn without_elements(field: &str) -> String {
    let mut path = String::new();
    let mut depth = 0_usize;
    for c in field.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            c if depth == 0 => path.push(c),
            _ => {}
        }
    }
    path
}

/// The objects that differ: the deleted ones first, then those that cannot be read, then the
/// changed ones, then the new ones, each group by kind and name. `unread` is what could not be read
/// of the later commit.
pub fn differences(before: &Objects, after: &Objects, unread: &Unread) -> Vec<ObjectDifference> {
    let ids: BTreeSet<&ObjectId> = before
        .originals
        .keys()
        .chain(after.originals.keys())
        .collect();
    let mut found: Vec<ObjectDifference> = ids
        .into_iter()
        .filter_map(|id| difference(id, before, after, unread))
        .collect();
    found.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));

    let mut left = FIELDS;
    for one in &mut found {
        let listed = one.fields.len().min(FIELDS_OF_OBJECT).min(left);
        one.more_fields = one.fields.len() - listed;
        one.fields.truncate(listed);
        left -= listed;
    }
    found
}

fn sort_key(one: &ObjectDifference) -> (DifferenceKind, &str, &str, &str) {
    (one.difference, &one.kind, &one.namespace, &one.name)
}

fn difference(
    id: &ObjectId,
    before: &Objects,
    after: &Objects,
    unread: &Unread,
) -> Option<ObjectDifference> {
    let (old, new) = (before.originals.get(id), after.originals.get(id));
    let earlier = before.positions.get(id);
    let (difference, position, mut fields) = match (old, new) {
        (Some(old), Some(new)) => {
            let fields = changed_fields(id, (before, old), (after, new));
            if fields.is_empty() {
                return None;
            }
            (DifferenceKind::Changed, after.positions.get(id), fields)
        }
        (Some(_), None) if unread.may_hide(earlier) => {
            (DifferenceKind::Unreadable, earlier, Vec::new())
        }
        (Some(_), None) => (DifferenceKind::Deleted, earlier, Vec::new()),
        (None, Some(new)) => {
            let mut fields = fields::compare(None, Some(&new.to_value()));
            // The heading of the object names these.
            let in_heading = ["apiVersion", "kind", "metadata.name", "metadata.namespace"];
            fields.retain(|field| {
                !in_heading.contains(&field.field.as_str()) && !is_secret_value(new, field)
            });
            fields.extend(secret_values(id, None, after));
            (DifferenceKind::Added, after.positions.get(id), fields)
        }
        (None, None) => return None,
    };
    unread.mark(position, &mut fields);
    let printable = |text: &str| ForeignText::new(text).into();
    Some(ObjectDifference {
        difference,
        kind: id.kind.clone(),
        namespace: printable(&id.key.namespace),
        name: printable(&id.key.name),
        position: position.map(|position| ManifestPosition {
            file: printable(&position.file),
            line: position.line,
        }),
        fields,
        more_fields: 0,
    })
}

fn changed_fields(
    id: &ObjectId,
    (before, old): (&Objects, &Original),
    (after, new): (&Objects, &Original),
) -> Vec<FieldDifference> {
    let mut fields = match old == new {
        true => Vec::new(),
        false => fields::compare(Some(&old.to_value()), Some(&new.to_value())),
    };
    fields.retain(|field| !is_secret_value(new, field));
    fields.extend(secret_values(id, Some(before), after));
    fields
}

/// Whether a field is a value of a Secret: these are compared by [`secret_values`], since the
/// manifest that is shown has no values.
fn is_secret_value(original: &Original, field: &FieldDifference) -> bool {
    let mut parts = field.field.split(['.', '[']);
    matches!(original, Original::Secret(_)) && matches!(parts.next(), Some("data" | "stringData"))
}

/// The keys of a Secret whose values differ, without the values.
fn secret_values(id: &ObjectId, before: Option<&Objects>, after: &Objects) -> Vec<FieldDifference> {
    if id.kind != "Secret" {
        return Vec::new();
    }
    let of = |objects: &Objects| {
        let secret = objects.secrets.get(&id.key);
        secret.map(|secret| secret.data.clone()).unwrap_or_default()
    };
    let (old, new) = (before.map(of).unwrap_or_default(), of(after));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| {
            let (is_old, is_new) = (old.contains_key(key), new.contains_key(key));
            let shown = |is_there: bool, text: &str| match is_there {
                true => vec![text.to_owned()],
                false => Vec::new(),
            };
            let other = if is_old {
                "(hidden, differs)"
            } else {
                "(hidden)"
            };
            FieldDifference {
                field: format!("data{}", text::part(key)),
                line: None,
                old: shown(is_old, "(hidden)"),
                new: shown(is_new, other),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
