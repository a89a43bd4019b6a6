//! Traffic between pods, hosts and clients of different hosts.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use netfilter::{Exposed, Exposure, HostNet};
use reconciler::{
    network::{Backends, HostPort, PeerPath, ServiceTable, VirtualPort, pod_mtu},
    object::Protocol,
};

use crate::{
    cluster::{Cluster, MEGABYTE, OUTSIDE},
    peers::{send_from, sender},
    world::{Namespace, Pod, ask_udp, endpoint},
};

const VXLAN: fn(usize, usize) -> PeerPath = |_, _| PeerPath::Vxlan;
const DIRECT: fn(usize, usize) -> PeerPath = |_, _| PeerPath::Direct;
/// The path between the first and the third host is direct; all other paths are VXLAN.
const MIXED: fn(usize, usize) -> PeerPath = |a, b| {
    if (a, b) == (1, 3) {
        PeerPath::Direct
    } else {
        PeerPath::Vxlan
    }
};

/// A service with a ClusterIP and a node port, for TCP and for UDP, whose only endpoint is on the
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

/// The answer of a pod to a client whose packets have this source address.
fn answer(pod: &Pod, source: impl std::fmt::Display) -> String {
    format!("{} {source}", pod.link.address)
}

/// Checks that pods, hosts and the client reach all pods and services, with the expected source
/// addresses.
fn assert_all_answer(path: fn(usize, usize) -> PeerPath) {
    let cluster = Cluster::new();
    cluster.join(path, &services());
    let pods: Vec<Pod> = cluster.hosts.iter().map(|host| host.pod(2, 1450)).collect();
    let remote = &pods[2];
    // The source address of a host's own connections to a pod of another host.
    let source = |from: usize, to: usize| match path(from.min(to), from.max(to)) {
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
                answer(other, source(from, to)),
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
            answer(remote, source(from, 3)),
            "client to the node port of {from}"
        );
        assert_eq!(
            host.namespace.ask("10.96.0.1:80").unwrap(),
            answer(remote, source(from, 3)),
            "host {from}"
        );
        assert_eq!(
            from_host,
            answer(remote, source(from, 3)),
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
        // A pod reaches the node port of its own host and of every other host.
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
        "outside of the pod range a pod's source address is its host's"
    );
}

#[test]
fn all_pods_hosts_and_services_answer_over_vxlan() {
    assert_all_answer(VXLAN);
}

#[test]
fn all_pods_hosts_and_services_answer_over_direct_paths() {
    assert_all_answer(DIRECT);
}

#[test]
fn all_pods_hosts_and_services_answer_over_mixed_paths() {
    assert_all_answer(MIXED);
}

#[test]
fn traffic_that_a_host_forwards_for_a_client_is_answered_through_that_host() {
    let mut cluster = Cluster::new();
    cluster.hosts[0].exposure = Exposure::Only([Exposed::Pods].into());
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
fn tunnel_packets_are_not_tracked() {
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
    // The mark of packets to a service is copied to their tunnel packets, which must not be tracked
    // either.
    assert!(cluster.host(1).namespace.ask("10.96.0.1:80").is_ok());
}

#[test]
fn packets_of_the_pods_mtu_pass_without_fragmentation() {
    for (path, mtu) in [(VXLAN, 1450), (DIRECT, 1500)] {
        let cluster = Cluster::new();
        cluster.join(path, &ServiceTable::default());
        let peers = cluster.peers(1, path);
        let uplink = cluster
            .host(1)
            .with_network(|network| async move { network.uplink_mtu().await.unwrap() });
        assert_eq!((uplink, pod_mtu(uplink, &peers)), (1500, mtu));
        let (a, b) = (cluster.host(1).pod(2, mtu), cluster.host(2).pod(2, mtu));
        // An IP and a UDP header are 28 bytes, so this packet has exactly the size of the pod's MTU
        // and is not fragmented by the pod.
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
            "the transfer from the host's own namespace is incomplete"
        );
    }
}

