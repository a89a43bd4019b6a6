//! Drift: changes by other programs are observed and repaired, and without a change nothing is
//! written.

use std::{process::Command, time::Duration};

use netfilter::{Drift, HostNet, Synced, uninstall};
use reconciler::{
    network::{Backends, HostPort, ServiceTable, VirtualPort},
    object::Protocol,
};

use crate::world::{World, endpoint};

/// A service with a number of endpoints, with or without affinity, and a node port.
fn table(endpoints: u8, affinity: bool) -> ServiceTable {
    let backends = Backends {
        endpoints: (0..endpoints)
            .map(|last| endpoint(&format!("10.244.1.{}:8080", last + 2)))
            .collect(),
        client_ip_affinity: affinity.then_some(Duration::from_secs(60)),
    };
    let mut table = ServiceTable::default();
    let port = VirtualPort {
        address: [10, 96, 0, 1].into(),
        protocol: Protocol::Tcp,
        port: 80,
    };
    table.cluster_ips.insert(port, backends.clone());
    table.node_ports.insert(
        HostPort {
            protocol: Protocol::Udp,
            port: 30080,
        },
        backends,
    );
    table
}

/// Runs a command in the namespace of the thread.
fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_drift_is_repaired_once_and_reported() {
    let world = World::new();
    world.with_network(|network| async move {
        network.sync(&table(2, true)).await.unwrap();
        assert_eq!(network.resync().await.unwrap(), [], "before any damage");
        for (damage, drift) in [
            ("nft flush table ip windlass", Drift::Table),
            ("nft delete table ip windlass", Drift::Table),
            ("nft flush map ip windlass virtual_ports", Drift::Table),
            ("nft add rule ip windlass services drop", Drift::Table),
            (
                "nft add element ip windlass host_ports '{ tcp . 22 : 10.244.1.2 . 22 }'",
                Drift::Table,
            ),
            ("iptables -F FORWARD", Drift::AcceptRules),
            ("iptables -F INPUT", Drift::AcceptRules),
            ("ip link del windlass0", Drift::ServiceDevice),
            ("ip address flush dev windlass0", Drift::ServiceDevice),
            ("ip route del 10.96.0.0/16", Drift::ServiceRoute),
            ("echo 0 > /proc/sys/net/ipv4/ip_forward", Drift::Forwarding),
        ] {
            sh(damage);
            let repaired = network.resync().await.unwrap();
            assert!(repaired.contains(&drift), "{damage}: {repaired:?}");
            assert_eq!(network.resync().await.unwrap(), [], "after {damage}");
        }
    });
}

#[test]
fn changes_of_nftables_by_other_programs_are_observed_and_the_repair_is_not() {
    let world = World::new();
    world.with_network(|network| async move {
        network.sync(&table(2, true)).await.unwrap();
        network.resync().await.unwrap();
        let mut changed = network.changed();
        for (damage, drift) in [
            ("nft flush ruleset", Drift::Table),
            ("nft delete table ip windlass", Drift::Table),
            ("nft insert rule ip windlass guard accept", Drift::Table),
            (
                "nft add table ip elsewhere; nft delete table ip windlass",
                Drift::Table,
            ),
            ("iptables -P FORWARD DROP", Drift::AcceptRules),
        ] {
            changed.mark_unchanged();
            sh(damage);
            let event = tokio::time::timeout(Duration::from_secs(30), changed.changed()).await;
            assert!(event.is_ok(), "no event after {damage}");
            let repaired = network.resync().await.unwrap();
            assert!(repaired.contains(&drift), "{damage}: {repaired:?}");
        }
        // The repair was a change too.
        let event = tokio::time::timeout(Duration::from_secs(3), changed.changed()).await;
        assert!(event.is_err(), "a repair caused an event");
    });
}

#[test]
fn after_a_sync_from_any_table_to_any_other_a_resync_finds_no_drift() {
    let world = World::new();
    world.with_network(|network| async move {
        let tables = [
            table(0, false),
            table(1, false),
            table(2, false),
            table(3, false),
            table(2, true),
            table(3, true),
            table(0, true),
            ServiceTable::default(),
        ];
        network.sync(&tables[0]).await.unwrap();
        for from in &tables {
            for to in &tables {
                network.sync(from).await.unwrap();
                let synced = network.sync(to).await.unwrap();
                assert!(
                    !matches!(synced, Synced::Changed { replaced: true, .. }),
                    "the whole table was replaced instead of its differences"
                );
                // A change of nftables by another program makes the next resync read the whole
                // table.
                sh("nft add table ip elsewhere; nft delete table ip elsewhere");
                assert_eq!(network.resync().await.unwrap(), [], "{from:?} to {to:?}");
            }
        }
    });
}

