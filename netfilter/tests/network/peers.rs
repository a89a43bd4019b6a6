//! Peers that are added, changed and removed, drift of their routes and entries, and tunnel packets
//! of other machines.

use std::{
    net::UdpSocket,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use netfilter::{Drift, HostNet, NetworkError, uninstall};
use reconciler::network::{Peer, PeerPath, Peers, ServiceTable};

use crate::{
    cluster::{Cluster, Host, OUTSIDE, name},
    world::{Namespace, Pod, ask_udp},
};

const VXLAN: fn(usize, usize) -> PeerPath = |_, _| PeerPath::Vxlan;
const DIRECT: fn(usize, usize) -> PeerPath = |_, _| PeerPath::Direct;

/// Sends one packet with a source address.
pub(crate) fn send_from(namespace: &Namespace, source: &str, to: &str) {
    let (source, to) = (format!("{source}:0"), to.to_owned());
    // A packet that its own host refuses to send is dropped too, so an error is no failure.
    let _ = namespace.inside(move || UdpSocket::bind(source).unwrap().send_to(b"hello", to));
}

/// The source address of the next packet.
pub(crate) fn sender(socket: &UdpSocket) -> String {
    socket.recv_from(&mut [0; 16]).unwrap().1.ip().to_string()
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

/// The routes, entries and rules for other hosts.
const STATE: &str = "ip route show proto 87 | grep via; bridge fdb show dev windlass1; \
                     ip neighbour show dev windlass1; iptables -S INPUT | grep 8487; \
                     nft list set ip windlass vxlan_peers; true";

fn state(host: &Host) -> String {
    host.namespace.inside(|| sh(STATE))
}

/// Sends requests to a pod over UDP without pause, each only once, so that a dropped packet is a
/// lost request.
struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, u32)>,
}

impl Traffic {
    fn start(from: &Pod, to: &Pod) -> Self {
        let socket = from.namespace.udp(&format!("{}:53", to.link.address));
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        assert!(
            ask_udp(&socket).is_ok(),
            "the pod does not answer before the change"
        );
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut sent, mut lost) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                sent += 1;
                lost += u32::from(ask_udp(&socket).is_err());
                thread::sleep(Duration::from_millis(1));
            }
            (sent, lost)
        });
        Self { stop, thread }
    }

    /// Ends the traffic, and checks that no request was lost.
    fn assert_lost_nothing(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, lost) = self.thread.join().unwrap();
        assert!(sent > 10, "only {sent} requests were sent");
        assert_eq!(lost, 0, "lost of {sent} requests");
    }
}

#[test]
fn routes_and_entries_of_a_removed_peer_are_removed_and_no_others() {
    for path in [VXLAN, DIRECT] {
        let cluster = Cluster::new();
        cluster.join(path, &ServiceTable::default());
        let pods: Vec<Pod> = cluster.hosts.iter().map(|host| host.pod(2, 1450)).collect();
        let before = state(cluster.host(1));
        assert!(
            before.contains("10.244.3.0/24") && before.contains("192.0.2.13"),
            "{before}"
        );
        assert!(pods[0].namespace.ask("10.244.3.2:8080").is_ok());

        let traffic = Traffic::start(&pods[0], &pods[1]);
        let mut remaining = cluster.peers(1, path);
        remaining.remove(&name(3));
        cluster.host(1).set(remaining, &ServiceTable::default());
        let after = state(cluster.host(1));
        for trace in ["10.244.3.", "192.0.2.13", "02:57:c0:00:02:0d"] {
            assert!(!after.contains(trace), "{trace} in {after}");
        }
        assert!(after.contains("10.244.2.0/24"), "{after}");
        assert!(pods[0].namespace.ask("10.244.3.2:8080").is_err());

        cluster
            .host(1)
            .set(cluster.peers(1, path), &ServiceTable::default());
        assert_eq!(
            state(cluster.host(1)),
            before,
            "the state after the peer was added again"
        );
        traffic.assert_lost_nothing();
        assert!(pods[0].namespace.ask("10.244.3.2:8080").is_ok());

        cluster.host(1).set(Peers::new(), &ServiceTable::default());
        assert_eq!(
            cluster
                .host(1)
                .namespace
                .inside(|| sh("ip route show proto 87 | grep via; true")),
            ""
        );
        let links = cluster.host(1).namespace.run("ip -brief link");
        assert!(!links.contains("windlass1"), "{links}");
    }
}

