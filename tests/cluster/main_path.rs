//! The path from a push to HTTP answers on every host.

use std::collections::BTreeSet;

use crate::{
    manifest::{APP, APP_2, deployment, service},
    scene::daemon_set,
    support::{Cluster, NODE_PORT, SOON},
};

#[test]
fn three_hosts_run_one_repository_as_a_cluster() {
    let cluster = Cluster::start(3);
    let web = format!("{}---\n{}", deployment("web", 3, APP), service("web"));
    cluster.deploy(&[
        ("web.yaml", &web),
        ("agent.yaml", &daemon_set("agent", APP)),
    ]);

    // The replicas are spread over the hosts, and the DaemonSet has a pod on each.
    let pods = cluster.eventually_running("web", 3);
    assert_eq!(Cluster::nodes_of(&pods).len(), 3, "{pods:#?}");
    let agents = cluster.eventually_running("agent", 3);
    assert_eq!(Cluster::nodes_of(&agents).len(), 3, "{agents:#?}");
    let addresses: BTreeSet<&str> = pods
        .iter()
        .chain(&agents)
        .filter_map(|pod| pod["status"]["podIP"].as_str())
        .collect();
    assert_eq!(addresses.len(), 6, "every pod has an address of its own");

    // The NodePort answers on every host, the ClusterIP from every host, and every pod reaches
    // every pod.
    let service = cluster.hosts[0]
        .windlass(&["get", "service", "web", "-o", "json"])
        .json();
    let cluster_ip = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    for host in &cluster.hosts {
        for other in &cluster.hosts {
            let url = other.url(NODE_PORT, "/");
            cluster.wait_for(SOON, &format!("{url} answers on {}", host.name), || {
                host.curl(&url)
            });
        }
        let url = format!("http://{cluster_ip}/");
        cluster.wait_for(SOON, &format!("{url} answers on {}", host.name), || {
            host.curl(&url)
        });
        for address in &addresses {
            let url = format!("http://{address}:8080/");
            cluster.wait_for(SOON, &format!("{url} answers on {}", host.name), || {
                host.curl(&url)
            });
        }
        // The application's image contains no HTTP client, so the host's curl runs in the pod's
        // network namespace.
        let container = host
            .running("web")
            .into_iter()
            .next()
            .expect("a replica on every host");
        let process = host
            .host
            .docker(&["inspect", "-f", "{{.State.Pid}}", &container.id]);
        for address in addresses.iter().copied().chain([cluster_ip.as_str()]) {
            let port = if address == cluster_ip { 80 } else { 8080 };
            let url = format!("http://{address}:{port}/");
            let fetch = [
                "nsenter",
                "-t",
                process.trim(),
                "-n",
                "curl",
                "-sf",
                "--max-time",
                "2",
                &url,
            ];
            let reached = || host.host.exec(&fetch).success().then_some(());
            cluster.wait_for(
                SOON,
                &format!("a pod on {} reaches {url}", host.name),
                reached,
            );
        }
    }

    // During a rollout every request to every host is answered.
    let calls: Vec<_> = cluster
        .hosts
        .iter()
        .map(|host| host.poll(&host.url(NODE_PORT, "/")))
        .collect();
    let web = format!(
        "{}---\n{}",
        deployment("web", 3, APP_2),
        crate::manifest::service("web")
    );
    cluster.deploy(&[
        ("web.yaml", &web),
        ("agent.yaml", &daemon_set("agent", APP)),
    ]);
    for call in calls {
        crate::support::assert_all_answered(&call.finish());
    }
    let after = cluster.eventually_running("agent", 3);
    assert_eq!(
        uids(&agents),
        uids(&after),
        "pods of the unchanged DaemonSet were replaced"
    );
}

fn uids(pods: &[serde_json::Value]) -> BTreeSet<&str> {
    pods.iter()
        .filter_map(|pod| pod["metadata"]["uid"].as_str())
        .collect()
}
