//! What a Secret of a known type must hold, as kube-apiserver checks it (`ValidateSecret`).

use std::collections::{BTreeMap, BTreeSet};

use serde::de::IgnoredAny;

use crate::{
    manifest::at::At,
    object::{Meta, Sensitive},
};

/// What a Secret holds.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    /// Key to content.
    pub(super) data: &'a BTreeMap<String, Sensitive<Vec<u8>>>,
    /// The keys that `stringData` has.
    pub(super) plain: &'a BTreeSet<String>,
}

impl Values<'_> {
    fn get(&self, key: &str) -> Option<&[u8]> {
        self.data.get(key).map(|value| value.expose().as_slice())
    }

    /// Where the value of a key stands.
    fn field(&self, key: &str) -> &'static str {
        if self.plain.contains(key) {
            "stringData"
        } else {
            "data"
        }
    }
}

const SERVICE_ACCOUNT: &str = "kubernetes.io/service-account.name";

/// Checks the keys, and where Kubernetes does the values, of a Secret. Types that Kubernetes does
/// not know may hold anything, and so may `bootstrap.kubernetes.io/token`.
pub(super) fn check(kind: &str, meta: &Meta, values: &Values<'_>, at: &At<'_>) {
    match kind {
        "kubernetes.io/tls" => {
            require(kind, "tls.crt", values, at);
            require(kind, "tls.key", values, at);
        }
        "kubernetes.io/dockerconfigjson" => json_object(kind, ".dockerconfigjson", values, at),
        "kubernetes.io/dockercfg" => json_object(kind, ".dockercfg", values, at),
        "kubernetes.io/ssh-auth" => {
            require(kind, "ssh-privatekey", values, at);
            if values.get("ssh-privatekey").is_some_and(<[u8]>::is_empty) {
                at.field(values.field("ssh-privatekey"))
                    .field("ssh-privatekey")
                    .error_in_new_heads("must not be empty: put the private key there");
            }
        }
        "kubernetes.io/basic-auth"
            if values.get("username").or(values.get("password")).is_none() =>
        {
            at.field("data").error_in_new_heads(format_args!(
                "a Secret of type {kind} needs the key \"username\" or \"password\": add one, or write type: Opaque"
            ));
        }
        "kubernetes.io/service-account-token"
            if meta
                .annotations
                .get(SERVICE_ACCOUNT)
                .is_none_or(String::is_empty) =>
        {
            at.field("metadata").field("annotations").error_in_new_heads(format_args!(
                "a Secret of type {kind} needs the annotation {SERVICE_ACCOUNT}: add it, or write type: Opaque"
            ));
        }
        _ => {}
    }
}

fn require(kind: &str, key: &str, values: &Values<'_>, at: &At<'_>) {
    if values.get(key).is_none() {
        at.field("data").error(format_args!(
            "a Secret of type {kind} needs the key {key:?}: add it"
        ));
    }
}

/// The value must be a mapping in JSON, which Kubernetes looks no further into. The parser's words
/// are not shown: they may tell of the secret.
fn json_object(kind: &str, key: &str, values: &Values<'_>, at: &At<'_>) {
    require(kind, key, values, at);
    let Some(value) = values.get(key) else { return };
    // Go reads null as an empty map.
    if serde_json::from_slice::<Option<BTreeMap<String, IgnoredAny>>>(value).is_err() {
        at.field(values.field(key)).field(key).error_in_new_heads(
            "must be a mapping in JSON, as `docker login` writes it: put the content of that file there",
        );
    }
}
