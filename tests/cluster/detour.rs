//! `windlass rollback --local`: the detour of one host, also without the store.

use crate::{
    manifest::{APP, APP_2, deployment},
    support::{Cluster, SOON},
};

/// The tags of the images of the replicas on a host.
fn images(cluster: &Cluster, host: &str) -> Vec<String> {
    let host = cluster.host(host);
    let inspect = |id: &str| {
        host.host
            .docker(&["inspect", "-f", "{{.Config.Image}}", id])
    };
    let tags = |image: &str| {
        host.host
            .docker(&["inspect", "-f", "{{.RepoTags}}", image.trim()])
    };
    host.running("web")
        .iter()
        .map(|container| tags(&inspect(&container.id)).trim().to_owned())
        .collect()
}

#[test]
fn one_host_is_rolled_back_without_the_store_until_it_is_resumed() {
    let cluster = Cluster::start(3);
    let first = cluster.deploy(&[("web.yaml", &deployment("web", 3, APP))]);
    cluster.deploy(&[("web.yaml", &deployment("web", 3, APP_2))]);
    assert_eq!(images(&cluster, "n2"), ["[windlass-test/app:2]"]);
    let others: Vec<_> = ["n1", "n3"]
        .map(|name| cluster.host(name).running("web"))
        .into();

    cluster.etcd.stop_member(0);
    let n2 = cluster.host("n2");
    n2.wait_status("the store is lost", |status| {
        status["cluster"]["store"] == "lost"
    });
    n2.windlass(&["rollback", "--local", &first]).ok();
    cluster.wait_for(SOON, "n2 runs the first commit", || {
        (images(&cluster, "n2") == ["[windlass-test/app:1]"]).then_some(())
    });
    let status = n2.status();
    assert!(
        status["notes"].to_string().contains("went back to"),
        "{status:#}"
    );

    // The detour survives a restart of the daemon, and the other hosts observe it as soon as the
    // store answers.
    n2.kill();
    n2.start();
    cluster.etcd.start_member(0);
    cluster
        .host("n1")
        .wait_status("n1 reports the detour of n2", |status| {
            status["notes"].to_string().contains("node n2 went back to")
        });
    assert_eq!(images(&cluster, "n2"), ["[windlass-test/app:1]"]);
    let now: Vec<_> = ["n1", "n3"]
        .map(|name| cluster.host(name).running("web"))
        .into();
    assert_eq!(now, others, "containers of another host were touched");

    n2.windlass(&["resume", "--local"]).ok();
    cluster.wait_for(SOON, "n2 runs what the cluster decides", || {
        (images(&cluster, "n2") == ["[windlass-test/app:2]"]).then_some(())
    });
    cluster.eventually_running("web", 3);
}
