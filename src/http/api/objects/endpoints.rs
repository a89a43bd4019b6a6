//! Endpoints and EndpointSlices: the pods behind each Service, as the API shows them.
//!
//! This is for readers only: what NAT and DNS say is derived in the core.

use std::{collections::BTreeMap, net::Ipv4Addr};

use reconciler::{
    name::ObjectKey,
    object::{Service, ServicePort, TargetPort, Workload},
    state::PodRecord,
};
use serde_json::{Value, json};

use super::{Picture, Scope, meta, pod};

/// One pod behind a Service.
struct Backend<'a> {
    record: &'a PodRecord,
    owner: &'a Workload,
    address: Ipv4Addr,
    ready: bool,
}

impl Backend<'_> {
    fn target(&self, picture: &Picture<'_>) -> Value {
        let mut target = json!({
            "ip": self.address,
            "targetRef": {
                "kind": "Pod",
                "namespace": self.record.key.namespace,
                "name": self.record.key.name,
                "uid": self.record.uid,
            },
        });
        if let Some(node) = self.record.place.node().filter(|node| picture.view.nodes.contains_key(node)) {
            target["nodeName"] = json!(node);
        }
        target
    }
}

/// v1 Endpoints of every Service that selects pods.
pub(super) fn all(picture: &Picture<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, Value> {
    let services = selecting(picture).filter(|(key, _)| scope.has(key));
    services.map(|(key, service)| (key.clone(), endpoints(picture, key, service))).collect()
}

/// discovery.k8s.io/v1 EndpointSlices, one a Service.
pub(super) fn slices(picture: &Picture<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, Value> {
    let named = selecting(picture).map(|(key, service)| {
        (ObjectKey::new(key.namespace.clone(), format!("{}-windlass", key.name)), key, service)
    });
    named
        .filter(|(slice, ..)| scope.has(slice))
        .map(|(slice, key, service)| {
            let object = endpoint_slice(picture, &slice, key, service);
            (slice, object)
        })
        .collect()
}

fn selecting<'a>(picture: &Picture<'a>) -> impl Iterator<Item = (&'a ObjectKey, &'a Service)> {
    let services = picture.objects().into_iter().flat_map(|objects| &objects.services);
    services.filter(|(_, service)| !service.selector.is_empty())
}

fn endpoints(picture: &Picture<'_>, key: &ObjectKey, service: &Service) -> Value {
    let backends = backends(picture, key, service);
    let mut subsets = Vec::new();
    for (ports, members) in port_groups(&backends, service) {
        let of = |ready: bool| -> Vec<Value> {
            members
                .iter()
                .filter(|backend| backend.ready == ready)
                .map(|backend| backend.target(picture))
                .collect()
        };
        let mut subset = json!({ "ports": ports });
        for (field, targets) in [("addresses", of(true)), ("notReadyAddresses", of(false))] {
            if !targets.is_empty() {
                subset[field] = json!(targets);
            }
        }
        subsets.push(subset);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "uid": meta::uid(picture, "Endpoints", key),
            "labels": service.meta.labels,
        },
        "subsets": subsets,
    })
}

fn endpoint_slice(picture: &Picture<'_>, slice: &ObjectKey, key: &ObjectKey, service: &Service) -> Value {
    let backends = backends(picture, key, service);
    let ports = port_groups(&backends, service).into_iter().next().map(|(ports, _)| ports);
    let endpoints: Vec<Value> = backends
        .iter()
        .map(|backend| {
            let mut endpoint = backend.target(picture);
            endpoint["addresses"] = json!([backend.address]);
            endpoint["conditions"] = json!({ "ready": backend.ready, "serving": backend.ready });
            if let Some(fields) = endpoint.as_object_mut() {
                fields.remove("ip");
            }
            endpoint
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": slice.name,
            "namespace": slice.namespace,
            "uid": meta::uid(picture, "EndpointSlice", slice),
            "labels": { "kubernetes.io/service-name": key.name },
            "ownerReferences": meta::owner_reference("v1", "Service", &key.name, &meta::uid(picture, "Service", key)),
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports.unwrap_or_else(|| json!([])),
    })
}

fn backends<'a>(picture: &Picture<'a>, key: &ObjectKey, service: &Service) -> Vec<Backend<'a>> {
    let records = picture.view.state.pods.values();
    let candidates = records.filter(|record| record.key.namespace == key.namespace && record.stop.is_none());
    candidates
        .filter_map(|record| {
            let (owner, _) = picture.owner(record)?;
            let labels = pod::labels(record, Some(owner));
            let selected = service.selector.iter().all(|(name, value)| labels.get(name) == Some(value));
            let status =
                picture.view.pods.get(&record.uid).filter(|status| selected && !status.phase.is_final())?;
            let ready = status.ready.is_some() || service.publish_not_ready;
            Some(Backend { record, owner, address: status.address?, ready: ready && !status.terminating })
        })
        .collect()
}

/// Pods whose ports are the same numbers share a subset: a port's name may mean another number in each.
fn port_groups<'b, 'a>(backends: &'b [Backend<'a>], service: &Service) -> Vec<(Value, Vec<&'b Backend<'a>>)> {
    let mut groups: Vec<(Value, Vec<&Backend<'_>>)> = Vec::new();
    for backend in backends {
        let ports: Value = service.ports.iter().filter_map(|port| resolved(port, backend.owner)).collect();
        match groups.iter_mut().find(|(known, _)| *known == ports) {
            Some((_, members)) => members.push(backend),
            None => groups.push((ports, vec![backend])),
        }
    }
    groups
}

fn resolved(port: &ServicePort, owner: &Workload) -> Option<Value> {
    let number = match &port.target {
        TargetPort::Number(number) => *number,
        TargetPort::Name(name) => {
            let mut ports = owner.template.spec.containers.iter().flat_map(|container| &container.ports);
            ports
                .find(|candidate| {
                    candidate.name.as_deref() == Some(name) && candidate.protocol == port.protocol
                })?
                .port
        }
    };
    // The name is there even where it is empty: kubectl's describe reads it without looking.
    Some(json!({ "name": port.name, "port": number, "protocol": port.protocol.as_str() }))
}