#[test]
fn a_peer_with_another_address_is_reached_there() {
    for path in [VXLAN, DIRECT] {
        let mut cluster = Cluster::new();
        cluster.join(path, &ServiceTable::default());
        let pods: Vec<Pod> = cluster.hosts.iter().map(|host| host.pod(2, 1450)).collect();
        let traffic = Traffic::start(&pods[0], &pods[1]);
        cluster
            .host(3)
            .namespace
            .run("ip address del 192.0.2.13/24 dev eth0");
        cluster
            .host(3)
            .namespace
            .run("ip address add 192.0.2.33/24 dev eth0");
        cluster.hosts[2].network.node_address = "192.0.2.33".parse().unwrap();
        cluster.join(path, &ServiceTable::default());
        traffic.assert_lost_nothing();
        // With the old address the kernel removed the routes to the host's own pods, whose
        // preferred source it was.
        cluster.host(3).connect(&pods[2]);
        for host in [1, 2] {
            let state = state(cluster.host(host));
            assert!(
                !state.contains("192.0.2.13") && state.contains("192.0.2.33"),
                "{state}"
            );
            assert!(!state.contains("02:57:c0:00:02:0d"), "{state}");
        }
        assert!(pods[0].namespace.ask("10.244.3.2:8080").is_ok());
        assert!(pods[2].namespace.ask("10.244.1.2:8080").is_ok());
        assert!(cluster.host(3).namespace.ask("10.244.1.2:8080").is_ok());
    }
}

#[test]
fn a_path_changes_between_vxlan_and_direct() {
    let cluster = Cluster::new();
    let pods: Vec<Pod> = cluster.hosts.iter().map(|host| host.pod(2, 1450)).collect();
    for path in [VXLAN, DIRECT, VXLAN, |a, b| {
        if (a, b) == (1, 2) {
            PeerPath::Direct
        } else {
            PeerPath::Vxlan
        }
    }] {
        cluster.join(path, &ServiceTable::default());
        let source = match path(1, 2) {
            PeerPath::Vxlan => cluster.host(1).overlay_address(),
            PeerPath::Direct => cluster.host(1).address(),
        };
        assert_eq!(
            cluster.host(1).namespace.ask("10.244.2.2:8080").unwrap(),
            format!("10.244.2.2 {source}")
        );
        for to in ["10.244.2.2:8080", "10.244.3.2:8080"] {
            assert!(pods[0].namespace.ask(to).is_ok(), "{to}");
        }
        cluster.host(1).with_network({
            let peers = cluster.peers(1, path);
            move |network| async move {
                network.set_peers(&peers).await.unwrap();
                assert_eq!(network.resync().await.unwrap(), []);
            }
        });
    }
}

