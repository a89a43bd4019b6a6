//! `${NAME}` in manifests: a placeholder that Flux's postBuild and envsubst replace, and Windlass
//! does not.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{at::At, one_line};

/// Longer names are shortened: the name only helps the author to locate the placeholder.
const NAME: usize = 60;
/// Maximum number of fields with placeholders that are recorded for one document.
const FIELDS: usize = 10_000;

/// The fields of a document whose key or value contains a placeholder, by their path.
#[derive(Default)]
pub(super) struct Placeholders {
    names: BTreeMap<String, String>,
}

impl Placeholders {
    /// Searches a whole document.
    pub(super) fn of(document: &Value, root: &At<'_>) -> Self {
        let mut found = Self::default();
        found.look(document, "", root);
        found
    }

    /// The remark for a field that contains a placeholder; `None` if it contains none.
    pub(super) fn at(&self, field: &str) -> Option<String> {
        self.names.get(field).map(|name| not_substituted(name))
    }

    fn look(&mut self, value: &Value, key: &str, at: &At<'_>) {
        let text = value.as_str().unwrap_or_default();
        if let Some(name) = first_in(text).or_else(|| first_in(key))
            && self.names.len() < FIELDS
        {
            self.names
                .insert(one_line(&at.to_string()), name.to_owned());
        }
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.look(item, "", &at.index(index));
                }
            }
            Value::Object(entries) => {
                for (key, entry) in entries {
                    self.look(entry, key, &at.field(key));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// The remark for an unreadable line that contains a placeholder; `None` if it contains none.
pub(super) fn in_line(line: &str) -> Option<String> {
    first_in(line).map(not_substituted)
}

fn not_substituted(name: &str) -> String {
    format!(
        "`${{{name}}}` is not substituted here: commit the manifest with the value in its place, as `flux build` or \
         envsubst print it"
    )
}

/// The name in the first `${NAME}`, `${NAME:-default}` or similar. The default is not shown, since
/// it may be a secret.
fn first_in(text: &str) -> Option<&str> {
    text.match_indices("${").find_map(|(start, opening)| {
        let rest = &text[start + opening.len()..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let name = &rest[..end];
        let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        // Bash allows more forms after the name, such as `${NAME%.*}`; all of them end with a
        // brace.
        if begins && rest[end..].contains('}') {
            Some(&name[..name.len().min(NAME)])
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{ReadAs, at::Report};

    #[test]
    fn ten_thousand_fields_of_a_document_are_recorded() {
        let report = Report::new("a.yaml", 1, ReadAs::NewHead);
        let recorded = |fields: usize| {
            let document = Value::from(vec!["${A}"; fields]);
            Placeholders::of(&document, &report.root()).names.len()
        };
        assert_eq!(
            [9_999, 10_000, 10_001].map(recorded),
            [9_999, 10_000, 10_000]
        );
    }

    #[test]
    fn names_of_placeholders_are_found_without_their_defaults() {
        for (text, expected) in [
            ("${APP}", Some("APP")),
            ("web-${APP:-secret}.example.com", Some("APP")),
            ("${_a1}${B}", Some("_a1")),
            ("$(APP) ${} ${1} ${APP", None),
            ("$APP", None),
            ("{{ .Values.app }}", None),
            ("${} ${B}", Some("B")),
        ] {
            assert_eq!(first_in(text), expected, "{text}");
        }
    }
}
