//! The `metadata` of objects: the manifest's fields, with those that a cluster adds.

use std::collections::BTreeMap;

use jiff::Timestamp;
use reconciler::{name::ObjectKey, object::ObjectId};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::ObjectSource;

/// The annotation with the commit that an object was read from.
pub(super) const COMMIT_ANNOTATION: &str = "windlass/commit";
/// The annotation with the file and line that an object was read from.
pub(super) const PLACE_ANNOTATION: &str = "windlass/place";

/// A manifest of the driving commit with complete `metadata`.
pub(super) fn filled(source: &ObjectSource<'_>, id: &ObjectId, original: &Value) -> Value {
    let mut object = original.clone();
    if !object.is_object() {
        object = json!({});
    }
    object["apiVersion"] = json!(id.api_version);
    object["kind"] = json!(id.kind);
    let metadata = section(&mut object, "metadata");
    for server_set in [
        "resourceVersion",
        "managedFields",
        "selfLink",
        "generateName",
    ] {
        metadata.remove(server_set);
    }
    metadata.insert("name".to_owned(), json!(id.key.name));
    if !id.key.namespace.is_empty() {
        metadata.insert("namespace".to_owned(), json!(id.key.namespace));
    }
    metadata.insert("uid".to_owned(), json!(uid(source, &id.kind, &id.key)));
    metadata.insert("generation".to_owned(), json!(1));
    if let Some(created) = created(source, id) {
        metadata.insert("creationTimestamp".to_owned(), json!(time(created)));
    }
    annotate(source, id, &mut object);
    object
}

fn annotate(source: &ObjectSource<'_>, id: &ObjectId, object: &mut Value) {
    let Some(commit) = source.driving else {
        return;
    };
    let place = commit
        .objects
        .places
        .get(id)
        .map(|place| format!("{}:{}", place.file, place.line));
    let Some(metadata) = object.get_mut("metadata") else {
        return;
    };
    let annotations = section(metadata, "annotations");
    annotations.insert(COMMIT_ANNOTATION.to_owned(), json!(commit.id));
    if let Some(place) = place {
        annotations.insert(PLACE_ANNOTATION.to_owned(), json!(place));
    }
}

/// An object inside of an object; an empty one is inserted if it is missing.
pub(super) fn section<'v>(object: &'v mut Value, name: &str) -> &'v mut Map<String, Value> {
    if !object[name].is_object() {
        object[name] = json!({});
    }
    let Value::Object(map) = &mut object[name] else {
        unreachable!("it was just made an object")
    };
    map
}

/// Sets a field that the manifest leaves to its default.
pub(super) fn default(object: &mut Value, section_name: &str, field: &str, value: Value) {
    let section = section(object, section_name);
    if section.get(field).is_none_or(Value::is_null) {
        section.insert(field.to_owned(), value);
    }
}

/// The creation time of an object: the committer's time of the earliest known commit that has the
/// object.
fn created(source: &ObjectSource<'_>, id: &ObjectId) -> Option<Timestamp> {
    let having = source
        .view
        .commits
        .values()
        .filter(|commit| commit.objects.originals.contains_key(id));
    having.map(|commit| commit.time).min()
}

/// A uid that is the same on every host and after every restart: a hash of the cluster, the kind
/// and the name.
pub(super) fn uid(source: &ObjectSource<'_>, kind: &str, key: &ObjectKey) -> String {
    let text = format!(
        "{}\0{kind}\0{}\0{}",
        source.view.state.cluster, key.namespace, key.name
    );
    let hash = digest(&SHA256, text.as_bytes());
    let hex: String = hash
        .as_ref()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // Version 8 of RFC 9562 leaves the content to the application; variant 10.
    format!(
        "{}-{}-8{}-a{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    )
}

/// The `metadata.ownerReferences` of an object with one controlling owner.
pub(super) fn owner_reference(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!([{
        "apiVersion": api_version,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": true,
        "blockOwnerDeletion": true,
    }])
}

/// The labels of a pod or of the ReplicaSet that a Deployment implies.
pub(super) fn with_template_hash(
    labels: &BTreeMap<String, String>,
    hash: &str,
) -> BTreeMap<String, String> {
    let mut labels = labels.clone();
    labels.insert("pod-template-hash".to_owned(), hash.to_owned());
    labels
}

/// A time in Kubernetes' form, in whole seconds.
pub(super) fn time(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}