#[test]
fn each_drift_of_peers_is_repaired_once_and_reported() {
    let cluster = Cluster::new();
    let path: fn(usize, usize) -> PeerPath = |a, b| {
        if (a, b) == (1, 3) {
            PeerPath::Direct
        } else {
            PeerPath::Vxlan
        }
    };
    cluster.join(path, &ServiceTable::default());
    let pods: Vec<Pod> = cluster.hosts.iter().map(|host| host.pod(2, 1450)).collect();
    let peers = cluster.peers(1, path);
    let pods = Arc::new(pods);
    let clients = Arc::clone(&pods);
    let before = state(cluster.host(1));
    cluster.host(1).with_network(move |network| async move {
        network.set_peers(&peers).await.unwrap();
        network.sync(&ServiceTable::default()).await.unwrap();
        network.resync().await.unwrap();
        for (damage, drift) in [
            ("ip link del windlass1", Drift::OverlayDevice),
            ("ip link set windlass1 down", Drift::OverlayDevice),
            ("ip link set windlass1 mtu 1300", Drift::OverlayDevice),
            ("ip link set windlass1 address 02:00:00:00:00:01", Drift::OverlayDevice),
            ("ip link set windlass1 type vxlan learning", Drift::OverlayDevice),
            ("ip link del windlass1; ip link add windlass1 type bridge", Drift::OverlayDevice),
            ("ip address flush dev windlass1", Drift::OverlayDevice),
            ("ip address add 10.9.9.9/32 dev windlass1", Drift::OverlayDevice),
            ("bridge fdb del 02:57:c0:00:02:0c dev windlass1", Drift::PeerEntries),
            ("bridge fdb replace 02:57:c0:00:02:0c dev windlass1 dst 192.0.2.99", Drift::PeerEntries),
            ("bridge fdb add 02:57:c0:00:02:63 dev windlass1 dst 192.0.2.99", Drift::PeerEntries),
            ("ip neighbour del 10.244.2.0 dev windlass1", Drift::PeerEntries),
            ("ip neighbour replace 10.244.2.0 lladdr 02:57:c0:00:02:63 dev windlass1", Drift::PeerEntries),
            ("ip route del 10.244.2.0/24", Drift::PeerRoutes),
            ("ip route del 10.244.3.0/24", Drift::PeerRoutes),
            ("ip route replace 10.244.3.0/24 via 192.0.2.12 proto 87", Drift::PeerRoutes),
            ("ip route add 10.244.99.0/24 via 192.0.2.12 proto 87", Drift::PeerRoutes),
            ("ip link set eth0 down; ip link set eth0 up", Drift::PeerRoutes),
            ("nft flush set ip windlass vxlan_peers", Drift::Table),
            ("iptables -D INPUT -s 192.0.2.12/32 -p udp -m udp --dport 8487 -m comment --comment windlass -j ACCEPT", Drift::AcceptRules),
        ] {
            sh(damage);
            let repaired = network.resync().await.unwrap();
            assert!(repaired.contains(&drift), "{damage}: {repaired:?}");
            assert_eq!(network.resync().await.unwrap(), [], "after {damage}");
            for to in ["10.244.2.2:8080", "10.244.3.2:8080"] {
                assert!(clients[0].namespace.ask(to).is_ok(), "{to} after {damage}");
            }
        }
        assert_eq!(sh(STATE), before);
    });
    drop(pods);
}

#[test]
fn removals_by_other_programs_are_observed_and_a_resync_causes_no_event() {
    let cluster = Cluster::new();
    let path: fn(usize, usize) -> PeerPath = |a, b| {
        if (a, b) == (1, 3) {
            PeerPath::Direct
        } else {
            PeerPath::Vxlan
        }
    };
    let peers = cluster.peers(1, path);
    cluster.host(1).with_network(move |network| async move {
        network.set_peers(&peers).await.unwrap();
        let mut changed = network.changed();
        let before = sh(STATE);
        for _ in 0..3 {
            network.set_peers(&peers).await.unwrap();
            assert_eq!(network.resync().await.unwrap(), []);
        }
        assert_eq!(sh(STATE), before);
        assert!(
            !changed.has_changed().unwrap(),
            "a resync without a difference caused an event"
        );
        for damage in [
            "ip route del 10.244.2.0/24",
            "ip route del 10.244.3.0/24",
            "ip link del windlass1",
            "ip link set windlass1 down",
            "ip link set eth0 down; ip link set eth0 up",
            "ip address del 192.0.2.11/24 dev eth0; ip address add 192.0.2.11/24 dev eth0",
        ] {
            changed.mark_unchanged();
            sh(damage);
            let event = tokio::time::timeout(Duration::from_secs(5), changed.changed()).await;
            assert!(event.is_ok(), "no event after {damage}");
            assert_ne!(network.resync().await.unwrap(), [], "{damage}");
        }
    });
}

