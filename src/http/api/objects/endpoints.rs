//! Endpoints and EndpointSlices: the pods behind each Service, as the API shows them.
//!
//! These objects are only for readers: the core derives the NAT rules and the DNS records itself.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{core::v1 as core, discovery::v1 as discovery},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use reconciler::{
    endpoints::{self, Behind, ServiceSelection, Serving},
    name::ObjectKey,
    node::services_before,
    object::{Service, ServicePort, Workload},
    state::PodRecord,
};

use super::{ApiKind, ApiObject, ObjectSource, Scope, meta, pod};

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
        let records = source.view.state.pods.values();
        let all: Vec<Backend<'a>> = records
            .filter_map(|record| Backend::new(source, record))
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

impl<'a> Backend<'a> {
    /// `None` for a pod without an address, for one that has ended, and for one whose commit is not
    /// known.
    fn new(source: &ObjectSource<'a>, record: &'a PodRecord) -> Option<Self> {
        let owner = source.owner(record)?.workload;
        let status = source.view.pods.get(&record.uid)?;
        if status.phase.is_final() {
            return None;
        }
        let endpoint = endpoints::Endpoint {
            key: &record.key,
            template: &owner.template,
            address: status.address?,
            serving: Serving::of(status, record.stop.is_some()),
            proven: endpoints::is_proven(&owner.template, status),
            local: false,
        };
        Some(Self {
            record,
            owner,
            endpoint,
        })
    }

    fn is_ready(&self, service: &Service) -> bool {
        self.endpoint.serving == Serving::Ready || service.publish_not_ready
    }

    fn target(&self) -> core::ObjectReference {
        core::ObjectReference {
            kind: Some(ApiKind::Pod.as_str().to_owned()),
            namespace: Some(self.record.key.namespace.clone()),
            name: Some(self.record.key.name.clone()),
            uid: Some(self.record.uid.to_string()),
            ..core::ObjectReference::default()
        }
    }

    /// The name of the pod's node, if that node is known.
    fn node_name(&self, source: &ObjectSource<'_>) -> Option<String> {
        let node = self.record.place.node()?;
        let is_known = source.view.nodes.contains_key(node);
        is_known.then(|| node.to_string())
    }
}

/// The v1 Endpoints of every Service that selects pods.
pub(super) fn all(source: &ObjectSource<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, ApiObject> {
    let pods = BackendPods::new(source);
    let Some(selection) = pods.selection(source) else {
        return BTreeMap::new();
    };
    let mut shown = BTreeMap::new();
    for (key, service) in selecting(source) {
        if scope.has(key) {
            let (backends, by) = pods.of(&selection, key, service);
            let object = endpoints_of(source, key, service, backends, by);
            shown.insert(key.clone(), ApiObject::Endpoints(Box::new(object)));
        }
    }
    shown
}

/// The discovery.k8s.io/v1 EndpointSlices, one for each Service.
pub(super) fn slices(
    source: &ObjectSource<'_>,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, ApiObject> {
    let pods = BackendPods::new(source);
    let Some(selection) = pods.selection(source) else {
        return BTreeMap::new();
    };
    let mut shown = BTreeMap::new();
    for (key, service) in selecting(source) {
        let slice = ObjectKey::new(key.namespace.clone(), format!("{}-windlass", key.name));
        if scope.has(&slice) {
            let (backends, by) = pods.of(&selection, key, service);
            let metadata = ObjectMeta {
                labels: Some([("kubernetes.io/service-name".to_owned(), key.name.clone())].into()),
                owner_references: meta::controlled_by(source, ApiKind::Service, key),
                ..meta::derived(source, ApiKind::EndpointSlice, &slice)
            };
            let object = endpoint_slice(source, metadata, service, &backends, by);
            shown.insert(slice, ApiObject::EndpointSlice(Box::new(object)));
        }
    }
    shown
}

fn selecting<'a>(
    source: &ObjectSource<'a>,
) -> impl Iterator<Item = (&'a ObjectKey, &'a Service)> + use<'a> {
    let objects = source.objects().into_iter();
    let services = objects.flat_map(|objects| &objects.services);
    services.filter(|(_, service)| !service.selector.is_empty())
}

