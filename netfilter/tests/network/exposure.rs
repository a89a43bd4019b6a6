//! What other machines reach of pods, Services and DNS, where the host's own firewall accepts
//! everything.

use std::{net::UdpSocket, time::Duration};

use netfilter::{Drift, Exposed, Exposure, HostNet, OutsideSource};
use reconciler::{
    network::{PeerPath, ServiceTable},
    object::Protocol,
};

use crate::{
    cluster::Cluster,
    overlay::container,
    peers::{send_from, sender},
    services::{Services, tcp_pod},
    world::{CLIENT, NODE, Namespace, Pod, World, ask_udp},
};

const POD: &str = "10.244.1.2:8080";
const SERVICE: &str = "10.96.0.1:80";
const DNS: &str = "10.96.0.10:53";
/// An answer takes milliseconds; the whole wait is for what is dropped.
const DROPPED: Duration = Duration::from_millis(700);

/// A host with a pod behind a Service, a NodePort and a hostPort, and a server in place of the DNS.
struct Site {
    world: World,
    pod: Pod,
}

impl Site {
    fn new(world: World) -> Self {
        for chain in ["INPUT", "FORWARD"] {
            world.host.run(&format!("iptables -P {chain} ACCEPT"));
        }
        let pod = tcp_pod(&world, "10.244.1.2", "a");
        pod.namespace.serve_udp(53, "a");
        services().sync(&world);
        world.host.serve_udp_at(DNS, "dns");
        Self { world, pod }
    }
}

fn services() -> Services {
    Services::default()
        .cluster_ip(Protocol::Tcp, SERVICE, &[POD])
        .cluster_ip(Protocol::Udp, "10.96.0.1:53", &["10.244.1.2:53"])
        .node_port(Protocol::Tcp, 30080, &[POD])
        .host_port(None, 8081, POD)
}

fn answers_udp(from: &Namespace, to: &str) -> bool {
    let socket = from.udp(to);
    socket.set_read_timeout(Some(DROPPED)).unwrap();
    ask_udp(&socket).is_ok()
}

/// Which of the parts answer a sender, over UDP.
fn reached(from: &Namespace) -> Vec<Exposed> {
    let parts = [
        (Exposed::Dns, DNS),
        (Exposed::Pods, "10.244.1.2:53"),
        (Exposed::Services, "10.96.0.1:53"),
    ];
    let answering = parts.into_iter().filter(|(_, to)| answers_udp(from, to));
    answering.map(|(part, _)| part).collect()
}

const ALL: [Exposed; 3] = [Exposed::Dns, Exposed::Pods, Exposed::Services];

#[test]
fn another_machine_reaches_node_ports_and_host_ports_only() {
    let site = Site::new(World::new());
    assert_eq!(reached(&site.world.client), []);
    for port in ["30080", "8081"] {
        let to = format!("{NODE}:{port}");
        assert!(site.world.client.ask(&to).is_ok(), "{to}");
    }
    assert!(site.world.client.ask(POD).is_err(), "a pod over TCP");
    assert!(
        site.world.client.ask(SERVICE).is_err(),
        "a Service over TCP"
    );

    let counted = site
        .world
        .with_network(|network| async move { network.outside_sources().await.unwrap() });
    assert_eq!(
        counted[0].address,
        CLIENT.parse::<std::net::Ipv4Addr>().unwrap()
    );
    assert!(counted[0].packets >= 5, "{counted:?}");
}

#[test]
fn pods_and_the_host_reach_everything() {
    let site = Site::new(World::new());
    let other = site.world.pod("10.244.1.3");
    for (name, sender) in [
        ("another pod", &other.namespace),
        ("the pod itself", &site.pod.namespace),
        ("the host", &site.world.host),
    ] {
        assert_eq!(reached(sender), ALL, "{name}");
    }
}

#[test]
fn each_part_is_opened_by_its_own_word() {
    for part in ALL {
        let site = Site::new(World::exposing([part]));
        assert_eq!(reached(&site.world.client), [part]);
    }
}