#[test]
fn a_pod_with_a_too_large_mtu_still_sends_and_its_mtu_can_be_lowered() {
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
    assert_eq!(same, index, "the link was replaced instead of changed");
}

#[test]
fn a_pod_cannot_send_with_another_address_through_the_tunnel() {
    let cluster = Cluster::new();
    cluster.join(VXLAN, &ServiceTable::default());
    for host in &cluster.hosts {
        // Without the host's own reverse path filter, only the settings of Windlass hold the pod to
        // its address.
        host.namespace
            .run("sysctl -qw net.ipv4.conf.all.rp_filter=0");
    }
    let (spoofing, other) = (cluster.host(1).pod(2, 1450), cluster.host(2).pod(2, 1450));
    for source in ["10.244.1.99", "10.244.3.2", "203.0.113.7"] {
        spoofing
            .namespace
            .run(&format!("ip address add {source}/32 dev eth0"));
    }
    let received = other
        .namespace
        .inside(|| std::net::UdpSocket::bind("0.0.0.0:9000").unwrap());
    received
        .set_read_timeout(Some(std::time::Duration::from_secs(3)))
        .unwrap();
    // The packet with the pod's own address is sent last: it is received first only if all others
    // were dropped.
    for source in ["10.244.1.99", "10.244.3.2", "203.0.113.7", "10.244.1.2"] {
        send_from(&spoofing.namespace, source, "10.244.2.2:9000");
    }
    assert_eq!(sender(&received), "10.244.1.2");
}

/// A VXLAN packet, without its outer headers, for the device of the second host: in it a UDP packet
/// with `hello`, from this source to port 9000 of this address.
fn vxlan_packet(source: &str, to: &str) -> Vec<u8> {
    let address = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
    let (source, to) = (address(source), address(to));
    let mut ip = vec![0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend([source, to].concat());
    let sum: u32 = ip
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());

    let vxlan = [8, 0, 0, 0, 0, 0, 87, 0];
    let macs = [[0x02, 0x57, 192, 0, 2, 12], [0x02, 0x57, 192, 0, 2, 11]].concat();
    let udp = [0x23, 0x28, 0x23, 0x28, 0, 13, 0, 0];
    [&vxlan, &*macs, &[8, 0], &ip, &udp, b"hello"].concat()
}

/// Sends a VXLAN packet to the second host from an ordinary process.
fn send_vxlan(from: &Namespace, outer: &str, packet: Vec<u8>) {
    let outer = format!("{outer}:0");
    from.inside(move || {
        let socket = UdpSocket::bind(outer).unwrap();
        // A packet that the host's own table drops is an error here.
        let _ = socket.send_to(&packet, "192.0.2.12:8487");
    });
}

/// The UDP port 9000 of the second host and of its pod.
fn listeners(cluster: &Cluster, pod: &Pod) -> [(String, UdpSocket); 2] {
    let host = cluster.host(2);
    let host = (&host.namespace, host.overlay_address().to_string());
    [(&pod.namespace, pod.link.address.to_string()), host].map(|(namespace, address)| {
        let at = format!("{address}:9000");
        let socket = namespace.inside(|| UdpSocket::bind(at).unwrap());
        socket
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        (address, socket)
    })
}

/// A cluster of hosts that masquerade the containers behind a bridge, as Docker does, whose own
/// firewalls and reverse path filters let everything pass.
fn open_cluster() -> (Cluster, Vec<Pod>) {
    let cluster = Cluster::new();
    for host in &cluster.hosts {
        for command in [
            "iptables -P INPUT ACCEPT",
            "iptables -P FORWARD ACCEPT",
            "iptables -t nat -A POSTROUTING -s 172.30.0.0/24 -j MASQUERADE",
            "sysctl -qw net.ipv4.conf.all.rp_filter=0",
            "sysctl -qw net.ipv4.conf.default.rp_filter=0",
        ] {
            host.namespace.run(command);
        }
    }
    cluster.join(VXLAN, &ServiceTable::default());
    let pods = cluster.hosts.iter().map(|host| host.pod(2, 1450)).collect();
    (cluster, pods)
}