fn endpoints_of(
    source: &ObjectSource<'_>,
    key: &ObjectKey,
    service: &Service,
    mut backends: Vec<Backend<'_>>,
    by: &Service,
) -> core::Endpoints {
    // As in Kubernetes, Endpoints do not contain stopping pods.
    backends.retain(|backend| backend.record.stop.is_none());
    let mut subsets = Vec::new();
    for (ports, members) in port_groups(&backends, service, by) {
        let addresses = |ready: bool| {
            let chosen = members
                .iter()
                .filter(|backend| backend.is_ready(service) == ready);
            let addresses: Vec<core::EndpointAddress> =
                chosen.map(|backend| address(source, backend)).collect();
            (!addresses.is_empty()).then_some(addresses)
        };
        subsets.push(core::EndpointSubset {
            addresses: addresses(true),
            not_ready_addresses: addresses(false),
            ports: Some(ports),
        });
    }
    core::Endpoints {
        metadata: ObjectMeta {
            labels: Some(service.meta.labels.clone()),
            ..meta::derived(source, ApiKind::Endpoints, key)
        },
        subsets: Some(subsets),
    }
}

fn address(source: &ObjectSource<'_>, backend: &Backend<'_>) -> core::EndpointAddress {
    core::EndpointAddress {
        ip: backend.endpoint.address.to_string(),
        node_name: backend.node_name(source),
        target_ref: Some(backend.target()),
        ..core::EndpointAddress::default()
    }
}

fn endpoint_slice(
    source: &ObjectSource<'_>,
    metadata: ObjectMeta,
    service: &Service,
    backends: &[Backend<'_>],
    by: &Service,
) -> discovery::EndpointSlice {
    let endpoint = |backend: &Backend<'_>| discovery::Endpoint {
        addresses: vec![backend.endpoint.address.to_string()],
        conditions: Some(discovery::EndpointConditions {
            ready: Some(backend.is_ready(service)),
            serving: Some(backend.endpoint.serving != Serving::No),
            terminating: Some(backend.record.stop.is_some()),
        }),
        node_name: backend.node_name(source),
        target_ref: Some(backend.target()),
        ..discovery::Endpoint::default()
    };
    let slice_port = |port: core::EndpointPort| discovery::EndpointPort {
        name: port.name,
        port: Some(port.port),
        protocol: port.protocol,
        app_protocol: None,
    };
    // A slice has one list of ports. Pods that have a named port under other numbers are shown
    // with their own ports only by the Endpoints.
    let groups = port_groups(backends, service, by);
    let ports = groups.into_iter().next().map(|(ports, _)| ports);
    let ports = ports.into_iter().flatten().map(slice_port).collect();
    discovery::EndpointSlice {
        metadata,
        address_type: "IPv4".to_owned(),
        endpoints: backends.iter().map(endpoint).collect(),
        ports: Some(ports),
    }
}

/// Pods with the same port numbers share a subset: a named port may have another number in each
/// pod.
fn port_groups<'b, 'a>(
    backends: &'b [Backend<'a>],
    service: &Service,
    by: &Service,
) -> Vec<(Vec<core::EndpointPort>, Vec<&'b Backend<'a>>)> {
    let mut groups: Vec<(Vec<core::EndpointPort>, Vec<&Backend<'_>>)> = Vec::new();
    for backend in backends {
        let resolved = |port| resolved(port, by, backend.owner);
        let ports: Vec<_> = service.ports.iter().filter_map(resolved).collect();
        match groups.iter_mut().find(|(known, _)| *known == ports) {
            Some((_, members)) => members.push(backend),
            None => groups.push((ports, vec![backend])),
        }
    }
    groups
}

fn resolved(port: &ServicePort, by: &Service, owner: &Workload) -> Option<core::EndpointPort> {
    let number = endpoints::target(endpoints::port_of(by, port), &owner.template)?;
    Some(core::EndpointPort {
        // The name is present even if it is empty: `kubectl describe` reads it without a check.
        name: Some(port.name.clone()),
        port: number.into(),
        protocol: Some(port.protocol.as_str().to_owned()),
        app_protocol: None,
    })
}
