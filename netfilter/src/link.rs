//! The links of pods: one routed veth pair for each pod, no bridge.
//!
//! The host side has the name from the plan, the pod side is `eth0`. The route to the pod is added
//! last: a link with its route is complete, wherever an earlier attempt was interrupted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    thread,
};

use ipnet::Ipv4Net;
use reconciler::{name::LinkName, network::PodLink};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    device::{
        self, ENODEV, IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO,
        IFLA_MTU, Link, RTM_GETLINK, RTM_NEWLINK, disable_ipv6, find, header, read, remove,
        set_mtu, set_up,
    },
    error::NetworkError,
    neighbour::Entry,
    netlink::{Message, NEW, Socket},
    route::{self, POD_GATEWAY, Route, Scope},
};

const POD_DEVICE: &str = "eth0";
/// The loopback device has this index in every network namespace.
const LOOPBACK: u32 = 1;

const IFLA_NET_NS_FD: u16 = 28;
const VETH_INFO_PEER: u16 = 1;

/// Creates the link of a pod, or ensures that it is complete. An incomplete link is deleted and
/// created again.
///
/// Blocks for a few milliseconds: call it where blocking is allowed.
pub(crate) fn connect(
    link: &PodLink,
    netns: &OwnedFd,
    node_address: Ipv4Addr,
) -> Result<(), NetworkError> {
    let failed = |action| {
        move |source| NetworkError::Connect {
            link: link.name.clone(),
            action,
            source,
        }
    };
    let host = Socket::route().map_err(NetworkError::Netlink)?;
    let pod = socket_in(netns).map_err(|source| NetworkError::Namespace {
        link: link.name.clone(),
        source,
    })?;

    let existing =
        existing_pair(&host, &pod, link).map_err(failed("reading the existing devices"))?;
    let (host_index, pod_index) = match existing {
        Some(indexes) => indexes,
        None => make_pair(&host, &pod, link, netns).map_err(failed("making the pair"))?,
    };

    // The settings are made before the device is up, so that no packet passes without them.
    configure_host_side(link.name.as_str()).map_err(failed("setting up the host's side"))?;
    host.request(set_up(host_index))
        .map_err(failed("setting up the host's side"))?;
    pod.requests(pod_side(pod_index, link))
        .map_err(failed("setting up the pod's side"))?;

    let route = Route {
        destination: single(link.address),
        device: host_index,
        gateway: None,
        source: Some(node_address),
    };
    host.request(route.put())
        .map_err(failed("making the route to the pod"))
}

/// Opens a socket in the pod's namespace, on a thread that ends afterwards: whether a thread can
/// return to its own namespace is not certain.
fn socket_in(netns: &OwnedFd) -> io::Result<Socket> {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
                // A new device gets a copy of the settings in `default`, so this comes before the
                // pod's side is made.
                disable_ipv6("default")?;
                Socket::route()
            })
            .join()
            .unwrap_or_else(|_| {
                Err(io::Error::other(
                    "the thread in the pod's namespace panicked",
                ))
            })
    })
}

/// The indexes of both sides, if the pair exists and is this pod's. Another device with the link's
/// name, or a link that leads elsewhere, is deleted.
fn existing_pair(host: &Socket, pod: &Socket, wanted: &PodLink) -> io::Result<Option<(u32, u32)>> {
    let Some(outside) = find(host, wanted.name.as_str())? else {
        return Ok(None);
    };
    // Each side of a veth pair names the index of the other one (`IFLA_LINK`), in the namespace of
    // the other one: two devices that name each other are a pair. The MAC tells whose pair it is.
    if let Some(inside) = find(pod, POD_DEVICE)?
        && outside.peer == Some(inside.index)
        && inside.peer == Some(outside.index)
        && outside.mac == wanted.host_mac
    {
        // A running pod keeps its connections when its MTU changes.
        for (socket, side) in [(host, &outside), (pod, &inside)] {
            if side.mtu != Some(wanted.mtu) {
                socket.request(set_mtu(side.index, wanted.mtu))?;
            }
        }
        return Ok(Some((outside.index, inside.index)));
    }
    remove(host, wanted.name.as_str())?;
    Ok(None)
}

