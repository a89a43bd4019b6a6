//! Addresses and node ports of Services: allocated once, and kept as long as the Service exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    ops::RangeInclusive,
};

use ipnet::Ipv4Net;

use crate::{
    name::ObjectKey,
    object::{Service, ServiceKind, ServicePort},
    settings::ServiceRanges,
    state::{Change, Record, RecordKey, ServiceAllocation},
};

/// What is decided about the allocations of a commit's Services.
#[derive(Clone, Debug)]
pub struct Allocations {
    /// The changes by which every Service of the commit gets its addresses and node ports.
    pub changes: Vec<Change>,
    /// The Services that get none, because all are in use, in the order of their names.
    pub refused: Vec<RefusedAllocation>,
}

/// An allocation that a Service does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedAllocation {
    /// The Service.
    pub service: ObjectKey,
    /// What it does not get.
    pub exhausted: Exhausted,
}

/// A range in which everything is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// The range of cluster addresses.
    Addresses(Ipv4Net),
    /// The range of node ports.
    NodePorts(RangeInclusive<u16>),
}

/// Decides the allocations of the commit's Services. The allocation of a Service that the commit
/// does not contain is deleted only if `droppable` returns that no commit to which a rollback may go
/// contains the Service.
pub fn allocate(
    ranges: &ServiceRanges,
    services: &BTreeMap<ObjectKey, Service>,
    given: &BTreeMap<ObjectKey, ServiceAllocation>,
    droppable: impl Fn(&ObjectKey) -> bool,
) -> Allocations {
    let mut changes: Vec<Change> = given
        .keys()
        .filter(|key| !services.contains_key(*key) && droppable(key))
        .map(|key| Change::Delete(RecordKey::Service(key.clone())))
        .collect();
    let mut taken = Taken::of(services, given);
    let accepted = accepted_allocations(ranges, services, given);
    let mut refused = Vec::new();
    for (key, service) in services {
        let before = accepted.get(key).cloned().unwrap_or_default();
        let now = taken.allocation(ranges, service, &before);
        refused.extend(
            exhausted(ranges, service, &now).map(|exhausted| RefusedAllocation {
                service: key.clone(),
                exhausted,
            }),
        );
        if given.get(key) != Some(&now) {
            changes.push(Change::Put(Record::Service(key.clone(), now)));
        }
    }
    Allocations { changes, refused }
}

/// The ranges from which a Service did not get what it needs.
fn exhausted(
    ranges: &ServiceRanges,
    service: &Service,
    now: &ServiceAllocation,
) -> impl Iterator<Item = Exhausted> {
    let lacks_address = has_address(service) && now.cluster_ip.is_none();
    let lacks_port = has_node_ports(service)
        && service
            .ports
            .iter()
            .any(|port| !now.node_ports.contains_key(&port.key()));
    let address = lacks_address.then_some(Exhausted::Addresses(ranges.addresses));
    let port = lacks_port.then(|| Exhausted::NodePorts(ranges.node_ports.clone()));
    address.into_iter().chain(port)
}

/// The allocations that a host accepts: no address outside the range, no address of another Service
/// or that a manifest requests for another Service, and no node port for a Service that requests
/// none.
pub fn accepted_allocations(
    ranges: &ServiceRanges,
    services: &BTreeMap<ObjectKey, Service>,
    given: &BTreeMap<ObjectKey, ServiceAllocation>,
) -> BTreeMap<ObjectKey, ServiceAllocation> {
    let mut taken = Taken::of(services, &BTreeMap::new());
    let accepted = services.iter().filter_map(|(key, service)| {
        let stored = given.get(key)?;
        Some((
            key.clone(),
            taken.accepted_allocation(ranges, service, stored),
        ))
    });
    accepted.collect()
}

/// Addresses and ports in use: requested by a manifest, or allocated before.
struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeSet<u16>,
}

