//! Hosts that are cut off, return, hang, are upgraded or get another address.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use crate::{
    manifest::APP,
    scene::{
        assert_gap_below, containers, deploy, everything, host_other_than, leader, push, readiness,
        start, wait_all_running, wait_pods_reach_pods, wait_running,
    },
    support::{Cluster, ClusterHost, NODE_PORT, SOON, assert_all_answered, run},
    watch::assert_no_pod_runs_twice,
};

/// How long a client may get no answer until a lost host gets no more traffic: the lease expires,
/// the leader decides, and the other hosts change their service tables.
const LONGEST_GAP: Duration = Duration::from_secs(12);

#[test]
fn pods_of_a_host_that_is_cut_off_are_replaced_and_stopped_there_when_it_returns() {
    let cluster = start(Cluster::builder(3));
    deploy(&cluster, &everything(APP, "n3"));
    wait_all_running(&cluster);
    let (first, lost) = (cluster.host("n1"), cluster.host("n3"));
    assert_eq!(leader(&cluster).as_deref(), Some("n1"));
    let before = containers(&cluster, &[]);
    for name in ["web", "agent", "data", "bare"] {
        assert!(
            !lost.running(name).is_empty(),
            "{name} runs on n3: {before:#?}"
        );
    }

    assert_no_pod_runs_twice(&cluster, &[], || {
        let call = cluster.host("n2").poll(&first.url(NODE_PORT, "/"));
        cluster.network.cut(lost);
        let took = wait_running(&cluster, "web", 3, &["n3"]);
        eprintln!("a host cut off: all replicas run elsewhere after {took:.1?}");
        cluster.wait_for(SOON, "n2 publishes that n3 is not ready", || {
            readiness(cluster.host("n2"), "n3")
                .contains("NotReady")
                .then_some(())
        });
        assert_gap_below("a host cut off", &call.finish(), LONGEST_GAP);

        // A push is rolled out on the other hosts, and its commit does not fail for the lost host.
        let mut files = everything(APP, "n3");
        files.push(("extra.yaml", crate::manifest::pod("extra", APP)));
        let commit = push(&cluster, &files);
        for host in [first, cluster.host("n2")] {
            host.wait_status("a push is rolled out without the lost host", |status| {
                status["healthy"]["id"] == commit.as_str()
            });
        }
        // Pods that do not run elsewhere stay where they are, and all pods of the lost host keep
        // running.
        for name in ["data", "bare"] {
            assert_eq!(
                first.running(name).len() + cluster.host("n2").running(name).len(),
                0,
                "{name} has moved"
            );
        }
        assert_eq!(
            lost.containers(),
            before["n3"],
            "a container of the host that is cut off was touched"
        );

        let call = cluster.host("n2").poll(&first.url(NODE_PORT, "/"));
        cluster.network.heal(lost);
        wait_all_running(&cluster);
        assert_all_answered(&call.finish());
    });
    let kept = lost.containers();
    for container in before["n3"]
        .iter()
        .filter(|container| !container.pod.starts_with("web"))
    {
        assert!(
            kept.contains(container),
            "{container:?} was touched: {kept:#?}"
        );
    }
    pods_of_a_killed_daemon_s_host_are_replaced_and_stopped_there(&cluster);
}

fn pods_of_a_killed_daemon_s_host_are_replaced_and_stopped_there(cluster: &Cluster) {
    let victim = host_other_than(cluster, &[leader(cluster).as_deref().unwrap(), "n1"]);
    let before = victim.containers();
    let replicas = victim.running("web").len();
    assert_no_pod_runs_twice(cluster, &[], || {
        let direct = victim.poll(&victim.url(NODE_PORT, "/"));
        let call = cluster
            .host("n1")
            .poll(&cluster.host("n1").url(NODE_PORT, "/"));
        victim.kill();
        let took = wait_running(cluster, "web", 3, &[&victim.name]);
        eprintln!(
            "a daemon killed: {replicas} replicas of its host run elsewhere after {took:.1?}"
        );
        assert_eq!(
            victim.containers(),
            before,
            "a container of the killed daemon's host was touched"
        );
        victim.start();
        wait_all_running(cluster);
        for (what, call) in [
            ("a daemon killed, its own host", direct),
            ("a daemon killed", call),
        ] {
            assert_gap_below(what, &call.finish(), Duration::from_secs(3));
        }
    });
}

