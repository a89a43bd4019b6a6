#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use reconciler::{
    name::NodeName,
    network::{Peer, PeerPath, VxlanSettings},
};

use super::*;
use crate::exposure::Exposed;

/// The `HostNetwork` of these tests.
pub(crate) fn host() -> HostNetwork {
    HostNetwork {
        pod_range: "10.244.0.0/16".parse().unwrap(),
        pod_subnet: "10.244.1.0/24".parse().unwrap(),
        service_range: "10.96.0.0/16".parse().unwrap(),
        dns: "10.96.0.10".parse().unwrap(),
        node_address: "192.0.2.1".parse().unwrap(),
        mtu: 1500,
        vxlan: VxlanSettings::default(),
    }
}

/// A service port with these endpoints.
pub(crate) fn backends(endpoints: &[&str]) -> Backends {
    Backends {
        endpoints: endpoints.iter().map(|to| to.parse().unwrap()).collect(),
        client_ip_affinity: None,
    }
}

/// `10.96.0.1:80` over TCP.
pub(crate) fn virtual_port(text: &str) -> VirtualPort {
    let socket: SocketAddrV4 = text.parse().unwrap();
    VirtualPort {
        address: *socket.ip(),
        protocol: Protocol::Tcp,
        port: socket.port(),
    }
}

/// The content for these senders, with nothing opened to others.
pub(crate) fn closed(senders: &Senders, table: &ServiceTable) -> Ruleset {
    let nothing = Exposure::Only(BTreeSet::new());
    Ruleset::of(&host(), &nothing, senders, table)
}

