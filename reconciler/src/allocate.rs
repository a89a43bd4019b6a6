//! Addresses and node ports for Services: given once, kept for the Service's life.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    ops::RangeInclusive,
};

use ipnet::Ipv4Net;

use crate::{
    name::ObjectKey,
    object::{Service, ServiceKind, ServicePort},
    state::{Change, ServiceAllocation},
};

/// What may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRanges {
    /// Addresses of Services.
    pub addresses: Ipv4Net,
    /// The cluster's DNS, which no Service may have.
    pub dns: Ipv4Addr,
    /// Node ports.
    pub node_ports: RangeInclusive<u16>,
}

/// The name of a Service's port in its allocation: `TCP/80`.
pub fn port_key(port: &ServicePort) -> String {
    format!("{}/{}", port.protocol.as_str(), port.port)
}

/// What changes so that every Service of the commit has its addresses. Allocations of Services that the commit does
/// not have are dropped only when `droppable` says that no commit that could be gone back to has them.
pub fn allocate(
    ranges: &ServiceRanges,
    services: &BTreeMap<ObjectKey, Service>,
    given: &BTreeMap<ObjectKey, ServiceAllocation>,
    droppable: impl Fn(&ObjectKey) -> bool,
) -> Vec<Change> {
    let mut changes: Vec<Change> = given
        .keys()
        .filter(|key| !services.contains_key(*key) && droppable(key))
        .map(|key| Change::DropService(key.clone()))
        .collect();
    let mut taken = Taken::of(services, given);
    for (key, service) in services {
        let before = given.get(key).cloned().unwrap_or_default();
        let now = taken.allocation(ranges, service, &before);
        if !given.contains_key(key) || now != before {
            changes.push(Change::Service(key.clone(), now));
        }
    }
    changes
}

/// What is in use: asked for by a manifest, or given before.
struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeSet<u16>,
    asked_addresses: BTreeSet<Ipv4Addr>,
    asked_ports: BTreeSet<u16>,
}

impl Taken {
    fn of(services: &BTreeMap<ObjectKey, Service>, given: &BTreeMap<ObjectKey, ServiceAllocation>) -> Self {
        let asked_addresses: BTreeSet<Ipv4Addr> = services.values().filter_map(requested_address).collect();
        let asked_ports: BTreeSet<u16> =
            services.values().flat_map(|service| &service.ports).filter_map(|port| port.node_port).collect();
        let given_addresses = given.values().filter_map(|one| one.cluster_ip);
        let given_ports = given.values().flat_map(|one| one.node_ports.values().copied());
        Self {
            addresses: given_addresses.chain(asked_addresses.iter().copied()).collect(),
            ports: given_ports.chain(asked_ports.iter().copied()).collect(),
            asked_addresses,
            asked_ports,
        }
    }

    fn allocation(
        &mut self,
        ranges: &ServiceRanges,
        service: &Service,
        before: &ServiceAllocation,
    ) -> ServiceAllocation {
        let virtual_address =
            !matches!(service.kind, ServiceKind::Headless | ServiceKind::ExternalName { .. });
        let cluster_ip = if virtual_address {
            // What was given by itself gives way to a Service that now asks for it by name.
            let kept = before.cluster_ip.filter(|address| !self.asked_addresses.contains(address));
            requested_address(service).or(kept).or_else(|| self.free_address(ranges))
        } else {
            None
        };
        let mut node_ports = BTreeMap::new();
        if matches!(service.kind, ServiceKind::NodePort { .. } | ServiceKind::LoadBalancer { .. }) {
            for port in &service.ports {
                let key = port_key(port);
                let number = port
                    .node_port
                    .or_else(|| {
                        before.node_ports.get(&key).copied().filter(|port| !self.asked_ports.contains(port))
                    })
                    .or_else(|| self.free_port(ranges));
                node_ports.extend(number.map(|number| (key, number)));
            }
        }
        ServiceAllocation { cluster_ip, node_ports }
    }

    /// From the upper part of the range: the lower is for addresses that manifests ask for.
    fn free_address(&mut self, ranges: &ServiceRanges) -> Option<Ipv4Addr> {
        let hosts = 1_u64 << (32 - ranges.addresses.prefix_len());
        let reserved = u32::try_from((hosts / 16).clamp(16, 256)).unwrap_or(256);
        let first = u32::from(ranges.addresses.network()).saturating_add(reserved);
        let last = u32::from(ranges.addresses.broadcast()).saturating_sub(1);
        let address = (first..=last)
            .map(Ipv4Addr::from)
            .find(|address| *address != ranges.dns && !self.addresses.contains(address))?;
        self.addresses.insert(address);
        Some(address)
    }

    fn free_port(&mut self, ranges: &ServiceRanges) -> Option<u16> {
        let port = ranges.node_ports.clone().rev().find(|port| !self.ports.contains(port))?;
        self.ports.insert(port);
        Some(port)
    }
}

fn requested_address(service: &Service) -> Option<Ipv4Addr> {
    match &service.kind {
        ServiceKind::ClusterIp { address }
        | ServiceKind::NodePort { address }
        | ServiceKind::LoadBalancer { address } => *address,
        ServiceKind::Headless | ServiceKind::ExternalName { .. } => None,
    }
}