#[test]
fn a_restarted_daemon_loses_no_packet_between_pods() {
    for path in [VXLAN, DIRECT] {
        let cluster = Cluster::new();
        cluster.join(path, &ServiceTable::default());
        let pods: Vec<Pod> = cluster.hosts.iter().map(|host| host.pod(2, 1450)).collect();
        let traffic = Traffic::start(&pods[0], &pods[1]);
        let before = state(cluster.host(1));
        let peers = cluster.peers(1, path);
        cluster.host(1).with_network(move |network| async move {
            network.resync().await.unwrap();
            assert_eq!(
                sh(STATE),
                before,
                "a resync before the first set_peers has changed peers"
            );
            // A sync before set_peers is allowed.
            network.sync(&ServiceTable::default()).await.unwrap();
            network.set_peers(&peers).await.unwrap();
            assert_eq!(sh(STATE), before);
            assert_eq!(network.resync().await.unwrap(), []);
        });
        traffic.assert_lost_nothing();
    }
}

#[test]
fn a_peer_that_cannot_be_reached_is_reported_and_blocks_no_other_peer() {
    let cluster = Cluster::new();
    cluster.join(DIRECT, &ServiceTable::default());
    let pods: Vec<Pod> = cluster.hosts.iter().map(|host| host.pod(2, 1450)).collect();
    let good = cluster.peers(1, DIRECT);
    let peer = |address: &str, path| Peer {
        address: address.parse().unwrap(),
        pod_subnet: "10.244.7.0/24".parse().unwrap(),
        path,
    };
    let with = |bad: Peer| -> Peers {
        let mut peers = good.clone();
        peers.insert(reconciler::name::NodeName::new("bad"), bad);
        peers
    };
    let (unreachable, routed, tunnel) = (
        with(peer("203.0.113.9", PeerPath::Direct)),
        with(peer("198.51.100.9", PeerPath::Direct)),
        with(peer("192.0.2.99", PeerPath::Vxlan)),
    );
    cluster
        .host(1)
        .namespace
        .run("ip route add 198.51.100.0/24 via 192.0.2.12");
    // A device of another program with the same VXLAN id on the same port.
    cluster
        .host(1)
        .namespace
        .run("ip link add other type vxlan id 87 dstport 8487 local 192.0.2.11");
    cluster.host(1).with_network(move |network| async move {
        let error = network.set_peers(&unreachable).await.unwrap_err();
        assert!(
            matches!(&error, NetworkError::PeerRoute { peer, .. } if peer.as_str() == "bad"),
            "{error}"
        );
        let error = network.set_peers(&routed).await.unwrap_err();
        assert!(
            error.to_string().contains("behind the router 192.0.2.12"),
            "{error}"
        );
        let error = network.set_peers(&tunnel).await.unwrap_err();
        assert!(
            matches!(
                error,
                NetworkError::Overlay {
                    id: 87,
                    port: 8487,
                    ..
                }
            ),
            "{error}"
        );
        sh("ip route del 10.244.2.0/24");
        assert!(
            network.resync().await.is_err(),
            "the conflicting device still exists"
        );
        sh("ip link del other");
        network.set_peers(&tunnel).await.unwrap();
        assert_eq!(network.resync().await.unwrap(), []);
    });
    assert!(pods[0].namespace.ask("10.244.2.2:8080").is_ok());
    assert!(pods[0].namespace.ask("10.244.3.2:8080").is_ok());
}

/// Gives the client a tunnel to the first host, as a host with the subnet 10.244.9.0/24 would have
/// one.
fn tunnel_from_client(cluster: &Cluster) {
    for command in [
        "ip link add tunnel address 02:57:c0:00:02:02 type vxlan id 87 dstport 8487 local 192.0.2.2 nolearning",
        "ip link set tunnel up",
        "ip address add 10.244.9.2/32 dev tunnel",
        "ip address add 10.244.2.9/32 dev tunnel",
        "ip address add 203.0.113.7/32 dev tunnel",
        "ip neighbour add 10.244.1.0 lladdr 02:57:c0:00:02:0b dev tunnel",
        "bridge fdb add 02:57:c0:00:02:0b dev tunnel dst 192.0.2.11",
        "ip route add 10.244.1.0/24 via 10.244.1.0 dev tunnel onlink",
    ] {
        cluster.client.run(command);
    }
}

