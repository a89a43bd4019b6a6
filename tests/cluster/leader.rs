//! Leaders that are lost, killed or frozen, and hosts that only the leader still reaches.

use std::time::{Duration, Instant};

use crate::{
    manifest::{APP, APP_2, pod},
    scene::{
        containers, deploy, everything, fared, leader, other, push, readiness, start,
        wait_leader_other_than, wait_running, wait_whole,
    },
    support::{Cluster, NODE_PORT, SOON, assert_all_answered},
    watch::never_doubled,
};

/// How long a client may be without an answer until a lost leader's host takes no traffic: another
/// must be elected and settle first.
const DETECTED: Duration = Duration::from_secs(25);

/// The epoch that wrote last, and that of the leader in office.
pub(crate) fn epochs(cluster: &Cluster) -> (i64, i64) {
    let prefix = cluster.etcd.prefix();
    let written: serde_json::Value = serde_json::from_str(
        &cluster
            .etcd
            .get(&format!("{prefix}/decided/epoch"))
            .unwrap(),
    )
    .unwrap();
    let election = format!("{prefix}/election/");
    let oldest = [
        "--sort-by=CREATE",
        "--order=ASCEND",
        "--limit=1",
        "-w",
        "json",
    ];
    let mut arguments = vec!["get", "--prefix", election.as_str()];
    arguments.extend(oldest);
    let office = cluster.etcd.etcdctl(&arguments).json();
    (
        written["epoch"]["revision"].as_i64().unwrap(),
        office["kvs"][0]["create_revision"].as_i64().unwrap(),
    )
}

#[test]
fn a_leader_that_is_lost_frozen_or_killed_is_followed_by_another() {
    let cluster = start(Cluster::builder(3));
    deploy(&cluster, &everything(APP, "n2"));
    wait_whole(&cluster);
    cut_off(&cluster);
    frozen(&cluster);
    killed(&cluster);
}

fn cut_off(cluster: &Cluster) {
    let lost = cluster.host(&leader(cluster).unwrap());
    let before = lost.containers();
    let near = other(cluster, &[&lost.name]);
    never_doubled(cluster, &[], || {
        let call = near.poll(&near.url(NODE_PORT, "/"));
        let began = Instant::now();
        cluster.network.cut(lost);
        let next = wait_leader_other_than(cluster, &lost.name);
        eprintln!(
            "the leader's host cut off: {next} leads after {:.1?}",
            began.elapsed()
        );
        wait_running(cluster, "web", 3, &[&lost.name]);
        eprintln!(
            "the leader's host cut off: all replicas run elsewhere after {:.1?}",
            began.elapsed()
        );
        fared("the leader's host cut off", &call.finish(), DETECTED);
        assert_eq!(lost.containers(), before, "what was cut off was touched");
        lost.wait_status("it says that the store does not answer", |status| {
            status["cluster"]["store"] != "current"
        });

        let call = near.poll(&near.url(NODE_PORT, "/"));
        cluster.network.heal(lost);
        wait_whole(cluster);
        assert_all_answered(&call.finish());
        assert_eq!(
            leader(cluster),
            Some(next),
            "who is back does not take over"
        );
    });
}

fn frozen(cluster: &Cluster) {
    const FROZEN: Duration = Duration::from_secs(60);
    let old = cluster.host(&leader(cluster).unwrap());
    // Its own table is as frozen as it is: whoever comes to its address meets what was there
    // before.
    let near = other(cluster, &[&old.name]);
    never_doubled(cluster, &[], || {
        let call = near.poll(&near.url(NODE_PORT, "/"));
        let began = Instant::now();
        old.pause();
        let next = wait_leader_other_than(cluster, &old.name);
        eprintln!(
            "the leader frozen: {next} leads after {:.1?}",
            began.elapsed()
        );
        // What the old one decided from is not so any more.
        let mut files = everything(APP_2, "n2");
        files.push(("extra.yaml", pod("extra", APP)));
        let commit = push(cluster, &files);
        cluster
            .host(&next)
            .wait_status("a push is rolled out without the old leader", |status| {
                status["healthy"]["id"] == commit.as_str()
            });
        cluster.wait_for(SOON, "a minute is over", || {
            (began.elapsed() >= FROZEN).then_some(())
        });
        let (written, office) = epochs(cluster);
        assert_eq!(written, office, "{next} has written");

        old.resume();
        old.wait_status("the old leader follows", |status| {
            status["cluster"]["leader"] == next.as_str()
                && status["cluster"]["store"] == "current"
                && status["healthy"]["id"] == commit.as_str()
        });
        wait_whole(cluster);
        assert_eq!(
            epochs(cluster),
            (written, office),
            "the old leader has written"
        );
        assert_eq!(leader(cluster), Some(next));
        fared("the leader frozen", &call.finish(), DETECTED);
    });
    let web = cluster.hosts.iter().flat_map(|host| host.running("web"));
    for one in web {
        let image = cluster.hosts.iter().find_map(|host| {
            let said = host
                .host
                .try_docker(&["inspect", "-f", "{{.Image}}", &one.id]);
            said.success().then(|| {
                host.host
                    .docker(&["inspect", "-f", "{{.RepoTags}}", said.stdout.trim()])
            })
        });
        assert_eq!(
            image.as_deref().map(str::trim),
            Some("[windlass-test/app:2]"),
            "of {}",
            one.pod
        );
    }
}

