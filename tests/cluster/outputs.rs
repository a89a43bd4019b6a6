//! What a failed container printed is shown on every host, and kept only on the host that ran it.

use std::time::{Duration, Instant};

use crate::{
    clocks::join,
    manifest::{APP, pod, shell_with},
    support::{Cluster, ClusterHost, SOON},
};

const SECRET: &str = "fatal: no key";

fn shows_output(host: &ClusterHost, command: &str) -> bool {
    let text = host.windlass(&[command]).ok();
    text.contains(&format!("| {SECRET}\n"))
}

/// Two hosts that have certificates for each other.
fn certified() -> Cluster {
    let cluster = Cluster::builder(2).without_daemons().start();
    let open = "iptables -A INPUT -p tcp --dport 9465 -j ACCEPT";
    let open: Vec<&str> = open.split(' ').collect();
    for host in &cluster.hosts {
        host.host.exec(&open).ok();
    }
    let (first, second) = (cluster.host("n1"), cluster.host("n2"));
    first.windlass(&["cluster", "init", "--node", "n1"]).ok();
    first.start();
    join(first, second);
    cluster
}

#[test]
fn what_a_failed_container_printed_is_fetched_from_its_host() {
    let cluster = certified();
    let good = cluster.deploy(&[("web.yaml", &pod("web", APP))]);
    // Without a readiness probe the pod may be available until it ends.
    let container = shell_with(
        &format!("echo {SECRET}; exit 1"),
        "readinessProbe: {exec: {command: [\"false\"]}}",
    );
    let manifest = pod("web", &container).replace("spec:", "spec:\n  restartPolicy: Never");
    let bad = cluster.push(&[("web.yaml", &manifest)]);
    for host in &cluster.hosts {
        host.wait_status("the commit is rolled back", |status| {
            status["rollback"]["from"] == bad.as_str() && status["phase"] == "Healthy"
        });
        for command in ["status", "history"] {
            assert!(shows_output(host, command), "{command} on {}", host.name);
        }
        let events = host.windlass(&["get", "events"]).ok();
        assert!(events.contains(SECRET), "on {}: {events}", host.name);
        assert!(!host.log().contains(SECRET), "the log of {}", host.name);
    }

    let everything = cluster.etcd.etcdctl(&["get", "--prefix", ""]).ok();
    assert!(everything.contains(&good) && !everything.contains(SECRET));
    let file = "/var/lib/windlass/outputs.json";
    let has_run = |host: &&ClusterHost| host.host.exec(&["cat", file]).success();
    let ran: Vec<&ClusterHost> = cluster.hosts.iter().filter(has_run).collect();
    assert_eq!(ran.len(), 1, "hosts that keep the output");

    // A host that does not answer delays nothing for long.
    ran[0].terminate();
    let other = cluster.hosts.iter().find(|host| host.name != ran[0].name);
    let other = other.unwrap();
    let start = Instant::now();
    assert!(!shows_output(other, "status"));
    assert!(start.elapsed() < Duration::from_secs(10));
    ran[0].start();
    cluster.wait_for(SOON, "the output is shown again", || {
        shows_output(other, "status").then_some(())
    });
}
