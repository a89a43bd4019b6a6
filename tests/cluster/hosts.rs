//! Hosts that are lost, come back, hang or are upgraded.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use crate::{
    manifest::APP,
    scene::{
        containers, deploy, everything, fared, leader, other, push, readiness, start,
        wait_pods_reach_pods, wait_running, wait_whole,
    },
    support::{Cluster, ClusterHost, NODE_PORT, SOON, assert_all_answered, run},
    watch::never_doubled,
};

/// How long a client may be without an answer until a lost host takes no traffic: the lease, and
/// all that follows.
const DETECTED: Duration = Duration::from_secs(12);

#[test]
fn a_host_that_is_cut_off_is_replaced_and_yields_when_it_is_back() {
    let cluster = start(Cluster::builder(3));
    deploy(&cluster, &everything(APP, "n3"));
    wait_whole(&cluster);
    let (first, lost) = (cluster.host("n1"), cluster.host("n3"));
    assert_eq!(leader(&cluster).as_deref(), Some("n1"));
    let before = containers(&cluster, &[]);
    for name in ["web", "agent", "data", "bare"] {
        assert!(
            !lost.running(name).is_empty(),
            "{name} runs on n3: {before:#?}"
        );
    }

    never_doubled(&cluster, &[], || {
        let call = cluster.host("n2").poll(&first.url(NODE_PORT, "/"));
        cluster.network.cut(lost);
        let took = wait_running(&cluster, "web", 3, &["n3"]);
        eprintln!("a host cut off: all replicas run elsewhere after {took:.1?}");
        cluster.wait_for(SOON, "n3 is not ready, by n2", || {
            readiness(cluster.host("n2"), "n3")
                .contains("NotReady")
                .then_some(())
        });
        fared("a host cut off", &call.finish(), DETECTED);

        // A push goes out to those that are there, and is not held against the commit.
        let mut files = everything(APP, "n3");
        files.push(("extra.yaml", crate::manifest::pod("extra", APP)));
        let commit = push(&cluster, &files);
        for host in [first, cluster.host("n2")] {
            host.wait_status("a push is rolled out without the lost host", |status| {
                status["healthy"]["id"] == commit.as_str()
            });
        }
        // Nothing else moves, and what was cut off runs on.
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
            "what was cut off was touched"
        );

        let call = cluster.host("n2").poll(&first.url(NODE_PORT, "/"));
        cluster.network.heal(lost);
        wait_whole(&cluster);
        assert_all_answered(&call.finish());
    });
    let kept = lost.containers();
    for one in before["n3"]
        .iter()
        .filter(|one| !one.pod.starts_with("web"))
    {
        assert!(kept.contains(one), "{one:?} was touched: {kept:#?}");
    }
    a_killed_daemon_s_host_is_replaced_and_yields(&cluster);
}

fn a_killed_daemon_s_host_is_replaced_and_yields(cluster: &Cluster) {
    let victim = other(cluster, &[leader(cluster).as_deref().unwrap(), "n1"]);
    let before = victim.containers();
    let had = victim.running("web").len();
    never_doubled(cluster, &[], || {
        let direct = victim.poll(&victim.url(NODE_PORT, "/"));
        let call = cluster
            .host("n1")
            .poll(&cluster.host("n1").url(NODE_PORT, "/"));
        victim.kill();
        let took = wait_running(cluster, "web", 3, &[&victim.name]);
        eprintln!("a daemon killed: {had} replicas of its host run elsewhere after {took:.1?}");
        assert_eq!(
            victim.containers(),
            before,
            "what a killed daemon leaves behind was touched"
        );
        victim.start();
        wait_whole(cluster);
        for (what, call) in [
            ("a daemon killed, its own host", direct),
            ("a daemon killed", call),
        ] {
            fared(what, &call.finish(), Duration::from_secs(3));
        }
    });
}

#[test]
fn an_upgrade_of_a_daemon_moves_nothing() {
    let cluster = start(Cluster::builder(3));
    deploy(&cluster, &everything(APP, "n3"));
    wait_whole(&cluster);
    let before = containers(&cluster, &[]);
    // The leader's, too.
    for host in [cluster.host("n3"), cluster.host("n1")] {
        let calls: Vec<_> = cluster
            .hosts
            .iter()
            .map(|one| one.poll(&host.url(NODE_PORT, "/")))
            .collect();
        host.terminate();
        let stopped = Instant::now();
        let reader = other(&cluster, &[&host.name]);
        cluster.wait_for(SOON, "it is away", || {
            readiness(reader, &host.name)
                .contains("NotReady")
                .then_some(())
        });
        cluster.wait_for(SOON, "ten seconds are over", || {
            (stopped.elapsed() >= Duration::from_secs(10)).then_some(())
        });
        host.start();
        wait_whole(&cluster);
        assert_eq!(
            containers(&cluster, &[]),
            before,
            "an upgrade of {} has touched something",
            host.name
        );
        calls
            .into_iter()
            .for_each(|call| assert_all_answered(&call.finish()));
    }
    a_hung_engine_doubles_nothing(&cluster);
    a_host_with_a_new_address_is_followed(&cluster);
}

/// A frozen engine, which goes on when this is dropped.
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

