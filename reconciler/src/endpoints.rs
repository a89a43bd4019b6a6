//! Services and the pods that serve to what NAT and DNS say.

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
    status::{PodStatus, STEADY},
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
    /// Whether it answers.
    pub serving: Serving,
    /// That it is ready says something, see [`is_proven`].
    pub proven: bool,
    /// It runs on this host.
    pub local: bool,
}

/// Whether a pod answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// All its containers are ready and it is not stopping.
    Ready,
    /// It stops, and still answers: for Services that have nothing better.
    Stopping,
    /// Nobody should count on it.
    No,
}

impl Serving {
    /// What a pod's status says; `stops` is whether it was told to stop. What was ready when it was
    /// told so answers until its host says more.
    pub fn of(status: &PodStatus, stops: bool) -> Self {
        match (stops || status.terminating, status.ready.is_some()) {
            (false, true) => Self::Ready,
            (true, ready) if ready || status.serving => Self::Stopping,
            (_, _) => Self::No,
        }
    }
}

/// Whether a pod's readiness says that it works: a probe does, and so does time. Without a probe
/// also a container that ends at once is ready for a moment.
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

/// The pods that take a Service's traffic, and the Service as it was when they did: its ports are
/// theirs.
#[derive(Debug)]
pub struct Behind<'a> {
    /// The pods.
    pub pods: Vec<&'a Endpoint<'a>>,
    /// The Service.
    pub by: &'a Service,
}

/// What is asked of Services while pods are looked up: `services` are those of the commit that is
/// followed, `before` those of the commits that it takes the place of, newest first, as long as it
/// does.
#[derive(Debug)]
pub struct ServiceSelection<'a> {
    services: &'a Services,
    before: Vec<&'a Services>,
    index: Index<'a>,
}

impl<'a> ServiceSelection<'a> {
    /// Of these pods.
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

    /// Which pods take the traffic of a Service: the ready ones that it selects. Where none of
    /// these has proven itself yet, it keeps those that it had by the selector of before; and where
    /// nothing is ready at all, those that are stopping go on, as kube-proxy has it since 1.28
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

/// What NAT and DNS of a host say. `node` is the host's own address: the external one of
/// LoadBalancers.
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

/// Pods by namespace and each of their labels, so that thousands of Services do not each look at
/// thousands of pods.
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
        if let Some(number) = allocation.node_ports.get(&port_key(port)) {
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

/// The port that leads to the pods of a Service as it was, where it had that port already.
pub fn port_of<'p>(by: &'p Service, port: &'p ServicePort) -> &'p ServicePort {
    let same = |one: &&ServicePort| (one.protocol, one.port) == (port.protocol, port.port);
    by.ports.iter().find(same).unwrap_or(port)
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
        ServiceKind::ClusterIp { .. }
        | ServiceKind::NodePort { .. }
        | ServiceKind::LoadBalancer { .. } => allocation?
            .cluster_ip
            .map(|address| DnsAnswer::Addresses(BTreeSet::from([address]))),
    }
}

/// `hostPort`s of this host's pods. They lead to the pod as soon as it has an address, ready or
/// not, as in Kubernetes.
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
