//! Clocks that jump by an hour, or are an hour off from the start.

use std::time::Instant;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    leader::epochs,
    manifest::{APP, APP_2, deployment_with},
    scene::{containers, deploy, everything, leader, push, wait_whole},
    support::{Cluster, ClusterHost, NODE_PORT, SOON, assert_all_answered},
    watch::never_doubled,
};

const HOUR: i64 = 3600;

#[test]
fn a_clock_that_is_an_hour_off_disturbs_nothing() {
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

    // Whoever joins with a wrong clock gets its certificate, pods and commits, and is named.
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
    wait_whole(&cluster);
    let agent = third
        .running("agent")
        .pop_first()
        .expect("a pod of agent on n3")
        .pod;
    first.windlass(&["logs", &agent]).ok();
    third.set_clock(0);
    wait_notes(&cluster, &[first, second, third], &[]);

    let (before, epoch) = (containers(&cluster, &[]), epochs(&cluster));
    never_doubled(&cluster, &[], || {
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
        // A new start is new connections: to the store, and from the authority.
        second.terminate();
        second.start();
        wait_clock(second, -HOUR);
        second.wait_status("it follows after a start", |status| {
            status["cluster"]["store"] == "current"
        });
        second.set_clock(0);
        wait_notes(&cluster, &[first, second, third], &[]);
        calls
            .into_iter()
            .for_each(|call| assert_all_answered(&call.finish()));
    });
    deploy(&cluster, &everything(APP, "n3"));
    wait_whole(&cluster);
    assert_eq!(
        containers(&cluster, &[]),
        before,
        "something was restarted or moved"
    );
    assert_eq!(
        (leader(&cluster).as_deref(), epochs(&cluster)),
        (Some("n1"), epoch),
        "leadership has changed hands"
    );
}

/// Joins the cluster of the first host and starts the daemon, by the host's own clock.
fn join(first: &ClusterHost, host: &ClusterHost) {
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

/// The repository was asked when the clock was ahead. `sync` must not take that for an answer to
/// its own question.
#[test]
fn a_clock_that_is_put_back_makes_sync_speak_of_no_older_commit() {
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
        let said = host.windlass(&["sync", "--wait", "--timeout", "60s"]).ok();
        let short = &commit[..10];
        assert!(
            said.ends_with(&format!("{short}  Healthy")),
            "the clock is {clock:+} s off: {said}"
        );
        wait_clock(host, clock);
    }
}

/// A host's clock jumps while a commit is rolled out, which goes on, and all hosts say whose clock
/// is off.
fn jump_while_a_commit_is_rolled_out(cluster: &Cluster, host: &ClusterHost, jump: i64, app: &str) {
    let began = Instant::now();
    // Three seconds in which the rollout is seen on its way, and a deadline of a minute.
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
    for one in &cluster.hosts {
        let others = cluster.hosts.iter().filter(|other| other.name != one.name);
        let notes: Vec<String> = match one.name == host.name {
            true => others.map(|one| note(&one.name, other)).collect(),
            false => vec![note(&host.name, own)],
        };
        wait_notes(
            cluster,
            &[one],
            &notes.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    }
    eprintln!(
        "the clock of {} {jump:+} s: rolled out and told after {:.1?}",
        host.name,
        began.elapsed()
    );
}

/// Waits until a daemon was seen to go by a clock that is off by this.
#[track_caller]
fn wait_clock(host: &ClusterHost, seconds: i64) {
    host.wait_status(
        &format!("its daemon's clock is {seconds:+} s off"),
        |status| {
            let asked = status["source"]["fetched"]
                .as_str()
                .and_then(|text| text.parse::<Timestamp>().ok());
            asked.is_some_and(|asked| {
                (asked.as_second() - Timestamp::now().as_second() - seconds).abs() < 300
            })
        },
    );
}

/// Waits until hosts say this of clocks, and no more.
#[track_caller]
fn wait_notes(cluster: &Cluster, hosts: &[&ClusterHost], wanted: &[&str]) {
    for host in hosts {
        cluster.wait_for(
            SOON,
            &format!("{} says of clocks {wanted:?}", host.name),
            || {
                let troubles = host.status()["troubles"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let said = troubles
                    .iter()
                    .filter_map(Value::as_str)
                    .find(|said| said.contains("the clock of node"));
                said.into_iter()
                    .flat_map(|said| said.split("; "))
                    .eq(wanted.iter().copied())
                    .then_some(())
            },
        );
    }
}

/// Waits until all hosts say that a commit is healthy, and none that anything was rolled back.
#[track_caller]
fn wait_healthy(cluster: &Cluster, commit: &str) {
    for host in &cluster.hosts {
        let status = host.wait_status(&format!("{commit} is healthy or given up"), |status| {
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
