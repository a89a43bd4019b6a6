//! `env` and `envFrom`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;

use crate::{
    manifest::at::At,
    object::{ConfigSource, EnvFrom, EnvValue, EnvVar, FieldRef},
    syntax,
};

/// `env`. The name of the service account is already known here.
pub(super) fn env(
    variables: Option<Vec<core::EnvVar>>,
    service_account: &str,
    at: &At<'_>,
) -> Vec<EnvVar> {
    let variables: Vec<EnvVar> = variables
        .unwrap_or_default()
        .into_iter()
        .enumerate()
        .map(|(index, variable)| env_var(variable, service_account, &at.index(index)))
        .collect();

    let mut seen = BTreeSet::new();
    for (index, variable) in variables.iter().enumerate() {
        if !seen.insert(&variable.name) {
            at.index(index).field("name").warning(format_args!(
                "{:?} is there twice: the last one counts",
                variable.name
            ));
        }
    }
    variables
}

fn env_var(variable: core::EnvVar, service_account: &str, at: &At<'_>) -> EnvVar {
    let core::EnvVar {
        name,
        value,
        value_from,
    } = variable;
    let name = at.field("name").checked(name, syntax::env_name);
    let value = match (value, value_from) {
        (value, None) => EnvValue::Text(value.unwrap_or_default()),
        (value, Some(source)) => {
            if value.is_some_and(|value| !value.is_empty()) {
                at.error("value and valueFrom exclude each other: keep one");
            }
            value_from_source(source, service_account, &at.field("valueFrom"))
        }
    };
    EnvVar { name, value }
}

fn value_from_source(source: core::EnvVarSource, service_account: &str, at: &At<'_>) -> EnvValue {
    let core::EnvVarSource {
        config_map_key_ref,
        field_ref,
        file_key_ref,
        resource_field_ref,
        secret_key_ref,
    } = source;

    let given = [
        config_map_key_ref.is_some(),
        field_ref.is_some(),
        file_key_ref.is_some(),
        resource_field_ref.is_some(),
        secret_key_ref.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        at.error("must name exactly one source: configMapKeyRef, secretKeyRef or fieldRef");
    }

    at.field("fileKeyRef").refuse(
        file_key_ref.is_some(),
        "leave the variable empty",
        "use configMapKeyRef or secretKeyRef, or let the program read the file, in its place",
    );
    at.field("resourceFieldRef").refuse(
        resource_field_ref.is_some(),
        "leave the variable empty",
        "write the number as value in its place",
    );

    if let Some(core::ConfigMapKeySelector {
        key,
        name,
        optional,
    }) = config_map_key_ref
    {
        let at = at.field("configMapKeyRef");
        return EnvValue::Key {
            source: ConfigSource::ConfigMap(at.field("name").checked(name, syntax::subdomain)),
            key: at.field("key").checked(key, syntax::config_key),
            optional: optional.unwrap_or(false),
        };
    }
    if let Some(core::SecretKeySelector {
        key,
        name,
        optional,
    }) = secret_key_ref
    {
        let at = at.field("secretKeyRef");
        return EnvValue::Key {
            source: ConfigSource::Secret(at.field("name").checked(name, syntax::subdomain)),
            key: at.field("key").checked(key, syntax::config_key),
            optional: optional.unwrap_or(false),
        };
    }
    match field_ref {
        Some(selector) => field(selector, service_account, &at.field("fieldRef")),
        // The missing source is reported above.
        None => EnvValue::Text(String::new()),
    }
}

fn field(selector: core::ObjectFieldSelector, service_account: &str, at: &At<'_>) -> EnvValue {
    let core::ObjectFieldSelector {
        api_version,
        field_path,
    } = selector;
    if api_version.is_some_and(|version| version != "v1") {
        at.field("apiVersion")
            .error("must be v1: correct or remove it");
    }

    let field = match field_path.as_str() {
        "metadata.name" => FieldRef::Name,
        "metadata.namespace" => FieldRef::Namespace,
        "metadata.uid" => FieldRef::Uid,
        "spec.nodeName" => FieldRef::NodeName,
        "spec.serviceAccountName" => return EnvValue::Text(service_account.to_owned()),
        // The plurals are lists with one address each: all addresses here are of IPv4.
        "status.podIP" | "status.podIPs" => FieldRef::PodIp,
        "status.hostIP" | "status.hostIPs" => FieldRef::HostIp,
        path => match (
            subscript(path, "metadata.labels"),
            subscript(path, "metadata.annotations"),
        ) {
            (Some(label), _) => FieldRef::Label(label.to_owned()),
            (_, Some(annotation)) => FieldRef::Annotation(annotation.to_owned()),
            _ => {
                at.field("fieldPath").error(format_args!(
                    "{path:?} is not a field a variable can take: write one of metadata.name, metadata.namespace, \
                     metadata.uid, metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName, \
                     spec.serviceAccountName, status.podIP, status.hostIP"
                ));
                return EnvValue::Text(String::new());
            }
        },
    };
    EnvValue::Field(field)
}

/// The key of `metadata.labels['key']`.
fn subscript<'a>(path: &'a str, map: &str) -> Option<&'a str> {
    path.strip_prefix(map)?
        .strip_prefix("['")?
        .strip_suffix("']")
        .filter(|key| !key.is_empty())
}

/// `envFrom`.
pub(super) fn env_from(sources: Option<Vec<core::EnvFromSource>>, at: &At<'_>) -> Vec<EnvFrom> {
    let sources = sources.unwrap_or_default().into_iter().enumerate();
    sources
        .filter_map(|(index, source)| env_from_source(source, &at.index(index)))
        .collect()
}

fn env_from_source(source: core::EnvFromSource, at: &At<'_>) -> Option<EnvFrom> {
    let core::EnvFromSource {
        config_map_ref,
        prefix,
        secret_ref,
    } = source;
    let prefix = at
        .field("prefix")
        .optional(prefix, syntax::env_name)
        .unwrap_or_default();

    let (source, optional) = match (config_map_ref, secret_ref) {
        (Some(core::ConfigMapEnvSource { name, optional }), None) => {
            let name = at
                .field("configMapRef")
                .field("name")
                .checked(name, syntax::subdomain);
            (ConfigSource::ConfigMap(name), optional)
        }
        (None, Some(core::SecretEnvSource { name, optional })) => {
            let name = at
                .field("secretRef")
                .field("name")
                .checked(name, syntax::subdomain);
            (ConfigSource::Secret(name), optional)
        }
        _ => {
            at.error("must name exactly one source: configMapRef or secretRef");
            return None;
        }
    };
    Some(EnvFrom {
        prefix,
        source,
        optional: optional.unwrap_or(false),
    })
}
