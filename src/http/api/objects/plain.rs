//! ConfigMaps, Secrets without their values, Namespaces.

use std::collections::{BTreeMap, BTreeSet};

use reconciler::{
    name::ObjectKey,
    object::{ObjectId, Secret},
};
use serde_json::{Value, json};

use super::{ObjectSource, Scope, meta};

/// All ConfigMaps, as written.
pub(super) fn config_maps(
    source: &ObjectSource<'_>,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, Value> {
    let originals = source
        .originals("v1", "ConfigMap")
        .filter(|(id, _)| scope.has(&id.key));
    originals
        .map(|(id, original)| (id.key.clone(), meta::filled(source, id, original)))
        .collect()
}

/// All Secrets: their keys without their values, whatever form the manifest has.
pub(super) fn secrets(source: &ObjectSource<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, Value> {
    let originals = source
        .originals("v1", "Secret")
        .filter(|(id, _)| scope.has(&id.key));
    let render = |(id, original): (&ObjectId, &Value)| {
        let secret = source
            .objects()
            .and_then(|objects| objects.secrets.get(&id.key));
        (
            id.key.clone(),
            without_values(meta::filled(source, id, original), secret),
        )
    };
    originals.map(render).collect()
}

/// Copies only fields that cannot contain a value. An annotation such as
/// `last-applied-configuration` can.
fn without_values(object: Value, secret: Option<&Secret>) -> Value {
    let keys = secret.into_iter().flat_map(|secret| secret.data.keys());
    let data: BTreeMap<&str, &str> = keys.map(|key| (key.as_str(), "")).collect();
    let kind = secret.map_or("Opaque", |secret| secret.kind.as_str());
    let mut metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    let annotations = meta::section(&mut metadata, "annotations");
    annotations.retain(|key, _| key.starts_with("windlass/"));
    annotations.insert("windlass/values".to_owned(), json!("never shown"));
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data })
}

/// Namespaces with a manifest, and those that only other objects name.
pub(super) fn namespaces(
    source: &ObjectSource<'_>,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, Value> {
    let mut names: BTreeSet<&str> = BTreeSet::from(["default"]);
    if let Some(objects) = source.objects() {
        let written = objects.originals.keys().filter(|id| id.kind == "Namespace");
        names.extend(written.map(|id| id.key.name.as_str()));
        let used = objects.originals.keys().map(|id| id.key.namespace.as_str());
        names.extend(used.filter(|namespace| !namespace.is_empty()));
    }
    names.extend(
        source
            .view
            .state
            .pods
            .values()
            .map(|record| record.key.namespace.as_str()),
    );
    names
        .into_iter()
        .map(|name| ObjectKey::new("", name))
        .filter(|key| scope.name.is_none_or(|name| name == key.name))
        .map(|key| (key.clone(), namespace(source, key)))
        .collect()
}

fn namespace(source: &ObjectSource<'_>, key: ObjectKey) -> Value {
    let id = ObjectId {
        api_version: "v1".to_owned(),
        kind: "Namespace".to_owned(),
        key,
    };
    let written = source
        .objects()
        .and_then(|objects| objects.originals.get(&id));
    let mut object = match written {
        Some(original) => meta::filled(source, &id, original),
        None => {
            let uid = meta::uid(source, "Namespace", &id.key);
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": id.key.name, "uid": uid } })
        }
    };
    meta::section(&mut object["metadata"], "labels")
        .insert("kubernetes.io/metadata.name".to_owned(), json!(id.key.name));
    object["status"] = json!({ "phase": "Active" });
    object
}
