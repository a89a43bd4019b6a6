//! Endpoints and EndpointSlices: the pods behind each Service, as the API shows them.
//!
//! These objects are only for readers: the core derives the NAT rules and the DNS records itself.

use std::collections::BTreeMap;

use reconciler::{
    endpoints::{self, Behind, ServiceSelection, Serving},
    name::ObjectKey,
    node::services_before,
    object::{Service, ServicePort, Workload},
    state::PodRecord,
};
use serde_json::{Value, json};

use super::{ObjectSource, Scope, meta, pod};

/// One pod behind a Service.
#[derive(Clone, Copy)]
struct Backend<'a> {
    record: &'a PodRecord,
    owner: &'a Workload,
    endpoint: endpoints::Endpoint<'a>,
}

/// All pods that could be behind a Service.
struct BackendPods<'a> {
    all: Vec<Backend<'a>>,
    endpoints: Vec<endpoints::Endpoint<'a>>,
}

impl<'a> BackendPods<'a> {
    fn new(source: &ObjectSource<'a>) -> Self {
        let backend = |record: &'a PodRecord| {
            let (owner, _) = source.owner(record)?;
            let status = source
                .view
                .pods
                .get(&record.uid)
                .filter(|status| !status.phase.is_final())?;
            let endpoint = endpoints::Endpoint {
                key: &record.key,
                template: &owner.template,
                address: status.address?,
                serving: Serving::of(status, record.stop.is_some()),
                proven: endpoints::is_proven(&owner.template, status),
                local: false,
            };
            Some(Backend {
                record,
                owner,
                endpoint,
            })
        };
        let all: Vec<Backend<'a>> = source
            .view
            .state
            .pods
            .values()
            .filter_map(backend)
            .collect();
        let endpoints = all.iter().map(|backend| backend.endpoint).collect();
        Self { all, endpoints }
    }

    fn selection<'p>(&'p self, source: &ObjectSource<'p>) -> Option<ServiceSelection<'p>> {
        let services = &source.objects()?.services;
        // These include commits that are only kept up.
        let before = services_before(&source.view.state.rollout, |id| source.view.commits.get(id));
        Some(ServiceSelection::new(services, before, &self.endpoints))
    }

    /// The pods that a Service selects, and those that it keeps from before; each with the Service
    /// that defines the pod's ports.
    fn of<'p>(
        &'p self,
        selection: &ServiceSelection<'p>,
        key: &ObjectKey,
        service: &'p Service,
    ) -> (Vec<Backend<'p>>, &'p Service) {
        let Behind { pods, by } = selection.behind(key, service);
        let selected = |backend: &Backend<'_>| {
            let labels = pod::labels(backend.record, Some(backend.owner));
            backend.record.key.namespace == key.namespace && endpoints::selects(service, &labels)
        };
        let takes = |endpoint| pods.iter().any(|pod| std::ptr::eq(*pod, endpoint));
        let both = self.all.iter().zip(&self.endpoints);
        let both = both.filter(|(backend, endpoint)| selected(backend) || takes(*endpoint));
        (both.map(|(backend, _)| *backend).collect(), by)
    }
}

impl Backend<'_> {
    fn target(&self, source: &ObjectSource<'_>) -> Value {
        let mut target = json!({
            "ip": self.endpoint.address,
            "targetRef": {
                "kind": "Pod",
                "namespace": self.record.key.namespace,
                "name": self.record.key.name,
                "uid": self.record.uid,
            },
        });
        if let Some(node) = self
            .record
            .place
            .node()
            .filter(|node| source.view.nodes.contains_key(node))
        {
            target["nodeName"] = json!(node);
        }
        target
    }
}