fn killed(cluster: &Cluster) {
    let old = cluster.host(&leader(cluster).unwrap());
    let near = other(cluster, &[&old.name]);
    never_doubled(cluster, &[], || {
        let call = near.poll(&near.url(NODE_PORT, "/"));
        let mut files = everything(APP_2, "n2");
        files.push(("late.yaml", pod("late", APP)));
        old.kill();
        let began = Instant::now();
        let commit = push(cluster, &files);
        near.wait_status("the next decision", |status| {
            status["target"]["id"] == commit.as_str()
        });
        eprintln!(
            "the leader killed: the next decision after {:.1?}",
            began.elapsed()
        );
        near.wait_status("and all that follows", |status| {
            status["healthy"]["id"] == commit.as_str()
        });
        eprintln!(
            "the leader killed: a push is healthy after {:.1?}",
            began.elapsed()
        );
        old.start();
        wait_whole(cluster);
        fared("the leader killed", &call.finish(), DETECTED);
    });
}

#[test]
fn a_host_that_its_leader_still_reaches_is_not_given_up() {
    let cluster = Cluster::builder(3).without_daemons().start();
    for host in &cluster.hosts {
        host.host
            .exec(&[
                "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9465", "-j", "ACCEPT",
            ])
            .ok();
    }
    let first = cluster.host("n1");
    first.windlass(&["cluster", "init", "--node", "n1"]).ok();
    first.start();
    for host in &cluster.hosts[1..] {
        let address = format!("{}:9465", first.host.address);
        let token = first
            .windlass(&[
                "cluster",
                "token",
                "--node",
                &host.name,
                "--address",
                &address,
            ])
            .ok();
        host.windlass(&["cluster", "join", "--node", &host.name, token.trim()])
            .ok();
    }
    cluster.wait_for(SOON, "the first host leads", || {
        leader(&cluster).filter(|name| *name == "n1")
    });
    cluster.start_daemons();
    deploy(&cluster, &everything(APP, "n3"));
    wait_whole(&cluster);
    let before = containers(&cluster, &[]);
    let cut = cluster.host("n3");
    never_doubled(&cluster, &[], || {
        let calls: Vec<_> = cluster
            .hosts
            .iter()
            .map(|host| host.poll(&cluster.host("n2").url(NODE_PORT, "/")))
            .collect();
        let began = Instant::now();
        cluster
            .network
            .cut_from(cut, cluster.etcd.machine(0).address);
        cut.wait_status("it says that the store does not answer", |status| {
            status["cluster"]["store"] != "current"
        });
        cluster.wait_for(SOON, "it is not ready, by the leader", || {
            readiness(first, "n3").contains("NotReady").then_some(())
        });
        cluster.wait_for(SOON, "twenty seconds are over", || {
            (began.elapsed() >= Duration::from_secs(20)).then_some(())
        });
        assert_eq!(containers(&cluster, &[]), before, "something was moved");
        cluster.network.heal(cut);
        wait_whole(&cluster);
        assert_eq!(
            containers(&cluster, &[]),
            before,
            "something was moved after all"
        );
        calls
            .into_iter()
            .for_each(|call| assert_all_answered(&call.finish()));

        // Without an answer it is given up all the same.
        cluster.network.cut(cut);
        let took = wait_running(&cluster, "web", 3, &["n3"]);
        eprintln!("a host cut off, with certificates: all replicas run elsewhere after {took:.1?}");
        cluster.network.heal(cut);
        wait_whole(&cluster);
    });
}
