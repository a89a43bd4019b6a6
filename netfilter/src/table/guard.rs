//! The part of the table that keeps the host's network from pods, Services and DNS.
//!
//! Pods, this host and its other containers, and peers pass; of all other senders only connections
//! that were made to an address of the host (a NodePort or hostPort), and what the configuration
//! opens. The rules are before the host's own filter: there a rule of Windlass accepts packets to
//! pods whatever their source.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use reconciler::network::{HostNetwork, PeerPath, Peers};

use super::{Chain, OUTSIDE_SOURCES, Ruleset};
use crate::{
    exposure::{Exposed, Exposure},
    overlay::OVERLAY_DEVICE,
};

/// How many outside senders are counted; further senders are handled the same and not counted.
const COUNTED_SOURCES: u32 = 1024;
/// How long an outside sender stays in the list after its last packet.
const COUNTED_FOR: &str = "1d";

const PEERS: &str = "peers";
const DIRECT_PODS: &str = "direct_pods";
pub(super) const CONTAINER_BRIDGES: &str = "container_bridges";

/// The senders beside this host's own pods that pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Senders {
    /// The pods of the peers that send through VXLAN, by the peer's address.
    pub(crate) vxlan_peers: BTreeMap<Ipv4Addr, Ipv4Net>,
    /// The addresses of all peers.
    pub(crate) peers: BTreeSet<Ipv4Addr>,
    /// The pods of the peers whose packets arrive unpacked.
    pub(crate) direct_pods: BTreeSet<Ipv4Net>,
    /// The bridges of this host's other containers.
    pub(crate) bridges: BTreeSet<String>,
}

impl Senders {
    /// The senders of these peers, with this host's bridges.
    pub(crate) fn of(peers: &Peers, bridges: BTreeSet<String>) -> Self {
        let by_path = |path| peers.values().filter(move |peer| peer.path == path);
        Self {
            vxlan_peers: by_path(PeerPath::Vxlan)
                .map(|peer| (peer.address, peer.pod_subnet.trunc()))
                .collect(),
            peers: peers.values().map(|peer| peer.address).collect(),
            direct_pods: by_path(PeerPath::Direct)
                .map(|peer| peer.pod_subnet.trunc())
                .collect(),
            bridges,
        }
    }
}

/// Adds the sets, the check of sources, and the chain to which packets for pods and Services jump.
/// Senders are elements of sets, so that another peer or bridge changes no rule.
pub(super) fn add(
    ruleset: &mut Ruleset,
    host: &HostNetwork,
    exposure: &Exposure,
    senders: &Senders,
) {
    for (name, declaration) in [
        (PEERS, "type ipv4_addr;".to_owned()),
        (DIRECT_PODS, "type ipv4_addr; flags interval;".to_owned()),
        (CONTAINER_BRIDGES, "type ifname;".to_owned()),
        (
            OUTSIDE_SOURCES,
            format!(
                "type ipv4_addr; size {COUNTED_SOURCES}; flags dynamic,timeout; timeout {COUNTED_FOR};"
            ),
        ),
    ] {
        ruleset
            .sets
            .insert(name.to_owned(), format!("set {name} {{ {declaration} }}"));
    }

    let quoted = |name: &String| format!("\"{name}\"");
    for (name, keys) in [
        (PEERS, texts(&senders.peers)),
        (DIRECT_PODS, texts(&senders.direct_pods)),
        (
            CONTAINER_BRIDGES,
            senders.bridges.iter().map(quoted).collect(),
        ),
    ] {
        let elements = keys.into_iter().map(|key| (key, String::new())).collect();
        ruleset.elements.insert(name.to_owned(), elements);
    }

    for (name, hook, rules) in [
        (
            "sources",
            Some("filter hook prerouting priority -300"),
            source_rules(host),
        ),
        ("guard", None, guard_rules(host, exposure, senders)),
    ] {
        ruleset
            .chains
            .insert(name.to_owned(), Chain { hook, rules });
    }
}

fn texts<T: ToString>(values: &BTreeSet<T>) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// Pods have one address each, and an address of a pod is believed on the device only that leads
/// to the pod: its own link, or the way to its host.
fn source_rules(host: &HostNetwork) -> Vec<String> {
    let pods = host.pod_range.trunc();
    vec![
        "iifname \"wdl*\" fib saddr . iif oif missing drop".to_owned(),
        format!("iifname != \"lo\" ip saddr {pods} fib saddr . iif oif missing drop"),
    ]
}

/// The rules that send packets for pods and Services to the chain `guard`. The endpoint of a Service
/// may be outside of both ranges, the address of a host: then only the address before the
/// translation is in one. No packet jumps twice, since the chain counts packets.
pub(super) fn jumps(host: &HostNetwork) -> [String; 2] {
    let ranges = cluster_ranges(host);
    [
        format!("ip daddr {ranges} jump guard"),
        format!("ip daddr != {ranges} ct original ip daddr {ranges} jump guard"),
    ]
}

fn guard_rules(host: &HostNetwork, exposure: &Exposure, senders: &Senders) -> Vec<String> {
    let mut rules = vec![
        "ct state established,related return".to_owned(),
        "iifname \"lo\" return".to_owned(),
        "iifname \"wdl*\" return".to_owned(),
        format!("iifname @{CONTAINER_BRIDGES} return"),
        format!("ip saddr @{PEERS} return"),
        // A default route leads anywhere, so that the check of sources alone would pass an address
        // of the pod range that no pod has.
        format!("ip saddr @{DIRECT_PODS} return"),
        // The address before the translation: that of the host, of a NodePort or hostPort.
        format!(
            "ct status dnat ct original ip daddr != {} return",
            cluster_ranges(host)
        ),
    ];
    // Without peers behind VXLAN nothing checks the sources of the device.
    if !senders.vxlan_peers.is_empty() {
        rules.push(format!("iifname \"{OVERLAY_DEVICE}\" return"));
    }

    let count = format!("update @{OUTSIDE_SOURCES} {{ ip saddr counter }}");
    match exposure {
        Exposure::Only(parts) => {
            rules.extend(parts.iter().map(|part| opening_rule(host, *part)));
            // Two rules: where the set is full, only the first one ends without an effect.
            rules.extend([count, "drop".to_owned()]);
        }
        Exposure::Unset => rules.push(count),
    }
    rules
}

fn opening_rule(host: &HostNetwork, part: Exposed) -> String {
    let HostNetwork {
        pod_range,
        service_range,
        dns,
        ..
    } = host;
    match part {
        Exposed::Dns => format!("ct original ip daddr {dns} return"),
        Exposed::Pods => format!("ct original ip daddr {} return", pod_range.trunc()),
        Exposed::Services => format!(
            "ct original ip daddr {} ip daddr != {dns} return",
            service_range.trunc()
        ),
    }
}

fn cluster_ranges(host: &HostNetwork) -> String {
    format!(
        "{{ {}, {} }}",
        host.pod_range.trunc(),
        host.service_range.trunc()
    )
}
