#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use reconciler::network::VxlanSettings;

use super::*;

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

    let ruleset = Ruleset::of(&host(), &BTreeSet::new(), &table);

    let balance: Vec<&String> = ruleset
        .chains
        .keys()
        .filter(|name| name.contains("balance"))
        .collect();
    assert_eq!(balance, ["balance-2", "node-balance-1"]);
    insta::assert_debug_snapshot!(ruleset.elements, @r#"
    {
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

    let ruleset = Ruleset::of(&host(), &BTreeSet::new(), &table);

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
    let alone = Ruleset::of(&host(), &BTreeSet::new(), &services);
    let peers = ["192.0.2.2", "192.0.2.3"].map(|peer| peer.parse().unwrap());
    let connected = Ruleset::of(&host(), &peers.into(), &services);

    let port = host().vxlan.port;
    assert_eq!(
        connected.sets[VXLAN_PEERS],
        "set vxlan_peers { type ipv4_addr; }"
    );
    assert_eq!(
        connected.elements[VXLAN_PEERS].keys().collect::<Vec<_>>(),
        ["192.0.2.2", "192.0.2.3"]
    );
    assert_eq!(
        connected.chains["overlay_out"].rules,
        [format!("udp dport {port} ip daddr @vxlan_peers notrack")]
    );
    assert_eq!(connected.chains["overlay_in"].rules.len(), 3);
    for chain in ["overlay_in", "overlay_out"] {
        assert!(!alone.chains.contains_key(chain), "{chain} without peers");
    }
}
