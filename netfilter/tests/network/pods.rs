//! Links of pods.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use netfilter::{HostNet, NetworkError};
use reconciler::name::LinkName;

use crate::world::{Namespace, World, link};

#[test]
fn connecting_again_changes_nothing_and_completes_a_partly_made_link() {
    let world = World::new();
    let pod = world.pod("10.244.1.2");
    let name = pod.link.name.clone();
    let index = world
        .host
        .run(&format!("cat /sys/class/net/{name}/ifindex"));
    let inside = pod.namespace.run("ip -4 address show eth0");
    assert!(
        inside.contains("inet 10.244.1.2/32") && inside.contains("mtu 1400"),
        "{inside}"
    );
    assert!(
        !pod.namespace.run("ip address show eth0").contains("inet6"),
        "the link has an IPv6 address"
    );

    let again = (pod.link.clone(), pod.namespace.fd());
    world.with_network(
        move |network| async move { network.connect(&again.0, again.1).await.unwrap() },
    );
    assert_eq!(
        world
            .host
            .run(&format!("cat /sys/class/net/{name}/ifindex")),
        index,
        "the link was replaced"
    );

    world.host.run("ip route del 10.244.1.2");
    pod.namespace.run("ip address flush dev eth0");
    let incomplete = (pod.link.clone(), pod.namespace.fd());
    let (before, after) = world.with_network(move |network| async move {
        let before = network.links().await.unwrap();
        network.connect(&incomplete.0, incomplete.1).await.unwrap();
        (before, network.links().await.unwrap())
    });
    assert!(
        before.is_empty(),
        "a link without its route is listed as complete"
    );
    assert!(after.contains(&name));
    pod.namespace.serve_tcp(8080, "a");
    assert!(world.host.ask("10.244.1.2:8080").is_ok());
}

#[test]
fn a_link_of_the_same_name_to_another_namespace_is_replaced() {
    let world = World::new();
    let old = world.pod("10.244.1.2");
    let new = Namespace::new("pod");
    new.serve_tcp(8080, "new");
    let to_new = (old.link.clone(), new.fd());
    world.with_network(move |network| async move {
        network.connect(&to_new.0, to_new.1).await.unwrap()
    });
    assert!(
        world
            .host
            .ask("10.244.1.2:8080")
            .unwrap()
            .starts_with("new ")
    );
    assert!(
        !old.namespace.run("ip -brief link").contains("eth0"),
        "the old pod still has its end of the link"
    );
}

#[test]
fn a_pod_cannot_send_with_another_address() {
    let world = World::new();
    let pod = world.pod("10.244.1.2");
    let other = world.pod("10.244.1.3");
    other.namespace.serve_udp(53, "other");
    pod.namespace.run("ip address add 10.244.1.99/32 dev eth0");
    pod.namespace
        .run("ip route add 10.244.1.3 via 169.254.1.1 src 10.244.1.99");
    let socket = pod.namespace.udp("10.244.1.3:53");
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert!(crate::world::ask_udp(&socket).is_err());
}

#[test]
fn a_removed_link_causes_an_event_and_disconnecting_twice_is_no_error() {
    let world = World::new();
    let pod = world.pod("10.244.1.2");
    let name = pod.link.name.clone();
    world.with_network(move |network| async move {
        let mut changed = network.changed();
        network.disconnect(&name).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), changed.changed())
            .await
            .unwrap()
            .unwrap();
        assert!(network.links().await.unwrap().is_empty());
        network.disconnect(&name).await.unwrap();
    });
}

#[test]
fn a_name_that_no_device_can_have_is_an_error_with_its_cause() {
    let world = World::new();
    let pod = Namespace::new("pod");
    let wanted = reconciler::network::PodLink {
        name: LinkName::parse(&"wdl".repeat(9)).unwrap(),
        ..link("10.244.1.2")
    };
    let netns = pod.fd();
    let error =
        world.with_network(move |network| async move { network.connect(&wanted, netns).await });
    assert!(
        matches!(error, Err(NetworkError::Connect { .. })),
        "{error:?}"
    );
}

#[test]
fn thirty_pods_are_connected_at_the_same_time() {
    let world = World::new();
    let pods: Vec<Namespace> = (0..30).map(|_| Namespace::new("pod")).collect();
    let wanted: Vec<_> = (2..)
        .zip(&pods)
        .map(|(last, pod)| (link(&format!("10.244.1.{last}")), pod.fd()))
        .collect();
    let (took, links) = world.with_network(move |network| async move {
        let network = Arc::new(network);
        let start = Instant::now();
        let tasks: Vec<_> = wanted
            .into_iter()
            .map(|(link, netns)| {
                let network = Arc::clone(&network);
                tokio::spawn(async move { network.connect(&link, netns).await.unwrap() })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        (start.elapsed(), network.links().await.unwrap())
    });
    assert_eq!(links.len(), 30);
    assert!(took < Duration::from_secs(10), "{took:?}");
    eprintln!("30 pods connected in {took:?}");
}
