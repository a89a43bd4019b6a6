//! Derives the content of NAT and DNS from Services and the pods that serve them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use crate::{
    name::ObjectKey,
    network::{Backends, DnsAnswer, DnsRecords, HostPort, ServiceTable, VirtualPort},
    object::{PodTemplate, Service, ServiceKind, ServicePort, TargetPort},
    state::ServiceAllocation,
    status::{PodStatus, STEADY},
};

/// A pod that may receive traffic.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// Namespace and name of the pod.
    pub key: &'a ObjectKey,
    /// The pod's template: its labels and ports.
    pub template: &'a PodTemplate,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Whether the pod answers.
    pub serving: Serving,
    /// Whether the pod's readiness shows that it works, see [`is_proven`].
    pub proven: bool,
    /// Whether the pod runs on this host.
    pub local: bool,
}

/// Whether a pod answers requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// All containers of the pod are ready, and the pod is not stopping.
    Ready,
    /// The pod is stopping and still answers: used by Services without a ready pod.
    Stopping,
    /// The pod must not receive traffic.
    No,
}

impl Serving {
    /// Derived from a pod's status; `stops` is whether the pod has a stop record. A pod that was
    /// ready when it got the stop record counts as answering until its host reports again.
    pub fn of(status: &PodStatus, stops: bool) -> Self {
        match (stops || status.terminating, status.ready.is_some()) {
            (false, true) => Self::Ready,
            (true, ready) if ready || status.serving => Self::Stopping,
            (_, _) => Self::No,
        }
    }
}

/// Whether a pod's readiness shows that the pod works: with a readiness probe it does, otherwise
/// after some time. Without a probe, a container that exits at once is ready for a moment too.
pub fn is_proven(template: &PodTemplate, status: &PodStatus) -> bool {
    let probed = template
        .spec
        .containers
        .iter()
        .all(|container| container.readiness.is_some());
    probed || status.ready_for >= STEADY
}

/// The Services of a commit.
pub type Services = BTreeMap<ObjectKey, Service>;

/// The pods that receive a Service's traffic, with the Service from the commit by which they were
/// selected: its ports match these pods.
#[derive(Debug)]
pub struct Behind<'a> {
    /// The pods that receive the traffic.
    pub pods: Vec<&'a Endpoint<'a>>,
    /// The Service that selected them.
    pub by: &'a Service,
}

/// Selects the pods of Services: `services` are those of the driving commit, `before` those of the
/// commits that it is still replacing, newest first.
#[derive(Debug)]
pub struct ServiceSelection<'a> {
    services: &'a Services,
    before: Vec<&'a Services>,
    index: Index<'a>,
}

impl<'a> ServiceSelection<'a> {
    /// A selection among these pods.
    pub fn new(
        services: &'a Services,
        before: Vec<&'a Services>,
        pods: &'a [Endpoint<'a>],
    ) -> Self {
        Self {
            services,
            before,
            index: Index::new(pods),
        }
    }

    /// The pods that receive the traffic of a Service: the ready pods that it selects. While none
    /// of these is proven, the Service keeps the pods that its earlier selector selects; if no pod
    /// is ready, stopping pods still receive traffic, as in kube-proxy since 1.28
    /// (ProxyTerminatingEndpoints).
    pub fn behind(&self, key: &ObjectKey, service: &'a Service) -> Behind<'a> {
        let former = || {
            let before = self.before.iter().filter_map(|services| services.get(key));
            before.filter(|old| old.selector != service.selector)
        };
        let find = |by: &'a Service, serving: Serving| -> Behind<'a> {
            let takes = |pod: &&Endpoint<'_>| pod.serving == serving || service.publish_not_ready;
            Behind {
                pods: self.index.selected(key, by).filter(takes).collect(),
                by,
            }
        };
        let own = find(service, Serving::Ready);
        if service.publish_not_ready && !own.pods.is_empty()
            || own.pods.iter().any(|pod| pod.proven)
        {
            return own;
        }
        let kept = former().map(|by| find(by, Serving::Ready));
        let stopping = std::iter::once(service)
            .chain(former())
            .map(|by| find(by, Serving::Stopping));
        let mut others = kept.chain(std::iter::once(own)).chain(stopping);
        others
            .find(|behind| !behind.pods.is_empty())
            .unwrap_or(Behind {
                pods: Vec::new(),
                by: service,
            })
    }
}

