//! What NAT, the pod links and the DNS of a host must say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::object::Protocol;

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