#[test]
fn services_are_elements_and_each_number_of_endpoints_has_a_chain() {
    let mut table = ServiceTable::default();
    for (port, endpoints) in [
        ("10.96.0.1:80", &["10.244.1.2:8080", "10.244.2.2:8080"][..]),
        ("10.96.0.2:80", &["10.244.1.3:80", "10.244.1.4:80"][..]),
        ("10.96.0.3:80", &[][..]),
    ] {
        table
            .cluster_ips
            .insert(virtual_port(port), backends(endpoints));
    }
    let port = HostPort {
        protocol: Protocol::Udp,
        port: 30053,
    };
    table.node_ports.insert(port, backends(&["10.244.1.5:53"]));
    table.host_ports.insert(
        (
            Some("192.0.2.1".parse().unwrap()),
            HostPort {
                protocol: Protocol::Tcp,
                port: 8080,
            },
        ),
        "10.244.1.6:80".parse().unwrap(),
    );

    let ruleset = closed(&Senders::default(), &table);

    let balance: Vec<&String> = ruleset
        .chains
        .keys()
        .filter(|name| name.contains("balance"))
        .collect();
    assert_eq!(balance, ["balance-2", "node-balance-1"]);
    insta::assert_debug_snapshot!(ruleset.elements, @r#"
    {
        "container_bridges": {},
        "direct_pods": {},
        "endpoints": {
            "10.96.0.1 . tcp . 80 . 0x57000000": "10.244.1.2 . 8080",
            "10.96.0.1 . tcp . 80 . 0x57000001": "10.244.2.2 . 8080",
            "10.96.0.2 . tcp . 80 . 0x57000000": "10.244.1.3 . 80",
            "10.96.0.2 . tcp . 80 . 0x57000001": "10.244.1.4 . 80",
        },
        "hairpin": {
            "10.244.1.2 . 10.244.1.2": "",
            "10.244.1.3 . 10.244.1.3": "",
            "10.244.1.4 . 10.244.1.4": "",
            "10.244.1.5 . 10.244.1.5": "",
            "10.244.1.6 . 10.244.1.6": "",
        },
        "host_ports": {},
        "host_ports_at": {
            "192.0.2.1 . tcp . 8080": "10.244.1.6 . 80",
        },
        "node_endpoints": {
            "udp . 30053 . 0x57000000": "10.244.1.5 . 53",
        },
        "node_ports": {
            "udp . 30053": "goto node-balance-1",
        },
        "peers": {},
        "refused_node_ports": {},
        "refused_virtual_ports": {
            "10.96.0.3 . tcp . 80": "",
        },
        "virtual_ports": {
            "10.96.0.1 . tcp . 80": "goto balance-2",
            "10.96.0.2 . tcp . 80": "goto balance-2",
        },
    }
    "#);
    assert_eq!(
        ruleset.chains["balance-2"].rules,
        [
            "meta mark set numgen random mod 2 offset 0x57000000",
            "dnat ip addr . port to ip daddr . meta l4proto . th dport . meta mark map @endpoints",
        ]
    );
}

#[test]
fn a_port_with_affinity_has_a_chain_and_a_set_for_each_endpoint() {
    let mut table = ServiceTable::default();
    let affinity = Some(Duration::from_secs(10_800));
    let backends = Backends {
        client_ip_affinity: affinity,
        ..backends(&["10.244.1.2:80", "10.244.1.3:80"])
    };
    table
        .cluster_ips
        .insert(virtual_port("10.96.0.1:80"), backends);

    let ruleset = closed(&Senders::default(), &table);

    assert_eq!(
        ruleset.chains["sticky-10.96.0.1-tcp-80"].rules.join("\n"),
        "\
meta mark set numgen random mod 2 offset 0x57000000
ip saddr @sticky-10.96.0.1-tcp-80/10.244.1.2-80 meta mark set 0x57000000
ip saddr @sticky-10.96.0.1-tcp-80/10.244.1.3-80 meta mark set 0x57000001
meta mark 0x57000000 update @sticky-10.96.0.1-tcp-80/10.244.1.2-80 { ip saddr timeout 10800s }
meta mark 0x57000001 update @sticky-10.96.0.1-tcp-80/10.244.1.3-80 { ip saddr timeout 10800s }
dnat ip addr . port to ip daddr . meta l4proto . th dport . meta mark map @endpoints"
    );
    assert_eq!(
        ruleset.elements[VIRTUAL_PORTS]["10.96.0.1 . tcp . 80"],
        "goto sticky-10.96.0.1-tcp-80"
    );
}

#[test]
fn vxlan_packets_are_filtered_by_a_set_of_peers_while_there_are_peers() {
    let services = ServiceTable::default();
    let alone = closed(&Senders::default(), &services);
    let peers = [
        ("192.0.2.2", "10.244.2.0/24"),
        ("192.0.2.3", "10.244.48.0/20"),
    ];
    let senders = Senders {
        vxlan_peers: peers
            .map(|(peer, pods)| (peer.parse().unwrap(), pods.parse().unwrap()))
            .into(),
        ..Senders::default()
    };
    let connected = closed(&senders, &services);

    let port = host().vxlan.port;
    assert_eq!(
        connected.sets[VXLAN_PEERS],
        "set vxlan_peers { type ipv4_addr; }"
    );
    assert_eq!(
        connected.elements[VXLAN_PEERS].keys().collect::<Vec<_>>(),
        ["192.0.2.2", "192.0.2.3"]
    );
    for (chain, rules) in [
        (
            "overlay_in",
            "\
iifname \"windlass1\" fib saddr . iif oif missing drop
udp dport PORT fib daddr type local ip saddr != @vxlan_peers drop
udp dport PORT fib daddr type local iifname @container_bridges drop
udp dport PORT fib daddr type local ip saddr vmap @vxlan_content
udp dport PORT fib daddr type local notrack",
        ),
        (
            "from-192.0.2.3",
            "\
@th,224,16 != 0x0800 drop
@th,336,32 & 0xfffff000 != 0x0af43000 drop",
        ),
        (
            "overlay_forward",
            "\
udp dport PORT ip daddr @vxlan_peers ip saddr != @vxlan_peers drop
udp dport PORT ip daddr @vxlan_peers iifname @container_bridges drop",
        ),
        (
            "overlay_mark",
            "oifname \"windlass1\" meta mark set meta mark & 0x00ffffff | 0x58000000",
        ),
        (
            "overlay_out",
            "\
udp dport PORT ip daddr @vxlan_peers meta mark & 0xff000000 != 0x58000000 drop
udp dport PORT ip daddr @vxlan_peers notrack",
        ),
    ] {
        let rules = rules.replace("PORT", &port.to_string());
        assert_eq!(connected.chains[chain].rules.join("\n"), rules, "{chain}");
        assert!(!alone.chains.contains_key(chain), "{chain} without peers");
    }
}

fn guard(exposure: &Exposure, senders: &Senders) -> String {
    let ruleset = Ruleset::of(&host(), exposure, senders, &ServiceTable::default());
    ruleset.chains["guard"].rules.join("\n")
}

#[test]
fn other_machines_pass_by_the_original_destination_only() {
    let nothing = Exposure::Only(BTreeSet::new());
    insta::assert_snapshot!(guard(&nothing, &Senders::default()), @r#"
    ct state established,related return
    iifname "lo" return
    iifname "wdl*" return
    iifname @container_bridges return
    ip saddr @peers return
    ip saddr @direct_pods return
    ct status dnat ct original ip daddr != { 10.244.0.0/16, 10.96.0.0/16 } return
    update @outside_sources { ip saddr counter }
    drop
    "#);
    let ruleset = closed(&Senders::default(), &ServiceTable::default());
    for chain in ["filter_input", "filter_forward"] {
        let ranges = "{ 10.244.0.0/16, 10.96.0.0/16 }";
        assert_eq!(
            ruleset.chains[chain].rules[..2],
            [
                format!("ip daddr {ranges} jump guard"),
                format!("ip daddr != {ranges} ct original ip daddr {ranges} jump guard"),
            ]
        );
    }
    insta::assert_snapshot!(ruleset.chains["sources"].rules.join("\n"), @r#"
    iifname "wdl*" fib saddr . iif oif missing drop
    iifname != "lo" ip saddr 10.244.0.0/16 fib saddr . iif oif missing drop
    "#);
}

#[test]
fn each_exposed_part_is_a_rule_before_the_drop_and_without_the_setting_nothing_drops() {
    let parts = [Exposed::Dns, Exposed::Pods, Exposed::Services];
    let all = guard(&Exposure::Only(parts.into()), &Senders::default());
    let nothing = guard(&Exposure::Only(BTreeSet::new()), &Senders::default());
    let opening: Vec<&str> = all.lines().filter(|rule| !nothing.contains(rule)).collect();
    assert_eq!(
        opening,
        [
            "ct original ip daddr 10.96.0.10 return",
            "ct original ip daddr 10.244.0.0/16 return",
            "ct original ip daddr 10.96.0.0/16 ip daddr != 10.96.0.10 return",
        ]
    );
    assert!(all.ends_with("\ndrop"), "{all}");
    let unset = guard(&Exposure::Unset, &Senders::default());
    assert_eq!(format!("{unset}\ndrop"), nothing);
}

#[test]
fn another_peer_or_bridge_is_an_element_and_changes_no_rule() {
    let peer = |last: u8, path| Peer {
        address: [192, 0, 2, last].into(),
        pod_subnet: format!("10.244.{last}.0/24").parse().unwrap(),
        path,
    };
    let senders = |number: u8| {
        let vxlan = (2..2 + number).map(|last| peer(last, PeerPath::Vxlan));
        let direct = (100..100 + number).map(|last| peer(last, PeerPath::Direct));
        let peers = vxlan.chain(direct);
        let peers = peers.map(|peer| (NodeName::new(peer.address.to_string()), peer));
        let bridges = (0..number).map(|number| format!("br-{number}"));
        Senders::of(&peers.collect(), bridges.collect())
    };
    let one = closed(&senders(1), &ServiceTable::default());
    let two = closed(&senders(2), &ServiceTable::default());
    let second = "from-192.0.2.3";
    assert!(!one.chains.contains_key(second));
    for (name, chain) in two.chains.iter().filter(|(name, _)| *name != second) {
        assert_eq!(one.chains[name], *chain, "{name}");
    }
    assert_eq!(one.sets, two.sets);
    let keys = |set: &str| two.elements[set].keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys("peers"),
        ["192.0.2.100", "192.0.2.101", "192.0.2.2", "192.0.2.3"]
    );
    assert_eq!(keys("direct_pods"), ["10.244.100.0/24", "10.244.101.0/24"]);
    assert_eq!(keys("container_bridges"), ["\"br-0\"", "\"br-1\""]);
}
