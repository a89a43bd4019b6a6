//! The ways to the pods of other hosts: a route for each, and for those behind VXLAN the entries of
//! the device.
//!
//! What is new comes first, what is changed is replaced in its place, and what is no longer wanted
//! goes last: the traffic of a peer that stays as it is never notices.

use std::{collections::BTreeSet, io, net::Ipv4Addr};

use ipnet::Ipv4Net;
use reconciler::{
    name::NodeName,
    network::{HostNetwork, Peer, PeerPath, Peers},
};

use crate::{
    device,
    drift::Drift,
    error::NetworkError,
    neighbour::{self, Entry},
    netlink::Socket,
    overlay,
    route::{self, Reach, Route},
};

const ENETUNREACH: i32 = 101;

/// What was put right, and the first thing that could not be. One bad peer does not keep the others
/// from their ways.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) drift: BTreeSet<Drift>,
    pub(crate) failed: Option<NetworkError>,
}

impl Outcome {
    /// Takes in one part's result: whether it changed something.
    fn note(&mut self, drift: Drift, result: Result<bool, NetworkError>) {
        match result {
            Ok(true) => {
                self.drift.insert(drift);
            }
            Ok(false) => {}
            Err(error) if self.failed.is_none() => self.failed = Some(error),
            Err(error) => tracing::warn!(%error, "a way to another host is missing too"),
        }
    }
}

/// The addresses of the hosts with which VXLAN packets are exchanged.
pub(crate) fn vxlan_addresses(peers: &Peers) -> BTreeSet<Ipv4Addr> {
    peers
        .values()
        .filter(|peer| peer.path == PeerPath::Vxlan)
        .map(|peer| peer.address)
        .collect()
}

/// Makes the host's device, entries and routes such as these peers need, and none else.
pub(crate) fn ensure(socket: &Socket, host: &HostNetwork, peers: &Peers) -> Outcome {
    let mut outcome = Outcome::default();
    let entries = wanted_entries(peers);
    let mut device = None;
    if !entries.is_empty() {
        match overlay::ensure(socket, host) {
            Ok((index, changed)) => {
                device = Some(index);
                outcome.note(Drift::OverlayDevice, Ok(changed));
                outcome.note(Drift::PeerEntries, put_entries(socket, index, &entries));
            }
            Err(error) => outcome.note(Drift::OverlayDevice, Err(error)),
        }
    }
    match route::ours(socket) {
        Ok(found) => ensure_routes(socket, host, peers, device, &found, &mut outcome),
        Err(error) => outcome.note(Drift::PeerRoutes, Err(error)),
    }
    if let Some(index) = device {
        outcome.note(Drift::PeerEntries, remove_entries(socket, index, &entries));
    } else if entries.is_empty() {
        outcome.note(Drift::OverlayDevice, overlay::remove(socket, host));
    }
    outcome
}

fn wanted_entries(peers: &Peers) -> BTreeSet<Entry> {
    let behind_vxlan = peers.values().filter(|peer| peer.path == PeerPath::Vxlan);
    behind_vxlan
        .flat_map(|peer| {
            let mac = overlay::mac(peer.address);
            [
                Entry::Forwarding {
                    mac,
                    host: peer.address,
                },
                Entry::Neighbour {
                    address: peer.pod_subnet.network(),
                    mac,
                },
            ]
        })
        .collect()
}

fn put_entries(
    socket: &Socket,
    device: u32,
    wanted: &BTreeSet<Entry>,
) -> Result<bool, NetworkError> {
    let found = neighbour::permanent(socket, device)?;
    // A MAC is led to its host before an address is led to the MAC.
    let mut missing: Vec<&Entry> = wanted.difference(&found).collect();
    missing.sort_by_key(|entry| matches!(entry, Entry::Neighbour { .. }));
    for entry in &missing {
        socket
            .request(entry.put(device))
            .map_err(NetworkError::PeerEntries)?;
    }
    Ok(!missing.is_empty())
}

