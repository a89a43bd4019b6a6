//! References to ConfigMaps and Secrets, and from Services to pods.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::{ObjectProblems, ProblemObject, containers};
use crate::{
    manifest::similar::did_you_mean,
    name::ObjectKey,
    object::{
        ConfigSource, Container, EnvValue, Handler, Protocol, Service, ServiceKind, TargetPort,
        VolumeSource, Workload,
    },
};

/// A reference that leads to nothing in the commit, with the name that was probably meant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum DanglingReference {
    #[error("there is no {kind} {key} in this commit{hint}: add it, or say optional: true")]
    Object {
        kind: &'static str,
        key: ObjectKey,
        /// As [`did_you_mean`] writes it.
        hint: String,
    },
    #[error("the {kind} {object} has no key {key:?}{hint}: add it, or say optional: true")]
    Key {
        kind: &'static str,
        object: ObjectKey,
        key: String,
        /// As [`did_you_mean`] writes it.
        hint: String,
    },
}

pub(super) fn check(findings: &mut ObjectProblems<'_>) {
    let objects = findings.objects;
    for workload in objects.workloads.values() {
        variables(findings, workload);
        volumes(findings, workload);
    }

    let mut by_label = WorkloadsByLabel::new();
    for workload in objects.workloads.values() {
        for (label, value) in &workload.template.meta.labels {
            let namespace = workload.key.object.namespace.as_str();
            by_label
                .entry((namespace, label, value))
                .or_default()
                .push(workload);
        }
    }

    for (key, service) in &objects.services {
        endpoints(findings, key, service, &by_label);
    }
}

/// Workloads by namespace, label and value of their pods: comparing each workload with each Service
/// would take too long.
type WorkloadsByLabel<'a> = BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a Workload>>;

fn variables(findings: &mut ObjectProblems<'_>, workload: &Workload) {
    let namespace = &workload.key.object.namespace;
    for (field, container) in containers(workload) {
        for (index, from) in container
            .env_from
            .iter()
            .enumerate()
            .filter(|(_, from)| !from.optional)
        {
            if let Err(missing) = find(findings, namespace, &from.source) {
                let reference = match from.source {
                    ConfigSource::ConfigMap(_) => "configMapRef",
                    ConfigSource::Secret(_) => "secretRef",
                };
                findings.error(
                    &ProblemObject::workload(&workload.key),
                    format!("{field}.envFrom[{index}].{reference}.name"),
                    missing.to_string(),
                );
            }
        }
        for (index, variable) in container.env.iter().enumerate() {
            let EnvValue::Key {
                source,
                key,
                optional: false,
            } = &variable.value
            else {
                continue;
            };
            let reference = match source {
                ConfigSource::ConfigMap(_) => "configMapKeyRef",
                ConfigSource::Secret(_) => "secretKeyRef",
            };
            let (last, missing) = match find(findings, namespace, source) {
                Ok(keys) => ("key", missing_key(namespace, source, key, &keys)),
                Err(missing) => ("name", Some(missing)),
            };
            if let Some(missing) = missing {
                findings.error(
                    &ProblemObject::workload(&workload.key),
                    format!("{field}.env[{index}].valueFrom.{reference}.{last}"),
                    missing.to_string(),
                );
            }
        }
    }
}

fn volumes(findings: &mut ObjectProblems<'_>, workload: &Workload) {
    let namespace = &workload.key.object.namespace;
    for (name, volume) in &workload.template.spec.volumes {
        let VolumeSource::Config {
            source,
            items,
            optional: false,
            ..
        } = volume
        else {
            continue;
        };
        let reference = match source {
            ConfigSource::ConfigMap(_) => "configMap",
            ConfigSource::Secret(_) => "secret",
        };
        let field = format!("{}.{reference}", findings.volume_field(&workload.key, name));
        match find(findings, namespace, source) {
            Ok(keys) => {
                for (index, item) in items.iter().enumerate() {
                    if let Some(missing) = missing_key(namespace, source, &item.key, &keys) {
                        let field = format!("{field}.items[{index}].key");
                        let workload = ProblemObject::workload(&workload.key);
                        findings.error(&workload, field, missing.to_string());
                    }
                }
            }
            Err(missing) => {
                let last = if reference == "secret" {
                    "secretName"
                } else {
                    "name"
                };
                findings.error(
                    &ProblemObject::workload(&workload.key),
                    format!("{field}.{last}"),
                    missing.to_string(),
                );
            }
        }
    }
}