#[test]
fn an_installation_without_the_setting_lets_everything_in_and_counts_the_senders() {
    let site = Site::new(World {
        exposure: Exposure::Unset,
        ..World::new()
    });
    assert_eq!(reached(&site.world.client), ALL);
    let counted = site
        .world
        .with_network(|network| async move { network.outside_sources().await.unwrap() });
    let client = OutsideSource {
        address: CLIENT.parse().unwrap(),
        packets: 3,
    };
    assert_eq!(counted, [client]);
}

#[test]
fn connections_that_exist_are_kept_when_the_network_is_closed() {
    let mut site = Site::new(World {
        exposure: Exposure::Unset,
        ..World::new()
    });
    let old = site.world.client.udp("10.244.1.2:53");
    assert!(ask_udp(&old).is_ok());

    site.world.exposure = Exposure::Only([].into());
    services().sync(&site.world);
    assert!(ask_udp(&old).is_ok(), "an existing flow was cut");
    assert!(!answers_udp(&site.world.client, "10.244.1.2:53"));
}

#[test]
fn containers_on_a_bridge_count_as_the_host_until_the_bridge_leads_to_other_machines() {
    const NETWORK_CARD: [&str; 2] = [
        "link add card type vxlan id 5 dstport 4790 local 192.0.2.1",
        "link set card master br-test",
    ];
    const OTHER_BRIDGE: [&str; 4] = [
        "link add br-other type bridge",
        "link add one type veth peer name two",
        "link set one master br-test",
        "link set two master br-other",
    ];
    for commands in [&NETWORK_CARD[..], &OTHER_BRIDGE] {
        let Site { world, pod: _pod } = Site::new(World::new());
        let container = container(&world.host);
        let host = world.host.name.clone();
        let drift = world.with_network(move |network| async move {
            network.sync(&services().0).await.unwrap();
            assert_eq!(reached(&container), ALL);
            let callers = network.dns_callers().await.unwrap();
            let own = "172.30.0.0/24".parse().unwrap();
            assert!(callers.contains(&own), "{callers:?}");

            let mut changed = network.changed();
            changed.mark_unchanged();
            for command in commands {
                let words = format!("ip -n {host} {command}");
                crate::world::run(&words.split(' ').collect::<Vec<_>>());
            }
            let event = tokio::time::timeout(Duration::from_secs(30), changed.changed()).await;
            assert!(event.is_ok(), "no event after {commands:?}");
            let drift = network.resync().await.unwrap();
            assert_eq!(reached(&container), [], "{commands:?}");
            drift
        });
        assert!(!drift.contains(&Drift::Table), "{drift:?}");
    }
}

#[test]
fn a_pod_with_a_false_source_is_dropped_whatever_the_hosts_settings() {
    let site = Site::new(World::new());
    let liar = site.world.pod("10.244.1.3");
    for device in ["all", liar.link.name.as_str()] {
        let setting = format!("sysctl -qw net.ipv4.conf.{device}.rp_filter=0");
        site.world.host.run(&setting);
    }
    let received = listen(&site.pod);
    for source in ["10.244.1.99", "198.51.100.77"] {
        let address = format!("ip address add {source}/32 dev eth0");
        liar.namespace.run(&address);
        send_from(&liar.namespace, source, "10.244.1.2:9000");
    }
    send_from(&liar.namespace, "10.244.1.3", "10.244.1.2:9000");
    assert_eq!(sender(&received), "10.244.1.3");
}

fn listen(pod: &Pod) -> UdpSocket {
    let socket = pod
        .namespace
        .inside(|| UdpSocket::bind("0.0.0.0:9000").unwrap());
    let wait = Some(Duration::from_secs(3));
    socket.set_read_timeout(wait).unwrap();
    socket
}

