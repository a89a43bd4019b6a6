//! The hash of a pod template as it was written in the manifest.

use std::fmt::Write;

use ring::digest;
use serde_json::{Map, Value};

use crate::name::TemplateHash;

/// Version of this algorithm: the first eight bytes of SHA-256 over canonical JSON.
const ALGORITHM: u32 = 1;

/// The hash of a controller's template (`spec.template`), or of a bare pod's labels, annotations
/// and `spec`.
pub(super) fn template_hash(document: &Value) -> TemplateHash {
    match document.pointer("/spec/template") {
        Some(template) => hash(template),
        None => {
            let mut pod = Map::new();
            for (name, pointer) in [
                ("annotations", "/metadata/annotations"),
                ("labels", "/metadata/labels"),
                ("spec", "/spec"),
            ] {
                pod.insert(
                    name.to_owned(),
                    document.pointer(pointer).cloned().unwrap_or_default(),
                );
            }
            hash(&Value::Object(pod))
        }
    }
}

fn hash(value: &Value) -> TemplateHash {
    let mut text = String::new();
    canonical(value, &mut text);
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut hash = format!("{ALGORITHM}-");
    for byte in digest.as_ref().iter().take(8) {
        // Writing to a `String` cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    TemplateHash::new(hash)
}

/// Writes JSON without spaces, with keys sorted by their bytes: the order of serde_json's maps
/// depends on features of the build.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            let mut entries: Vec<(&String, &Value)> = entries.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                let _ = write!(out, "{}:", Value::from(key.as_str()));
                canonical(value, out);
            }
            out.push('}');
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hash_is_fixed_for_ever() {
        let document =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}}});
        let mut text = String::new();
        canonical(&document["spec"]["template"], &mut text);
        assert_eq!(
            text,
            r#"{"spec":{"containers":[{"image":"b","name":"a"}]}}"#
        );
        assert_eq!(template_hash(&document).as_str(), "1-19a178640df61c0f");

        let mut text = String::new();
        canonical(&json!({"b": ["x", 2, null], "a": [], "\"": {}}), &mut text);
        assert_eq!(text, r#"{"\"":{},"a":[],"b":["x",2,null]}"#);
    }

    #[test]
    fn a_bare_pod_hashes_what_makes_its_pod_and_not_its_name() {
        let pod = |name: &str, label: &str| {
            template_hash(
                &json!({"metadata": {"name": name, "labels": {"a": label}}, "spec": {"containers": []}}),
            )
        };
        assert_eq!(pod("x", "1"), pod("y", "1"));
        assert_ne!(pod("x", "1"), pod("x", "2"));
    }
}
