//! ConfigMaps and Secrets, whose data is bytes by key.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{ByteString, api::core::v1 as core};

use super::{
    meta::{Named, object_meta},
    secret_type::{self, Values},
};
use crate::{
    manifest::at::At,
    name::ObjectKey,
    object::{ConfigMap, Secret, Sensitive},
    syntax,
};

/// Maximum size of the data in one of them; the limit of Kubernetes.
const BYTES: usize = 1 << 20;

const IMMUTABLE: &str = "what it holds changes only with a commit";

/// Reads a ConfigMap; `data` and `binaryData` share their keys.
pub(in crate::manifest) fn config_map(map: core::ConfigMap, at: &At<'_>) -> (ObjectKey, ConfigMap) {
    let core::ConfigMap {
        binary_data,
        data: texts,
        immutable,
        metadata,
    } = map;
    let (key, meta) = object_meta(metadata, Named::Subdomain, at);
    at.field("immutable")
        .ignore(immutable == Some(true), IMMUTABLE);

    let mut data = BTreeMap::new();
    for (key, text) in texts.unwrap_or_default() {
        check_key(&key, &at.field("data").field(&key));
        data.insert(key, text.into_bytes());
    }
    for (key, ByteString(bytes)) in binary_data.unwrap_or_default() {
        let at = at.field("binaryData");
        let at = at.field(&key);
        check_key(&key, &at);
        if data.contains_key(&key) {
            at.error("this key is in data too: keep one");
        }
        data.insert(key, bytes);
    }
    check_size(data.values().map(Vec::len).sum(), at);
    (key, ConfigMap { meta, data })
}

/// Reads a Secret; `stringData` overrides `data`.
pub(in crate::manifest) fn secret(secret: core::Secret, at: &At<'_>) -> (ObjectKey, Secret) {
    let core::Secret {
        data: encoded,
        immutable,
        metadata,
        string_data,
        type_,
    } = secret;
    let (key, mut meta) = object_meta(metadata, Named::Subdomain, at);

    // kubectl stores a complete copy of the Secret in this annotation.
    let copy = meta.annotations.remove(LAST_APPLIED).is_some();
    at.field("metadata")
        .field("annotations")
        .field(LAST_APPLIED)
        .ignore(copy, "it would show the values");
    at.field("immutable")
        .ignore(immutable == Some(true), IMMUTABLE);

    let mut data = BTreeMap::new();
    for (key, ByteString(bytes)) in encoded.unwrap_or_default() {
        check_key(&key, &at.field("data").field(&key));
        data.insert(key, Sensitive::new(bytes));
    }
    let string_data = string_data.unwrap_or_default();
    let plain: BTreeSet<String> = string_data.keys().cloned().collect();
    for (key, text) in string_data {
        check_key(&key, &at.field("stringData").field(&key));
        data.insert(key, Sensitive::new(text.into_bytes()));
    }
    check_size(data.values().map(|value| value.expose().len()).sum(), at);

    let kind = type_
        .filter(|kind| !kind.is_empty())
        .unwrap_or_else(|| "Opaque".to_owned());
    secret_type::check(
        &kind,
        &meta,
        &Values {
            data: &data,
            plain: &plain,
        },
        at,
    );
    (key, Secret { meta, kind, data })
}

/// The annotation in which kubectl stores the manifest that it applied last.
pub(in crate::manifest) const LAST_APPLIED: &str =
    "kubectl.kubernetes.io/last-applied-configuration";

fn check_key(key: &str, at: &At<'_>) {
    if let Err(rule) = syntax::config_key(key) {
        at.error(format_args!("this key is not valid: it must be {rule}"));
    } else if key.is_empty() {
        at.error("a key must not be empty");
    }
}

fn check_size(bytes: usize, at: &At<'_>) {
    if bytes > BYTES {
        at.field("data").error("holds more than 1 MiB: split it");
    }
}
