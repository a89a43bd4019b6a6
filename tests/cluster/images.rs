//! Which engines pull an image, and when: those that need it before a commit is the driving one,
//! and all others after the commit is healthy.

use crate::{
    manifest::deployment,
    scene::{leader, start},
    support::{Cluster, ClusterHost, SOON, run},
};

/// A container of the test application, whose image only the registry has.
fn container(cluster: &Cluster, name: &str) -> String {
    let image = format!("{}/{name}", cluster.registry.address());
    format!(
        "{{name: app, image: '{image}', readinessProbe: {{httpGet: {{path: /health, port: 8080}}, periodSeconds: 1}}}}"
    )
}

/// The hosts whose engine has an image of this name, sorted.
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
fn an_image_is_pulled_where_its_pods_run_and_everywhere_after_its_commit_is_healthy() {
    let cluster = start(Cluster::builder(4).config("[rollout]\nspare-images = 1\nsoak = '3s'\n"));
    let name = "team/app:1";
    cluster
        .registry
        .push(&cluster.hosts[0].host, "windlass-test/app:1", name);
    let commit = cluster.push(&[(
        "web.yaml",
        &deployment("web", 2, &container(&cluster, name)),
    )]);
    leading(&cluster).wait_status("the commit soaks", |status| {
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
        "the two hosts of the pods have the image, and at most one spare host: {early:?}"
    );
    cluster.wait_for(SOON, "all hosts have the image", || {
        (with_image(&cluster, name).len() == cluster.hosts.len()).then_some(())
    });
}

#[test]
fn a_host_that_cannot_reach_the_registry_does_not_block_a_rollout() {
    let cluster = start(Cluster::builder(3));
    let name = "team/app:1";
    cluster
        .registry
        .push(&cluster.hosts[0].host, "windlass-test/app:1", name);
    let leader_name = leading(&cluster).name.clone();
    let blocked = cluster
        .hosts
        .iter()
        .find(|host| host.name != leader_name)
        .unwrap();
    let block = "table inet block { chain output { type filter hook output priority 0; tcp dport 5000 drop; }; }";
    run(blocked.host.command("nft").arg(block)).ok();
    // Without the block each host would run one replica.
    let commit = cluster.push(&[(
        "web.yaml",
        &deployment("web", 3, &container(&cluster, name)),
    )]);
    cluster
        .host(&leader_name)
        .wait_status("the commit is healthy without that host", |status| {
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
    cluster.wait_for(SOON, "the image on that host after the block ended", || {
        with_image(&cluster, name)
            .contains(&blocked.name)
            .then_some(())
    });
}
