//! What the table `ip windlass` must hold, from what the core wants.
//!
//! Services and endpoints are map elements only; the chains are static, one for every number of
//! endpoints that occurs. A packet to a service port meets `virtual_ports` (or `node_ports`), which
//! sends it to the chain for its number of endpoints N; that draws an index below N into the
//! packet's mark, and `endpoints` turns port and mark into an address. Only a port with session
//! affinity has a chain of its own, and a set of clients for each of its endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use reconciler::{
    network::{Backends, HostNetwork, HostPort, ServiceTable, VirtualPort},
    object::Protocol,
};

mod base;
mod overlay;

/// Name of the table, and of everything shared that we leave somewhere.
pub const TABLE: &str = "windlass";

/// Packets that met a service carry this in the upper byte of their mark, and the index of their
/// endpoint below.
const MARK: u32 = 0x5700_0000;
/// The bits of the mark that say whether it is ours.
const MARK_MASK: u32 = 0xff00_0000;
/// How many clients of one endpoint are remembered; beyond that they are spread like others.
const STICKY_CLIENTS: u32 = 65_535;

const VIRTUAL_PORTS: &str = "virtual_ports";
const ENDPOINTS: &str = "endpoints";
const NODE_PORTS: &str = "node_ports";
const NODE_ENDPOINTS: &str = "node_endpoints";
const HOST_PORTS: &str = "host_ports";
const HOST_PORTS_AT: &str = "host_ports_at";
const HAIRPIN: &str = "hairpin";
const REFUSED_VIRTUAL_PORTS: &str = "refused_virtual_ports";
const REFUSED_NODE_PORTS: &str = "refused_node_ports";
const VXLAN_PEERS: &str = "vxlan_peers";

/// The whole content of the table as values that can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruleset {
    /// Sets and maps: name to declaration.
    pub(crate) sets: BTreeMap<String, String>,
    /// Chains.
    pub(crate) chains: BTreeMap<String, Chain>,
    /// Elements of those sets and maps that we fill: set to key to value, empty for a set.
    pub(crate) elements: BTreeMap<String, BTreeMap<String, String>>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Where a base chain hooks in.
    pub(crate) hook: Option<&'static str>,
    /// Its rules, in order.
    pub(crate) rules: Vec<String>,
}

impl Ruleset {
    /// The content that makes a host's services work, and keeps all but these hosts from sending it
    /// VXLAN packets.
    pub(crate) fn of(
        host: &HostNetwork,
        vxlan_peers: &BTreeSet<Ipv4Addr>,
        table: &ServiceTable,
    ) -> Self {
        let mut ruleset = base::ruleset(host);
        overlay::add(&mut ruleset, host, vxlan_peers);
        for (port, backends) in &table.cluster_ips {
            ruleset.serve(&Front::of_virtual_port(port), backends);
        }
        for (port, backends) in &table.node_ports {
            ruleset.serve(&Front::of_node_port(port), backends);
        }
        for ((address, port), endpoint) in &table.host_ports {
            let local = local_key(port);
            match address {
                Some(address) => ruleset.put(
                    HOST_PORTS_AT,
                    format!("{address} . {local}"),
                    socket(endpoint),
                ),
                None => ruleset.put(HOST_PORTS, local, socket(endpoint)),
            }
        }
        for pod in endpoint_addresses(table) {
            if host.pod_subnet.contains(&pod) {
                ruleset.put(HAIRPIN, format!("{pod} . {pod}"), String::new());
            }
        }
        ruleset
    }

    fn serve(&mut self, front: &Front, backends: &Backends) {
        if backends.endpoints.is_empty() {
            self.put(front.refused, front.key.clone(), String::new());
            return;
        }
        for (index, endpoint) in (0..).zip(&backends.endpoints) {
            self.put(
                front.endpoints,
                format!("{} . {}", front.key, mark(index)),
                socket(endpoint),
            );
        }
        let chain = match backends.client_ip_affinity {
            Some(timeout) => self.stick(front, &backends.endpoints, timeout.as_secs().max(1)),
            None => self.balance(front, backends.endpoints.len()),
        };
        self.put(front.ports, front.key.clone(), format!("goto {chain}"));
    }

