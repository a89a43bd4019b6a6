//! Which engines get an image, and when: before a commit is driven those that need it, later all of
//! them.

use crate::{
    manifest::deployment,
    scene::{leader, start},
    support::{Cluster, ClusterHost, SOON, run},
};

/// The test application from the registry, and from nowhere else.
fn container(cluster: &Cluster, name: &str) -> String {
    let image = format!("{}/{name}", cluster.registry.address());
    format!(
        "{{name: app, image: '{image}', readinessProbe: {{httpGet: {{path: /health, port: 8080}}, periodSeconds: 1}}}}"
    )
}

/// The hosts whose engine knows an image by its name, sorted.
fn with_image(cluster: &Cluster, name: &str) -> Vec<String> {
    let image = format!("{}/{name}", cluster.registry.address());
    let has = |host: &&ClusterHost| {
        host.host
            .try_docker(&["image", "inspect", &image])
            .success()
    };
    cluster
        .hosts
        .iter()
        .filter(has)
        .map(|host| host.name.clone())
        .collect()
}

fn leading(cluster: &Cluster) -> &ClusterHost {
    let name = cluster.wait_for(SOON, "a leader", || leader(cluster));
    cluster.host(&name)
}

#[test]
fn an_image_is_pulled_where_its_pods_go_and_everywhere_once_it_is_healthy() {
    let cluster = start(Cluster::builder(4).config("[rollout]\nspare-images = 1\nsoak = '3s'\n"));
    let name = "team/app:1";
    cluster
        .registry
        .push(&cluster.hosts[0].host, "windlass-test/app:1", name);
    let commit = cluster.push(&[(
        "web.yaml",
        &deployment("web", 2, &container(&cluster, name)),
    )]);
    leading(&cluster).wait_status("all that need its image have it", |status| {
        status["target"]["id"] == commit.as_str() && status["phase"] == "Soaking"
    });
    let early = with_image(&cluster, name);
    let running = Cluster::nodes_of(&cluster.eventually_running("web", 2));
    assert!(
        running.iter().all(|node| early.contains(node)),
        "{running:?} of {early:?}"
    );
    assert!(
        (2..=3).contains(&early.len()),
        "two that run it, and one more: {early:?}"
    );
    cluster.wait_for(SOON, "its image on all hosts", || {
        (with_image(&cluster, name).len() == cluster.hosts.len()).then_some(())
    });
}

#[test]
fn a_host_without_a_way_to_the_registry_holds_up_no_roll_out() {
    let cluster = start(Cluster::builder(3));
    let name = "team/app:1";
    cluster
        .registry
        .push(&cluster.hosts[0].host, "windlass-test/app:1", name);
    let leads = leading(&cluster).name.clone();
    let blocked = cluster
        .hosts
        .iter()
        .find(|host| host.name != leads)
        .unwrap();
    let block = "table inet block { chain output { type filter hook output priority 0; tcp dport 5000 drop; }; }";
    run(blocked.host.command("nft").arg(block)).ok();
    // Each host is to run one of them.
    let commit = cluster.push(&[(
        "web.yaml",
        &deployment("web", 3, &container(&cluster, name)),
    )]);
    cluster
        .host(&leads)
        .wait_status("it is healthy without that host", |status| {
            status["healthy"]["id"] == commit.as_str() && status["phase"] == "Healthy"
        });
    let running = Cluster::nodes_of(&cluster.eventually_running("web", 3));
    assert!(!running.contains(&blocked.name), "{running:?}");
    assert!(!with_image(&cluster, name).contains(&blocked.name));
    run(blocked
        .host
        .command("nft")
        .args(["delete", "table", "inet", "block"]))
    .ok();
    cluster.wait_for(SOON, "its image on that host, too", || {
        with_image(&cluster, name)
            .contains(&blocked.name)
            .then_some(())
    });
}
