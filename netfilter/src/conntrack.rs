//! Deletes UDP flows whose endpoint a service no longer has.
//!
//! A TCP connection ends by itself; a UDP flow is an entry of connection tracking, and as long as
//! packets arrive it keeps the endpoint that its first packet was sent to, or none if there was
//! none.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use reconciler::{
    network::{Backends, HostPort, ServiceTable, VirtualPort},
    object::Protocol,
};

use crate::netlink::{Answer, Message, Socket, attribute};

/// `NFNL_SUBSYS_CTNETLINK << 8`, with the message types of that subsystem.
const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const NESTED: u16 = 0x8000;
const IPPROTO_UDP: u8 = 17;
/// `struct nfgenmsg` for IPv4.
const FAMILY: [u8; 4] = [2, 0, 0, 0];
const ENOENT: i32 = 2;

/// The UDP ports whose endpoints differ between two tables, with their new endpoints.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    virtual_ports: BTreeMap<SocketAddrV4, BTreeSet<SocketAddrV4>>,
    node_ports: BTreeMap<u16, BTreeSet<SocketAddrV4>>,
    host_ports: BTreeMap<(Option<Ipv4Addr>, u16), BTreeSet<SocketAddrV4>>,
}

impl Changed {
    /// The differences between two tables. Compared with an empty table, all ports differ.
    pub(crate) fn between(old: &ServiceTable, new: &ServiceTable) -> Self {
        let virtual_port = |port: &VirtualPort| match port.protocol {
            Protocol::Udp => Some(SocketAddrV4::new(port.address, port.port)),
            Protocol::Tcp | Protocol::Sctp => None,
        };
        let port_number = |port: &HostPort| match port.protocol {
            Protocol::Udp => Some(port.port),
            Protocol::Tcp | Protocol::Sctp => None,
        };
        let host_port = |(address, port): &(Option<Ipv4Addr>, HostPort)| {
            port_number(port).map(|number| (*address, number))
        };
        let endpoints = |backends: &Backends| backends.endpoints.clone();
        let one_endpoint = |endpoint: &SocketAddrV4| BTreeSet::from([*endpoint]);

        Self {
            virtual_ports: differing(&old.cluster_ips, &new.cluster_ips, virtual_port, endpoints),
            node_ports: differing(&old.node_ports, &new.node_ports, port_number, endpoints),
            host_ports: differing(&old.host_ports, &new.host_ports, host_port, one_endpoint),
        }
    }

    /// Whether no UDP port differs.
    pub(crate) fn is_empty(&self) -> bool {
        self.virtual_ports.is_empty() && self.node_ports.is_empty() && self.host_ports.is_empty()
    }

    /// Whether a flow goes to a changed port and its endpoint is not one of the port's new
    /// endpoints.
    fn is_stale(&self, flow: &Flow, local: &BTreeSet<Ipv4Addr>) -> bool {
        let lacks_answerer =
            |endpoints: &BTreeSet<SocketAddrV4>| !endpoints.contains(&flow.answerer);
        if let Some(endpoints) = self.virtual_ports.get(&flow.to) {
            return lacks_answerer(endpoints);
        }

        // Ports of the host are served on the host's own addresses only.
        if !local.contains(flow.to.ip()) {
            return false;
        }
        // The order of the rules in the chain `local_ports`: the first match translates a packet.
        let (address, port) = (*flow.to.ip(), flow.to.port());
        self.host_ports
            .get(&(Some(address), port))
            .or_else(|| self.host_ports.get(&(None, port)))
            .or_else(|| self.node_ports.get(&port))
            .is_some_and(lacks_answerer)
    }
}

/// The entries that differ, selected and converted by the caller's functions; a removed entry has
/// no endpoints.
fn differing<K: Ord, V: PartialEq, P: Ord>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    port: impl Fn(&K) -> Option<P>,
    endpoints: impl Fn(&V) -> BTreeSet<SocketAddrV4>,
) -> BTreeMap<P, BTreeSet<SocketAddrV4>> {
    let gone = old
        .keys()
        .filter(|key| !new.contains_key(*key))
        .map(|key| (key, BTreeSet::new()));

    let changed = new
        .iter()
        .filter(|(key, value)| old.get(key) != Some(value));

    gone.chain(changed.map(|(key, value)| (key, endpoints(value))))
        .filter_map(|(key, endpoints)| Some((port(key)?, endpoints)))
        .collect()
}

/// A UDP flow: the destination of its first packet, and the endpoint that replies.
struct Flow {
    to: SocketAddrV4,
    answerer: SocketAddrV4,
    /// The attribute that identifies the flow to the kernel, without its header.
    tuple: Vec<u8>,
}

/// Deletes the stale flows and returns how many there were.
pub(crate) fn delete_stale(changed: &Changed, local: &BTreeSet<Ipv4Addr>) -> io::Result<usize> {
    let socket = Socket::netfilter()?;
    let flows = socket.dump(|| Message::new(CT_GET, 0, &FAMILY))?;
    let stale = flows
        .iter()
        .filter_map(read)
        .filter(|flow| changed.is_stale(flow, local));

    let mut deleted = 0;
    for flow in stale {
        let delete =
            Message::new(CT_DELETE, 0, &FAMILY).attribute(CTA_TUPLE_ORIG | NESTED, &flow.tuple);
        match socket.request(delete) {
            Ok(()) => deleted += 1,
            // The flow has timed out since the dump.
            Err(error) if error.raw_os_error() == Some(ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Parses a flow; `None` if it is not UDP.
fn read(answer: &Answer) -> Option<Flow> {
    let rest = answer.body.get(FAMILY.len()..)?;
    let original = attribute(rest, CTA_TUPLE_ORIG)?;
    let reply = attribute(rest, CTA_TUPLE_REPLY)?;
    if attribute(attribute(original, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)? != [IPPROTO_UDP] {
        return None;
    }
    Some(Flow {
        to: socket_address(original, CTA_IP_V4_DST, CTA_PROTO_DST_PORT)?,
        answerer: socket_address(reply, CTA_IP_V4_SRC, CTA_PROTO_SRC_PORT)?,
        tuple: original.to_vec(),
    })
}

fn socket_address(tuple: &[u8], address: u16, port: u16) -> Option<SocketAddrV4> {
    let address: &[u8; 4] = attribute(attribute(tuple, CTA_TUPLE_IP)?, address)?.first_chunk()?;
    let port: &[u8; 2] = attribute(attribute(tuple, CTA_TUPLE_PROTO)?, port)?.first_chunk()?;
    Some(SocketAddrV4::new(
        Ipv4Addr::from(*address),
        u16::from_be_bytes(*port),
    ))
}