#[test]
fn a_restart_of_a_daemon_as_in_an_upgrade_moves_nothing() {
    let cluster = start(Cluster::builder(3));
    deploy(&cluster, &everything(APP, "n3"));
    wait_all_running(&cluster);
    let before = containers(&cluster, &[]);
    // n1 is the leader.
    for host in [cluster.host("n3"), cluster.host("n1")] {
        let calls: Vec<_> = cluster
            .hosts
            .iter()
            .map(|client| client.poll(&host.url(NODE_PORT, "/")))
            .collect();
        host.terminate();
        let stopped = Instant::now();
        let reader = host_other_than(&cluster, &[&host.name]);
        cluster.wait_for(SOON, &format!("{} is not ready", host.name), || {
            readiness(reader, &host.name)
                .contains("NotReady")
                .then_some(())
        });
        cluster.wait_for(SOON, "ten seconds are over", || {
            (stopped.elapsed() >= Duration::from_secs(10)).then_some(())
        });
        host.start();
        wait_all_running(&cluster);
        assert_eq!(
            containers(&cluster, &[]),
            before,
            "the upgrade of {} has touched a container",
            host.name
        );
        calls
            .into_iter()
            .for_each(|call| assert_all_answered(&call.finish()));
    }
    a_hung_engine_makes_no_pod_run_twice(&cluster);
    pods_of_a_host_with_a_new_address_are_reached_there(&cluster);
}

/// A frozen engine, which is resumed when this value is dropped.
struct Frozen<'a>(&'a ClusterHost);

impl Frozen<'_> {
    fn new(host: &ClusterHost) -> Frozen<'_> {
        Frozen(host).signal("STOP")
    }

    fn signal(self, name: &str) -> Self {
        let pid = std::fs::read_to_string(self.0.host.path("/run/docker.pid")).unwrap();
        run(std::process::Command::new("kill").args(["-s", name, pid.trim()])).ok();
        self
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.0.host.path("/run/docker.pid")).unwrap_or_default();
        run(std::process::Command::new("kill").args(["-s", "CONT", pid.trim()]));
    }
}

fn a_hung_engine_makes_no_pod_run_twice(cluster: &Cluster) {
    let leader_name = leader(cluster).unwrap();
    let host = host_other_than(cluster, &[&leader_name, "n1"]);
    let before = containers(cluster, &[]);
    assert_no_pod_runs_twice(cluster, &[&host.name], || {
        let calls: Vec<_> = cluster
            .hosts
            .iter()
            .map(|client| client.poll(&host.url(NODE_PORT, "/")))
            .collect();
        let frozen = Frozen::new(host);
        let began = Instant::now();
        cluster.wait_for(SOON, "a host whose engine hangs is not ready", || {
            readiness(cluster.host(&leader_name), &host.name)
                .contains("NotReady")
                .then_some(())
        });
        eprintln!("an engine hangs: noticed after {:.1?}", began.elapsed());
        // New pods run on other hosts, and the hung engine does not block the rollout.
        let mut files = everything(APP, "n3");
        files.push(("more.yaml", crate::manifest::deployment("more", 4, APP)));
        let commit = push(cluster, &files);
        cluster
            .host(&leader_name)
            .wait_status("a push is rolled out without the hung engine", |status| {
                status["healthy"]["id"] == commit.as_str()
            });
        wait_running(cluster, "more", 4, &[&host.name]);
        cluster.wait_for(SOON, "twenty seconds are over", || {
            (began.elapsed() >= Duration::from_secs(20)).then_some(())
        });
        drop(frozen);
        calls
            .into_iter()
            .for_each(|call| assert_all_answered(&call.finish()));
    });
    deploy(cluster, &everything(APP, "n3"));
    wait_all_running(cluster);
    assert_eq!(
        containers(cluster, &[]),
        before,
        "a container was replaced because an engine hung"
    );
}

