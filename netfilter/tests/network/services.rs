//! Services: which clients reach which endpoints, and with which source address.

use std::{collections::BTreeSet, io, time::Duration};

use netfilter::{Exposed, HostNet, Synced};
use reconciler::{
    network::{Backends, HostPort, ServiceTable, VirtualPort},
    object::Protocol,
};

use crate::world::{CLIENT, NODE, Pod, SECOND_NODE_ADDRESS, World, ask_udp, endpoint};

/// A builder of a service table.
#[derive(Clone, Default)]
pub(crate) struct Services(pub(crate) ServiceTable);

impl Services {
    pub(crate) fn cluster_ip(mut self, protocol: Protocol, at: &str, endpoints: &[&str]) -> Self {
        let at = endpoint(at);
        let port = VirtualPort {
            address: *at.ip(),
            protocol,
            port: at.port(),
        };
        self.0.cluster_ips.insert(port, backends(endpoints));
        self
    }

    pub(crate) fn node_port(mut self, protocol: Protocol, port: u16, endpoints: &[&str]) -> Self {
        self.0
            .node_ports
            .insert(HostPort { protocol, port }, backends(endpoints));
        self
    }

    pub(crate) fn host_port(mut self, address: Option<&str>, port: u16, to: &str) -> Self {
        let address = address.map(|address| address.parse().unwrap());
        self.0.host_ports.insert(
            (
                address,
                HostPort {
                    protocol: Protocol::Tcp,
                    port,
                },
            ),
            endpoint(to),
        );
        self
    }

    fn with_affinity(mut self) -> Self {
        for backends in self.0.cluster_ips.values_mut() {
            backends.client_ip_affinity = Some(Duration::from_secs(60));
        }
        self
    }

    pub(crate) fn sync(self, world: &World) -> Synced {
        world.with_network(move |network| async move { network.sync(&self.0).await.unwrap() })
    }
}

fn backends(endpoints: &[&str]) -> Backends {
    Backends {
        endpoints: endpoints.iter().map(|to| endpoint(to)).collect(),
        client_ip_affinity: None,
    }
}

pub(crate) fn tcp_pod(world: &World, address: &str, name: &str) -> Pod {
    let pod = world.pod(address);
    pod.namespace.serve_tcp(8080, name);
    pod
}

#[test]
fn pods_and_the_host_reach_pods_and_cluster_ips() {
    let world = World::exposing([Exposed::Services]);
    let a = tcp_pod(&world, "10.244.1.2", "a");
    let b = tcp_pod(&world, "10.244.1.3", "b");
    Services::default()
        .cluster_ip(Protocol::Tcp, "10.96.0.1:80", &["10.244.1.2:8080"])
        .sync(&world);

    assert_eq!(
        b.namespace.ask("10.244.1.2:8080").unwrap(),
        "a 10.244.1.3",
        "pod to pod"
    );
    assert_eq!(
        b.namespace.ask("10.96.0.1:80").unwrap(),
        "a 10.244.1.3",
        "another pod to the service"
    );
    assert_eq!(
        a.namespace.ask("10.96.0.1:80").unwrap(),
        format!("a {NODE}"),
        "a pod through its own service"
    );
    assert_eq!(
        world.host.ask("10.244.1.2:8080").unwrap(),
        format!("a {NODE}"),
        "host to pod"
    );
    assert_eq!(
        world.host.ask("10.96.0.1:80").unwrap(),
        format!("a {NODE}"),
        "host to service"
    );
    assert_eq!(
        world.client.ask("10.96.0.1:80").unwrap(),
        format!("a {NODE}"),
        "client to the service, by a route over the host"
    );
}

#[test]
fn node_ports_answer_on_every_address_of_the_host() {
    let world = World::new();
    let a = tcp_pod(&world, "10.244.1.2", "a");
    let b = tcp_pod(&world, "10.244.1.3", "b");
    Services::default()
        .node_port(Protocol::Tcp, 30080, &["10.244.1.2:8080"])
        .sync(&world);

    for address in [NODE, SECOND_NODE_ADDRESS] {
        let port = format!("{address}:30080");
        assert_eq!(
            world.client.ask(&port).unwrap(),
            format!("a {NODE}"),
            "client to {port}"
        );
        assert!(
            world.host.ask(&port).unwrap().starts_with("a "),
            "host to {port}"
        );
        assert_eq!(
            b.namespace.ask(&port).unwrap(),
            "a 10.244.1.3",
            "pod to {port}"
        );
        assert_eq!(
            a.namespace.ask(&port).unwrap(),
            format!("a {NODE}"),
            "own pod to {port}"
        );
    }
    assert!(
        world.host.ask("127.0.0.1:30080").is_err(),
        "a node port answers on loopback"
    );
    assert!(
        b.namespace.ask("10.96.0.10:30080").is_err(),
        "a node port answers on the DNS address"
    );
}

