//! The content that a Secret of a known type must have, as kube-apiserver checks it
//! (`ValidateSecret`).

use std::collections::{BTreeMap, BTreeSet};

use serde::de::IgnoredAny;

use crate::{
    manifest::at::At,
    object::{Meta, Sensitive},
};

/// The content of a Secret.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    /// Key to content.
    pub(super) data: &'a BTreeMap<String, Sensitive<Vec<u8>>>,
    /// Keys that come from `stringData`.
    pub(super) plain: &'a BTreeSet<String>,
}

impl Values<'_> {
    fn get(&self, key: &str) -> Option<&[u8]> {
        self.data.get(key).map(|value| value.expose().as_slice())
    }

    /// The field in which the value of a key is written.
    fn field(&self, key: &str) -> &'static str {
        if self.plain.contains(key) {
            "stringData"
        } else {
            "data"
        }
    }
}

const SERVICE_ACCOUNT: &str = "kubernetes.io/service-account.name";

/// Checks the keys of a Secret, and those values that Kubernetes checks. Types that Kubernetes does
/// not know have no rules, and neither has `bootstrap.kubernetes.io/token`.
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

/// Checks that a value is a JSON object, as Kubernetes does, which checks nothing inside it. The
/// parser's message is not shown, since it may contain parts of the secret.
fn json_object(kind: &str, key: &str, values: &Values<'_>, at: &At<'_>) {
    require(kind, key, values, at);
    let Some(value) = values.get(key) else { return };

    // Go reads `null` as an empty map.
    if serde_json::from_slice::<Option<BTreeMap<String, IgnoredAny>>>(value).is_err() {
        at.field(values.field(key)).field(key).error_in_new_heads(
            "must be a mapping in JSON, as `docker login` writes it: put the content of that file there",
        );
    }
}
