//! The bridges of this host's other containers, such as `docker0`: what comes from them counts as
//! from the host.
//!
//! Such a bridge is recognised by its ports: all of them are veth pairs, none to another bridge of
//! this host, and the host's own network is not on it. A bridge with a network card or a virtual
//! machine connects other machines, and so may the other bridge.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use crate::{
    device::{self, IFLA_LINK},
    error::NetworkError,
    netlink::{Answer, Socket, attribute, number},
    overlay::OVERLAY_DEVICE,
    route::{self, SERVICE_DEVICE},
};

const IFLA_MASTER: u16 = 10;
const IFLA_LINK_NETNSID: u16 = 37;

/// The addresses of this host and of its other containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Locals {
    /// Names of the bridges of other containers.
    pub(crate) bridges: BTreeSet<String>,
    /// The networks on these bridges, and each address of the host.
    pub(crate) networks: BTreeSet<Ipv4Net>,
}

/// Reads the bridges and addresses of this host.
pub(crate) fn locals(socket: &Socket, node_address: Ipv4Addr) -> Result<Locals, NetworkError> {
    let devices = devices(socket)?;
    let addresses = route::networks(socket)?;

    let mut uplinks = route::default_devices(socket)?;
    let of_node = addresses
        .iter()
        .filter(|(_, net)| net.addr() == node_address);
    uplinks.extend(of_node.map(|(device, _)| *device));

    let bridges = container_bridges(&devices, &uplinks);
    let networks = addresses.iter().flat_map(|(device, network)| {
        let bridged = bridges.contains_key(device).then(|| network.trunc());
        [Some(Ipv4Net::from(network.addr())), bridged]
    });
    let networks = networks.flatten().collect();
    Ok(Locals {
        bridges: bridges.into_values().map(str::to_owned).collect(),
        networks,
    })
}

/// What is read of a device.
#[derive(Debug)]
struct Device {
    index: u32,
    name: String,
    kind: Kind,
    /// The device that this one is a port of.
    master: Option<u32>,
    /// The other side of a veth pair, where it is in the host's own network namespace.
    peer: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bridge,
    Veth,
    Other,
}

fn devices(socket: &Socket) -> Result<Vec<Device>, NetworkError> {
    let answers = device::links(socket)?;
    Ok(answers.iter().filter_map(read).collect())
}

fn read(answer: &Answer) -> Option<Device> {
    let link = device::read(answer)?;
    let kind = if device::kind_data(answer, "bridge").is_some() {
        Kind::Bridge
    } else if device::kind_data(answer, "veth").is_some() {
        Kind::Veth
    } else {
        Kind::Other
    };
    Some(Device {
        index: link.index,
        name: link.name,
        kind,
        master: master(&answer.body),
        peer: own_peer(&answer.body),
    })
}

/// The device that the device of a link message is a port of.
fn master(body: &[u8]) -> Option<u32> {
    attribute(body.get(16..)?, IFLA_MASTER).and_then(number)
}

/// The other side of a veth pair, if it is in the same network namespace: only of another one does
/// the kernel report the namespace.
fn own_peer(body: &[u8]) -> Option<u32> {
    let attributes = body.get(16..)?;
    if attribute(attributes, IFLA_LINK_NETNSID).is_some() {
        return None;
    }
    attribute(attributes, IFLA_LINK).and_then(number)
}

/// Whether a link message is of a port that may make its bridge one to other machines.
pub(crate) fn may_be_outside_port(answer: &Answer) -> bool {
    let is_veth = device::kind_data(answer, "veth").is_some();
    master(&answer.body).is_some() && (!is_veth || own_peer(&answer.body).is_some())
}

/// The names of the bridges of containers, by index.
fn container_bridges<'a>(devices: &'a [Device], uplinks: &BTreeSet<u32>) -> BTreeMap<u32, &'a str> {
    let ports: BTreeSet<u32> = devices
        .iter()
        .filter(|device| device.master.is_some())
        .map(|device| device.index)
        .collect();
    // Docker makes both sides of a pair in the host's namespace, and moves one of them after the
    // other is a port: a side that is no port itself leads nowhere else.
    let leads_outside = |device: &&Device| {
        device.kind != Kind::Veth || device.peer.is_some_and(|peer| ports.contains(&peer))
    };
    let outside: BTreeSet<u32> = devices
        .iter()
        .filter(leads_outside)
        .filter_map(|device| device.master)
        .collect();
    let is_ours = |name: &str| [SERVICE_DEVICE, OVERLAY_DEVICE].contains(&name);
    devices
        .iter()
        .filter(|device| device.kind == Kind::Bridge && !is_ours(&device.name))
        .filter(|device| !outside.contains(&device.index) && !uplinks.contains(&device.index))
        .map(|device| (device.index, device.name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: u32, name: &str, kind: Kind, master: Option<u32>) -> Device {
        Device {
            index,
            name: name.to_owned(),
            kind,
            master,
            peer: None,
        }
    }

    fn pair(index: u32, peer: u32, master: Option<u32>) -> Device {
        Device {
            peer: Some(peer),
            ..device(index, &format!("veth{index}"), Kind::Veth, master)
        }
    }

    #[test]
    fn a_bridge_to_other_machines_is_not_one_of_containers() {
        let devices = [
            device(1, "eth0", Kind::Other, Some(2)),
            device(2, "br0", Kind::Bridge, None),
            device(3, "docker0", Kind::Bridge, None),
            device(4, "veth1", Kind::Veth, Some(3)),
            device(5, "br-empty", Kind::Bridge, None),
            device(6, "uplink", Kind::Bridge, None),
            device(7, "veth2", Kind::Veth, Some(6)),
            device(8, SERVICE_DEVICE, Kind::Bridge, None),
            device(9, "virbr0", Kind::Bridge, None),
            device(10, "tap0", Kind::Other, Some(9)),
            device(11, "br-joined", Kind::Bridge, None),
            pair(12, 13, Some(11)),
            pair(13, 12, Some(2)),
            // A container that is being started.
            pair(14, 15, Some(3)),
            pair(15, 14, None),
        ];
        let bridges = container_bridges(&devices, &BTreeSet::from([6]));
        assert_eq!(
            bridges.into_values().collect::<Vec<_>>(),
            ["docker0", "br-empty"]
        );
    }
}
