//! The wanted content of a host's NAT table, pod links and DNS.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{
    name::{LinkName, NodeName},
    object::Protocol,
};

/// The network of a host, as its configuration defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNetwork {
    /// Addresses of all pods of the cluster.
    pub pod_range: Ipv4Net,
    /// Addresses of this host's pods; a subnet of `pod_range`.
    pub pod_subnet: Ipv4Net,
    /// Addresses of Services.
    pub service_range: Ipv4Net,
    /// Address of the cluster's DNS, inside `service_range`.
    pub dns: Ipv4Addr,
    /// This host's own address, which is the source of its connections to Services.
    pub node_address: Ipv4Addr,
    /// MTU of pod links, in bytes.
    pub mtu: u32,
    /// The VXLAN tunnels to other hosts; the same on all hosts.
    pub vxlan: VxlanSettings,
}

/// Bytes that VXLAN over IPv4 adds to a packet: Ethernet, IP, UDP and VXLAN headers (RFC 7348).
pub const VXLAN_OVERHEAD: u32 = 50;

/// The values that identify our VXLAN packets; they must be the same on every host of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VxlanSettings {
    /// The VXLAN network identifier, below 2^24.
    pub id: u32,
    /// The UDP port to which hosts send and on which they receive.
    pub port: u16,
}

impl Default for VxlanSettings {
    /// The default port is one that no other container network uses: 4789 is Docker Swarm's, 8472
    /// is Flannel's.
    fn default() -> Self {
        Self { id: 87, port: 8487 }
    }
}

/// How packets reach the pods of another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerPath {
    /// Packets are encapsulated in UDP from host to host: this works wherever the hosts reach each
    /// other.
    Vxlan,
    /// Packets are routed unchanged, with the other host as the router. Both hosts must be on one
    /// link that forwards the addresses of pods. Nothing is encapsulated, so the whole MTU is
    /// available.
    Direct,
}

/// Another host of the cluster, as the network sees it. Both hosts must use the same path to each
/// other: a packet that arrives by another path than its answer would take is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The host's own address.
    pub address: Ipv4Addr,
    /// Addresses of the host's pods. The network address itself belongs to the host's VXLAN device.
    pub pod_subnet: Ipv4Net,
    /// The path to the host's pods.
    pub path: PeerPath,
}

/// The other hosts by name: the complete set.
pub type Peers = BTreeMap<NodeName, Peer>;

/// The largest MTU that pod links may have on a host whose uplink has the MTU `uplink`, both in
/// bytes: it leaves room for encapsulation if one of the peers needs that.
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
    /// Name of the host's side.
    pub name: LinkName,
    /// The pod's address, a /32 on the pod's `eth0`.
    pub address: Ipv4Addr,
    /// MAC address of the host's side, locally administered; the pod has it as a permanent
    /// neighbour entry.
    pub host_mac: [u8; 6],
    /// MTU of both sides, in bytes.
    pub mtu: u32,
}

/// All service traffic of a host: the complete content of the NAT table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTable {
    /// Backends of the ports of virtual addresses.
    pub cluster_ips: BTreeMap<VirtualPort, Backends>,
    /// Backends of node ports, on every address of the host except 127.0.0.0/8.
    pub node_ports: BTreeMap<HostPort, Backends>,
    /// The pod behind each `hostPort`, on one address of the host, or with `None` on every address.
    pub host_ports: BTreeMap<(Option<Ipv4Addr>, HostPort), SocketAddrV4>,
}

/// A port of a virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VirtualPort {
    /// The virtual address (cluster IP).
    pub address: Ipv4Addr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port number.
    pub port: u16,
}

/// A port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port number.
    pub port: u16,
}

/// The destinations of a service port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backends {
    /// Pod addresses and ports; an empty set rejects connections at once.
    pub endpoints: BTreeSet<SocketAddrV4>,
    /// How long a client keeps its endpoint after its last connection; `None` is no affinity.
    pub client_ip_affinity: Option<Duration>,
}

/// The answers of the DNS server, by lower-case name without the final dot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecords {
    /// The zone, for example `cluster.local`.
    pub zone: String,
    /// The answer for each name.
    pub names: BTreeMap<String, DnsAnswer>,
}

/// The answer for one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsAnswer {
    /// A records; a query for AAAA gets an answer without data (NODATA).
    Addresses(BTreeSet<Ipv4Addr>),
    /// A CNAME record; the server also resolves its target.
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
