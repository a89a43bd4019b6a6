//! Events: the recent starts, placements and failures of pods.

use std::collections::BTreeMap;

use reconciler::{foreign, name::ObjectKey};
use serde_json::{Value, json};

use super::{ObjectSource, Scope, meta};
use crate::view::EventView;

pub(super) fn all(source: &ObjectSource<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, Value> {
    let events = source.view.events.iter();
    let named = events
        .map(|event| (name(event), event))
        .filter(|(key, _)| scope.has(key));
    named
        .map(|(key, event)| {
            let object = render(source, &key, event);
            (key, object)
        })
        .collect()
}

/// The name of an event. A repeated event keeps its name, since it has the same first time and
/// message.
fn name(event: &EventView) -> ObjectKey {
    let namespace = if event.key.namespace.is_empty() {
        "default"
    } else {
        &event.key.namespace
    };
    let text = format!("{}\0{}\0{}", event.kind, event.reason, event.message);
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let digits: String = hash
        .as_ref()
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    ObjectKey::new(
        namespace,
        format!(
            "{}.{:x}{digits}",
            event.key.name,
            event.first.as_millisecond()
        ),
    )
}

fn render(source: &ObjectSource<'_>, key: &ObjectKey, event: &EventView) -> Value {
    let api_version = match event.kind.as_str() {
        "Deployment" | "ReplicaSet" | "DaemonSet" => "apps/v1",
        _ => "v1",
    };
    let uid = event.uid.as_ref().map(ToString::to_string);
    let about = uid.unwrap_or_else(|| meta::uid(source, &event.kind, &event.key));
    let mut event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "uid": meta::uid(source, "Event", key),
            "creationTimestamp": meta::time(event.first),
        },
        "involvedObject": {
            "apiVersion": api_version,
            "kind": event.kind,
            "namespace": event.key.namespace,
            "name": event.key.name,
            "uid": about,
        },
        "type": if event.warning { "Warning" } else { "Normal" },
        "reason": event.reason,
        "message": event.message,
        "source": { "component": "windlass", "host": source.view.node },
        "firstTimestamp": meta::time(event.first),
        "lastTimestamp": meta::time(event.last),
        "count": event.count,
    });
    // `kubectl describe` prints messages unescaped.
    foreign::escape_value(&mut event);
    event
}
