//! The part of the table that admits VXLAN packets of peers only, and sends those of the device
//! only. It exists while there are VXLAN peers.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use reconciler::network::HostNetwork;

use super::{Chain, MARK_MASK, Ruleset, VXLAN_PEERS, guard::CONTAINER_BRIDGES};
use crate::overlay::OVERLAY_DEVICE;

/// The map from a peer to the chain that checks what is in its packets.
const VXLAN_CONTENT: &str = "vxlan_content";
/// The upper byte of the mark of packets that leave through the device. The packets around them
/// keep the mark.
const THROUGH_DEVICE: u32 = 0x5800_0000;

/// Peers are elements, and each has a chain for what is in its packets, so that another peer
/// changes no rule of the others.
///
/// - A packet from the device must have a source whose route leads back into the device: only the
///   pods and devices of peers have one.
/// - VXLAN packets from any other address are dropped here, before a later chain could accept them.
///   This host's containers are no peers, whatever address they send from.
/// - A peer's VXLAN packets contain packets from its own pods and device only.
/// - A VXLAN packet is believed by the address of the host that sends it, and that is also the
///   address of everything that the host masquerades: so only the device sends to peers' VXLAN
///   port. No pod, container or other machine does through this host. Of the host's processes only
///   those that may set a mark can, and they may also write to the network card.
/// - VXLAN packets are not tracked: each flow in them would use an entry of the host's connection
///   tracking.
pub(super) fn add(ruleset: &mut Ruleset, host: &HostNetwork, peers: &BTreeMap<Ipv4Addr, Ipv4Net>) {
    if peers.is_empty() {
        return;
    }
    for declaration in [
        format!("set {VXLAN_PEERS} {{ type ipv4_addr; }}"),
        format!("map {VXLAN_CONTENT} {{ type ipv4_addr : verdict; }}"),
    ] {
        let name = declaration.split(' ').nth(1).unwrap_or_default().to_owned();
        ruleset.sets.insert(name, declaration);
    }
    for (peer, pods) in peers {
        let content = format!("from-{peer}");
        ruleset.put(VXLAN_PEERS, peer.to_string(), String::new());
        ruleset.put(VXLAN_CONTENT, peer.to_string(), format!("jump {content}"));
        ruleset.chains.insert(
            content,
            Chain {
                hook: None,
                rules: content_rules(pods),
            },
        );
    }
    for (name, hook, rules) in hooked(host.vxlan.port) {
        ruleset.chains.insert(
            name.to_owned(),
            Chain {
                hook: Some(hook),
                rules,
            },
        );
    }
}

fn hooked(port: u16) -> [(&'static str, &'static str, Vec<String>); 4] {
    let arriving = format!("udp dport {port} fib daddr type local");
    let to_peers = format!("udp dport {port} ip daddr @{VXLAN_PEERS}");
    let other_bits = !MARK_MASK;
    [
        (
            "overlay_in",
            "filter hook prerouting priority -300",
            vec![
                format!("iifname \"{OVERLAY_DEVICE}\" fib saddr . iif oif missing drop"),
                format!("{arriving} ip saddr != @{VXLAN_PEERS} drop"),
                format!("{arriving} iifname @{CONTAINER_BRIDGES} drop"),
                format!("{arriving} ip saddr vmap @{VXLAN_CONTENT}"),
                format!("{arriving} notrack"),
            ],
        ),
        // A host may route between peers.
        (
            "overlay_forward",
            "filter hook forward priority -10",
            vec![
                format!("{to_peers} ip saddr != @{VXLAN_PEERS} drop"),
                format!("{to_peers} iifname @{CONTAINER_BRIDGES} drop"),
            ],
        ),
        // After all that may change the mark, also the translation, which reads it. The device's
        // packets cannot be told by their user: they have the socket of the inner packet.
        (
            "overlay_mark",
            "filter hook postrouting priority 300",
            vec![format!(
                "oifname \"{OVERLAY_DEVICE}\" \
                 meta mark set meta mark & {other_bits:#010x} | {THROUGH_DEVICE:#x}"
            )],
        ),
        // The mark stays on the packet: while the whole table is replaced, both its old and its new
        // chains see a packet.
        (
            "overlay_out",
            "filter hook output priority -300",
            vec![
                format!("{to_peers} meta mark & {MARK_MASK:#x} != {THROUGH_DEVICE:#x} drop"),
                format!("{to_peers} notrack"),
            ],
        ),
    ]
}

/// The checks of a VXLAN packet's content, by its place behind the headers of UDP and VXLAN, of
/// eight bytes each: the type in the Ethernet header, and the source in the IPv4 header.
fn content_rules(pods: &Ipv4Net) -> Vec<String> {
    let (network, mask) = (pods.network().to_bits(), pods.netmask().to_bits());
    vec![
        "@th,224,16 != 0x0800 drop".to_owned(),
        format!("@th,336,32 & {mask:#010x} != {network:#010x} drop"),
    ]
}