/// Creates the pair with the pod side already in the pod's namespace, named `eth0`.
fn make_pair(
    host: &Socket,
    pod: &Socket,
    wanted: &PodLink,
    netns: &OwnedFd,
) -> io::Result<(u32, u32)> {
    let namespace = netns.as_raw_fd().to_ne_bytes();
    let mtu = wanted.mtu.to_ne_bytes();
    let message = Message::new(RTM_NEWLINK, NEW, &header(0, 0, 0))
        .text(IFLA_IFNAME, wanted.name.as_str())
        .attribute(IFLA_ADDRESS, &wanted.host_mac)
        .attribute(IFLA_MTU, &mtu)
        .nested(IFLA_LINKINFO, &[], |info| {
            info.text(IFLA_INFO_KIND, "veth")
                .nested(IFLA_INFO_DATA, &[], |data| {
                    data.nested(VETH_INFO_PEER, &header(0, 0, 0), |peer| {
                        peer.text(IFLA_IFNAME, POD_DEVICE)
                            .attribute(IFLA_MTU, &mtu)
                            .attribute(IFLA_NET_NS_FD, &namespace)
                    })
                })
        });
    host.request(message)?;

    // Between the request and the answers another program may delete the pair.
    let gone = || io::Error::from_raw_os_error(ENODEV);
    let outside = find(host, wanted.name.as_str())?.ok_or_else(gone)?;
    let inside = find(pod, POD_DEVICE)?.ok_or_else(gone)?;
    Ok((outside.index, inside.index))
}

/// The requests that configure everything inside the pod's namespace; each of them is idempotent.
/// The kernel accepts a route only after the device is up and its source and gateway are known, so
/// their order matters.
fn pod_side(index: u32, link: &PodLink) -> Vec<Message> {
    let gateway = Route {
        destination: single(POD_GATEWAY),
        device: index,
        gateway: None,
        source: None,
    };
    let default = Route {
        destination: Ipv4Net::default(),
        device: index,
        gateway: Some(POD_GATEWAY),
        source: None,
    };
    vec![
        set_up(LOOPBACK),
        set_up(index),
        route::put_address(index, link.address, Some(Scope::Universe)),
        Entry::Neighbour {
            address: POD_GATEWAY,
            mac: link.host_mac,
        }
        .put(index),
        gateway.put(),
        default.put(),
    ]
}

/// Sets what a pod may do on its link: it must not send with another pod's address (`rp_filter`, RFC
/// 3704), have the host answer ARP for others (`proxy_arp`), or use IPv6.
fn configure_host_side(name: &str) -> io::Result<()> {
    let settings = Path::new("/proc/sys/net/ipv4/conf").join(name);
    for (setting, value) in [
        ("rp_filter", "1"),
        ("proxy_arp", "0"),
        ("send_redirects", "0"),
        ("forwarding", "1"),
    ] {
        fs::write(settings.join(setting), value)?;
    }
    disable_ipv6(name)
}

/// The names of all complete pod links: the device exists, is up, and has its route.
pub(crate) fn complete(socket: &Socket) -> Result<BTreeSet<LinkName>, NetworkError> {
    let routed: BTreeSet<u32> = route::ours(socket)?
        .into_iter()
        .map(|route| route.device)
        .collect();

    let mut complete = BTreeSet::new();
    for (name, link) in pod_links(socket)? {
        if link.up && routed.contains(&link.index) {
            complete.insert(name);
        }
    }
    Ok(complete)
}

/// The pod address that each complete link leads to, by the link's name.
pub(crate) fn addresses(socket: &Socket) -> Result<BTreeMap<LinkName, Ipv4Addr>, NetworkError> {
    let names: BTreeMap<u32, LinkName> = pod_links(socket)?
        .into_iter()
        .filter(|(_, link)| link.up)
        .map(|(name, link)| (link.index, name))
        .collect();

    let mut addresses = BTreeMap::new();
    for route in route::ours(socket)? {
        // The other routes of Windlass lead to the service device and to other hosts.
        if let Some(name) = names.get(&route.device) {
            addresses.insert(name.clone(), route.destination.addr());
        }
    }
    Ok(addresses)
}

/// All pod links by name, complete or not.
pub(crate) fn pod_links(socket: &Socket) -> Result<Vec<(LinkName, Link)>, NetworkError> {
    let answers = device::links(socket)?;
    let devices = answers.iter().filter_map(read);
    Ok(devices
        .filter_map(|device| Some((LinkName::parse(&device.name)?, device)))
        .collect())
}

/// The MTU, in bytes, of the device that carries an address of this host.
pub(crate) fn uplink_mtu(socket: &Socket, node_address: Ipv4Addr) -> Result<u32, NetworkError> {
    let addresses = route::addresses(socket)?;
    let device = addresses
        .iter()
        .find(|(_, address)| *address == node_address)
        .map(|(device, _)| *device);
    let index = device.ok_or(NetworkError::Uplink { node_address })?;
    let link = socket
        .get(Message::new(RTM_GETLINK, 0, &header(index, 0, 0)))
        .map_err(|source| NetworkError::List {
            what: "links",
            source,
        })?;
    read(&link)
        .and_then(|link| link.mtu)
        .ok_or(NetworkError::Uplink { node_address })
}

fn single(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(address)
}
