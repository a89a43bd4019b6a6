//! A container's environment: `envFrom`, `env`, field references, service variables, and the
//! expansion of `$(VAR)`.

use std::{cell::OnceCell, collections::BTreeMap, net::Ipv4Addr};

use super::missing::MissingContent;
use crate::{
    name::{NodeName, ObjectKey, PodUid},
    object::{ConfigSource, Container, EnvValue, FieldRef, Meta, Objects, Sensitive, Service},
    state::ServiceAllocation,
};

/// The values that field references may refer to.
#[derive(Debug)]
pub struct PodFacts<'a> {
    /// Namespace and name of the pod.
    pub key: &'a ObjectKey,
    /// Uid of the pod.
    pub uid: &'a PodUid,
    /// The pod's labels and annotations.
    pub meta: &'a Meta,
    /// The node of the pod.
    pub node: &'a NodeName,
    /// The pod's own address.
    pub address: Ipv4Addr,
    /// The address of the pod's node.
    pub host_address: Ipv4Addr,
}

/// The variables in order. An error names the ConfigMap, Secret or key that is missing.
pub fn environment(
    container: &Container,
    pod: &PodFacts<'_>,
    objects: &Objects,
    services: &BTreeMap<String, String>,
) -> Result<Vec<(String, Sensitive<String>)>, MissingContent> {
    let mut variables = Variables::default();
    // As in Kubernetes, `envFrom` replaces variables of Services, and `env` replaces both.
    for (name, value) in services {
        variables.set(name.clone(), value.clone());
    }

    for from in &container.env_from {
        match config_data(objects, &pod.key.namespace, &from.source) {
            Some(data) => {
                for (key, value) in data {
                    variables.set(format!("{}{key}", from.prefix), text(&value));
                }
            }
            None if from.optional => {}
            None => return Err(MissingContent::Source(from.source.clone())),
        }
    }

    for variable in &container.env {
        match &variable.value {
            EnvValue::Text(value) => {
                let expanded = expand(value, &variables);
                variables.set(variable.name.clone(), expanded);
            }
            EnvValue::Field(field) => variables.set(variable.name.clone(), field_value(field, pod)),
            EnvValue::Key {
                source,
                key,
                optional,
            } => {
                let data = config_data(objects, &pod.key.namespace, source);
                match data.as_ref().map(|data| data.get(key)) {
                    Some(Some(value)) => variables.set(variable.name.clone(), text(value)),
                    Some(None) | None if *optional => {}
                    Some(None) => {
                        return Err(MissingContent::Key {
                            config_source: source.clone(),
                            key: key.clone(),
                        });
                    }
                    None => return Err(MissingContent::Source(source.clone())),
                }
            }
        }
    }

    Ok(variables.in_order)
}

/// Expands `$(VAR)` in a command or its arguments, as in the value of a variable.
pub fn expand_all(texts: &[String], env: &[(String, Sensitive<String>)]) -> Vec<String> {
    let mut variables = Variables::default();
    for (name, value) in env {
        variables.set(name.clone(), value.expose().clone());
    }
    texts.iter().map(|text| expand(text, &variables)).collect()
}

#[derive(Default)]
struct Variables {
    in_order: Vec<(String, Sensitive<String>)>,
}

impl Variables {
    fn set(&mut self, name: String, value: String) {
        self.in_order.retain(|(known, _)| *known != name);
        self.in_order.push((name, Sensitive::new(value)));
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.in_order
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.expose().as_str())
    }
}

