//! Addresses and routes of the host: the service device with the DNS address, the service range,
//! and the pods.

use std::{collections::BTreeSet, io, net::Ipv4Addr};

use ipnet::Ipv4Net;
use reconciler::network::HostNetwork;

use crate::{
    device::{self, Link},
    error::NetworkError,
    netlink::{Answer, Message, REPLACE, Socket, address, attribute, number},
};

/// The routing protocol number of the routes of Windlass: `ip route show proto 87`.
pub const ROUTE_PROTOCOL: u8 = 87;
/// The device that carries the DNS address and the route of the service range.
pub const SERVICE_DEVICE: &str = "windlass0";
/// The gateway of every pod. No interface has this address; a neighbour entry in the pod maps it to
/// the MAC of the link's host side.
pub const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

pub(crate) const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const AF_INET: u8 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
pub(crate) const IFA_LABEL: u16 = 3;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const TABLE_MAIN: u8 = 254;
const TYPE_UNICAST: u8 = 1;
const SCOPE_HOST: u8 = 254;
/// Treats the gateway as on-link, whatever other routes exist (`RTNH_F_ONLINK`).
const ONLINK: u32 = 4;

/// The scope of a route or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Reached through a gateway.
    Universe = 0,
    /// On-link: reached without a gateway.
    Link = 253,
}

/// A route of Windlass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) destination: Ipv4Net,
    pub(crate) device: u32,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) source: Option<Ipv4Addr>,
}

impl Route {
    fn message(&self, kind: u16, flags: u16, onlink: bool) -> Message {
        let scope = if self.gateway.is_some() {
            Scope::Universe
        } else {
            Scope::Link
        };
        // `struct rtmsg`: family, lengths of destination and source, type of service, table,
        // protocol, scope, type, and flags of four bytes.
        let mut header = [
            AF_INET,
            self.destination.prefix_len(),
            0,
            0,
            TABLE_MAIN,
            ROUTE_PROTOCOL,
            scope as u8,
            TYPE_UNICAST,
            0,
            0,
            0,
            0,
        ];
        if onlink {
            header[8..].copy_from_slice(&ONLINK.to_ne_bytes());
        }

        let mut message = Message::new(kind, flags, &header)
            .attribute(RTA_DST, &self.destination.network().octets())
            .attribute(RTA_OIF, &self.device.to_ne_bytes());
        if let Some(gateway) = self.gateway {
            message = message.attribute(RTA_GATEWAY, &gateway.octets());
        }
        if let Some(source) = self.source {
            message = message.attribute(RTA_PREFSRC, &source.octets());
        }
        message
    }

    /// Adds the route, or replaces the one with the same key.
    pub(crate) fn put(&self) -> Message {
        self.message(RTM_NEWROUTE, REPLACE, false)
    }

    /// The same for a gateway that is on-link although no other route shows it.
    pub(crate) fn put_onlink(&self) -> Message {
        self.message(RTM_NEWROUTE, REPLACE, true)
    }

    pub(crate) fn delete(&self) -> Message {
        self.message(RTM_DELROUTE, 0, false)
    }
}

/// Adds an address to a device. Scope `host` keeps the kernel from selecting the address as the
/// source of packets to other destinations.
pub(crate) fn put_address(device: u32, address: Ipv4Addr, reach: Option<Scope>) -> Message {
    let scope = reach.map_or(SCOPE_HOST, |scope| scope as u8);
    address_message(RTM_NEWADDR, REPLACE, device, address, scope)
}

/// Removes an address from a device.
pub(crate) fn delete_address(device: u32, address: Ipv4Addr) -> Message {
    address_message(RTM_DELADDR, 0, device, address, 0)
}

fn address_message(kind: u16, flags: u16, device: u32, address: Ipv4Addr, scope: u8) -> Message {
    let [a, b, c, d] = device.to_ne_bytes();
    Message::new(kind, flags, &[AF_INET, 32, 0, scope, a, b, c, d])
        .attribute(IFA_LOCAL, &address.octets())
        .attribute(IFA_ADDRESS, &address.octets())
}

/// The kernel's route to an address.
pub(crate) struct Reach {
    pub(crate) device: u32,
    /// `None` if the address is on-link.
    pub(crate) router: Option<Ipv4Addr>,
}