#[test]
fn tunnel_packets_of_other_machines_or_with_a_false_source_are_dropped() {
    let cluster = Cluster::new();
    // The host's own firewall accepts everything, so that only the table of Windlass drops.
    cluster.host(1).namespace.run("iptables -P INPUT ACCEPT");
    cluster.host(1).namespace.run("iptables -F INPUT");
    cluster
        .host(1)
        .namespace
        .run("sysctl -qw net.ipv4.conf.all.rp_filter=2");
    cluster.join(VXLAN, &ServiceTable::default());
    let pods: Vec<Pod> = cluster.hosts.iter().map(|host| host.pod(2, 1450)).collect();
    tunnel_from_client(&cluster);
    let received = pods[0]
        .namespace
        .inside(|| UdpSocket::bind("0.0.0.0:9000").unwrap());
    received
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();

    // Tunnel packets of a machine that is no peer are dropped, even with the source address of a
    // peer's pod.
    send_from(&cluster.client, "10.244.9.2", "10.244.1.2:9000");
    send_from(&cluster.client, "10.244.2.9", "10.244.1.2:9000");
    send_from(&pods[1].namespace, "10.244.2.2", "10.244.1.2:9000");
    assert_eq!(
        sender(&received),
        "10.244.2.2",
        "a packet of a machine that is no peer was received"
    );

    let mut peers = cluster.peers(1, VXLAN);
    let client = Peer {
        address: OUTSIDE.parse().unwrap(),
        pod_subnet: "10.244.9.0/24".parse().unwrap(),
        path: PeerPath::Vxlan,
    };
    peers.insert(name(9), client);
    cluster.host(1).set(peers, &ServiceTable::default());
    send_from(&cluster.client, "203.0.113.7", "10.244.1.2:9000");
    send_from(&cluster.client, "192.0.2.2", "10.244.1.2:9000");
    send_from(&cluster.client, "10.244.9.2", "10.244.1.2:9000");
    assert_eq!(
        sender(&received),
        "10.244.9.2",
        "a packet of a peer with an address outside of its subnet was received"
    );

    cluster
        .host(1)
        .set(cluster.peers(1, VXLAN), &ServiceTable::default());
    // Tunnel packets of a machine that is no peer are dropped, even with the source address of a
    // peer's pod.
    send_from(&cluster.client, "10.244.9.2", "10.244.1.2:9000");
    send_from(&cluster.client, "10.244.2.9", "10.244.1.2:9000");
    send_from(&pods[1].namespace, "10.244.2.2", "10.244.1.2:9000");
    assert_eq!(
        sender(&received),
        "10.244.2.2",
        "a packet of a removed peer was received"
    );
    received
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert!(
        received.recv(&mut [0; 16]).is_err(),
        "a packet that must be dropped was received late"
    );
}

#[test]
fn uninstall_removes_routes_and_entries_of_peers() {
    for path in [VXLAN, DIRECT] {
        let cluster = Cluster::new();
        let state = "iptables-save -t filter | grep -v '^#'; nft list tables | grep -v 'ip filter'; \
                    ip -brief link; ip route; ip neighbour show nud permanent";
        let before = cluster.host(1).namespace.inside(move || sh(state));
        cluster.join(path, &ServiceTable::default());
        assert_ne!(cluster.host(1).namespace.inside(move || sh(state)), before);
        let record = cluster.host(1).record_file();
        let (first, again) = cluster.host(1).with_network(move |network| async move {
            drop(network);
            (uninstall(&record).await, uninstall(&record).await)
        });
        assert!(first.failed.is_empty(), "{:?}", first.failed);
        assert!(again.done.is_empty(), "{:?}", again.done);
        assert_eq!(cluster.host(1).namespace.inside(move || sh(state)), before);
    }
}
