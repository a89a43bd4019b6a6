//! The wanted content of the table `ip windlass`, computed from the core's service table.
//!
//! Services and endpoints are map elements only; the chains are static, one for every number of
//! endpoints that occurs. A packet to a service port matches in `virtual_ports` (or `node_ports`),
//! whose verdict jumps to the chain for its number of endpoints N; that chain writes a random index
//! below N into the packet's mark, and `endpoints` maps port and mark to an address. Only a port
//! with session affinity has a chain of its own, and a set of clients for each of its endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use reconciler::{
    network::{Backends, HostNetwork, HostPort, ServiceTable, VirtualPort},
    object::Protocol,
};

use crate::exposure::Exposure;

mod base;
mod guard;
mod overlay;

pub(crate) use guard::Senders;

/// Name of the table, and the prefix or comment of everything shared that Windlass leaves on the
/// host.
pub const TABLE: &str = "windlass";

/// The upper byte of the mark of packets to a service; the lower bits hold the index of the
/// endpoint.
const MARK: u32 = 0x5700_0000;
/// The bits of the mark that say whether Windlass set it.
const MARK_MASK: u32 = 0xff00_0000;
/// How many clients of one endpoint are remembered; further clients are balanced without affinity.
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
/// The set that counts the packets of outside senders.
pub(crate) const OUTSIDE_SOURCES: &str = "outside_sources";

/// The whole content of the table as comparable values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruleset {
    /// Sets and maps: declaration by name.
    pub(crate) sets: BTreeMap<String, String>,
    /// Chains by name; one without a hook is reached by a jump or a verdict.
    pub(crate) chains: BTreeMap<String, Chain>,
    /// Elements of the sets and maps that Windlass fills: value by key by set; the value is empty
    /// for a set.
    pub(crate) elements: BTreeMap<String, BTreeMap<String, String>>,
}

/// A chain of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Type, hook and priority of a base chain; `None` for a regular chain.
    pub(crate) hook: Option<&'static str>,
    /// Its rules, in the order of evaluation.
    pub(crate) rules: Vec<String>,
}

impl Ruleset {
    /// The content for a host's services, which only these senders reach, beside local pods, and
    /// what the exposure opens to all.
    pub(crate) fn of(
        host: &HostNetwork,
        exposure: &Exposure,
        senders: &Senders,
        table: &ServiceTable,
    ) -> Self {
        let mut ruleset = base::ruleset(host);
        guard::add(&mut ruleset, host, exposure, senders);
        overlay::add(&mut ruleset, host, &senders.vxlan_peers);

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

        // A pod that reaches itself through a Service would receive a packet from its own address,
        // which the kernel drops as a martian: the pod's host gives such packets another source.
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
            Some(timeout) => self.keep_client(front, &backends.endpoints, timeout.as_secs().max(1)),
            None => self.balance(front, backends.endpoints.len()),
        };
        self.put(front.ports, front.key.clone(), format!("goto {chain}"));
    }

    /// The chain that balances connections over this number of endpoints.
    fn balance(&mut self, front: &Front, count: usize) -> String {
        let name = format!("{}{count}", front.balance);
        self.chains.entry(name.clone()).or_insert_with(|| Chain {
            hook: None,
            rules: vec![random_endpoint(count), dnat(front)],
        });
        name
    }

    /// The chain that selects an endpoint and remembers it for the client; a known client keeps its
    /// endpoint.
    fn keep_client(
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

        // The last rule that writes the mark decides: a known client overrides the random choice.
        let mut rules = vec![random_endpoint(endpoints.len())];
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

/// One served port: the maps that contain it, and its key in them.
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

/// Writes the random index of an endpoint into the mark.
fn random_endpoint(count: usize) -> String {
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

/// The protocol's name in nft.
fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// The addresses of all endpoints.
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