fn remove_entries(
    socket: &Socket,
    device: u32,
    wanted: &BTreeSet<Entry>,
) -> Result<bool, NetworkError> {
    let mut removed = false;
    for entry in neighbour::permanent(socket, device)?.difference(wanted) {
        match socket.request(entry.delete(device)) {
            Err(error) if !is_gone(&error) => return Err(NetworkError::PeerEntries(error)),
            _ => removed = true,
        }
    }
    Ok(removed)
}

/// Puts the routes that are missing, and then removes those to subnets that nobody has any more.
fn ensure_routes(
    socket: &Socket,
    host: &HostNetwork,
    peers: &Peers,
    device: Option<u32>,
    found: &BTreeSet<Route>,
    outcome: &mut Outcome,
) {
    for (name, peer) in peers {
        let changed = match (peer.path, device) {
            (PeerPath::Vxlan, Some(device)) => put_vxlan(socket, host, peer, device, found),
            // Why there is no device has been told.
            (PeerPath::Vxlan, None) => Ok(false),
            (PeerPath::Direct, _) => put_direct(socket, host, peer, found),
        };
        outcome.note(
            Drift::PeerRoutes,
            changed.map_err(|cause| cause.of(name, peer)),
        );
    }
    let wanted: BTreeSet<Ipv4Net> = peers.values().map(|peer| peer.pod_subnet.trunc()).collect();
    // Pods and the service range are reached without a gateway.
    for route in found.iter().filter(|route| route.gateway.is_some()) {
        if !wanted.contains(&route.destination) {
            let removed = match socket.request(route.delete()) {
                Err(error) if !is_gone(&error) => Err(NetworkError::List {
                    what: "routes to other hosts",
                    source: error,
                }),
                _ => Ok(true),
            };
            outcome.note(Drift::PeerRoutes, removed);
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    device::is_gone(error) || error.kind() == io::ErrorKind::NotFound
}

/// Why there is no route to a peer.
enum Cause {
    Kernel(io::Error),
    BehindRouter(Ipv4Addr),
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::Kernel(error)
    }
}

impl Cause {
    fn of(self, name: &NodeName, peer: &Peer) -> NetworkError {
        let (name, address) = (name.clone(), peer.address);
        match self {
            Self::Kernel(source) => NetworkError::PeerRoute {
                peer: name,
                address,
                subnet: peer.pod_subnet,
                source,
            },
            Self::BehindRouter(router) => NetworkError::PeerBehindRouter {
                peer: name,
                address,
                router,
            },
        }
    }
}

/// The gateway is the peer's device, which is no neighbour by any route: the kernel must be told
/// that it is one.
fn put_vxlan(
    socket: &Socket,
    host: &HostNetwork,
    peer: &Peer,
    device: u32,
    found: &BTreeSet<Route>,
) -> Result<bool, Cause> {
    let route = Route {
        destination: peer.pod_subnet.trunc(),
        device,
        gateway: Some(peer.pod_subnet.network()),
        source: Some(overlay::own_address(host)),
    };
    if found.contains(&route) {
        return Ok(false);
    }
    socket.request(route.put_onlink())?;
    Ok(true)
}

fn put_direct(
    socket: &Socket,
    host: &HostNetwork,
    peer: &Peer,
    found: &BTreeSet<Route>,
) -> Result<bool, Cause> {
    let Reach { device, router } = route::reach(socket, peer.address)?;
    if let Some(router) = router {
        return Err(Cause::BehindRouter(router));
    }
    let route = Route {
        destination: peer.pod_subnet.trunc(),
        device,
        gateway: Some(peer.address),
        source: Some(host.node_address),
    };
    if found.contains(&route) {
        return Ok(false);
    }
    match socket.request(route.put()) {
        // The device is right, but the kernel does not see by its own routes that the peer is on
        // that link.
        Err(error) if error.raw_os_error() == Some(ENETUNREACH) => {
            socket.request(route.put_onlink())?
        }
        result => result?,
    }
    Ok(true)
}
