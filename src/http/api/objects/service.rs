//! Services: the manifest, with the addresses and ports that were allocated.

use std::collections::BTreeMap;

use reconciler::{
    name::ObjectKey,
    object::{Service, ServiceKind, ServicePort, TargetPort},
    state::ServiceAllocation,
};
use serde_json::{Value, json};

use super::{ObjectSource, Scope, meta};

pub(super) fn all(source: &ObjectSource<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, Value> {
    let originals = source
        .originals("v1", "Service")
        .filter(|(id, _)| scope.has(&id.key));
    let render = |(id, original): (&reconciler::object::ObjectId, &Value)| {
        let mut object = meta::filled(source, id, original);
        if let Some(service) = source
            .objects()
            .and_then(|objects| objects.services.get(&id.key))
        {
            fill(
                source,
                service,
                source.view.state.services.get(&id.key),
                &mut object,
            );
        }
        (id.key.clone(), object)
    };
    originals.map(render).collect()
}

fn fill(
    source: &ObjectSource<'_>,
    service: &Service,
    given: Option<&ServiceAllocation>,
    object: &mut Value,
) {
    let affinity = if service.client_ip_affinity.is_some() {
        "ClientIP"
    } else {
        "None"
    };
    let kind = kind_word(&service.kind);
    meta::default(object, "spec", "type", json!(kind));
    meta::default(object, "spec", "sessionAffinity", json!(affinity));
    object["spec"]["ports"] = service
        .ports
        .iter()
        .map(|port| port_object(port, given))
        .collect();
    match &service.kind {
        ServiceKind::ExternalName { .. } => {}
        ServiceKind::Headless => object["spec"]["clusterIP"] = json!("None"),
        ServiceKind::ClusterIp { .. }
        | ServiceKind::NodePort { .. }
        | ServiceKind::LoadBalancer { .. } => {
            if let Some(address) = given.and_then(|given| given.cluster_ip) {
                object["spec"]["clusterIP"] = json!(address);
                object["spec"]["clusterIPs"] = json!([address]);
            }
            object["spec"]["ipFamilies"] = json!(["IPv4"]);
            object["spec"]["ipFamilyPolicy"] = json!("SingleStack");
            object["spec"]["internalTrafficPolicy"] = json!("Cluster");
        }
    }
    object["status"] = match &service.kind {
        ServiceKind::LoadBalancer { .. } => {
            let nodes: Vec<Value> = source
                .view
                .nodes
                .values()
                .map(|node| json!({ "ip": node.facts.address }))
                .collect();
            json!({ "loadBalancer": { "ingress": nodes } })
        }
        _ => json!({ "loadBalancer": {} }),
    };
}

fn kind_word(kind: &ServiceKind) -> &'static str {
    match kind {
        ServiceKind::ClusterIp { .. } | ServiceKind::Headless => "ClusterIP",
        ServiceKind::NodePort { .. } => "NodePort",
        ServiceKind::LoadBalancer { .. } => "LoadBalancer",
        ServiceKind::ExternalName { .. } => "ExternalName",
    }
}

fn port_object(port: &ServicePort, given: Option<&ServiceAllocation>) -> Value {
    let protocol = port.protocol.as_str();
    let target = match &port.target {
        TargetPort::Number(number) => json!(number),
        TargetPort::Name(name) => json!(name),
    };
    let mut object = json!({ "protocol": protocol, "port": port.port, "targetPort": target });
    if !port.name.is_empty() {
        object["name"] = json!(port.name);
    }
    let node_port = given
        .and_then(|given| given.node_ports.get(&port.key()).copied())
        .or(port.node_port);
    if let Some(node_port) = node_port {
        object["nodePort"] = json!(node_port);
    }
    object
}
