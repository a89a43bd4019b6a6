//! `metadata` of objects and of pod templates.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{manifest::at::At, name::ObjectKey, object::Meta, syntax};

/// Why fields that an API server fills in are ignored.
const SERVERS: &str = "only an API server writes this";

/// The rules for the name of an object.
#[derive(Clone, Copy)]
pub(in crate::manifest) enum Named {
    /// A DNS subdomain (RFC 1123); the object is namespaced.
    Subdomain,
    /// An RFC 1035 label; the object is namespaced.
    Service,
    /// A DNS label (RFC 1123); the object is not namespaced.
    Namespace,
    /// A DNS subdomain (RFC 1123); the object is not namespaced.
    Node,
}

/// `metadata` of an object; `at` is the position of the document.
pub(in crate::manifest) fn object_meta(
    metadata: ObjectMeta,
    named: Named,
    at: &At<'_>,
) -> (ObjectKey, Meta) {
    let at = at.field("metadata");
    let (name, namespace, meta) = name_and_meta(metadata, &at);

    let syntax = match named {
        Named::Subdomain | Named::Node => syntax::subdomain,
        Named::Service => syntax::service_name,
        Named::Namespace => syntax::label,
    };
    let name = at.field("name").checked(name.unwrap_or_default(), syntax);

    let namespaced = matches!(named, Named::Subdomain | Named::Service);
    let namespace = if namespaced {
        at.field("namespace")
            .optional(namespace, syntax::label)
            .unwrap_or_else(|| "default".to_owned())
    } else {
        at.field("namespace")
            .ignore(namespace.is_some(), "this kind is in no namespace");
        String::new()
    };
    (ObjectKey::new(namespace, name), meta)
}

/// `metadata` of a pod template.
pub(super) fn template_meta(metadata: Option<ObjectMeta>, at: &At<'_>) -> Meta {
    let (name, namespace, meta) = name_and_meta(metadata.unwrap_or_default(), at);
    at.field("name")
        .ignore(name.is_some(), "pods are named after their owner");
    at.field("namespace").ignore(
        namespace.is_some(),
        "pods are in the namespace of their owner",
    );
    meta
}

/// The name and the namespace as written, and what is kept of the rest.
fn name_and_meta(metadata: ObjectMeta, at: &At<'_>) -> (Option<String>, Option<String>, Meta) {
    let ObjectMeta {
        annotations,
        creation_timestamp,
        deletion_grace_period_seconds,
        deletion_timestamp,
        finalizers,
        generate_name,
        generation,
        labels,
        managed_fields,
        name,
        namespace,
        owner_references,
        resource_version,
        self_link,
        uid,
    } = metadata;

    for (field, given) in [
        ("creationTimestamp", creation_timestamp.is_some()),
        (
            "deletionGracePeriodSeconds",
            deletion_grace_period_seconds.is_some(),
        ),
        ("deletionTimestamp", deletion_timestamp.is_some()),
        ("generation", generation.is_some()),
        ("managedFields", managed_fields.is_some()),
        ("resourceVersion", resource_version.is_some()),
        ("selfLink", self_link.is_some()),
        ("uid", uid.is_some()),
    ] {
        at.field(field).ignore(given, SERVERS);
    }
    at.field("finalizers").ignore(
        finalizers.is_some(),
        "what leaves the commit is removed at once",
    );
    at.field("ownerReferences").ignore(
        owner_references.is_some(),
        "what leaves the commit is removed by itself",
    );
    if generate_name.is_some() {
        at.field("generateName")
            .error("an object in Git needs a name of its own: write metadata.name instead");
    }

    let labels = labels.unwrap_or_default();
    self::labels(&labels, &at.field("labels"));
    let annotations = annotations.unwrap_or_default();
    check_annotations(&annotations, &at.field("annotations"));
    let meta = Meta {
        labels,
        annotations,
    };
    (name, namespace, meta)
}

/// Maximum size of all keys and values together (`TotalAnnotationSizeLimitB` of Kubernetes).
const ANNOTATION_BYTES: usize = 256 << 10;

fn check_annotations(annotations: &BTreeMap<String, String>, at: &At<'_>) {
    for key in annotations.keys() {
        if let Err(rule) = syntax::annotation_key(key) {
            at.field(key)
                .error(format_args!("this key is not valid: it must be {rule}"));
        }
    }

    let bytes: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if bytes > ANNOTATION_BYTES {
        at.error("more than 256 KiB of annotations: move what is large to a ConfigMap");
    }
}

/// Checks labels, or a selector of the form of labels.
pub(super) fn labels(labels: &BTreeMap<String, String>, at: &At<'_>) {
    for (key, value) in labels {
        if let Err(rule) = syntax::qualified_name(key) {
            at.field(key)
                .error(format_args!("this key is not valid: it must be {rule}"));
        }
        if let Err(rule) = syntax::label_value(value) {
            at.field(key)
                .error(format_args!("{value:?} is not valid: it must be {rule}"));
        }
    }
}