/// Asks the kernel for its route to an address.
pub(crate) fn reach(socket: &Socket, to: Ipv4Addr) -> io::Result<Reach> {
    let header = [AF_INET, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let answer =
        socket.get(Message::new(RTM_GETROUTE, 0, &header).attribute(RTA_DST, &to.octets()))?;

    let rest = answer.body.get(header.len()..).unwrap_or_default();
    let Some(device) = attribute(rest, RTA_OIF).and_then(number) else {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    };
    Ok(Reach {
        device,
        router: attribute(rest, RTA_GATEWAY).and_then(address),
    })
}

/// All routes with the protocol number of Windlass.
pub(crate) fn ours(socket: &Socket) -> Result<BTreeSet<Route>, NetworkError> {
    Ok(list(socket)?.iter().filter_map(read_route).collect())
}

/// All IPv4 routes of this host.
fn list(socket: &Socket) -> Result<Vec<Answer>, NetworkError> {
    let mut header = [0; 12];
    header[0] = AF_INET;
    socket
        .dump(|| Message::new(RTM_GETROUTE, 0, &header))
        .map_err(|source| NetworkError::List {
            what: "routes",
            source,
        })
}

/// `None` if the route does not have the protocol number of Windlass.
fn read_route(answer: &Answer) -> Option<Route> {
    let header: [u8; 12] = *answer.body.first_chunk()?;
    if answer.kind != RTM_NEWROUTE || header[5] != ROUTE_PROTOCOL || header[4] != TABLE_MAIN {
        return None;
    }

    let rest = &answer.body[12..];
    let address = |kind| attribute(rest, kind).and_then(address);
    // The default route has no destination.
    let network = address(RTA_DST).unwrap_or(Ipv4Addr::UNSPECIFIED);
    Some(Route {
        destination: Ipv4Net::new(network, header[1]).ok()?,
        device: attribute(rest, RTA_OIF).and_then(number)?,
        gateway: address(RTA_GATEWAY),
        source: address(RTA_PREFSRC),
    })
}

/// The device and address of every IPv4 address of this host.
pub(crate) fn addresses(socket: &Socket) -> Result<BTreeSet<(u32, Ipv4Addr)>, NetworkError> {
    let networks = networks(socket)?;
    Ok(networks
        .into_iter()
        .map(|(device, network)| (device, network.addr()))
        .collect())
}

/// The devices that a default route leads to.
pub(crate) fn default_devices(socket: &Socket) -> Result<BTreeSet<u32>, NetworkError> {
    let answers = list(socket)?;
    // The second byte of `struct rtmsg` is the length of the destination.
    let defaults = answers
        .iter()
        .filter(|answer| answer.body.get(1) == Some(&0));
    Ok(defaults
        .filter_map(|answer| attribute(answer.body.get(12..)?, RTA_OIF).and_then(number))
        .collect())
}

/// The device of every IPv4 address of this host, and the address with the length of its network.
pub(crate) fn networks(socket: &Socket) -> Result<BTreeSet<(u32, Ipv4Net)>, NetworkError> {
    let answers = socket
        .dump(|| Message::new(RTM_GETADDR, 0, &[AF_INET, 0, 0, 0, 0, 0, 0, 0]))
        .map_err(|source| NetworkError::List {
            what: "addresses",
            source,
        })?;
    Ok(answers
        .iter()
        .filter_map(|answer| {
            let device = answer.body.get(4..).and_then(number)?;
            let local = attribute(answer.body.get(8..)?, IFA_LOCAL).and_then(address)?;
            let network = Ipv4Net::new(local, *answer.body.get(1)?).ok()?;
            Some((device, network))
        })
        .collect())
}

/// Ensures that the service device exists, is up, and has the DNS address. True if something was
/// changed.
pub(crate) fn ensure_device(socket: &Socket, host: &HostNetwork) -> Result<bool, NetworkError> {
    let failed = |source| NetworkError::Device {
        device: SERVICE_DEVICE,
        address: host.dns,
        source,
    };
    let existing = device::find(socket, SERVICE_DEVICE).map_err(failed)?;
    let device = match &existing {
        Some(link) => link.clone(),
        None => make_device(socket).map_err(failed)?,
    };

    let has_address = addresses(socket)?.contains(&(device.index, host.dns));
    if existing.is_some() && device.up && has_address {
        return Ok(false);
    }
    socket
        .requests(vec![
            device::set_up(device.index),
            put_address(device.index, host.dns, None),
        ])
        .map_err(failed)?;
    Ok(true)
}

/// Creates a dummy device; where the kernel has no dummy module, an empty bridge, which can carry
/// an address as well.
fn make_device(socket: &Socket) -> io::Result<Link> {
    let made = socket.request(device::create(SERVICE_DEVICE, "dummy"));
    if made.is_err() {
        socket.request(device::create(SERVICE_DEVICE, "bridge"))?;
    }
    device::disable_ipv6(SERVICE_DEVICE)?;
    device::find(socket, SERVICE_DEVICE)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Ensures that the service range has a route. A host without a default route would answer
/// "unreachable" before the packet reaches our table; and the route's `src` keeps the DNS address,
/// which every host has, from being selected as the source. True if something was changed.
pub(crate) fn ensure_service_route(
    socket: &Socket,
    host: &HostNetwork,
) -> Result<bool, NetworkError> {
    let failed = |source| NetworkError::ServiceRoute {
        node_address: host.node_address,
        source,
    };
    let device = device::find(socket, SERVICE_DEVICE)
        .map_err(failed)?
        .ok_or_else(|| failed(io::Error::from(io::ErrorKind::NotFound)))?;
    let wanted = Route {
        destination: host.service_range.trunc(),
        device: device.index,
        gateway: None,
        source: Some(host.node_address),
    };
    if ours(socket)?.contains(&wanted) {
        return Ok(false);
    }
    socket.request(wanted.put()).map_err(failed)?;
    Ok(true)
}

/// Removes all routes of Windlass and returns them.
pub(crate) fn remove_all(socket: &Socket) -> Result<Vec<String>, NetworkError> {
    let mut removed = Vec::new();
    for route in ours(socket)? {
        match socket.request(route.delete()) {
            // The route was removed with its device, or by another program.
            Err(error) if device::is_gone(&error) => {}
            Err(source) => {
                let what = "routes";
                return Err(NetworkError::List { what, source });
            }
            Ok(()) => {}
        }
        removed.push(format!("route {}", route.destination));
    }
    Ok(removed)
}
