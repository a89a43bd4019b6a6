//! What NAT, the pod links and the DNS of a host must say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{name::NodeName, object::Protocol};

/// The host side of the network, fixed by configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNetwork {
    /// Addresses of all pods of the cluster.
    pub pod_range: Ipv4Net,
    /// Addresses of this host's pods, a part of `pod_range`.
    pub pod_subnet: Ipv4Net,
    /// Addresses of Services.
    pub service_range: Ipv4Net,
    /// Where the cluster's DNS is served, in `service_range`.
    pub dns: Ipv4Addr,
    /// This host's own address: the source of its connections to Services.
    pub node_address: Ipv4Addr,
    /// MTU of pod links.
    pub mtu: u32,
    /// The tunnels to other hosts; equal on all of them.
    pub vxlan: VxlanSettings,
}

/// Bytes that VXLAN over IPv4 puts around a packet: an Ethernet, IP, UDP and VXLAN header (RFC
/// 7348).
pub const VXLAN_OVERHEAD: u32 = 50;

/// What tells our VXLAN packets from those of others; every host of a cluster must say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VxlanSettings {
    /// The network identifier, below 2^24.
    pub id: u32,
    /// The UDP port that hosts send to and receive on.
    pub port: u16,
}

impl Default for VxlanSettings {
    /// A port that no other network of containers uses: 4789 is Docker Swarm's, 8472 is Flannel's.
    fn default() -> Self {
        Self { id: 87, port: 8487 }
    }
}

/// How packets reach the pods of another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerPath {
    /// Packed into UDP packets from host to host: works wherever the hosts reach each other.
    Vxlan,
    /// As they are, with the other host as the router. Both hosts must be on one link that lets the
    /// addresses of pods pass. Nothing is packed, so the whole MTU is left.
    Direct,
}

/// Another host of the cluster, as the network sees it. Both hosts must use the same path to each
/// other: a packet that comes by another way than the answer would take is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The host's own address.
    pub address: Ipv4Addr,
    /// Addresses of its pods. The network address itself is the host's, on its VXLAN device.
    pub pod_subnet: Ipv4Net,
    /// How to get there.
    pub path: PeerPath,
}

/// The other hosts by name: the complete wanted set.
pub type Peers = BTreeMap<NodeName, Peer>;

/// The greatest MTU that pod links may have on a host whose uplink has the MTU `uplink`: what is
/// left when the packets to some of the peers are packed.
pub fn pod_mtu(uplink: u32, peers: &Peers) -> u32 {
    let packed = peers.values().any(|peer| peer.path == PeerPath::Vxlan);
    if packed {
        uplink.saturating_sub(VXLAN_OVERHEAD)
    } else {
        uplink
    }
}

/// The veth pair of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodLink {
    /// Name of the host's side, `wdl` and eleven digits of a hash of the pod's uid.
    pub name: String,
    /// The pod's address, a /32 on its `eth0`.
    pub address: Ipv4Addr,
    /// MAC of the host's side, locally administered: the pod's permanent neighbour entry.
    pub host_mac: [u8; 6],
    /// MTU of both sides.
    pub mtu: u32,
}

/// All service traffic of a host: the complete wanted content of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTable {
    /// Ports of virtual addresses.
    pub cluster_ips: BTreeMap<VirtualPort, Backends>,
    /// Ports on every address of the host except 127.0.0.0/8.
    pub node_ports: BTreeMap<HostPort, Backends>,
    /// `hostPort`s: on every address of the host, or on one.
    pub host_ports: BTreeMap<(Option<Ipv4Addr>, HostPort), SocketAddrV4>,
}

/// A port of a virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VirtualPort {
    /// The cluster IP.
    pub address: Ipv4Addr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// A port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// Where a service port leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backends {
    /// Pod address and port; none rejects at once.
    pub endpoints: BTreeSet<SocketAddrV4>,
    /// A client keeps its endpoint for this long after its last connection.
    pub client_ip_affinity: Option<Duration>,
}

/// What the DNS server answers, by lower-case name without the final dot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecords {
    /// The zone, `cluster.local`.
    pub zone: String,
    /// Name to answer.
    pub names: BTreeMap<String, DnsAnswer>,
}

/// One name's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsAnswer {
    /// A records. AAAA of the same name is NODATA.
    Addresses(BTreeSet<Ipv4Addr>),
    /// A CNAME; its target is resolved too.
    Alias(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_packet_must_fit_the_uplink() {
        let peer = |path| Peer {
            address: Ipv4Addr::new(192, 0, 2, 2),
            pod_subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 2, 0), 24),
            path,
        };
        let mut peers = Peers::new();
        assert_eq!(pod_mtu(1500, &peers), 1500);
        peers.insert(NodeName::new("near"), peer(PeerPath::Direct));
        assert_eq!(pod_mtu(1500, &peers), 1500);
        peers.insert(NodeName::new("far"), peer(PeerPath::Vxlan));
        assert_eq!(pod_mtu(1500, &peers), 1450);
    }
}
