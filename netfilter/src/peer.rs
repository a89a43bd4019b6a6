//! The paths to the pods of other hosts: a route for each host, and for the hosts behind VXLAN the
//! entries of the device.
//!
//! New entries are added first, changed ones are replaced in place, and unwanted ones are removed
//! last, so that the traffic of an unchanged peer is not interrupted.

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

/// The drift that was repaired, and the first error. An error for one peer does not keep the others
/// from being routed.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) drift: BTreeSet<Drift>,
    pub(crate) failed: Option<NetworkError>,
}

impl Outcome {
    /// Records the result of one part: whether it changed something, or its error.
    fn note(&mut self, drift: Drift, result: Result<bool, NetworkError>) {
        match result {
            Ok(true) => {
                self.drift.insert(drift);
            }
            Ok(false) => {}
            Err(error) if self.failed.is_none() => self.failed = Some(error),
            Err(error) => tracing::warn!(%error, "the path to another host is missing too"),
        }
    }
}

/// The addresses of the hosts that exchange VXLAN packets with this host.
pub(crate) fn vxlan_addresses(peers: &Peers) -> BTreeSet<Ipv4Addr> {
    peers
        .values()
        .filter(|peer| peer.path == PeerPath::Vxlan)
        .map(|peer| peer.address)
        .collect()
}

/// Changes the host's device, entries and routes to exactly those that these peers need.
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
        Ok(existing_routes) => {
            ensure_routes(socket, host, peers, device, &existing_routes, &mut outcome)
        }
        Err(error) => outcome.note(Drift::PeerRoutes, Err(error)),
    }

    // Unwanted entries go after the routes that lead to them. A device that could not be made has
    // been reported, and is not removed while a peer needs it.
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
    let existing = neighbour::permanent(socket, device)?;
    // The forwarding entry of a MAC is set before the neighbour entry that refers to the MAC.
    let mut missing: Vec<&Entry> = wanted.difference(&existing).collect();
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

/// Adds the missing routes, and then removes the routes to subnets that no peer has any more.
fn ensure_routes(
    socket: &Socket,
    host: &HostNetwork,
    peers: &Peers,
    device: Option<u32>,
    existing_routes: &BTreeSet<Route>,
    outcome: &mut Outcome,
) {
    for (name, peer) in peers {
        let changed = match (peer.path, device) {
            (PeerPath::Vxlan, Some(device)) => {
                put_vxlan(socket, host, peer, device, existing_routes)
            }
            // The error of the missing device has been reported already.
            (PeerPath::Vxlan, None) => Ok(false),
            (PeerPath::Direct, _) => put_direct(socket, host, peer, existing_routes),
        };
        outcome.note(
            Drift::PeerRoutes,
            changed.map_err(|cause| cause.of(name, peer)),
        );
    }

    let wanted: BTreeSet<Ipv4Net> = peers.values().map(|peer| peer.pod_subnet.trunc()).collect();
    // Pods and the service range are reached without a gateway.
    for route in existing_routes
        .iter()
        .filter(|route| route.gateway.is_some())
    {
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

/// The error for a peer that has no route.
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

/// The gateway is the peer's device, which no other route shows as on-link: the route must carry
/// the flag for it.
fn put_vxlan(
    socket: &Socket,
    host: &HostNetwork,
    peer: &Peer,
    device: u32,
    existing_routes: &BTreeSet<Route>,
) -> Result<bool, Cause> {
    let route = Route {
        destination: peer.pod_subnet.trunc(),
        device,
        gateway: Some(peer.pod_subnet.network()),
        source: Some(overlay::own_address(host)),
    };
    if existing_routes.contains(&route) {
        return Ok(false);
    }
    socket.request(route.put_onlink())?;
    Ok(true)
}

/// The gateway is the peer itself. A peer behind a router is an error: the router does not know
/// where the pods are.
fn put_direct(
    socket: &Socket,
    host: &HostNetwork,
    peer: &Peer,
    existing_routes: &BTreeSet<Route>,
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
    if existing_routes.contains(&route) {
        return Ok(false);
    }
    match socket.request(route.put()) {
        // The device is right, but the kernel's own routes do not show the peer as on-link there.
        Err(error) if error.raw_os_error() == Some(ENETUNREACH) => {
            socket.request(route.put_onlink())?
        }
        result => result?,
    }
    Ok(true)
}