/// Replaces `$(NAME)` if NAME is known and `$$` by one `$`; all other text stays, as in Kubernetes.
fn expand(text: &str, variables: &Variables) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let reference = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        match reference {
            Some((name, tail)) => {
                match variables.get(name) {
                    Some(value) => out.push_str(value),
                    None => {
                        out.push_str("$(");
                        out.push_str(name);
                        out.push(')');
                    }
                }
                rest = tail;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The content of a ConfigMap or Secret.
pub(super) fn config_data(
    objects: &Objects,
    namespace: &str,
    source: &ConfigSource,
) -> Option<BTreeMap<String, Vec<u8>>> {
    match source {
        ConfigSource::ConfigMap(name) => objects
            .config_maps
            .get(&ObjectKey::new(namespace, name))
            .map(|map| map.data.clone()),
        ConfigSource::Secret(name) => {
            objects
                .secrets
                .get(&ObjectKey::new(namespace, name))
                .map(|secret| {
                    secret
                        .data
                        .iter()
                        .map(|(key, value)| (key.clone(), value.expose().clone()))
                        .collect()
                })
        }
    }
}

fn field_value(field: &FieldRef, pod: &PodFacts<'_>) -> String {
    match field {
        FieldRef::Name => pod.key.name.clone(),
        FieldRef::Namespace => pod.key.namespace.clone(),
        FieldRef::Uid => pod.uid.to_string(),
        FieldRef::Label(key) => pod.meta.labels.get(key).cloned().unwrap_or_default(),
        FieldRef::Annotation(key) => pod.meta.annotations.get(key).cloned().unwrap_or_default(),
        FieldRef::NodeName => pod.node.to_string(),
        FieldRef::ServiceAccountName => "default".to_owned(),
        FieldRef::PodIp => pod.address.to_string(),
        FieldRef::HostIp => pod.host_address.to_string(),
    }
}

/// The service variables of one namespace, computed when the first container needs them: most
/// cycles start no container.
#[derive(Debug)]
pub struct ServiceVariables<'a> {
    namespace: &'a str,
    services: &'a BTreeMap<ObjectKey, Service>,
    allocations: &'a BTreeMap<ObjectKey, ServiceAllocation>,
    computed: OnceCell<BTreeMap<String, String>>,
}

impl<'a> ServiceVariables<'a> {
    /// Variables for these Services and their addresses.
    pub fn new(
        namespace: &'a str,
        services: &'a BTreeMap<ObjectKey, Service>,
        allocations: &'a BTreeMap<ObjectKey, ServiceAllocation>,
    ) -> Self {
        Self {
            namespace,
            services,
            allocations,
            computed: OnceCell::new(),
        }
    }

    /// The variables by name.
    pub fn get(&self) -> &BTreeMap<String, String> {
        self.computed
            .get_or_init(|| service_variables(self.namespace, self.services, self.allocations))
    }
}

/// Variables such as `HTTPD_SVC_SERVICE_HOST`, for every Service of the namespace that has an
/// address.
pub fn service_variables(
    namespace: &str,
    services: &BTreeMap<ObjectKey, Service>,
    allocations: &BTreeMap<ObjectKey, ServiceAllocation>,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (key, service) in services
        .iter()
        .filter(|(key, _)| key.namespace == namespace)
    {
        let Some(address) = allocations.get(key).and_then(|one| one.cluster_ip) else {
            continue;
        };
        let Some(first) = service.ports.first() else {
            continue;
        };

        // The variables of Docker's links too, which the kubelet sets for every port.
        let prefix = key.name.to_uppercase().replace(['-', '.'], "_");
        variables.insert(format!("{prefix}_SERVICE_HOST"), address.to_string());
        variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        let proto = first.protocol.as_str().to_lowercase();
        variables.insert(
            format!("{prefix}_PORT"),
            format!("{proto}://{address}:{}", first.port),
        );
        for port in &service.ports {
            if !port.name.is_empty() {
                let name = port.name.to_uppercase().replace('-', "_");
                variables.insert(
                    format!("{prefix}_SERVICE_PORT_{name}"),
                    port.port.to_string(),
                );
            }
            let (upper, lower) = (
                port.protocol.as_str(),
                port.protocol.as_str().to_lowercase(),
            );
            let stem = format!("{prefix}_PORT_{}_{upper}", port.port);
            variables.insert(stem.clone(), format!("{lower}://{address}:{}", port.port));
            variables.insert(format!("{stem}_PROTO"), lower);
            variables.insert(format!("{stem}_PORT"), port.port.to_string());
            variables.insert(format!("{stem}_ADDR"), address.to_string());
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let mut variables = Variables::default();
        variables.set("A".into(), "1".into());
        let cases = [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("x$", "x$"),
            ("$A $(A", "$A $(A"),
            ("$(A)$(A)", "11"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }
}
