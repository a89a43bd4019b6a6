//! The columns of Services, Endpoints and EndpointSlices.

use jiff::Timestamp;
use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};

use super::{Cell, Column, created, joined, labels, name, or_none, text, wide};

pub(super) const SERVICE: &[Column] = &[
    text("Name"),
    text("Type"),
    text("Cluster-IP"),
    text("External-IP"),
    text("Port(s)"),
    text("Age"),
    wide("Selector"),
];

pub(super) fn service(service: &core::Service, now: Timestamp) -> Vec<Cell> {
    let absent = core::ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&absent);
    vec![
        name(&service.metadata),
        spec.type_.as_deref().unwrap_or_default().into(),
        or_none(spec.cluster_ip.as_deref()).into(),
        external(spec, service.status.as_ref()).into(),
        ports(spec).into(),
        created(&service.metadata, now),
        labels(spec.selector.as_ref()).into(),
    ]
}

fn external(spec: &core::ServiceSpec, status: Option<&core::ServiceStatus>) -> String {
    match spec.type_.as_deref() {
        Some("ExternalName") => spec.external_name.clone().unwrap_or_default(),
        Some("LoadBalancer") => {
            let balancer = status.and_then(|status| status.load_balancer.as_ref());
            let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
            let addresses: Vec<&str> = ingress
                .into_iter()
                .flatten()
                .filter_map(|ingress| ingress.ip.as_deref())
                .collect();
            match addresses.is_empty() {
                true => "<pending>".to_owned(),
                false => addresses.join(","),
            }
        }
        // A ClusterIP or NodePort Service.
        _ => joined(spec.external_ips.iter().flatten().map(String::as_str)),
    }
}

/// The ports in the form `80:30080/TCP,53/UDP`.
fn ports(spec: &core::ServiceSpec) -> String {
    let port = |port: &core::ServicePort| {
        let (number, protocol) = (port.port, port.protocol.as_deref().unwrap_or_default());
        match port.node_port {
            None | Some(0) => format!("{number}/{protocol}"),
            Some(node_port) => format!("{number}:{node_port}/{protocol}"),
        }
    };
    let ports: Vec<String> = spec.ports.iter().flatten().map(port).collect();
    joined(ports.iter().map(String::as_str))
}

pub(super) const ENDPOINTS: &[Column] = &[text("Name"), text("Endpoints"), text("Age")];

pub(super) fn endpoints(endpoints: &core::Endpoints, now: Timestamp) -> Vec<Cell> {
    let mut list = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        for address in subset.addresses.iter().flatten() {
            let ports = subset.ports.iter().flatten();
            list.extend(ports.map(|port| format!("{}:{}", address.ip, port.port)));
        }
    }
    vec![
        name(&endpoints.metadata),
        shortened(&list).into(),
        created(&endpoints.metadata, now),
    ]
}

pub(super) const SLICE: &[Column] = &[
    text("Name"),
    text("AddressType"),
    text("Ports"),
    text("Endpoints"),
    text("Age"),
];

pub(super) fn slice(slice: &discovery::EndpointSlice, now: Timestamp) -> Vec<Cell> {
    let ports = slice.ports.iter().flatten();
    let ports: Vec<String> = ports
        .map(|port| port.port.unwrap_or_default().to_string())
        .collect();
    let endpoints = slice.endpoints.iter();
    let addresses: Vec<String> = endpoints
        .flat_map(|endpoint| endpoint.addresses.iter().cloned())
        .collect();
    vec![
        name(&slice.metadata),
        slice.address_type.as_str().into(),
        shortened(&ports).into(),
        shortened(&addresses).into(),
        created(&slice.metadata, now),
    ]
}

/// The first three entries, and the number of the others.
fn shortened(list: &[String]) -> String {
    match list.len() {
        0 => "<none>".to_owned(),
        1..=3 => list.join(","),
        many => format!("{} + {} more...", list[..3].join(","), many - 3),
    }
}
