//! The part of the table that drops VXLAN packets of other senders than peers. It exists while
//! there are VXLAN peers.

use std::{collections::BTreeSet, net::Ipv4Addr};

use reconciler::network::HostNetwork;

use super::{Chain, Ruleset, VXLAN_PEERS};
use crate::overlay::OVERLAY_DEVICE;

/// The peers are elements of a set, so that another peer changes no rule.
///
/// - A packet from the device must have a source whose route leads back into the device: only the
///   pods and devices of peers have one.
/// - VXLAN packets from any other address are dropped here, before a later chain could accept them.
/// - VXLAN packets are not tracked. Each flow in them would use an entry of the host's connection
///   tracking, and they keep the mark of the inner packet, by which they would be masqueraded.
pub(super) fn add(ruleset: &mut Ruleset, host: &HostNetwork, peers: &BTreeSet<Ipv4Addr>) {
    if peers.is_empty() {
        return;
    }
    ruleset.sets.insert(
        VXLAN_PEERS.to_owned(),
        format!("set {VXLAN_PEERS} {{ type ipv4_addr; }}"),
    );
    for peer in peers {
        ruleset.put(VXLAN_PEERS, peer.to_string(), String::new());
    }
    let port = host.vxlan.port;
    let incoming = vec![
        format!("iifname \"{OVERLAY_DEVICE}\" fib saddr . iif oif missing drop"),
        format!("udp dport {port} ip saddr != @{VXLAN_PEERS} fib daddr type local drop"),
        format!("udp dport {port} ip saddr @{VXLAN_PEERS} fib daddr type local notrack"),
    ];
    let outgoing = vec![format!("udp dport {port} ip daddr @{VXLAN_PEERS} notrack")];
    for (name, hook, rules) in [
        (
            "overlay_in",
            "filter hook prerouting priority -300",
            incoming,
        ),
        ("overlay_out", "filter hook output priority -300", outgoing),
    ] {
        ruleset.chains.insert(
            name.to_owned(),
            Chain {
                hook: Some(hook),
                rules,
            },
        );
    }
}
