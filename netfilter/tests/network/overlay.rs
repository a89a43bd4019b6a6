//! Traffic between hosts as pods, hosts and clients see it.

use netfilter::HostNet;
use reconciler::{
    network::{Backends, HostPort, PeerPath, ServiceTable, VirtualPort, pod_mtu},
    object::Protocol,
};

use crate::{
    cluster::{Cluster, MEGABYTE, OUTSIDE},
    world::{Pod, ask_udp, endpoint},
};

const VXLAN: fn(usize, usize) -> PeerPath = |_, _| PeerPath::Vxlan;
const DIRECT: fn(usize, usize) -> PeerPath = |_, _| PeerPath::Direct;
/// Between the first and the third host alone there is a direct path.
const MIXED: fn(usize, usize) -> PeerPath = |a, b| {
    if (a, b) == (1, 3) {
        PeerPath::Direct
    } else {
        PeerPath::Vxlan
    }
};

/// One service with a cluster IP and a node port, in TCP and UDP, whose only endpoint is on the
/// third host.
fn services() -> ServiceTable {
    let mut table = ServiceTable::default();
    for (protocol, port, to) in [
        (Protocol::Tcp, 80, "10.244.3.2:8080"),
        (Protocol::Udp, 53, "10.244.3.2:53"),
    ] {
        let backends = Backends {
            endpoints: [endpoint(to)].into(),
            client_ip_affinity: None,
        };
        let at = VirtualPort {
            address: [10, 96, 0, 1].into(),
            protocol,
            port,
        };
        table.cluster_ips.insert(at, backends.clone());
        table.node_ports.insert(
            HostPort {
                protocol,
                port: 30000 + port,
            },
            backends,
        );
    }
    table
}

/// What a pod answers to somebody it sees by this address.
fn answer(pod: &Pod, seen: impl std::fmt::Display) -> String {
    format!("{} {seen}", pod.link.address)
}

/// Everybody asks everybody, and is seen by the right address.
fn everything_answers(path: fn(usize, usize) -> PeerPath) {
    let cluster = Cluster::new();
    cluster.join(path, &services());
    let pods: Vec<Pod> = cluster.hosts.iter().map(|host| host.pod(2, 1450)).collect();
    let remote = &pods[2];
    // By what address a pod of another host sees a host's own connections.
    let seen = |from: usize, to: usize| match path(from.min(to), from.max(to)) {
        PeerPath::Vxlan => cluster.host(from).overlay_address(),
        PeerPath::Direct => cluster.host(from).address(),
    };
    for (from, (host, pod)) in (1..).zip(cluster.hosts.iter().zip(&pods)) {
        for (to, other) in (1..).zip(&pods).filter(|(to, _)| *to != from) {
            let at = format!("{}:8080", other.link.address);
            let case = format!("{from} to {to}");
            assert_eq!(
                pod.namespace.ask(&at).unwrap(),
                answer(other, pod.link.address),
                "pod {case}"
            );
            assert_eq!(
                host.namespace.ask(&at).unwrap(),
                answer(other, seen(from, to)),
                "host {case}"
            );
        }
        let node_port = format!("{}:30080", host.address());
        let from_client = cluster.client.ask(&node_port).unwrap();
        assert_eq!(
            host.namespace.ask(&node_port).unwrap(),
            host.namespace.ask("10.96.0.1:80").unwrap()
        );
        let socket = host.namespace.udp("10.96.0.1:53");
        let from_host = ask_udp(&socket).unwrap();
        let from_pod = pod.namespace.ask("10.96.0.1:80").unwrap();
        let over_udp = ask_udp(&pod.namespace.udp("10.96.0.1:53")).unwrap();
        if from == 3 {
            assert_eq!(from_client, answer(remote, host.address()));
            continue;
        }
        assert_eq!(
            from_client,
            answer(remote, seen(from, 3)),
            "client to the node port of {from}"
        );
        assert_eq!(
            host.namespace.ask("10.96.0.1:80").unwrap(),
            answer(remote, seen(from, 3)),
            "host {from}"
        );
        assert_eq!(
            from_host,
            answer(remote, seen(from, 3)),
            "host {from} over UDP"
        );
        assert_eq!(
            from_pod,
            answer(remote, pod.link.address),
            "pod {from} to the cluster IP"
        );
        assert_eq!(
            over_udp,
            answer(remote, pod.link.address),
            "pod {from} to the cluster IP over UDP"
        );
        // A pod may ask at any host's port, its own or another's.
        for other in &cluster.hosts {
            let node_port = format!("{}:30080", other.address());
            assert!(
                pod.namespace
                    .ask(&node_port)
                    .unwrap()
                    .starts_with("10.244.3.2 "),
                "{from} {node_port}"
            );
        }
    }
    cluster.client.serve_tcp(80, "outside");
    let outside = pods[0].namespace.ask(&format!("{OUTSIDE}:80")).unwrap();
    assert_eq!(
        outside,
        format!("outside {}", cluster.host(1).address()),
        "pods leave as their host"
    );
}

#[test]
fn everything_answers_over_vxlan() {
    everything_answers(VXLAN);
}

#[test]
fn everything_answers_over_direct_paths() {
    everything_answers(DIRECT);
}