fn pods_of_a_host_with_a_new_address_are_reached_there(cluster: &Cluster) {
    let leader_name = leader(cluster).unwrap();
    let host = host_other_than(cluster, &[&leader_name, "n1"]);
    let (before, old, pid) = (containers(cluster, &[]), host.host.address, host.pid());
    let new = Ipv4Addr::new(192, 168, 77, 33);
    wait_pods_reach_pods(cluster);
    assert_no_pod_runs_twice(cluster, &[], || {
        let near = cluster.host("n1");
        let call = near.poll(&near.url(NODE_PORT, "/"));
        let began = Instant::now();
        host.host.readdress(new);
        wait_routed_to(cluster, host, new, old);
        eprintln!(
            "a new address: all hosts route to it after {:.1?}",
            began.elapsed()
        );
        wait_all_running(cluster);
        wait_pods_reach_pods(cluster);
        eprintln!(
            "a new address: all pods reach each other after {:.1?}",
            began.elapsed()
        );
        let url = format!("http://{new}:{NODE_PORT}/");
        cluster.wait_for(SOON, "the node port answers at the new address", || {
            near.curl(&url)
        });
        assert_gap_below("a new address", &call.finish(), LONGEST_GAP);
        assert_eq!(
            (containers(cluster, &[]), host.pid()),
            (before.clone(), pid),
            "a container or the daemon was restarted"
        );

        // The daemon uses an address in its configuration from its next start on.
        host.terminate();
        host.host.readdress(old);
        cluster.configure(host, &format!("[node]\naddress = '{old}'\n"));
        host.start();
        wait_routed_to(cluster, host, old, new);
        wait_all_running(cluster);
        wait_pods_reach_pods(cluster);
        assert_eq!(
            containers(cluster, &[]),
            before,
            "a container was restarted"
        );
    });
}

/// Waits until all hosts publish that a host has the address `now`, and the other hosts forward
/// packets for its pods to that address and not to the address before.
#[track_caller]
fn wait_routed_to(cluster: &Cluster, host: &ClusterHost, now: Ipv4Addr, before: Ipv4Addr) {
    let (now, before) = (format!(" dst {now} "), format!(" dst {before} "));
    for observer in &cluster.hosts {
        cluster.wait_for(
            SOON,
            &format!("{} publishes the address of {}", observer.name, host.name),
            || {
                let nodes = observer.windlass(&["get", "nodes", "-o", "json"]);
                let nodes = nodes.success().then(|| nodes.json())?;
                let node = nodes["items"]
                    .as_array()?
                    .iter()
                    .find(|node| node["metadata"]["name"] == host.name.as_str())?;
                (node["status"]["addresses"][0]["address"] == now.split_whitespace().nth(1)?)
                    .then_some(())
            },
        );
        if observer.name != host.name {
            cluster.wait_for(
                SOON,
                &format!("{} forwards to {}{now}", observer.name, host.name),
                || {
                    let entries = observer
                        .host
                        .exec(&["bridge", "fdb", "show", "dev", "windlass1"])
                        .stdout;
                    (entries.contains(&now) && !entries.contains(&before)).then_some(())
                },
            );
        }
    }
}

#[test]
fn when_two_of_three_hosts_vanish_no_pod_moves() {
    let cluster = start(Cluster::builder(3));
    deploy(&cluster, &everything(APP, "n3"));
    // Restarted one after the other, the two hosts renew their leases at different times, so that
    // one lease expires before the other.
    for name in ["n2", "n3"] {
        cluster.host(name).terminate();
        cluster.host(name).start();
    }
    wait_all_running(&cluster);
    let before = containers(&cluster, &[]);
    let first = cluster.host("n1");
    let call = first.poll(&first.url(NODE_PORT, "/"));
    assert_no_pod_runs_twice(&cluster, &[], || {
        cluster.network.cut(cluster.host("n2"));
        cluster.network.cut(cluster.host("n3"));
        let began = Instant::now();
        let status = first.wait_status("n1 reports why no pod is moved", |status| {
            status["troubles"].as_array().is_some_and(|troubles| {
                troubles.iter().any(|trouble| {
                    trouble
                        .as_str()
                        .is_some_and(|text| text.contains("2 of 3 nodes vanished"))
                })
            })
        });
        eprintln!(
            "two of three lost: reported after {:.1?}: {}",
            began.elapsed(),
            status["troubles"]
        );
        assert!(first.log().contains("2 of 3 nodes vanished"));
        cluster.wait_for(SOON, "twelve seconds are over", || {
            (began.elapsed() >= Duration::from_secs(12)).then_some(())
        });
        assert_eq!(containers(&cluster, &[]), before, "a container was moved");
        assert_gap_below("two of three lost", &call.finish(), LONGEST_GAP);
        cluster.network.heal_all();
        wait_all_running(&cluster);
        assert_eq!(
            containers(&cluster, &[]),
            before,
            "a container was moved after the hosts returned"
        );
        first.wait_status("n1 reports no troubles", |status| {
            status["troubles"].as_array().is_some_and(Vec::is_empty)
        });
    });
}