impl Taken {
    fn of(
        services: &BTreeMap<ObjectKey, Service>,
        given: &BTreeMap<ObjectKey, ServiceAllocation>,
    ) -> Self {
        let asked_addresses = services.values().filter_map(requested_address);
        let asked_ports = services
            .values()
            .flat_map(|service| &service.ports)
            .filter_map(|port| port.node_port);
        let given_addresses = given.values().filter_map(|one| one.cluster_ip);
        let given_ports = given
            .values()
            .flat_map(|one| one.node_ports.values().copied());
        Self {
            addresses: given_addresses.chain(asked_addresses).collect(),
            ports: given_ports.chain(asked_ports).collect(),
        }
    }

    fn allocation(
        &mut self,
        ranges: &ServiceRanges,
        service: &Service,
        before: &ServiceAllocation,
    ) -> ServiceAllocation {
        let cluster_ip = if has_address(service) {
            requested_address(service)
                .or(before.cluster_ip)
                .or_else(|| self.free_address(ranges))
        } else {
            None
        };
        let mut node_ports = BTreeMap::new();
        if has_node_ports(service) {
            for port in &service.ports {
                let key = port.key();
                let before = before.node_ports.get(&key).copied();
                let number = port.node_port.or(before).or_else(|| self.free_port(ranges));
                node_ports.extend(number.map(|number| (key, number)));
            }
        }
        ServiceAllocation {
            cluster_ip,
            node_ports,
        }
    }

    fn accepted_allocation(
        &mut self,
        ranges: &ServiceRanges,
        service: &Service,
        stored: &ServiceAllocation,
    ) -> ServiceAllocation {
        let fits = |address: &Ipv4Addr| {
            has_address(service) && ranges.addresses.contains(address) && *address != ranges.dns
        };
        let said_address = || {
            stored
                .cluster_ip
                .filter(fits)
                .filter(|address| self.addresses.insert(*address))
        };
        let cluster_ip = requested_address(service).or_else(said_address);
        let port = |port: &ServicePort| {
            let key = port.key();
            let stored = stored
                .node_ports
                .get(&key)
                .copied()
                .filter(|number| ranges.node_ports.contains(number));
            let number = port
                .node_port
                .or_else(|| stored.filter(|number| self.ports.insert(*number)))?;
            Some((key, number))
        };
        let ports = service.ports.iter().filter(|_| has_node_ports(service));
        ServiceAllocation {
            cluster_ip,
            node_ports: ports.filter_map(port).collect(),
        }
    }

    /// An address from the upper part of the range, or from the lower one once the upper one is
    /// full: the lower part is meant for addresses that manifests request (ServiceIPStaticSubrange
    /// of Kubernetes). A range of up to 16 addresses has no upper part.
    fn free_address(&mut self, ranges: &ServiceRanges) -> Option<Ipv4Addr> {
        let hosts = 1_u64 << (32 - ranges.addresses.prefix_len());
        let reserved = u32::try_from((hosts / 16).clamp(16, 256)).unwrap_or(256);
        let network = u32::from(ranges.addresses.network());
        let upper = network.saturating_add(reserved);
        let last = u32::from(ranges.addresses.broadcast()).saturating_sub(1);
        let lower = network.saturating_add(1)..upper.min(last.saturating_add(1));
        let address = (upper..=last)
            .chain(lower)
            .map(Ipv4Addr::from)
            .find(|address| *address != ranges.dns && !self.addresses.contains(address))?;
        self.addresses.insert(address);
        Some(address)
    }

    fn free_port(&mut self, ranges: &ServiceRanges) -> Option<u16> {
        let port = ranges
            .node_ports
            .clone()
            .rev()
            .find(|port| !self.ports.contains(port))?;
        self.ports.insert(port);
        Some(port)
    }
}

fn has_address(service: &Service) -> bool {
    !matches!(
        service.kind,
        ServiceKind::Headless | ServiceKind::ExternalName { .. }
    )
}

fn has_node_ports(service: &Service) -> bool {
    matches!(
        service.kind,
        ServiceKind::NodePort { .. } | ServiceKind::LoadBalancer { .. }
    )
}

fn requested_address(service: &Service) -> Option<Ipv4Addr> {
    match &service.kind {
        ServiceKind::ClusterIp { address }
        | ServiceKind::NodePort { address }
        | ServiceKind::LoadBalancer { address } => *address,
        ServiceKind::Headless | ServiceKind::ExternalName { .. } => None,
    }
}

#[cfg(test)]
mod tests;