#[test]
fn everything_answers_over_mixed_paths() {
    everything_answers(MIXED);
}

#[test]
fn what_a_host_forwards_for_others_is_answered_through_it() {
    let cluster = Cluster::new();
    cluster.join(VXLAN, &ServiceTable::default());
    let pod = cluster.host(2).pod(2, 1450);
    cluster
        .client
        .run("ip route add 10.244.2.0/24 via 192.0.2.11");
    assert_eq!(
        cluster.client.ask("10.244.2.2:8080").unwrap(),
        answer(&pod, "10.244.1.0")
    );
}

#[test]
fn tunnels_take_no_place_in_connection_tracking() {
    let cluster = Cluster::new();
    cluster.join(VXLAN, &services());
    let pods: Vec<Pod> = cluster.hosts.iter().map(|host| host.pod(2, 1450)).collect();
    for host in &cluster.hosts {
        for chain in ["INPUT", "OUTPUT"] {
            host.namespace.run(&format!(
                "iptables -I {chain} -p udp --dport 8487 -m conntrack ! --ctstate UNTRACKED -j DROP"
            ));
        }
    }
    assert!(pods[0].namespace.ask("10.244.3.2:8080").is_ok());
    // Packets to a service are marked, and what they are packed into is too.
    assert!(cluster.host(1).namespace.ask("10.96.0.1:80").is_ok());
}

#[test]
fn the_greatest_packets_pass_whole() {
    for (path, mtu) in [(VXLAN, 1450), (DIRECT, 1500)] {
        let cluster = Cluster::new();
        cluster.join(path, &ServiceTable::default());
        let peers = cluster.peers(1, path);
        let uplink = cluster
            .host(1)
            .with_network(|network| async move { network.uplink_mtu().await.unwrap() });
        assert_eq!((uplink, pod_mtu(uplink, &peers)), (1500, mtu));
        let (a, b) = (cluster.host(1).pod(2, mtu), cluster.host(2).pod(2, mtu));
        // An IP and a UDP header are 28 bytes; what fits the pod's link goes out in one piece and
        // must stay so.
        let socket = a.namespace.udp(&format!("{}:53", b.link.address));
        socket
            .send(&vec![0; usize::try_from(mtu).unwrap() - 28])
            .unwrap();
        let length = socket.recv(&mut [0; 64]).unwrap();
        assert_eq!(length, answer(&b, a.link.address).len());
        let transfer = format!("{}:8081", b.link.address);
        assert_eq!(
            a.namespace.ask(&transfer).unwrap().len(),
            MEGABYTE + " 10.244.1.2".len()
        );
        assert!(
            cluster.host(1).namespace.ask(&transfer).unwrap().len() > MEGABYTE,
            "from the host"
        );
    }
}

#[test]
fn a_pod_that_believes_in_a_greater_mtu_is_corrected() {
    let cluster = Cluster::new();
    cluster.join(VXLAN, &ServiceTable::default());
    let (a, b) = (cluster.host(1).pod(2, 1500), cluster.host(2).pod(2, 1500));
    let transfer = format!("{}:8081", b.link.address);
    assert!(a.namespace.ask(&transfer).unwrap().len() > MEGABYTE);

    let (link, netns) = (
        reconciler::network::PodLink {
            mtu: 1450,
            ..a.link.clone()
        },
        a.namespace.fd(),
    );
    let name = link.name.clone();
    let index = cluster
        .host(1)
        .namespace
        .run(&format!("cat /sys/class/net/{name}/ifindex"));
    cluster
        .host(1)
        .with_network(move |network| async move { network.connect(&link, netns).await.unwrap() });
    assert!(a.namespace.run("ip link show eth0").contains("mtu 1450"));
    let same = cluster
        .host(1)
        .namespace
        .run(&format!("cat /sys/class/net/{name}/ifindex"));
    assert_eq!(same, index, "the link was changed in its place");
}

#[test]
fn a_pod_cannot_send_with_another_address_through_the_tunnel() {
    let cluster = Cluster::new();
    cluster.join(VXLAN, &ServiceTable::default());
    for host in &cluster.hosts {
        // It is our settings that hold the pod to its address, and not the host's.
        host.namespace
            .run("sysctl -qw net.ipv4.conf.all.rp_filter=0");
    }
    let (liar, other) = (cluster.host(1).pod(2, 1450), cluster.host(2).pod(2, 1450));
    for source in ["10.244.1.99", "10.244.3.2", "203.0.113.7"] {
        liar.namespace
            .run(&format!("ip address add {source}/32 dev eth0"));
    }
    let received = other
        .namespace
        .inside(|| std::net::UdpSocket::bind("0.0.0.0:9000").unwrap());
    received
        .set_read_timeout(Some(std::time::Duration::from_secs(3)))
        .unwrap();
    // The true one comes last: what is received first says which of those before it came through.
    for source in ["10.244.1.99", "10.244.3.2", "203.0.113.7", "10.244.1.2"] {
        crate::peers::send_from(&liar.namespace, source, "10.244.2.2:9000");
    }
    assert_eq!(crate::peers::sender(&received), "10.244.1.2");
}