#[test]
fn host_ports_keep_the_clients_address_and_answer_only_on_their_own() {
    let world = World::new();
    let a = tcp_pod(&world, "10.244.1.2", "a");
    Services::default()
        .host_port(None, 8081, "10.244.1.2:8080")
        .host_port(Some(SECOND_NODE_ADDRESS), 8082, "10.244.1.2:8080")
        .sync(&world);

    assert_eq!(
        world.client.ask(&format!("{NODE}:8081")).unwrap(),
        format!("a {CLIENT}")
    );
    assert_eq!(
        world
            .client
            .ask(&format!("{SECOND_NODE_ADDRESS}:8081"))
            .unwrap(),
        format!("a {CLIENT}")
    );
    assert_eq!(
        world
            .client
            .ask(&format!("{SECOND_NODE_ADDRESS}:8082"))
            .unwrap(),
        format!("a {CLIENT}")
    );
    assert!(world.client.ask(&format!("{NODE}:8082")).is_err());
    assert_eq!(
        a.namespace.ask(&format!("{NODE}:8081")).unwrap(),
        format!("a {NODE}"),
        "a pod to its own host port"
    );
    assert_eq!(
        world.host.ask(&format!("{NODE}:8081")).unwrap(),
        format!("a {NODE}")
    );
}

#[test]
fn ports_without_an_endpoint_or_a_service_are_refused_at_once() {
    let world = World::exposing([Exposed::Services]);
    let pod = world.pod("10.244.1.2");
    Services::default()
        .cluster_ip(Protocol::Tcp, "10.96.0.1:80", &[])
        .cluster_ip(Protocol::Tcp, "10.96.0.2:80", &["10.244.1.2:8080"])
        .cluster_ip(Protocol::Udp, "10.96.0.1:53", &[])
        .node_port(Protocol::Tcp, 30080, &[])
        .node_port(Protocol::Udp, 30053, &[])
        .sync(&world);

    let refused =
        |answer: io::Result<String>| answer.unwrap_err().kind() == io::ErrorKind::ConnectionRefused;
    for (client, namespace) in [
        ("pod", &pod.namespace),
        ("host", &world.host),
        ("client", &world.client),
    ] {
        for to in [
            "10.96.0.1:80",    // no endpoint
            "10.96.0.2:81",    // a service's other port
            "10.96.7.7:80",    // no service
            "192.0.2.1:30080", // a node port without an endpoint
        ] {
            assert!(refused(namespace.ask(to)), "TCP from the {client} to {to}");
        }
        for to in ["10.96.0.1:53", "10.96.7.7:53", "198.51.100.1:30053"] {
            let kind = ask_udp(&namespace.udp(to)).unwrap_err().kind();
            // On the host itself the refusal is the result of the call that sends the packet.
            let refused_locally = client == "host" && kind == io::ErrorKind::PermissionDenied;
            assert!(
                refused_locally || kind == io::ErrorKind::ConnectionRefused,
                "UDP from the {client} to {to}: {kind}"
            );
        }
    }
    assert!(
        refused(pod.namespace.ask("10.96.0.10:80")),
        "a port of the DNS address other than 53 is not refused"
    );
}

#[test]
fn connections_are_spread_over_all_endpoints() {
    let world = World::exposing([Exposed::Services]);
    let _pods = [
        tcp_pod(&world, "10.244.1.2", "a"),
        tcp_pod(&world, "10.244.1.3", "b"),
        tcp_pod(&world, "10.244.1.4", "c"),
    ];
    Services::default()
        .cluster_ip(
            Protocol::Tcp,
            "10.96.0.1:80",
            &["10.244.1.2:8080", "10.244.1.3:8080", "10.244.1.4:8080"],
        )
        .sync(&world);

    let answers: Vec<String> = (0..90)
        .map(|_| world.client.ask("10.96.0.1:80").unwrap())
        .collect();

    for name in ["a", "b", "c"] {
        let share = answers
            .iter()
            .filter(|answer| answer.starts_with(name))
            .count();
        assert!(
            (10..60).contains(&share),
            "{name} got {share} of 90 connections"
        );
    }
}

