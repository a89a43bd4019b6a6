//! The part of the table that does not depend on services.

use reconciler::network::HostNetwork;

use super::{
    Chain, ENDPOINTS, HAIRPIN, HOST_PORTS, HOST_PORTS_AT, MARK, MARK_MASK, NODE_ENDPOINTS,
    NODE_PORTS, REFUSED_NODE_PORTS, REFUSED_VIRTUAL_PORTS, Ruleset, VIRTUAL_PORTS, guard,
};
use crate::overlay::{self, OVERLAY_DEVICE};

/// The maps, sets and chains of a host without services.
pub(super) fn ruleset(host: &HostNetwork) -> Ruleset {
    let sets = [
        (
            VIRTUAL_PORTS,
            "map",
            "ipv4_addr . inet_proto . inet_service : verdict",
        ),
        (
            ENDPOINTS,
            "map",
            "ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service",
        ),
        (NODE_PORTS, "map", "inet_proto . inet_service : verdict"),
        (
            NODE_ENDPOINTS,
            "map",
            "inet_proto . inet_service . mark : ipv4_addr . inet_service",
        ),
        (
            HOST_PORTS,
            "map",
            "inet_proto . inet_service : ipv4_addr . inet_service",
        ),
        (
            HOST_PORTS_AT,
            "map",
            "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
        ),
        (HAIRPIN, "set", "ipv4_addr . ipv4_addr"),
        (
            REFUSED_VIRTUAL_PORTS,
            "set",
            "ipv4_addr . inet_proto . inet_service",
        ),
        (REFUSED_NODE_PORTS, "set", "inet_proto . inet_service"),
    ];
    let mut ruleset = Ruleset::default();
    for (name, kind, of) in sets {
        ruleset
            .sets
            .insert(name.to_owned(), format!("{kind} {name} {{ type {of}; }}"));
        ruleset.elements.insert(name.to_owned(), Default::default());
    }
    for (name, hook, rules) in translation(host).into_iter().chain(refusal(host)) {
        ruleset
            .chains
            .insert(name.to_owned(), Chain { hook, rules });
    }
    ruleset
}

type NamedChain = (&'static str, Option<&'static str>, Vec<String>);

/// The chains that translate addresses. The priority of the output hook must be a number: nft has
/// no name for it there.
fn translation(host: &HostNetwork) -> Vec<NamedChain> {
    let HostNetwork {
        pod_range,
        pod_subnet,
        service_range,
        node_address,
        ..
    } = host;
    let marked = format!("meta mark & {MARK_MASK:#x} == {MARK:#x} ip saddr != {pod_subnet}");
    vec![
        (
            "prerouting",
            Some("nat hook prerouting priority dstnat"),
            vec!["jump services".to_owned()],
        ),
        (
            "output",
            Some("nat hook output priority -100"),
            vec!["jump services".to_owned()],
        ),
        (
            "services",
            None,
            vec![
                format!("ip daddr . meta l4proto . th dport vmap @{VIRTUAL_PORTS}"),
                // The DNS address is a local address too, but it belongs to the cluster and not to
                // the host.
                format!(
                    "ip daddr != 127.0.0.0/8 ip daddr != {service_range} fib daddr type local jump local_ports"
                ),
            ],
        ),
        (
            "local_ports",
            None,
            vec![
                format!(
                    "dnat ip addr . port to ip daddr . meta l4proto . th dport map @{HOST_PORTS_AT}"
                ),
                format!("dnat ip addr . port to meta l4proto . th dport map @{HOST_PORTS}"),
                format!("meta l4proto . th dport vmap @{NODE_PORTS}"),
            ],
        ),
        (
            "postrouting",
            Some("nat hook postrouting priority srcnat"),
            vec![
                // A pod link has no address of its own, so `masquerade` would select any address of
                // the host: the rule names the address.
                format!("ip saddr . ip daddr @{HAIRPIN} snat to {node_address} fully-random"),
                // The other host replies through the VXLAN device only to addresses that are routed
                // into it.
                format!(
                    "oifname \"{OVERLAY_DEVICE}\" ip saddr != {pod_range} snat to {} fully-random",
                    overlay::own_address(host)
                ),
                format!("{marked} ip daddr {pod_range} snat to {node_address} fully-random"),
                format!("{marked} masquerade fully-random"),
                format!("ip saddr {pod_range} ip daddr != {pod_range} masquerade fully-random"),
            ],
        ),
    ]
}

/// The chains that reject packets to ports without an endpoint at once. They are before the host's
/// own filter, which might drop such packets silently. Replies are accepted: the DNS address sends
/// from any port and so receives on any port.
fn refusal(host: &HostNetwork) -> Vec<NamedChain> {
    let HostNetwork {
        service_range, dns, ..
    } = host;
    let unserved = vec![
        "ct state established,related return".to_owned(),
        format!("ip daddr . meta l4proto . th dport @{REFUSED_VIRTUAL_PORTS} goto refuse"),
        format!("ip daddr {dns} meta l4proto {{ tcp, udp }} th dport != 53 goto refuse"),
        format!("ip daddr {service_range} ip daddr != {dns} goto refuse"),
    ];
    // An outside sender is not told which ports are unserved.
    let guard_jumps = || {
        let mut rules = guard::jumps(host).to_vec();
        rules.push("jump unserved".to_owned());
        rules
    };
    let mut input = guard_jumps();
    input.push(format!(
        "ip daddr != 127.0.0.0/8 ip daddr != {service_range} fib daddr type local \
         meta l4proto . th dport @{REFUSED_NODE_PORTS} goto refuse"
    ));
    vec![
        ("unserved", None, unserved),
        (
            "refuse",
            None,
            vec![
                "meta l4proto tcp reject with tcp reset".to_owned(),
                "reject".to_owned(),
            ],
        ),
        (
            "filter_input",
            Some("filter hook input priority -10"),
            input,
        ),
        (
            "filter_forward",
            Some("filter hook forward priority -10"),
            guard_jumps(),
        ),
        (
            "filter_output",
            Some("filter hook output priority -10"),
            vec!["jump unserved".to_owned()],
        ),
    ]
}
