//! Services and ready pods to what NAT and DNS say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use crate::{
    allocate::port_key,
    name::ObjectKey,
    network::{Backends, DnsAnswer, DnsRecords, HostPort, ServiceTable, VirtualPort},
    object::{PodTemplate, Service, ServiceKind, ServicePort, TargetPort},
    state::ServiceAllocation,
};

/// A pod that could take traffic.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// Namespace and name.
    pub key: &'a ObjectKey,
    /// Its template: labels and ports.
    pub template: &'a PodTemplate,
    /// Its address.
    pub address: Ipv4Addr,
    /// All its containers are ready and it is not stopping.
    pub ready: bool,
    /// It runs on this host.
    pub local: bool,
}

/// Whether a Service selects a pod with these labels.
pub fn selects(service: &Service, labels: &BTreeMap<String, String>) -> bool {
    !service.selector.is_empty() && service.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// What NAT and DNS of a host say. `node` is the host's own address: the external one of LoadBalancers.
pub fn publish(
    services: &BTreeMap<ObjectKey, Service>,
    given: &BTreeMap<ObjectKey, ServiceAllocation>,
    pods: &[Endpoint<'_>],
    zone: &str,
    dns: Ipv4Addr,
) -> (ServiceTable, DnsRecords) {
    let mut table = ServiceTable::default();
    let mut records = DnsRecords { zone: zone.to_owned(), names: BTreeMap::new() };
    let index = Index::new(pods);
    for (key, service) in services {
        let selected: Vec<&Endpoint<'_>> =
            index.selected(key, service).filter(|pod| pod.ready || service.publish_not_ready).collect();
        let allocation = given.get(key);
        add_ports(&mut table, service, allocation, &selected);
        let name = format!("{}.{}.svc.{zone}", key.name, key.namespace);
        if let Some(answer) = answer(service, allocation, &selected) {
            records.names.insert(name, answer);
        }
    }
    records
        .names
        .insert(format!("kube-dns.kube-system.svc.{zone}"), DnsAnswer::Addresses(BTreeSet::from([dns])));
    add_host_ports(&mut table, pods);
    (table, records)
}

/// Pods by namespace and each of their labels, so that thousands of Services do not each look at thousands of pods.
struct Index<'a>(BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a Endpoint<'a>>>);

impl<'a> Index<'a> {
    fn new(pods: &'a [Endpoint<'a>]) -> Self {
        let mut index: BTreeMap<_, Vec<&Endpoint<'a>>> = BTreeMap::new();
        for pod in pods {
            for (key, value) in &pod.template.meta.labels {
                index
                    .entry((pod.key.namespace.as_str(), key.as_str(), value.as_str()))
                    .or_default()
                    .push(pod);
            }
        }
        Self(index)
    }

    fn selected<'s>(
        &'s self,
        key: &'s ObjectKey,
        service: &'s Service,
    ) -> impl Iterator<Item = &'a Endpoint<'a>> + 's {
        let first = service.selector.iter().next();
        let candidates = first.and_then(|(label, value)| self.0.get(&(key.namespace.as_str(), label, value)));
        candidates.into_iter().flatten().copied().filter(|pod| selects(service, &pod.template.meta.labels))
    }
}

fn add_ports(
    table: &mut ServiceTable,
    service: &Service,
    allocation: Option<&ServiceAllocation>,
    selected: &[&Endpoint<'_>],
) {
    let Some(allocation) = allocation else { return };
    for port in &service.ports {
        let endpoints = selected
            .iter()
            .filter_map(|pod| Some(SocketAddrV4::new(pod.address, target(port, pod.template)?)))
            .collect();
        let backends = Backends { endpoints, client_ip_affinity: service.client_ip_affinity };
        if let Some(address) = allocation.cluster_ip {
            let at = VirtualPort { address, protocol: port.protocol, port: port.port };
            table.cluster_ips.insert(at, backends.clone());
        }
        if let Some(number) = allocation.node_ports.get(&port_key(port)) {
            table.node_ports.insert(HostPort { protocol: port.protocol, port: *number }, backends);
        }
    }
}

/// The number a Service's port leads to on a pod; `None` if the pod has no port of that name.
pub fn target(port: &ServicePort, template: &PodTemplate) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => template
            .spec
            .containers
            .iter()
            .flat_map(|container| &container.ports)
            .find(|one| one.name.as_ref() == Some(name) && one.protocol == port.protocol)
            .map(|one| one.port),
    }
}

fn answer(
    service: &Service,
    allocation: Option<&ServiceAllocation>,
    selected: &[&Endpoint<'_>],
) -> Option<DnsAnswer> {
    match &service.kind {
        ServiceKind::ExternalName { target } => Some(match target.parse::<Ipv4Addr>() {
            Ok(address) => DnsAnswer::Addresses(BTreeSet::from([address])),
            Err(_) => DnsAnswer::Alias(target.trim_end_matches('.').to_lowercase()),
        }),
        ServiceKind::Headless => {
            let addresses: BTreeSet<Ipv4Addr> = selected.iter().map(|pod| pod.address).collect();
            (!addresses.is_empty()).then_some(DnsAnswer::Addresses(addresses))
        }
        ServiceKind::ClusterIp { .. } | ServiceKind::NodePort { .. } | ServiceKind::LoadBalancer { .. } => {
            allocation?.cluster_ip.map(|address| DnsAnswer::Addresses(BTreeSet::from([address])))
        }
    }
}

/// `hostPort`s of this host's pods. They lead to the pod as soon as it has an address, ready or not, as in Kubernetes.
fn add_host_ports(table: &mut ServiceTable, pods: &[Endpoint<'_>]) {
    for pod in pods.iter().filter(|pod| pod.local && !pod.template.spec.host_network) {
        for port in pod.template.spec.containers.iter().flat_map(|container| &container.ports) {
            if let Some(number) = port.host_port {
                let at = (port.host_ip, HostPort { protocol: port.protocol, port: number });
                table.host_ports.insert(at, SocketAddrV4::new(pod.address, port.port));
            }
        }
    }
}