/// The keys of a ConfigMap or Secret, if it exists.
fn find<'a>(
    findings: &ObjectProblems<'a>,
    namespace: &str,
    source: &ConfigSource,
) -> Result<Vec<&'a str>, DanglingReference> {
    let objects = findings.objects;
    let (kind, name) = kind_and_name(source);
    let key = ObjectKey::new(namespace, name);
    let keys: Option<Vec<&str>> = match source {
        ConfigSource::ConfigMap(_) => objects
            .config_maps
            .get(&key)
            .map(|map| map.data.keys().map(String::as_str).collect()),
        ConfigSource::Secret(_) => objects
            .secrets
            .get(&key)
            .map(|secret| secret.data.keys().map(String::as_str).collect()),
    };

    keys.ok_or_else(|| {
        let names: Vec<&ObjectKey> = match source {
            ConfigSource::ConfigMap(_) => objects.config_maps.keys().collect(),
            ConfigSource::Secret(_) => objects.secrets.keys().collect(),
        };
        let here = names
            .into_iter()
            .filter(|key| key.namespace == namespace)
            .map(|key| key.name.as_str());
        let hint = did_you_mean(name, here);
        DanglingReference::Object { kind, key, hint }
    })
}

fn missing_key(
    namespace: &str,
    source: &ConfigSource,
    key: &str,
    keys: &[&str],
) -> Option<DanglingReference> {
    if keys.contains(&key) {
        return None;
    }
    let (kind, name) = kind_and_name(source);
    Some(DanglingReference::Key {
        kind,
        object: ObjectKey::new(namespace, name),
        key: key.to_owned(),
        hint: did_you_mean(key, keys.iter().copied()),
    })
}

fn kind_and_name(source: &ConfigSource) -> (&'static str, &str) {
    match source {
        ConfigSource::ConfigMap(name) => ("ConfigMap", name),
        ConfigSource::Secret(name) => ("Secret", name),
    }
}

/// Warns of a Service that leads to no pod. That is no error: its pods may be added by a later
/// commit.
fn endpoints(
    findings: &mut ObjectProblems<'_>,
    key: &ObjectKey,
    service: &Service,
    workloads: &WorkloadsByLabel<'_>,
) {
    if matches!(service.kind, ServiceKind::ExternalName { .. }) {
        return;
    }
    let Some((label, value)) = service.selector.first_key_value() else {
        let message = "required to lead anywhere: write labels of the pods it is for";
        findings.warning(
            &ProblemObject::service(key),
            "spec.selector".to_owned(),
            message.to_owned(),
        );
        return;
    };

    let selects = |workload: &&&Workload| {
        let labels = &workload.template.meta.labels;
        service
            .selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    };
    let with_first = workloads.get(&(key.namespace.as_str(), label.as_str(), value.as_str()));
    let selected: Vec<&&Workload> = with_first.into_iter().flatten().filter(selects).collect();
    if selected.is_empty() {
        let message = format!(
            "no pod of the namespace {} in this commit has these labels: correct them, or add the pods",
            key.namespace
        );
        findings.warning(
            &ProblemObject::service(key),
            "spec.selector".to_owned(),
            message,
        );
        return;
    }

    for (index, port) in service.ports.iter().enumerate() {
        let containers = || {
            let templates = selected.iter().map(|workload| &workload.template);
            templates.flat_map(|template| &template.spec.containers)
        };
        let ports = || containers().flat_map(|one| &one.ports);
        let name = match &port.target {
            TargetPort::Name(name) => name,
            TargetPort::Number(number) => {
                if let Some(message) = undeclared(*number, port.protocol, containers) {
                    findings.warning(
                        &ProblemObject::service(key),
                        format!("spec.ports[{index}].targetPort"),
                        message,
                    );
                }
                continue;
            }
        };
        let named = |one: &crate::object::ContainerPort| {
            one.name.as_ref() == Some(name) && one.protocol == port.protocol
        };
        if !ports().any(named) {
            let hint = did_you_mean(name, ports().filter_map(|port| port.name.as_deref()));
            let message = format!(
                "no pod it selects has a {} port named {name:?}{hint}: name one so, or write its number",
                port.protocol.as_str()
            );
            findings.warning(
                &ProblemObject::service(key),
                format!("spec.ports[{index}].targetPort"),
                message,
            );
        }
    }
}

/// That no container declares the port of a Service, although some declare ports: none may listen
/// there. A port that a probe uses is one on which a container listens.
fn undeclared<'a, C>(number: u16, protocol: Protocol, containers: impl Fn() -> C) -> Option<String>
where
    C: Iterator<Item = &'a Container>,
{
    let declared: BTreeSet<u16> = containers()
        .flat_map(|one| &one.ports)
        .filter(|port| port.protocol == protocol)
        .map(|port| port.port)
        .collect();
    let probed = |container: &Container| {
        let probes = [
            &container.readiness,
            &container.liveness,
            &container.startup,
        ];
        probes.into_iter().flatten().any(|probe| {
            matches!(
                probe.handler,
                Handler::HttpGet { port, .. } | Handler::TcpSocket { port, .. } if port == number
            )
        })
    };
    if declared.is_empty() || declared.contains(&number) || containers().any(probed) {
        return None;
    }
    let declared: Vec<String> = declared.iter().map(u16::to_string).collect();
    Some(format!(
        "no container of the pods it selects declares the {} port {number}, they declare {}: its calls are refused \
         unless one listens there",
        protocol.as_str(),
        declared.join(", ")
    ))
}
