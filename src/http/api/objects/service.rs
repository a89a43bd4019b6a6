//! Services: the manifest, with the addresses and ports that were allocated.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::util::intstr::IntOrString};
use reconciler::{
    name::ObjectKey,
    object::{Original, Service, ServiceKind, ServicePort, TargetPort},
    state::ServiceAllocation,
};

use super::{ApiObject, ObjectSource, Scope, meta};

pub(super) fn all(source: &ObjectSource<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, ApiObject> {
    let mut shown = BTreeMap::new();
    for (id, original) in source.originals(scope) {
        if let Original::Service(written) = original {
            let mut object = written.clone();
            meta::complete(source, id, &mut object.metadata);
            let objects = source.objects();
            if let Some(service) = objects.and_then(|objects| objects.services.get(&id.key)) {
                let allocation = source.view.state.services.get(&id.key);
                fill(service, allocation, object.spec.get_or_insert_default());
                object.status = Some(status(source, service));
            }
            shown.insert(id.key.clone(), ApiObject::Service(object));
        }
    }
    shown
}

fn fill(service: &Service, allocation: Option<&ServiceAllocation>, spec: &mut core::ServiceSpec) {
    let affinity = match service.client_ip_affinity {
        Some(_) => "ClientIP",
        None => "None",
    };
    let kind = service_type(&service.kind);
    spec.type_.get_or_insert_with(|| kind.to_owned());
    spec.session_affinity
        .get_or_insert_with(|| affinity.to_owned());
    let ports = service.ports.iter();
    spec.ports = Some(ports.map(|port| service_port(port, allocation)).collect());

    match &service.kind {
        ServiceKind::ExternalName { .. } => {}
        ServiceKind::Headless => spec.cluster_ip = Some("None".to_owned()),
        ServiceKind::ClusterIp { .. }
        | ServiceKind::NodePort { .. }
        | ServiceKind::LoadBalancer { .. } => {
            if let Some(address) = allocation.and_then(|allocation| allocation.cluster_ip) {
                spec.cluster_ip = Some(address.to_string());
                spec.cluster_ips = Some(vec![address.to_string()]);
            }
            spec.ip_families = Some(vec!["IPv4".to_owned()]);
            spec.ip_family_policy = Some("SingleStack".to_owned());
            spec.internal_traffic_policy = Some("Cluster".to_owned());
        }
    }
}

/// A Service of type LoadBalancer is reached at the addresses of all nodes.
fn status(source: &ObjectSource<'_>, service: &Service) -> core::ServiceStatus {
    let ingress = match &service.kind {
        ServiceKind::LoadBalancer { .. } => {
            let nodes = source.view.nodes.values();
            let address = |ip: String| core::LoadBalancerIngress {
                ip: Some(ip),
                ..core::LoadBalancerIngress::default()
            };
            Some(
                nodes
                    .map(|node| address(node.facts.address.to_string()))
                    .collect(),
            )
        }
        ServiceKind::ClusterIp { .. }
        | ServiceKind::Headless
        | ServiceKind::NodePort { .. }
        | ServiceKind::ExternalName { .. } => None,
    };
    core::ServiceStatus {
        load_balancer: Some(core::LoadBalancerStatus { ingress }),
        ..core::ServiceStatus::default()
    }
}

fn service_type(kind: &ServiceKind) -> &'static str {
    match kind {
        ServiceKind::ClusterIp { .. } | ServiceKind::Headless => "ClusterIP",
        ServiceKind::NodePort { .. } => "NodePort",
        ServiceKind::LoadBalancer { .. } => "LoadBalancer",
        ServiceKind::ExternalName { .. } => "ExternalName",
    }
}

fn service_port(port: &ServicePort, allocation: Option<&ServiceAllocation>) -> core::ServicePort {
    let protocol = port.protocol.as_str();
    let allocated = allocation.and_then(|allocation| allocation.node_ports.get(&port.key()));
    let is_named = !port.name.is_empty();
    core::ServicePort {
        name: is_named.then(|| port.name.clone()),
        protocol: Some(protocol.to_owned()),
        port: port.port.into(),
        target_port: Some(match &port.target {
            TargetPort::Number(number) => IntOrString::Int((*number).into()),
            TargetPort::Name(name) => IntOrString::String(name.clone()),
        }),
        node_port: allocated.copied().or(port.node_port).map(i32::from),
        ..core::ServicePort::default()
    }
}
