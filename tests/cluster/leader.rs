//! Leaders that are cut off, killed or frozen, and hosts that the leader reaches but that do not
//! reach the store.

use std::time::{Duration, Instant};

use crate::{
    manifest::{APP, APP_2, pod},
    scene::{
        assert_gap_below, containers, deploy, everything, host_other_than, leader, push, readiness,
        start, wait_all_running, wait_leader_other_than, wait_running,
    },
    support::{Cluster, NODE_PORT, SOON, assert_all_answered},
    watch::assert_no_pod_runs_twice,
};

/// How long a client may get no answer until a lost leader's host gets no more traffic: another
/// host must be elected and become ready first.
const LONGEST_GAP: Duration = Duration::from_secs(25);

/// The term of the leader that wrote last, and the term of the present leader.
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
    let elected = cluster.etcd.etcdctl(&arguments).json();
    (
        written["epoch"]["revision"].as_i64().unwrap(),
        elected["kvs"][0]["create_revision"].as_i64().unwrap(),
    )
}

#[test]
fn a_leader_that_is_cut_off_frozen_or_killed_is_replaced() {
    let cluster = start(Cluster::builder(3));
    deploy(&cluster, &everything(APP, "n2"));
    wait_all_running(&cluster);
    cut_off(&cluster);
    frozen(&cluster);
    killed(&cluster);
}

fn cut_off(cluster: &Cluster) {
    let lost = cluster.host(&leader(cluster).unwrap());
    let before = lost.containers();
    let near = host_other_than(cluster, &[&lost.name]);
    assert_no_pod_runs_twice(cluster, &[], || {
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
        assert_gap_below("the leader's host cut off", &call.finish(), LONGEST_GAP);
        assert_eq!(
            lost.containers(),
            before,
            "a container of the host that is cut off was touched"
        );
        lost.wait_status(
            "the old leader publishes that the store is lost",
            |status| status["cluster"]["store"] != "current",
        );

        let call = near.poll(&near.url(NODE_PORT, "/"));
        cluster.network.heal(lost);
        wait_all_running(cluster);
        assert_all_answered(&call.finish());
        assert_eq!(
            leader(cluster),
            Some(next),
            "the old leader has taken leadership again"
        );
    });
}

fn frozen(cluster: &Cluster) {
    const FROZEN: Duration = Duration::from_secs(60);
    let old = cluster.host(&leader(cluster).unwrap());
    // The frozen host's service table is not updated, so a request to its own address may go to a
    // pod that is gone: another host's address is polled.
    let near = host_other_than(cluster, &[&old.name]);
    assert_no_pod_runs_twice(cluster, &[], || {
        let call = near.poll(&near.url(NODE_PORT, "/"));
        let began = Instant::now();
        old.pause();
        let next = wait_leader_other_than(cluster, &old.name);
        eprintln!(
            "the leader frozen: {next} leads after {:.1?}",
            began.elapsed()
        );
        // The state that the old leader decided from is outdated after this push.
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
        let (written, elected) = epochs(cluster);
        assert_eq!(
            written, elected,
            "the last write is not one of the new leader, {next}"
        );

        old.resume();
        old.wait_status("the old leader follows", |status| {
            status["cluster"]["leader"] == next.as_str()
                && status["cluster"]["store"] == "current"
                && status["healthy"]["id"] == commit.as_str()
        });
        wait_all_running(cluster);
        assert_eq!(
            epochs(cluster),
            (written, elected),
            "the term of the last write or of the leader has changed"
        );
        assert_eq!(leader(cluster), Some(next));
        assert_gap_below("the leader frozen", &call.finish(), LONGEST_GAP);
    });
    let web = cluster.hosts.iter().flat_map(|host| host.running("web"));
    for container in web {
        let image = cluster.hosts.iter().find_map(|host| {
            let image = host
                .host
                .try_docker(&["inspect", "-f", "{{.Image}}", &container.id]);
            image.success().then(|| {
                host.host
                    .docker(&["inspect", "-f", "{{.RepoTags}}", image.stdout.trim()])
            })
        });
        assert_eq!(
            image.as_deref().map(str::trim),
            Some("[windlass-test/app:2]"),
            "the image of {}",
            container.pod
        );
    }
}

fn killed(cluster: &Cluster) {
    let old = cluster.host(&leader(cluster).unwrap());
    let near = host_other_than(cluster, &[&old.name]);
    assert_no_pod_runs_twice(cluster, &[], || {
        let call = near.poll(&near.url(NODE_PORT, "/"));
        let mut files = everything(APP_2, "n2");
        files.push(("late.yaml", pod("late", APP)));
        old.kill();
        let began = Instant::now();
        let commit = push(cluster, &files);
        near.wait_status("the pushed commit is the target", |status| {
            status["target"]["id"] == commit.as_str()
        });
        eprintln!(
            "the leader killed: the next decision after {:.1?}",
            began.elapsed()
        );
        near.wait_status("the pushed commit is healthy", |status| {
            status["healthy"]["id"] == commit.as_str()
        });
        eprintln!(
            "the leader killed: a push is healthy after {:.1?}",
            began.elapsed()
        );
        old.start();
        wait_all_running(cluster);
        assert_gap_below("the leader killed", &call.finish(), LONGEST_GAP);
    });
}

#[test]
fn a_host_without_the_store_that_the_leader_reaches_is_not_lost() {
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
    wait_all_running(&cluster);
    let before = containers(&cluster, &[]);
    let cut = cluster.host("n3");
    assert_no_pod_runs_twice(&cluster, &[], || {
        let calls: Vec<_> = cluster
            .hosts
            .iter()
            .map(|host| host.poll(&cluster.host("n2").url(NODE_PORT, "/")))
            .collect();
        let began = Instant::now();
        cluster
            .network
            .cut_from(cut, cluster.etcd.machine(0).address);
        cut.wait_status("n3 publishes that the store is lost", |status| {
            status["cluster"]["store"] != "current"
        });
        cluster.wait_for(SOON, "the leader publishes that n3 is not ready", || {
            readiness(first, "n3").contains("NotReady").then_some(())
        });
        // A host that does not answer would be lost within this time.
        cluster.wait_for(SOON, "twenty seconds are over", || {
            (began.elapsed() >= Duration::from_secs(20)).then_some(())
        });
        assert_eq!(containers(&cluster, &[]), before, "a container was moved");
        cluster.network.heal(cut);
        wait_all_running(&cluster);
        assert_eq!(
            containers(&cluster, &[]),
            before,
            "a container was moved after n3 reached the store again"
        );
        calls
            .into_iter()
            .for_each(|call| assert_all_answered(&call.finish()));

        // A host that does not answer the leader either is lost.
        cluster.network.cut(cut);
        let took = wait_running(&cluster, "web", 3, &["n3"]);
        eprintln!("a host cut off, with certificates: all replicas run elsewhere after {took:.1?}");
        cluster.network.heal(cut);
        wait_all_running(&cluster);
    });
}