fn a_hung_engine_doubles_nothing(cluster: &Cluster) {
    let leads = leader(cluster).unwrap();
    let host = other(cluster, &[&leads, "n1"]);
    let before = containers(cluster, &[]);
    never_doubled(cluster, &[&host.name], || {
        let calls: Vec<_> = cluster
            .hosts
            .iter()
            .map(|one| one.poll(&host.url(NODE_PORT, "/")))
            .collect();
        let frozen = Frozen::new(host);
        let began = Instant::now();
        cluster.wait_for(SOON, "a host whose engine hangs is not ready", || {
            readiness(cluster.host(&leads), &host.name)
                .contains("NotReady")
                .then_some(())
        });
        eprintln!("an engine hangs: noticed after {:.1?}", began.elapsed());
        // New pods go elsewhere, and the commit is not held up.
        let mut files = everything(APP, "n3");
        files.push(("more.yaml", crate::manifest::deployment("more", 4, APP)));
        let commit = push(cluster, &files);
        cluster
            .host(&leads)
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
    wait_whole(cluster);
    assert_eq!(
        containers(cluster, &[]),
        before,
        "a hung engine has changed what runs"
    );
}

fn a_host_with_a_new_address_is_followed(cluster: &Cluster) {
    let leads = leader(cluster).unwrap();
    let host = other(cluster, &[&leads, "n1"]);
    let (before, old, pid) = (containers(cluster, &[]), host.host.address, host.pid());
    let new = Ipv4Addr::new(192, 168, 77, 33);
    wait_pods_reach_pods(cluster);
    never_doubled(cluster, &[], || {
        let near = cluster.host("n1");
        let call = near.poll(&near.url(NODE_PORT, "/"));
        let began = Instant::now();
        host.host.readdress(new);
        wait_led_to(cluster, host, new, old);
        eprintln!(
            "a new address: all hosts lead to it after {:.1?}",
            began.elapsed()
        );
        wait_whole(cluster);
        wait_pods_reach_pods(cluster);
        eprintln!(
            "a new address: all is as before after {:.1?}",
            began.elapsed()
        );
        let url = format!("http://{new}:{NODE_PORT}/");
        cluster.wait_for(SOON, "its NodePort answers there", || near.curl(&url));
        fared("a new address", &call.finish(), DETECTED);
        assert_eq!(
            (containers(cluster, &[]), host.pid()),
            (before.clone(), pid),
            "something was touched"
        );

        // One that the configuration names is taken up at the next start.
        host.terminate();
        host.host.readdress(old);
        cluster.configure(host, &format!("[node]\naddress = '{old}'\n"));
        host.start();
        wait_led_to(cluster, host, old, new);
        wait_whole(cluster);
        wait_pods_reach_pods(cluster);
        assert_eq!(containers(cluster, &[]), before, "something was touched");
    });
}

/// Waits until all say that a host has this address, and the others lead to its pods there and not
/// where it was.
#[track_caller]
fn wait_led_to(cluster: &Cluster, host: &ClusterHost, now: Ipv4Addr, before: Ipv4Addr) {
    let (now, before) = (format!(" dst {now} "), format!(" dst {before} "));
    for one in &cluster.hosts {
        cluster.wait_for(
            SOON,
            &format!("{} knows where {} is", one.name, host.name),
            || {
                let nodes = one.windlass(&["get", "nodes", "-o", "json"]);
                let nodes = nodes.success().then(|| nodes.json())?;
                let known = nodes["items"]
                    .as_array()?
                    .iter()
                    .find(|node| node["metadata"]["name"] == host.name.as_str())?;
                (known["status"]["addresses"][0]["address"] == now.split_whitespace().nth(1)?)
                    .then_some(())
            },
        );
        if one.name != host.name {
            cluster.wait_for(
                SOON,
                &format!("{} leads to {}{now}", one.name, host.name),
                || {
                    let entries = one
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
fn when_two_of_three_hosts_vanish_nothing_moves() {
    let cluster = start(Cluster::builder(3));
    deploy(&cluster, &everything(APP, "n3"));
    // Hosts that were not started together do not renew their leases together: the first is out
    // before the second.
    for name in ["n2", "n3"] {
        cluster.host(name).terminate();
        cluster.host(name).start();
    }
    wait_whole(&cluster);
    let before = containers(&cluster, &[]);
    let first = cluster.host("n1");
    let call = first.poll(&first.url(NODE_PORT, "/"));
    never_doubled(&cluster, &[], || {
        cluster.network.cut(cluster.host("n2"));
        cluster.network.cut(cluster.host("n3"));
        let began = Instant::now();
        let status = first.wait_status("it says why nothing is moved", |status| {
            status["troubles"].as_array().is_some_and(|all| {
                all.iter().any(|one| {
                    one.as_str()
                        .is_some_and(|one| one.contains("2 of 3 nodes vanished"))
                })
            })
        });
        eprintln!(
            "two of three lost: the brake after {:.1?}: {}",
            began.elapsed(),
            status["troubles"]
        );
        assert!(first.log().contains("2 of 3 nodes vanished"));
        cluster.wait_for(SOON, "twelve seconds are over", || {
            (began.elapsed() >= Duration::from_secs(12)).then_some(())
        });
        assert_eq!(containers(&cluster, &[]), before, "something was moved");
        fared("two of three lost", &call.finish(), DETECTED);
        cluster.network.heal_all();
        wait_whole(&cluster);
        assert_eq!(
            containers(&cluster, &[]),
            before,
            "something was moved after all"
        );
        first.wait_status("there is no trouble any more", |status| {
            status["troubles"].as_array().is_some_and(Vec::is_empty)
        });
    });
}
