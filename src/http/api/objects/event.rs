//! Events: the recent starts, placements and failures of pods, and the commits that were refused or
//! have failed.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use reconciler::name::ObjectKey;
use runtime::LastOutput;

use super::{ApiKind, ApiObject, ObjectSource, Scope, count, escaped, meta};
use crate::view::{EventKind, EventView, View};

/// How long the failure of a container is an event: as long as Kubernetes keeps events.
pub(in crate::http::api) const LIFE: SignedDuration = SignedDuration::from_hours(1);

pub(super) fn all(source: &ObjectSource<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, ApiObject> {
    let mut shown = BTreeMap::new();
    let exits = source.view.last_outputs.iter();
    let exits = exits.filter_map(|output| exit(source.view, output));
    for event in source.view.events.iter().cloned().chain(exits) {
        let key = name(&event);
        if scope.has(&key) {
            let object = render(source, &key, &event);
            shown.insert(key, ApiObject::Event(Box::new(object)));
        }
    }
    shown
}

/// The failure of a container with what it printed, as an event; `None` if it is long ago.
fn exit(view: &View, output: &LastOutput) -> Option<EventView> {
    if view.at.duration_since(output.finished) > LIFE {
        return None;
    }
    let printed = match output.lines.is_empty() {
        true => "; it printed nothing".to_owned(),
        false => format!(": {}", output.one_line()),
    };
    Some(EventView {
        kind: EventKind::Pod,
        key: output.pod.clone(),
        uid: Some(output.uid.clone()),
        warning: true,
        reason: "Exited".to_owned(),
        message: format!(
            "container {} ended with exit code {}{}{printed}",
            output.container,
            output.code,
            if output.oom { ", out of memory" } else { "" }
        ),
        first: output.finished,
        last: output.finished,
        count: 1,
    })
}

/// The name of an event. A repeated event keeps its name, since it has the same first time and
/// message.
fn name(event: &EventView) -> ObjectKey {
    let namespace = if event.key.namespace.is_empty() {
        "default"
    } else {
        &event.key.namespace
    };
    let kind = kind(event).as_str();
    let text = format!("{kind}\0{}\0{}", event.reason, event.message);
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

fn kind(event: &EventView) -> ApiKind {
    match event.kind {
        EventKind::Pod => ApiKind::Pod,
        EventKind::Node => ApiKind::Node,
    }
}

/// All texts are foreign, messages of the engine among them.
fn render(source: &ObjectSource<'_>, key: &ObjectKey, event: &EventView) -> core::Event {
    let kind = kind(event);
    let involved_uid = match &event.uid {
        Some(uid) => uid.to_string(),
        None => meta::uid(source, kind.as_str(), &event.key),
    };
    let event_type = if event.warning { "Warning" } else { "Normal" };
    core::Event {
        metadata: ObjectMeta {
            name: Some(escaped(&key.name)),
            namespace: Some(escaped(&key.namespace)),
            creation_timestamp: Some(meta::time(event.first)),
            ..meta::derived(source, ApiKind::Event, key)
        },
        involved_object: core::ObjectReference {
            api_version: Some(kind.api_version().to_owned()),
            kind: Some(kind.as_str().to_owned()),
            namespace: match event.key.namespace.as_str() {
                "" => None,
                namespace => Some(escaped(namespace)),
            },
            name: Some(escaped(&event.key.name)),
            uid: Some(escaped(&involved_uid)),
            ..core::ObjectReference::default()
        },
        type_: Some(event_type.to_owned()),
        reason: Some(escaped(&event.reason)),
        message: Some(escaped(&event.message)),
        source: Some(core::EventSource {
            component: Some("windlass".to_owned()),
            host: Some(escaped(source.view.node.as_str())),
        }),
        first_timestamp: Some(meta::time(event.first)),
        last_timestamp: Some(meta::time(event.last)),
        count: Some(count(event.count)),
        ..core::Event::default()
    }
}