/// A client of the cluster's network with routes to the pods and Services of the first host.
fn neighbour(path: PeerPath) -> (Cluster, Vec<Pod>) {
    let cluster = Cluster::new();
    for host in &cluster.hosts {
        for command in [
            "iptables -P INPUT ACCEPT",
            "iptables -P FORWARD ACCEPT",
            "sysctl -qw net.ipv4.conf.all.rp_filter=0",
        ] {
            host.namespace.run(command);
        }
    }
    cluster.join(|_, _| path, &ServiceTable::default());
    let pods = cluster.hosts.iter().map(|host| host.pod(2, 1450)).collect();
    for range in ["10.244.0.0/16", "10.96.0.0/16"] {
        let route = format!("ip route add {range} via 192.0.2.11");
        cluster.client.run(&route);
    }
    (cluster, pods)
}

#[test]
fn a_neighbour_of_a_cluster_reaches_no_pod_through_any_host() {
    for path in [PeerPath::Vxlan, PeerPath::Direct] {
        let (cluster, pods) = neighbour(path);
        for to in ["10.244.1.2:53", "10.244.2.2:53"] {
            assert!(!answers_udp(&cluster.client, to), "{path:?}, {to}");
        }
        // The peers' pods and the peers themselves do.
        for from in [&pods[1].namespace, &cluster.host(2).namespace] {
            assert!(answers_udp(from, "10.244.1.2:53"), "{path:?}");
        }
    }
}

#[test]
fn a_service_is_closed_also_where_its_endpoint_is_a_host() {
    // The endpoint is the host that the neighbour sends to, or a peer.
    for endpoint in ["192.0.2.11:5353", "192.0.2.12:5353"] {
        let (mut cluster, pods) = neighbour(PeerPath::Vxlan);
        for host in &cluster.hosts {
            host.namespace.serve_udp(5353, "server");
        }
        let table = Services::default()
            .cluster_ip(Protocol::Udp, "10.96.0.2:53", &[endpoint])
            .node_port(Protocol::Udp, 30053, &[endpoint])
            .0;
        cluster.join(|_, _| PeerPath::Vxlan, &table);

        assert!(!answers_udp(&cluster.client, "10.96.0.2:53"), "{endpoint}");
        let node_port = "192.0.2.11:30053";
        for (who, from) in [
            ("a pod", &pods[0].namespace),
            ("a pod of a peer", &pods[1].namespace),
            ("the host", &cluster.host(1).namespace),
            ("a peer", &cluster.host(3).namespace),
        ] {
            assert!(answers_udp(from, "10.96.0.2:53"), "{who}, {endpoint}");
            assert!(answers_udp(from, node_port), "{who}, {endpoint}");
        }
        assert!(answers_udp(&cluster.client, node_port), "{endpoint}");

        cluster.hosts[0].exposure = Exposure::Only([Exposed::Services].into());
        let peers = cluster.peers(1, |_, _| PeerPath::Vxlan);
        cluster.host(1).set(peers, &table);
        assert!(answers_udp(&cluster.client, "10.96.0.2:53"), "{endpoint}");
    }
}

/// What a neighbour can forge on the link of the direct path is described in docs/security.md.
#[test]
fn an_address_of_a_pod_is_believed_only_on_the_way_to_its_host() {
    for (path, believed) in [(PeerPath::Vxlan, false), (PeerPath::Direct, true)] {
        let (cluster, pods) = neighbour(path);
        let received = listen(&pods[0]);
        // A pod of the host itself, of no host, and of a peer.
        for source in ["10.244.1.3", "10.244.99.2", "10.244.2.9"] {
            let address = format!("ip address add {source}/32 dev lo");
            cluster.client.run(&address);
            send_from(&cluster.client, source, "10.244.1.2:9000");
        }
        send_from(&pods[1].namespace, "10.244.2.2", "10.244.1.2:9000");
        let first = if believed { "10.244.2.9" } else { "10.244.2.2" };
        assert_eq!(sender(&received), first, "{path:?}");
    }
}