    /// The chain that spreads connections over a number of endpoints.
    fn balance(&mut self, front: &Front, count: usize) -> String {
        let name = format!("{}{count}", front.balance);
        self.chains.entry(name.clone()).or_insert_with(|| Chain {
            hook: None,
            rules: vec![draw(count), dnat(front)],
        });
        name
    }

    /// The chain that draws an endpoint, or takes the one the client had, and remembers it.
    fn stick(
        &mut self,
        front: &Front,
        endpoints: &BTreeSet<SocketAddrV4>,
        timeout_s: u64,
    ) -> String {
        let name = format!("sticky-{}", front.label);
        let clients: Vec<String> = endpoints
            .iter()
            .map(|to| format!("{name}/{}-{}", to.ip(), to.port()))
            .collect();
        let mut rules = vec![draw(endpoints.len())];
        for (index, set) in (0..).zip(&clients) {
            rules.push(format!("ip saddr @{set} meta mark set {}", mark(index)));
        }
        for (index, set) in (0..).zip(&clients) {
            rules.push(format!(
                "meta mark {} update @{set} {{ ip saddr timeout {timeout_s}s }}",
                mark(index)
            ));
        }
        rules.push(dnat(front));
        for set in clients {
            let declaration = format!(
                "set {set} {{ type ipv4_addr; size {STICKY_CLIENTS}; flags dynamic,timeout; }}"
            );
            self.sets.insert(set, declaration);
        }
        self.chains
            .insert(name.clone(), Chain { hook: None, rules });
        name
    }

    fn put(&mut self, set: &str, key: String, value: String) {
        self.elements
            .entry(set.to_owned())
            .or_default()
            .insert(key, value);
    }
}

/// One port that is served: which maps it is in, and by what key.
struct Front {
    key: String,
    label: String,
    ports: &'static str,
    endpoints: &'static str,
    refused: &'static str,
    balance: &'static str,
    lookup: &'static str,
}

impl Front {
    fn of_virtual_port(port: &VirtualPort) -> Self {
        let protocol = word(port.protocol);
        Self {
            key: format!("{} . {protocol} . {}", port.address, port.port),
            label: format!("{}-{protocol}-{}", port.address, port.port),
            ports: VIRTUAL_PORTS,
            endpoints: ENDPOINTS,
            refused: REFUSED_VIRTUAL_PORTS,
            balance: "balance-",
            lookup: "ip daddr . meta l4proto . th dport",
        }
    }

    fn of_node_port(port: &HostPort) -> Self {
        Self {
            key: local_key(port),
            label: format!("node-{}-{}", word(port.protocol), port.port),
            ports: NODE_PORTS,
            endpoints: NODE_ENDPOINTS,
            refused: REFUSED_NODE_PORTS,
            balance: "node-balance-",
            lookup: "meta l4proto . th dport",
        }
    }
}

/// Draws the index of an endpoint into the mark.
fn draw(count: usize) -> String {
    if count == 1 {
        format!("meta mark set {}", mark(0))
    } else {
        format!("meta mark set numgen random mod {count} offset {MARK:#x}")
    }
}

fn dnat(front: &Front) -> String {
    format!(
        "dnat ip addr . port to {} . meta mark map @{}",
        front.lookup, front.endpoints
    )
}

fn mark(index: u32) -> String {
    format!("{:#010x}", MARK | index)
}

fn local_key(port: &HostPort) -> String {
    format!("{} . {}", word(port.protocol), port.port)
}

fn socket(endpoint: &SocketAddrV4) -> String {
    format!("{} . {}", endpoint.ip(), endpoint.port())
}

/// A protocol as nft writes it.
fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// The addresses of everything that traffic is led to.
fn endpoint_addresses(table: &ServiceTable) -> BTreeSet<Ipv4Addr> {
    let services = table.cluster_ips.values().chain(table.node_ports.values());
    services
        .flat_map(|backends| &backends.endpoints)
        .chain(table.host_ports.values())
        .map(|endpoint| *endpoint.ip())
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
