//! Wall clocks of hosts that jump by an hour, or are wrong by an hour from the start.

use std::time::Instant;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    leader::epochs,
    manifest::{APP, APP_2, deployment_with},
    scene::{containers, deploy, everything, leader, push, wait_all_running},
    support::{Cluster, ClusterHost, NODE_PORT, SOON, assert_all_answered},
    watch::assert_no_pod_runs_twice,
};

const HOUR: i64 = 3600;

#[test]
fn a_clock_that_is_wrong_by_an_hour_restarts_and_moves_nothing() {
    let cluster = Cluster::builder(3).own_clocks().without_daemons().start();
    for host in &cluster.hosts {
        host.host
            .exec(&[
                "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9465", "-j", "ACCEPT",
            ])
            .ok();
    }
    let (first, second, third) = (cluster.host("n1"), cluster.host("n2"), cluster.host("n3"));
    first.windlass(&["cluster", "init", "--node", "n1"]).ok();
    first.start();
    cluster.wait_for(SOON, "the first host leads", || {
        leader(&cluster).filter(|name| *name == "n1")
    });
    join(first, second);
    let commit = push(&cluster, &everything(APP, "n3"));
    second.wait_status("a commit is healthy", |status| {
        status["healthy"]["id"] == commit.as_str()
    });
    wait_notes(&cluster, &[first, second], &[]);

    // A host that joins with a wrong clock gets its certificate, pods and commits, and the other
    // hosts report its clock.
    third.set_clock(-HOUR);
    join(first, third);
    wait_clock(third, -HOUR);
    wait_notes(
        &cluster,
        &[first, second],
        &["the clock of node n3 is 1h behind this host's"],
    );
    wait_notes(
        &cluster,
        &[third],
        &[
            "the clock of node n1 is 1h ahead of this host's",
            "the clock of node n2 is 1h ahead of this host's",
        ],
    );
    deploy(&cluster, &everything(APP, "n3"));
    wait_all_running(&cluster);
    let agent = third
        .running("agent")
        .pop_first()
        .expect("a pod of agent on n3")
        .pod;
    first.windlass(&["logs", &agent]).ok();
    third.set_clock(0);
    wait_notes(&cluster, &[first, second, third], &[]);

    let (before, epoch) = (containers(&cluster, &[]), epochs(&cluster));
    assert_no_pod_runs_twice(&cluster, &[], || {
        let calls: Vec<_> = cluster
            .hosts
            .iter()
            .map(|host| host.poll(&host.url(NODE_PORT, "/")))
            .collect();
        // The last rollout of each host begins and ends with a wrong clock.
        for host in [first, second] {
            for (jump, app) in [(HOUR, APP), (-HOUR, APP_2)] {
                jump_while_a_commit_is_rolled_out(&cluster, host, jump, app);
            }
            host.set_clock(0);
            wait_notes(&cluster, &[first, second, third], &[]);
        }
        second.set_clock(-HOUR);
        // A restarted daemon connects to the store anew, and checks all certificates with the wrong
        // clock.
        second.terminate();
        second.start();
        wait_clock(second, -HOUR);
        second.wait_status("n2 reads the store after its restart", |status| {
            status["cluster"]["store"] == "current"
        });
        second.set_clock(0);
        wait_notes(&cluster, &[first, second, third], &[]);
        calls
            .into_iter()
            .for_each(|call| assert_all_answered(&call.finish()));
    });
    deploy(&cluster, &everything(APP, "n3"));
    wait_all_running(&cluster);
    assert_eq!(
        containers(&cluster, &[]),
        before,
        "a container was restarted or moved"
    );
    assert_eq!(
        (leader(&cluster).as_deref(), epochs(&cluster)),
        (Some("n1"), epoch),
        "the leader or its term has changed"
    );
}

/// Makes a host join the cluster of the first host, and starts the host's daemon.
pub(crate) fn join(first: &ClusterHost, host: &ClusterHost) {
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
    host.start();
}