/// Whether a Service selects a pod with these labels.
pub fn selects(service: &Service, labels: &BTreeMap<String, String>) -> bool {
    !service.selector.is_empty()
        && service
            .selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
}

/// The content of a host's NAT and DNS. `node` is the host's own address, which is the external
/// address of LoadBalancers.
pub fn publish(
    selection: &ServiceSelection<'_>,
    given: &BTreeMap<ObjectKey, ServiceAllocation>,
    pods: &[Endpoint<'_>],
    zone: &str,
    dns: Ipv4Addr,
) -> (ServiceTable, DnsRecords) {
    let mut table = ServiceTable::default();
    let mut records = DnsRecords {
        zone: zone.to_owned(),
        names: BTreeMap::new(),
    };
    for (key, service) in selection.services {
        let behind = selection.behind(key, service);
        let allocation = given.get(key);
        add_ports(&mut table, service, allocation, &behind);
        let name = format!("{}.{}.svc.{zone}", key.name, key.namespace);
        if let Some(answer) = answer(service, allocation, &behind.pods) {
            records.names.insert(name, answer);
        }
    }
    records.names.insert(
        format!("kube-dns.kube-system.svc.{zone}"),
        DnsAnswer::Addresses(BTreeSet::from([dns])),
    );
    add_host_ports(&mut table, pods);
    (table, records)
}

/// Pods by namespace and each of their labels, so that thousands of Services need not be compared
/// with thousands of pods each.
#[derive(Debug)]
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
        let candidates =
            first.and_then(|(label, value)| self.0.get(&(key.namespace.as_str(), label, value)));
        candidates
            .into_iter()
            .flatten()
            .copied()
            .filter(|pod| selects(service, &pod.template.meta.labels))
    }
}

fn add_ports(
    table: &mut ServiceTable,
    service: &Service,
    allocation: Option<&ServiceAllocation>,
    behind: &Behind<'_>,
) {
    let Some(allocation) = allocation else { return };
    for port in &service.ports {
        let theirs = port_of(behind.by, port);
        let endpoints = behind
            .pods
            .iter()
            .filter_map(|pod| {
                Some(SocketAddrV4::new(
                    pod.address,
                    target(theirs, pod.template)?,
                ))
            })
            .collect();
        let backends = Backends {
            endpoints,
            client_ip_affinity: service.client_ip_affinity,
        };
        if let Some(address) = allocation.cluster_ip {
            let at = VirtualPort {
                address,
                protocol: port.protocol,
                port: port.port,
            };
            table.cluster_ips.insert(at, backends.clone());
        }
        if let Some(number) = allocation.node_ports.get(&port.key()) {
            table.node_ports.insert(
                HostPort {
                    protocol: port.protocol,
                    port: *number,
                },
                backends,
            );
        }
    }
}

/// The port of an earlier version of the Service that leads to its pods, if that version had this
/// port.
pub fn port_of<'p>(by: &'p Service, port: &'p ServicePort) -> &'p ServicePort {
    let same = |one: &&ServicePort| (one.protocol, one.port) == (port.protocol, port.port);
    by.ports.iter().find(same).unwrap_or(port)
}

/// The port number in a pod to which a Service's port leads; `None` if the pod has no port of that
/// name.
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
        ServiceKind::ClusterIp { .. }
        | ServiceKind::NodePort { .. }
        | ServiceKind::LoadBalancer { .. } => allocation?
            .cluster_ip
            .map(|address| DnsAnswer::Addresses(BTreeSet::from([address]))),
    }
}

/// Adds the `hostPort`s of this host's pods. A host port leads to its pod as soon as the pod has an
/// address, whether it is ready or not, as in Kubernetes.
fn add_host_ports(table: &mut ServiceTable, pods: &[Endpoint<'_>]) {
    for pod in pods
        .iter()
        .filter(|pod| pod.local && !pod.template.spec.host_network)
    {
        for port in pod
            .template
            .spec
            .containers
            .iter()
            .flat_map(|container| &container.ports)
        {
            if let Some(number) = port.host_port {
                let at = (
                    port.host_ip,
                    HostPort {
                        protocol: port.protocol,
                        port: number,
                    },
                );
                table
                    .host_ports
                    .insert(at, SocketAddrV4::new(pod.address, port.port));
            }
        }
    }
}

#[cfg(test)]
mod tests;