/// The v1 Endpoints of every Service that selects pods.
pub(super) fn all(source: &ObjectSource<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, Value> {
    let pods = BackendPods::new(source);
    let Some(selection) = pods.selection(source) else {
        return BTreeMap::new();
    };
    let services = selecting(source).filter(|(key, _)| scope.has(key));
    let shown =
        |key, service| endpoints_of(source, key, service, pods.of(&selection, key, service));
    services
        .map(|(key, service)| (key.clone(), shown(key, service)))
        .collect()
}

/// The discovery.k8s.io/v1 EndpointSlices, one for each Service.
pub(super) fn slices(source: &ObjectSource<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, Value> {
    let pods = BackendPods::new(source);
    let Some(selection) = pods.selection(source) else {
        return BTreeMap::new();
    };
    let named = selecting(source).map(|(key, service)| {
        (
            ObjectKey::new(key.namespace.clone(), format!("{}-windlass", key.name)),
            key,
            service,
        )
    });
    named
        .filter(|(slice, ..)| scope.has(slice))
        .map(|(slice, key, service)| {
            let behind = pods.of(&selection, key, service);
            let object = endpoint_slice(source, &slice, key, service, behind);
            (slice, object)
        })
        .collect()
}

fn selecting<'a>(
    source: &ObjectSource<'a>,
) -> impl Iterator<Item = (&'a ObjectKey, &'a Service)> + use<'a> {
    let services = source
        .objects()
        .into_iter()
        .flat_map(|objects| &objects.services);
    services.filter(|(_, service)| !service.selector.is_empty())
}

fn endpoints_of(
    source: &ObjectSource<'_>,
    key: &ObjectKey,
    service: &Service,
    (mut backends, by): (Vec<Backend<'_>>, &Service),
) -> Value {
    // As in Kubernetes, Endpoints do not contain stopping pods.
    backends.retain(|backend| backend.record.stop.is_none());
    let mut subsets = Vec::new();
    for (ports, members) in port_groups(&backends, service, by) {
        let of = |ready: bool| -> Vec<Value> {
            members
                .iter()
                .filter(|backend| {
                    (backend.endpoint.serving == Serving::Ready || service.publish_not_ready)
                        == ready
                })
                .map(|backend| backend.target(source))
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
            "uid": meta::uid(source, "Endpoints", key),
            "labels": service.meta.labels,
        },
        "subsets": subsets,
    })
}

fn endpoint_slice(
    source: &ObjectSource<'_>,
    slice: &ObjectKey,
    key: &ObjectKey,
    service: &Service,
    (backends, by): (Vec<Backend<'_>>, &Service),
) -> Value {
    let ports = port_groups(&backends, service, by)
        .into_iter()
        .next()
        .map(|(ports, _)| ports);
    let endpoints: Vec<Value> = backends
        .iter()
        .map(|backend| {
            let mut endpoint = backend.target(source);
            let serving = backend.endpoint.serving;
            endpoint["addresses"] = json!([backend.endpoint.address]);
            endpoint["conditions"] = json!({
                "ready": serving == Serving::Ready || service.publish_not_ready,
                "serving": serving != Serving::No,
                "terminating": backend.record.stop.is_some(),
            });
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
            "uid": meta::uid(source, "EndpointSlice", slice),
            "labels": { "kubernetes.io/service-name": key.name },
            "ownerReferences": meta::owner_reference("v1", "Service", &key.name, &meta::uid(source, "Service", key)),
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports.unwrap_or_else(|| json!([])),
    })
}

/// Pods with the same port numbers share a subset: a named port may have another number in each
/// pod.
fn port_groups<'b, 'a>(
    backends: &'b [Backend<'a>],
    service: &Service,
    by: &Service,
) -> Vec<(Value, Vec<&'b Backend<'a>>)> {
    let mut groups: Vec<(Value, Vec<&Backend<'_>>)> = Vec::new();
    for backend in backends {
        let resolved = |port| resolved(port, by, backend.owner);
        let ports: Value = service.ports.iter().filter_map(resolved).collect();
        match groups.iter_mut().find(|(known, _)| *known == ports) {
            Some((_, members)) => members.push(backend),
            None => groups.push((ports, vec![backend])),
        }
    }
    groups
}

fn resolved(port: &ServicePort, by: &Service, owner: &Workload) -> Option<Value> {
    let number = endpoints::target(endpoints::port_of(by, port), &owner.template)?;
    // The name is present even if it is empty: `kubectl describe` reads it without a check.
    Some(json!({ "name": port.name, "port": number, "protocol": port.protocol.as_str() }))
}