/// A container behind a bridge of a host.
pub(crate) fn container(host: &Namespace) -> Namespace {
    let container = Namespace::new("container");
    for command in [
        "ip link add br-test type bridge".to_owned(),
        "ip address add 172.30.0.1/24 dev br-test".to_owned(),
        "ip link set br-test up".to_owned(),
        format!(
            "ip link add port type veth peer name eth0 netns {}",
            container.name
        ),
        "ip link set port master br-test up".to_owned(),
    ] {
        host.run(&command);
    }
    for command in [
        "ip address add 172.30.0.2/24 dev eth0",
        "ip link set eth0 up",
        "ip route add default via 172.30.0.1",
    ] {
        container.run(command);
    }
    container
}

#[test]
fn only_the_device_of_a_host_sends_vxlan_packets_to_peers() {
    let (cluster, pods) = open_cluster();
    let host = cluster.host(1);
    let container = container(&host.namespace);
    // A peer's address, as a source, is not masqueraded.
    container.run("ip address add 192.0.2.13/32 dev eth0");
    host.set(cluster.peers(1, VXLAN), &ServiceTable::default());
    let received = listeners(&cluster, &pods[1]);

    for (who, from, outer) in [
        ("a pod", &pods[0].namespace, "0.0.0.0"),
        ("a container", &container, "172.30.0.2"),
        (
            "a container with a peer's address",
            &container,
            "192.0.2.13",
        ),
        ("a process of the host", &host.namespace, "0.0.0.0"),
    ] {
        for (to, socket) in &received {
            for source in ["10.244.1.99", "10.244.3.99"] {
                send_vxlan(from, outer, vxlan_packet(source, to));
            }
            send_from(&pods[0].namespace, "10.244.1.2", &format!("{to}:9000"));
            assert_eq!(sender(socket), "10.244.1.2", "{who} to {to}");
        }
    }
    // The second host's own container is no peer either.
    let inner = self::container(&cluster.host(2).namespace);
    inner.run("ip address add 192.0.2.11/32 dev eth0");
    cluster
        .host(2)
        .set(cluster.peers(2, VXLAN), &ServiceTable::default());
    for (to, socket) in &received {
        send_vxlan(&inner, "192.0.2.11", vxlan_packet("10.244.1.99", to));
        send_from(&pods[0].namespace, "10.244.1.2", &format!("{to}:9000"));
        assert_eq!(sender(socket), "10.244.1.2", "a container of its own");
    }

    let pod = format!("{}:8080", pods[1].link.address);
    for (who, from) in [
        ("a pod", &pods[0].namespace),
        ("a container", &container),
        ("the host", &host.namespace),
    ] {
        assert!(from.ask(&pod).is_ok(), "{who}");
    }
}

#[test]
fn a_peers_vxlan_packets_contain_packets_of_its_own_pods_only() {
    let (cluster, pods) = open_cluster();
    // The third host sends what it likes.
    cluster
        .host(3)
        .namespace
        .run("nft delete table ip windlass");
    let third = &cluster.host(3).namespace;
    for (to, socket) in listeners(&cluster, &pods[1]) {
        for source in ["10.244.1.99", "10.244.2.99", "192.0.2.13", "10.244.3.99"] {
            send_vxlan(third, "0.0.0.0", vxlan_packet(source, &to));
        }
        assert_eq!(sender(&socket), "10.244.3.99", "{to}");
        send_from(&pods[0].namespace, "10.244.1.2", &format!("{to}:9000"));
        assert_eq!(sender(&socket), "10.244.1.2", "{to}");
    }
}
