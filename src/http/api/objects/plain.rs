//! ConfigMaps, Secrets without their values, Namespaces.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    ByteString, api::core::v1 as core, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use reconciler::{
    name::ObjectKey,
    object::{ObjectId, Original, Secret},
};

use super::{ApiKind, ApiObject, ObjectSource, Scope, meta};

/// All ConfigMaps, as written.
pub(super) fn config_maps(
    source: &ObjectSource<'_>,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, ApiObject> {
    let mut shown = BTreeMap::new();
    for (id, original) in source.originals(scope) {
        if let Original::ConfigMap(written) = original {
            let mut map = written.clone();
            meta::complete(source, id, &mut map.metadata);
            shown.insert(id.key.clone(), ApiObject::ConfigMap(map));
        }
    }
    shown
}

/// All Secrets: their keys without their values, whatever form the manifest has.
pub(super) fn secrets(
    source: &ObjectSource<'_>,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, ApiObject> {
    let mut shown = BTreeMap::new();
    for (id, original) in source.originals(scope) {
        if let Original::Secret(written) = original {
            let objects = source.objects();
            let secret = objects.and_then(|objects| objects.secrets.get(&id.key));
            let mut metadata = written.metadata.clone();
            // An annotation such as `last-applied-configuration` can contain a value.
            metadata.annotations = None;
            meta::complete(source, id, &mut metadata);
            let secret = without_values(metadata, secret);
            shown.insert(id.key.clone(), ApiObject::Secret(Box::new(secret)));
        }
    }
    shown
}

/// The Secret with the names of its values only.
fn without_values(mut metadata: ObjectMeta, secret: Option<&Secret>) -> core::Secret {
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert("windlass.dev/values".to_owned(), "never shown".to_owned());

    let keys = secret.into_iter().flat_map(|secret| secret.data.keys());
    let kind = secret.map_or("Opaque", |secret| secret.kind.as_str());
    core::Secret {
        metadata,
        type_: Some(kind.to_owned()),
        data: Some(
            keys.map(|key| (key.clone(), ByteString::default()))
                .collect(),
        ),
        ..core::Secret::default()
    }
}

/// Namespaces with a manifest, and those that only other objects name.
pub(super) fn namespaces(
    source: &ObjectSource<'_>,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, ApiObject> {
    let mut names: BTreeSet<&str> = BTreeSet::from(["default"]);
    if let Some(objects) = source.objects() {
        for (id, original) in &objects.originals {
            names.insert(match original {
                Original::Namespace(_) => &id.key.name,
                _ => &id.key.namespace,
            });
        }
        // The namespace of objects that have none, such as Nodes.
        names.remove("");
    }
    let records = source.view.state.pods.values();
    names.extend(records.map(|record| record.key.namespace.as_str()));

    names
        .into_iter()
        .filter(|name| scope.name.is_none_or(|wanted| wanted == *name))
        .map(|name| {
            let key = ObjectKey::new("", name);
            let object = namespace(source, &key);
            (key, ApiObject::Namespace(Box::new(object)))
        })
        .collect()
}

fn namespace(source: &ObjectSource<'_>, key: &ObjectKey) -> core::Namespace {
    let id = ObjectId {
        api_version: ApiKind::Namespace.api_version().to_owned(),
        kind: ApiKind::Namespace.as_str().to_owned(),
        key: key.clone(),
    };
    let objects = source.objects();
    let written = objects.and_then(|objects| objects.originals.get(&id));
    let mut namespace = match written {
        Some(Original::Namespace(written)) => {
            let mut namespace = core::Namespace::clone(written);
            meta::complete(source, &id, &mut namespace.metadata);
            namespace
        }
        _ => core::Namespace {
            metadata: meta::derived(source, ApiKind::Namespace, key),
            ..core::Namespace::default()
        },
    };
    let labels = namespace.metadata.labels.get_or_insert_default();
    labels.insert("kubernetes.io/metadata.name".to_owned(), key.name.clone());
    namespace.status = Some(core::NamespaceStatus {
        phase: Some("Active".to_owned()),
        ..core::NamespaceStatus::default()
    });
    namespace
}
