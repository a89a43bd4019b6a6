//! The part of the table that keeps others out of the tunnels between hosts. It is there while
//! there are tunnels.

use std::{collections::BTreeSet, net::Ipv4Addr};

use reconciler::network::HostNetwork;

use super::{Chain, Ruleset, VXLAN_PEERS};
use crate::overlay::OVERLAY_DEVICE;

/// The hosts from which packets are unpacked are elements, so that one more changes no rule.
///
/// - What comes out of the device must have a source to which the answer would go into it: only
///   pods and devices of peers have.
/// - VXLAN packets of anybody else are dropped, before somebody can forget that they are not to be
///   believed.
/// - Packed packets are not tracked. Each flow in them would take a place in the host's connection
///   tracking, and they keep the mark of what is in them, for which they would be masqueraded.
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
