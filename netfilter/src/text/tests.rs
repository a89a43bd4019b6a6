#![expect(clippy::unwrap_used, reason = "a test")]

use reconciler::network::ServiceTable;

use super::*;
use crate::table::{
    Senders,
    tests::{backends, closed, virtual_port},
};

fn ruleset(services: &[(&str, &[&str])]) -> Ruleset {
    let mut table = ServiceTable::default();
    for (port, endpoints) in services {
        table
            .cluster_ips
            .insert(virtual_port(port), backends(endpoints));
    }
    closed(&Senders::default(), &table)
}

#[test]
fn a_new_endpoint_changes_a_few_elements() {
    let old = ruleset(&[
        ("10.96.0.1:80", &["10.244.1.2:80"]),
        ("10.96.0.2:80", &["10.244.1.9:80"]),
    ]);
    let new = ruleset(&[
        ("10.96.0.1:80", &["10.244.1.2:80", "10.244.1.3:80"]),
        ("10.96.0.2:80", &["10.244.1.9:80"]),
    ]);
    let (text, count) = difference(&old, &new);
    let (added, removed) = (3, 1);
    assert_eq!(count, Count { added, removed });
    insta::assert_snapshot!(text, @"
    add chain ip windlass balance-2
    delete element ip windlass virtual_ports { 10.96.0.1 . tcp . 80 }
    add rule ip windlass balance-2 meta mark set numgen random mod 2 offset 0x57000000
    add rule ip windlass balance-2 dnat ip addr . port to ip daddr . meta l4proto . th dport . meta mark map @endpoints
    add element ip windlass endpoints { 10.96.0.1 . tcp . 80 . 0x57000001 : 10.244.1.3 . 80 }
    add element ip windlass hairpin { 10.244.1.3 . 10.244.1.3 }
    add element ip windlass virtual_ports { 10.96.0.1 . tcp . 80 : goto balance-2 }
    ");
}

#[test]
fn a_service_without_endpoints_is_refused_and_its_chain_is_deleted() {
    let old = ruleset(&[("10.96.0.1:80", &["10.244.1.2:80"])]);
    let new = ruleset(&[("10.96.0.1:80", &[])]);
    let (text, count) = difference(&old, &new);
    let (added, removed) = (1, 3);
    assert_eq!(count, Count { added, removed });
    insta::assert_snapshot!(text, @"
    flush chain ip windlass balance-1
    delete element ip windlass endpoints { 10.96.0.1 . tcp . 80 . 0x57000000 }
    delete element ip windlass hairpin { 10.244.1.2 . 10.244.1.2 }
    delete element ip windlass virtual_ports { 10.96.0.1 . tcp . 80 }
    add element ip windlass refused_virtual_ports { 10.96.0.1 . tcp . 80 }
    delete chain ip windlass balance-1
    ");
}

#[test]
fn equal_content_gives_an_empty_text() {
    let same = ruleset(&[("10.96.0.1:80", &["10.244.1.2:80"])]);
    assert_eq!(difference(&same, &same), (String::new(), Count::default()));
}

#[test]
fn the_table_of_a_host_without_services() {
    insta::assert_snapshot!(replace(&ruleset(&[])).0, @r#"
    table ip windlass
    delete table ip windlass
    table ip windlass
    add set ip windlass container_bridges { type ifname; }
    add set ip windlass direct_pods { type ipv4_addr; flags interval; }
    add map ip windlass endpoints { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; }
    add set ip windlass hairpin { type ipv4_addr . ipv4_addr; }
    add map ip windlass host_ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
    add map ip windlass host_ports_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
    add map ip windlass node_endpoints { type inet_proto . inet_service . mark : ipv4_addr . inet_service; }
    add map ip windlass node_ports { type inet_proto . inet_service : verdict; }
    add set ip windlass outside_sources { type ipv4_addr; size 1024; flags dynamic,timeout; timeout 1d; }
    add set ip windlass peers { type ipv4_addr; }
    add set ip windlass refused_node_ports { type inet_proto . inet_service; }
    add set ip windlass refused_virtual_ports { type ipv4_addr . inet_proto . inet_service; }
    add map ip windlass virtual_ports { type ipv4_addr . inet_proto . inet_service : verdict; }
    add chain ip windlass filter_forward { type filter hook forward priority -10; policy accept; }
    add chain ip windlass filter_input { type filter hook input priority -10; policy accept; }
    add chain ip windlass filter_output { type filter hook output priority -10; policy accept; }
    add chain ip windlass guard
    add chain ip windlass local_ports
    add chain ip windlass output { type nat hook output priority -100; policy accept; }
    add chain ip windlass postrouting { type nat hook postrouting priority srcnat; policy accept; }
    add chain ip windlass prerouting { type nat hook prerouting priority dstnat; policy accept; }
    add chain ip windlass refuse
    add chain ip windlass services
    add chain ip windlass sources { type filter hook prerouting priority -300; policy accept; }
    add chain ip windlass unserved
    add rule ip windlass filter_forward ip daddr { 10.244.0.0/16, 10.96.0.0/16 } jump guard
    add rule ip windlass filter_forward ip daddr != { 10.244.0.0/16, 10.96.0.0/16 } ct original ip daddr { 10.244.0.0/16, 10.96.0.0/16 } jump guard
    add rule ip windlass filter_forward jump unserved
    add rule ip windlass filter_input ip daddr { 10.244.0.0/16, 10.96.0.0/16 } jump guard
    add rule ip windlass filter_input ip daddr != { 10.244.0.0/16, 10.96.0.0/16 } ct original ip daddr { 10.244.0.0/16, 10.96.0.0/16 } jump guard
    add rule ip windlass filter_input jump unserved
    add rule ip windlass filter_input ip daddr != 127.0.0.0/8 ip daddr != 10.96.0.0/16 fib daddr type local meta l4proto . th dport @refused_node_ports goto refuse
    add rule ip windlass filter_output jump unserved
    add rule ip windlass guard ct state established,related return
    add rule ip windlass guard iifname "lo" return
    add rule ip windlass guard iifname "wdl*" return
    add rule ip windlass guard iifname @container_bridges return
    add rule ip windlass guard ip saddr @peers return
    add rule ip windlass guard ip saddr @direct_pods return
    add rule ip windlass guard ct status dnat ct original ip daddr != { 10.244.0.0/16, 10.96.0.0/16 } return
    add rule ip windlass guard update @outside_sources { ip saddr counter }
    add rule ip windlass guard drop
    add rule ip windlass local_ports dnat ip addr . port to ip daddr . meta l4proto . th dport map @host_ports_at
    add rule ip windlass local_ports dnat ip addr . port to meta l4proto . th dport map @host_ports
    add rule ip windlass local_ports meta l4proto . th dport vmap @node_ports
    add rule ip windlass output jump services
    add rule ip windlass postrouting ip saddr . ip daddr @hairpin snat to 192.0.2.1 fully-random
    add rule ip windlass postrouting oifname "windlass1" ip saddr != 10.244.0.0/16 snat to 10.244.1.0 fully-random
    add rule ip windlass postrouting meta mark & 0xff000000 == 0x57000000 ip saddr != 10.244.1.0/24 ip daddr 10.244.0.0/16 snat to 192.0.2.1 fully-random
    add rule ip windlass postrouting meta mark & 0xff000000 == 0x57000000 ip saddr != 10.244.1.0/24 masquerade fully-random
    add rule ip windlass postrouting ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade fully-random
    add rule ip windlass prerouting jump services
    add rule ip windlass refuse meta l4proto tcp reject with tcp reset
    add rule ip windlass refuse reject
    add rule ip windlass services ip daddr . meta l4proto . th dport vmap @virtual_ports
    add rule ip windlass services ip daddr != 127.0.0.0/8 ip daddr != 10.96.0.0/16 fib daddr type local jump local_ports
    add rule ip windlass sources iifname "wdl*" fib saddr . iif oif missing drop
    add rule ip windlass sources iifname != "lo" ip saddr 10.244.0.0/16 fib saddr . iif oif missing drop
    add rule ip windlass unserved ct state established,related return
    add rule ip windlass unserved ip daddr . meta l4proto . th dport @refused_virtual_ports goto refuse
    add rule ip windlass unserved ip daddr 10.96.0.10 meta l4proto { tcp, udp } th dport != 53 goto refuse
    add rule ip windlass unserved ip daddr 10.96.0.0/16 ip daddr != 10.96.0.10 goto refuse
    "#);
}

#[test]
fn a_listing_is_compared_by_elements_and_counts_of_rules() {
    let mut wanted = Ruleset::default();
    wanted.sets.insert("ports".to_owned(), String::new());
    wanted.elements.insert(
        "ports".to_owned(),
        [
            ("tcp . 80".to_owned(), "goto a".to_owned()),
            ("udp . 53".to_owned(), "goto a".to_owned()),
        ]
        .into(),
    );
    let chain = Chain {
        hook: None,
        rules: vec!["accept".to_owned(), "drop".to_owned()],
    };
    wanted.chains.insert("a".to_owned(), chain);
    let listing = "table ip windlass {\n\tmap ports {\n\t\ttype inet_proto . inet_service : verdict\n\
                   \t\telements = { 6 . 80 : goto a,\n\t\t\t     17 . 53 : goto a }\n\t}\n\n\
                   \tchain a {\n\t\taccept\n\t\tdrop\n\t}\n}\n";
    assert!(matches(&wanted, listing));
    assert!(
        !matches(&wanted, &listing.replace("17 . 53", "17 . 54")),
        "an element differs"
    );
    assert!(
        !matches(&wanted, &listing.replace("\t\tdrop\n", "")),
        "a rule is missing"
    );
    assert!(!matches(&wanted, ""), "the table is missing");
}

/// A listing with a base chain, a closing brace on a line of its own, and a rule that begins with
/// the word of a set: old versions of nft print `update @clients {...}` as `set update ...`.
#[test]
fn a_listing_may_have_base_chains_and_lines_that_begin_as_other_lines_do() {
    let chain = |rules: &[&str]| Chain {
        hook: None,
        rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
    };
    let wanted = Ruleset {
        sets: [("clients".to_owned(), String::new())].into(),
        chains: [
            ("output".to_owned(), chain(&["jump a"])),
            ("a".to_owned(), chain(&["update", "accept"])),
        ]
        .into(),
        elements: [(
            "clients".to_owned(),
            [("10.0.0.1".to_owned(), String::new())].into(),
        )]
        .into(),
    };
    let listing = "table ip windlass {\n\tset clients {\n\t\ttype ipv4_addr\n\
                   \t\telements = { 10.0.0.1,\n\t\t}\n\t}\n\n\
                   \tchain output {\n\t\ttype nat hook output priority -100; policy accept;\n\
                   \t\tjump a\n\t}\n\n\
                   \tchain a {\n\t\tset update ip saddr timeout 3h @clients\n\t\taccept\n\t}\n}\n";
    assert!(matches(&wanted, listing));

    let other_set = listing.replace("set clients", "set others");
    assert!(!matches(&wanted, &other_set), "a set has another name");
    let fewer = listing.replace("\t\tset update ip saddr timeout 3h @clients\n", "");
    assert!(!matches(&wanted, &fewer), "a rule is missing");
}

/// Versions of nft differ in the order of `expires` and `counter`.
#[test]
fn outside_senders_are_read_with_their_counts() {
    let listing = |elements: &str| {
        format!(
            "table ip windlass {{\n\tset outside_sources {{\n\t\ttype ipv4_addr\n\t\tsize 1024\n\
             \t\tflags dynamic,timeout\n\t\ttimeout 1d\n{elements}\t}}\n}}\n"
        )
    };
    let last = "\t\telements = { 192.0.2.7 expires 23h59m59s996ms counter packets 2 bytes 120,\n\
               \t\t\t     192.0.2.9 expires 23h59m59s996ms counter packets 30 bytes 1800 }\n";
    let first = "\t\telements = { 192.0.2.7 counter packets 2 bytes 120 expires 23h59m59s996ms }\n";
    let source = |address: &str, packets| OutsideSource {
        address: address.parse().unwrap(),
        packets,
    };
    assert_eq!(
        counted_sources(&listing(last)),
        [source("192.0.2.9", 30), source("192.0.2.7", 2)]
    );
    assert_eq!(counted_sources(&listing(first)), [source("192.0.2.7", 2)]);
    assert_eq!(counted_sources(&listing("")), []);
    assert_eq!(counted_sources(""), []);
}