/// The last fetch has a later time than the `sync` after the clock was set back. `sync` must not
/// take that fetch for its own.
#[test]
fn after_a_clock_was_set_back_sync_waits_for_the_newest_commit() {
    let cluster = Cluster::builder(1).own_clocks().start();
    let host = cluster.host("n1");
    host.set_clock(HOUR);
    for (app, clock) in [(APP, HOUR), (APP_2, 0), (APP, -HOUR)] {
        host.set_clock(clock);
        let commit = push(
            &cluster,
            &[(
                "web.yaml",
                deployment_with("web", 1, app, "progressDeadlineSeconds: 60"),
            )],
        );
        let printed = host.windlass(&["sync", "--wait", "--timeout", "60s"]).ok();
        let short = &commit[..10];
        assert!(
            printed.ends_with(&format!("{short}  Healthy")),
            "the clock is wrong by {clock:+} s: {printed}"
        );
        wait_clock(host, clock);
    }
}

/// Makes a host's clock jump during a rollout, and checks that the rollout succeeds and that all
/// hosts report the clock.
fn jump_while_a_commit_is_rolled_out(cluster: &Cluster, host: &ClusterHost, jump: i64, app: &str) {
    let began = Instant::now();
    // The rollout takes three seconds at least, so that it can be observed in progress; the clock
    // jumps beyond its deadline of a minute.
    let slow = app.replace(
        "periodSeconds: 1",
        "initialDelaySeconds: 3, periodSeconds: 1",
    );
    let mut files = everything(APP, "n3");
    files.push((
        "moving.yaml",
        deployment_with("moving", 1, &slow, "progressDeadlineSeconds: 60"),
    ));
    let commit = push(cluster, &files);
    cluster
        .host("n1")
        .wait_status("the rollout has begun", |status| {
            status["target"]["id"] == commit.as_str() && status["phase"] == "Progressing"
        });
    host.set_clock(jump);
    wait_clock(host, jump);
    wait_healthy(cluster, &commit);
    let (own, other) = if jump < 0 {
        ("behind", "ahead of")
    } else {
        ("ahead of", "behind")
    };
    let note =
        |name: &str, side: &str| format!("the clock of node {name} is 1h {side} this host's");
    for observer in &cluster.hosts {
        let others = cluster
            .hosts
            .iter()
            .filter(|other| other.name != observer.name);
        let notes: Vec<String> = match observer.name == host.name {
            true => others.map(|node| note(&node.name, other)).collect(),
            false => vec![note(&host.name, own)],
        };
        wait_notes(
            cluster,
            &[observer],
            &notes.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    }
    eprintln!(
        "the clock of {} {jump:+} s: rolled out and reported after {:.1?}",
        host.name,
        began.elapsed()
    );
}

/// Waits until the time of a daemon's last fetch shows that its clock is wrong by `seconds`.
#[track_caller]
fn wait_clock(host: &ClusterHost, seconds: i64) {
    host.wait_status(
        &format!(
            "the clock of the daemon of {} is wrong by {seconds:+} s",
            host.name
        ),
        |status| {
            let fetched = status["source"]["fetched"]
                .as_str()
                .and_then(|text| text.parse::<Timestamp>().ok());
            fetched.is_some_and(|fetched| {
                (fetched.as_second() - Timestamp::now().as_second() - seconds).abs() < 300
            })
        },
    );
}

/// Waits until each of these hosts reports exactly these notes about clocks.
#[track_caller]
fn wait_notes(cluster: &Cluster, hosts: &[&ClusterHost], expected: &[&str]) {
    for host in hosts {
        cluster.wait_for(
            SOON,
            &format!("{} reports about clocks {expected:?}", host.name),
            || {
                let troubles = host.status()["troubles"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let about_clocks = troubles
                    .iter()
                    .filter_map(Value::as_str)
                    .find(|trouble| trouble.contains("the clock of node"));
                about_clocks
                    .into_iter()
                    .flat_map(|trouble| trouble.split("; "))
                    .eq(expected.iter().copied())
                    .then_some(())
            },
        );
    }
}

/// Waits until a commit is healthy on all hosts, and checks that none has a failed commit.
#[track_caller]
fn wait_healthy(cluster: &Cluster, commit: &str) {
    for host in &cluster.hosts {
        let status = host.wait_status(&format!("{commit} is healthy or failed"), |status| {
            let bad = !status["bad"][commit].is_null();
            bad || status["healthy"]["id"] == commit && status["phase"] == "Healthy"
        });
        assert!(
            status["bad"].as_object().unwrap().is_empty(),
            "{}: {status:#}",
            host.name
        );
    }
}
