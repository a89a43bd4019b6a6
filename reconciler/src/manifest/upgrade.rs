//! Upgrades parsed documents of old API groups to the current ones, with the old groups' defaults.

use serde_json::{Map, Value, json};

use super::at::At;

/// The value that means "no deadline" in `apps/v1`, as in the API server.
pub(super) const NO_DEADLINE: i32 = i32::MAX;

/// Writes out the defaults in which an old group differs from `apps/v1`, and removes fields that
/// only the old group had.
pub(super) fn upgrade(document: &mut Value, kind: &str, from: &str, to: &str, at: &At<'_>) {
    if from == to {
        return;
    }

    document["apiVersion"] = Value::from(to);
    let at = at.field("spec");
    let Some(spec) = document.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    for (field, why) in [
        ("rollbackTo", "Git is what rolls back; revert the commit"),
        (
            "templateGeneration",
            "pods are distinguished by their template itself",
        ),
    ] {
        at.field(field).ignore(spec.remove(field).is_some(), why);
    }

    let selects_by_default = matches!(from, "extensions/v1beta1" | "apps/v1beta1");
    if selects_by_default {
        select_template_labels(spec);
    }
    match (kind, from) {
        ("Deployment", "extensions/v1beta1") => {
            default(spec, "progressDeadlineSeconds", NO_DEADLINE.into());
            roll_one_by_one(spec);
        }
        ("DaemonSet", "extensions/v1beta1") => {
            if let Some(strategy) = object(spec, "updateStrategy") {
                default(strategy, "type", "OnDelete".into());
            }
        }
        _ => {}
    }
}

/// A missing selector becomes the labels of the template.
fn select_template_labels(spec: &mut Map<String, Value>) {
    if spec
        .get("selector")
        .is_some_and(|selector| !selector.is_null())
    {
        return;
    }
    if let Some(labels) = spec
        .get("template")
        .and_then(|template| template.pointer("/metadata/labels"))
    {
        let selector = json!({ "matchLabels": labels });
        spec.insert("selector".to_owned(), selector);
    }
}

/// Sets maxSurge and maxUnavailable to 1, the old default; that of `apps/v1` is 25%.
fn roll_one_by_one(spec: &mut Map<String, Value>) {
    let Some(strategy) = object(spec, "strategy") else {
        return;
    };
    let rolling = strategy
        .get("type")
        .is_none_or(|kind| kind.is_null() || kind == "RollingUpdate");
    // Only looked up in this case, since the lookup creates the mapping, which is invalid with
    // Recreate.
    if rolling && let Some(update) = object(strategy, "rollingUpdate") {
        default(update, "maxSurge", 1.into());
        default(update, "maxUnavailable", 1.into());
    }
}

/// The mapping under a key; created if missing, `None` if the value is of another type.
fn object<'a>(parent: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    default(parent, key, json!({}));
    parent.get_mut(key).and_then(Value::as_object_mut)
}

fn default(parent: &mut Map<String, Value>, key: &str, value: Value) {
    if parent.get(key).is_none_or(Value::is_null) {
        parent.insert(key.to_owned(), value);
    }
}
