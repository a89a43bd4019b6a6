//! The nine manifests that Windlass was made for, on three hosts.

use std::fs;

use crate::support::{Cluster, NODE_PORT, SOON, repository_root};

/// The unchanged text of a given manifest.
fn given(name: &str) -> String {
    fs::read_to_string(
        repository_root()
            .join("reconciler/tests/manifests")
            .join(name),
    )
    .unwrap()
}

/// Waits until the node port of every host answers every host with a page that contains a text.
fn wait_page_on_all_hosts(cluster: &Cluster, path: &str, text: &str) {
    for host in &cluster.hosts {
        for other in &cluster.hosts {
            let url = other.url(NODE_PORT, path);
            cluster.wait_for(
                SOON,
                &format!("{url} answers {text:?} to {}", host.name),
                || host.curl(&url).filter(|page| page.contains(text)),
            );
        }
    }
}

#[test]
fn every_given_manifest_runs_on_three_hosts() {
    let images = [
        "httpd",
        "mysql",
        "wordpress",
        "mackerel/mackerel-agent",
        "example/example:v1.0-SNAPSHOT",
    ];
    let cluster = Cluster::builder(3).images(&images).start();

    cluster.deploy(&[("svc-httpd.yml", &given("svc-httpd.yml"))]);
    wait_page_on_all_hosts(&cluster, "/", "It works!");

    cluster.deploy(&[("app-wordpress.yml", &given("app-wordpress.yml"))]);
    wait_page_on_all_hosts(&cluster, "/wp-admin/install.php", "Information needed");

    for (file, owner) in [
        ("app-wordpress2.yml", "wordpress-reps"),
        ("app-wordpress3.yml", "wordpress"),
    ] {
        cluster.deploy(&[(file, &given(file))]);
        wait_page_on_all_hosts(&cluster, "/wp-admin/install.php", "Information needed");
        let mut replicas = cluster.ready(owner);
        replicas.retain(|pod| pod["metadata"]["name"] != "wordpress-mysql");
        assert_eq!(replicas.len(), 2, "{file}: {replicas:#?}");
        assert_eq!(
            Cluster::nodes_of(&replicas).len(),
            2,
            "{file}: the replicas are on one host"
        );
    }

    for (file, count, hosts) in [
        ("mackerel-daemonset.yaml", 3, 3),
        ("mackerel-pod.yaml", 1, 1),
        ("mackerel-replicaset.yaml", 3, 3),
    ] {
        cluster.deploy(&[(file, &given(file))]);
        let agents = cluster.eventually_running("mackerel-agent", count);
        assert_eq!(
            Cluster::nodes_of(&agents).len(),
            hosts,
            "{file}: {agents:#?}"
        );
    }

    cluster.deploy(&[
        ("deployment.yaml", &given("deployment.yaml")),
        ("services.yaml", &given("services.yaml")),
    ]);
    let replicas = cluster.eventually_running("example-app-deployment", 3);
    assert_eq!(Cluster::nodes_of(&replicas).len(), 3, "{replicas:#?}");
}
