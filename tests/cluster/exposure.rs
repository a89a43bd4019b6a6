//! What another machine on the hosts' network reaches of a cluster, and what its hosts and pods do.

use crate::{
    manifest::{APP, service},
    scene::daemon_set,
    support::{Cluster, NODE_PORT, SOON},
};

/// Checks a cluster of two hosts whose network has this path.
fn assert_closed_to_neighbours(path: &str) {
    let config = format!("[network]\npath = '{path}'");
    let cluster = Cluster::builder(2).config(&config).start();
    let web = format!("{}---\n{}", daemon_set("web", APP), service("web"));
    cluster.deploy(&[("web.yaml", &web)]);
    let pods = cluster.eventually_running("web", 2);
    let urls = pods.iter().map(|pod| {
        let address = pod["status"]["podIP"].as_str().unwrap();
        format!("http://{address}:8080/")
    });
    let urls: Vec<String> = urls.collect();

    for host in &cluster.hosts {
        for url in &urls {
            let what = format!("{} reaches {url}", host.name);
            cluster.wait_for(SOON, &what, || host.curl(url));
        }
        let container = host.running("web").into_iter().next().unwrap();
        let process = host
            .host
            .docker(&["inspect", "-f", "{{.State.Pid}}", &container.id]);
        for url in &urls {
            let fetch = ["curl", "-sf", "--max-time", "2", url];
            let fetch = [&["nsenter", "-t", process.trim(), "-n"], &fetch[..]].concat();
            let what = format!("a pod on {} reaches {url}", host.name);
            cluster.wait_for(SOON, &what, || {
                host.host.exec(&fetch).success().then_some(())
            });
        }
    }

    let ask = |url: &str| {
        cluster
            .network
            .exec(&["curl", "-sf", "--max-time", "2", url])
    };
    for host in &cluster.hosts {
        let node_port = host.url(NODE_PORT, "/");
        cluster.wait_for(SOON, &node_port, || ask(&node_port).success().then_some(()));
        // Every host would be the neighbour's router to all pods, also to those of the other host.
        for range in ["10.244.0.0/16", "10.96.0.0/16"] {
            let router = host.host.address.to_string();
            let route = ["ip", "route", "replace", range, "via", &router];
            cluster.network.exec(&route).ok();
        }
        for url in &urls {
            assert!(!ask(url).success(), "{url} over {}", host.name);
        }
        let service = host
            .windlass(&["get", "service", "web", "-o", "json"])
            .json();
        let address = service["spec"]["clusterIP"].as_str().unwrap();
        let url = format!("http://{address}/");
        assert!(!ask(&url).success(), "{url} over {}", host.name);
    }
}

#[test]
fn a_neighbour_reaches_only_node_ports_of_a_cluster_with_vxlan() {
    assert_closed_to_neighbours("vxlan");
}

#[test]
fn a_neighbour_reaches_only_node_ports_of_a_cluster_with_direct_paths() {
    assert_closed_to_neighbours("direct");
}