#[test]
fn a_sync_after_the_table_was_deleted_replaces_it() {
    let world = World::new();
    world.with_network(|network| async move {
        assert!(matches!(
            network.sync(&table(1, false)).await,
            Ok(Synced::Changed { replaced: true, .. })
        ));
        assert!(matches!(
            network.sync(&table(1, false)).await,
            Ok(Synced::Unchanged)
        ));
        sh("nft delete table ip windlass");
        assert!(matches!(
            network.sync(&table(2, false)).await,
            Ok(Synced::Changed { replaced: true, .. })
        ));
        assert!(matches!(
            network.sync(&table(3, false)).await,
            Ok(Synced::Changed {
                replaced: false,
                ..
            })
        ));
        assert_eq!(network.resync().await.unwrap(), []);
    });
}

#[test]
fn a_sync_and_a_resync_without_a_difference_write_nothing() {
    let world = World::new();
    world.with_network(|network| async move {
        network.sync(&table(2, true)).await.unwrap();
        network.resync().await.unwrap();
        let changed = network.changed();
        let before = (
            sh("nft list ruleset"),
            sh("ip route show table all; ip address"),
        );
        for _ in 0..5 {
            network.prepare().await.unwrap();
            assert_eq!(
                network.sync(&table(2, true)).await.unwrap(),
                Synced::Unchanged
            );
            assert_eq!(network.resync().await.unwrap(), []);
        }
        let after = (
            sh("nft list ruleset"),
            sh("ip route show table all; ip address"),
        );
        assert_eq!(before, after);
        assert!(!changed.has_changed().unwrap());
    });
}

#[test]
fn accept_rules_are_in_the_chain_docker_user_while_it_exists() {
    let world = World::new();
    let pods = [world.pod("10.244.1.2"), world.pod("10.244.1.3")];
    pods[0].namespace.serve_tcp(8080, "a");
    let pods = std::sync::Arc::new(pods);
    let clients = std::sync::Arc::clone(&pods);
    world.with_network(move |network| async move {
        let docker_user = || sh("iptables -S DOCKER-USER").matches("--comment windlass").count();
        let forward = || sh("iptables -S FORWARD").matches("--comment windlass").count();
        assert_eq!(forward(), 2);
        sh("iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -I FORWARD -j DOCKER-USER");
        assert_eq!(network.resync().await.unwrap(), [Drift::AcceptRules]);
        assert_eq!((forward(), docker_user()), (0, 2));
        assert!(clients[1].namespace.ask("10.244.1.2:8080").is_ok());
        sh("iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN");
        network.prepare().await.unwrap();
        assert_eq!((forward(), docker_user()), (0, 2));
        sh("iptables -D FORWARD -j DOCKER-USER; iptables -F DOCKER-USER; iptables -X DOCKER-USER");
        assert_eq!(network.resync().await.unwrap(), [Drift::AcceptRules]);
        assert_eq!(forward(), 2);
        assert!(clients[1].namespace.ask("10.244.1.2:8080").is_ok());
    });
    drop(pods);
}

#[test]
fn uninstall_removes_everything_and_restores_ip_forwarding() {
    let world = World::new();
    let state = "iptables-save -t filter | grep -v '^#'; nft list tables | grep -v 'ip filter'; \
                 ip -brief link; ip route; cat /proc/sys/net/ipv4/ip_forward";
    world.host.run("sysctl -qw net.ipv4.ip_forward=0");
    let before = world.host.inside(move || sh(state));
    let _pod = world.pod("10.244.1.2");
    let record = world.record_file();
    world.with_network(|network| async move {
        network.sync(&table(2, true)).await.unwrap();
    });
    let (done, again) = world.with_network(move |network| async move {
        network.sync(&table(2, true)).await.unwrap();
        drop(network);
        let first = uninstall(&record).await;
        assert!(first.failed.is_empty(), "{:?}", first.failed);
        (first.done, uninstall(&record).await.done)
    });
    assert_eq!(world.host.inside(move || sh(state)), before);
    assert!(again.is_empty(), "{again:?}");
    for part in [
        "table ip windlass",
        "link wdl",
        "link windlass0",
        "iptables FORWARD",
        "iptables INPUT",
        "ip_forward",
    ] {
        assert!(
            done.iter().any(|done| done.contains(part)),
            "{part} in {done:?}"
        );
    }
}