#[test]
fn a_client_with_affinity_keeps_its_endpoint_while_the_endpoint_exists() {
    let world = World::exposing([Exposed::Services]);
    let _pods = [
        tcp_pod(&world, "10.244.1.2", "a"),
        tcp_pod(&world, "10.244.1.3", "b"),
        tcp_pod(&world, "10.244.1.4", "c"),
    ];
    let of = |endpoints: &[&str]| {
        Services::default()
            .cluster_ip(Protocol::Tcp, "10.96.0.1:80", endpoints)
            .with_affinity()
            .0
    };
    let two = of(&["10.244.1.2:8080", "10.244.1.4:8080"]);
    let three = of(&["10.244.1.2:8080", "10.244.1.3:8080", "10.244.1.4:8080"]);
    let client = std::sync::Arc::new(world.client);
    let world = World {
        client: crate::world::Namespace::new("spare"),
        ..world
    };

    world.with_network(move |network| async move {
        let ask = |times: usize| -> BTreeSet<String> {
            (0..times)
                .map(|_| client.ask("10.96.0.1:80").unwrap())
                .collect()
        };
        network.sync(&two).await.unwrap();
        let first = ask(20);
        assert_eq!(
            first.len(),
            1,
            "several endpoints for one client: {first:?}"
        );
        network.sync(&three).await.unwrap();
        assert_eq!(ask(20), first, "a new endpoint does not move the client");

        let chosen = first.first().unwrap().clone();
        let rest: &[&str] = if chosen.starts_with('a') {
            &["10.244.1.3:8080", "10.244.1.4:8080"]
        } else {
            &["10.244.1.2:8080", "10.244.1.3:8080"]
        };
        network.sync(&of(rest)).await.unwrap();
        let second = ask(20);
        assert_eq!(
            second.len(),
            1,
            "several endpoints for one client: {second:?}"
        );
        assert_ne!(second, first);
    });
}

#[test]
fn outside_of_the_pod_range_a_pods_source_address_is_the_hosts() {
    let world = World::new();
    let pod = world.pod("10.244.1.2");
    world.client.serve_tcp(80, "outside");
    Services::default().sync(&world);
    assert_eq!(
        pod.namespace.ask(&format!("{CLIENT}:80")).unwrap(),
        format!("outside {NODE}")
    );
}

#[test]
fn a_udp_flow_moves_to_the_new_endpoint_of_its_service() {
    let world = World::new();
    let pods = [("10.244.1.2", "a"), ("10.244.1.3", "b")].map(|(address, name)| {
        let pod = world.pod(address);
        pod.namespace.serve_udp(53, name);
        pod
    });
    let of = |endpoint: &str| {
        Services::default()
            .cluster_ip(Protocol::Udp, "10.96.0.1:53", &[endpoint])
            .node_port(Protocol::Udp, 30053, &[endpoint])
            .0
    };
    let (first, second) = (of("10.244.1.2:53"), of("10.244.1.3:53"));
    let cluster_ip = pods[1].namespace.udp("10.96.0.1:53");
    let node_port = world.client.udp("192.0.2.1:30053");

    world.with_network(move |network| async move {
        network.sync(&first).await.unwrap();
        assert!(ask_udp(&cluster_ip).unwrap().starts_with("a "));
        assert!(ask_udp(&node_port).unwrap().starts_with("a "));
        network.sync(&second).await.unwrap();
        assert!(
            ask_udp(&cluster_ip).unwrap().starts_with("b "),
            "an existing UDP flow was not moved to the new endpoint"
        );
        assert!(
            ask_udp(&node_port).unwrap().starts_with("b "),
            "an existing UDP flow was not moved to the new endpoint"
        );
    });
}

#[test]
fn pods_reach_the_dns_address_although_the_input_policy_is_drop() {
    let world = World::new();
    let pod = world.pod("10.244.1.2");
    world.host.serve_udp_at("10.96.0.10:53", "dns");
    world.host.serve_tcp(53, "dns");
    assert_eq!(
        ask_udp(&pod.namespace.udp("10.96.0.10:53")).unwrap(),
        "dns 10.244.1.2"
    );
    assert_eq!(
        pod.namespace.ask("10.96.0.10:53").unwrap(),
        "dns 10.244.1.2"
    );
    assert!(
        world.host.ask("10.96.0.10:53").unwrap().starts_with("dns "),
        "the host does not reach its own DNS address"
    );
}
