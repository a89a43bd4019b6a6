//! Rollouts on all hosts: bad commits, updates of a DaemonSet, Node objects, a webhook, and a host
//! that cannot fetch.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use ring::hmac;

use crate::{
    manifest::{APP, APP_2, deployment, deployment_with, service, shell_with},
    scene::{containers, daemon_set, leader, start},
    support::{Cluster, ClusterHost, NODE_PORT, SOON, assert_all_answered},
    watch::{assert_no_pod_runs_twice, running},
};

/// Waits until a host publishes that `bad` failed and that `good` is healthy again, and checks the
/// reason and the host's history.
#[track_caller]
fn wait_failure_recorded(host: &ClusterHost, bad: &str, good: &str, reason: &str) {
    let status = host.wait_status("the bad commit is rolled back", |status| {
        status["target"]["id"] == good
            && status["phase"] == "Healthy"
            && status["bad"][bad].is_string()
    });
    let published = status["bad"][bad].as_str().unwrap();
    assert!(published.contains(reason), "{}: {published}", host.name);
    let history = host.windlass(&["history"]).ok();
    let line = history
        .lines()
        .find(|line| line.starts_with(&bad[..7]))
        .unwrap_or_default();
    assert!(line.contains("RolledBack"), "{}: {history}", host.name);
}

#[test]
fn a_bad_commit_is_rolled_back_on_every_host_and_stays_recorded() {
    let cluster = Cluster::builder(4).without_daemons().start();
    let (early, late) = cluster.hosts.split_at(3);
    early.iter().for_each(ClusterHost::launch);
    early.iter().for_each(ClusterHost::wait_answers);
    let good_web = format!("{}---\n{}", deployment("web", 3, APP), service("web"));
    let push = |web: &str, agent: &str| {
        cluster.push(&[
            ("web.yaml", web),
            ("agent.yaml", &daemon_set("agent", agent)),
        ])
    };
    let good = push(&good_web, APP);
    for host in early {
        host.wait_status("the first commit is healthy", |status| {
            status["healthy"]["id"] == good.as_str()
        });
    }
    let before = containers(&cluster, &[]);
    let calls: Vec<_> = early
        .iter()
        .map(|host| host.poll(&host.url(NODE_PORT, "/")))
        .collect();

    let missing = format!(
        "{{name: app, image: '{}/team/absent:1'}}",
        cluster.registry.address()
    );
    let crash = shell_with(
        "sleep 0.2; exit 7",
        "readinessProbe: {exec: {command: [\"false\"]}}",
    );
    let broken = [
        ("image missing", deployment("web", 3, &missing), "absent:1"),
        ("crash loop", deployment("web", 3, &crash), "exit code 7"),
    ];
    let mut last = String::new();
    for (what, manifest, reason) in broken {
        let began = Instant::now();
        let bad = push(&format!("{manifest}---\n{}", service("web")), APP);
        for host in early {
            wait_failure_recorded(host, &bad, &good, reason);
        }
        eprintln!(
            "a bad commit, {what}: rolled back everywhere after {:.1?}",
            began.elapsed()
        );
        cluster.wait_for(
            SOON,
            "exactly the containers of the good commit exist",
            || (containers(&cluster, &[]) == before).then_some(()),
        );
        last = bad;
    }
    calls
        .into_iter()
        .for_each(|call| assert_all_answered(&call.finish()));

    // The failure is published after a restart of all daemons, and by a host that joins now.
    early.iter().for_each(ClusterHost::terminate);
    early.iter().for_each(ClusterHost::launch);
    early.iter().for_each(ClusterHost::wait_answers);
    for host in early {
        wait_failure_recorded(host, &last, &good, "exit code 7");
    }
    late[0].start();
    wait_failure_recorded(&late[0], &last, &good, "exit code 7");
    let agents = cluster.eventually_running("agent", 4);
    assert_eq!(Cluster::nodes_of(&agents).len(), 4, "{agents:#?}");
    let mut after = containers(&cluster, &["n4"]);
    let n4 = late[0].containers();
    after.insert("n4".to_owned(), before["n4"].clone());
    assert_eq!(after, before, "a container was touched");
    let joined: BTreeSet<&str> = n4
        .iter()
        .map(|container| container.pod.split('-').next().unwrap_or_default())
        .collect();
    assert_eq!(joined, BTreeSet::from(["agent"]), "{n4:#?}");
}

#[test]
fn a_daemon_set_is_updated_host_by_host_and_node_objects_decide_where_pods_run() {
    let cluster = start(Cluster::builder(3));
    let slow = |version: u8| {
        format!(
            "{{name: app, image: 'windlass-test/app:{version}', readinessProbe: {{httpGet: {{path: /health, \
             port: 8080}}, initialDelaySeconds: 1, periodSeconds: 1}}}}"
        )
    };
    cluster.deploy(&[("agent.yaml", &daemon_set("agent", &slow(1)))]);
    let end = std::sync::atomic::AtomicBool::new(false);
    let least = thread::scope(|scope| {
        let sample = scope.spawn(|| {
            let mut least = usize::MAX;
            while !end.load(std::sync::atomic::Ordering::Relaxed) {
                let runs_agent = |host: &&ClusterHost| {
                    running(host)
                        .iter()
                        .any(|(pod, name)| pod.contains("/agent-") && name.ends_with("app"))
                };
                least = least.min(cluster.hosts.iter().filter(runs_agent).count());
                thread::sleep(Duration::from_millis(50));
            }
            least
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert_no_pod_runs_twice(&cluster, &[], || {
                cluster.deploy(&[("agent.yaml", &daemon_set("agent", &slow(2)))])
            });
        }));
        end.store(true, std::sync::atomic::Ordering::Relaxed);
        let least = sample.join().unwrap();
        done.map(|()| least)
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert_eq!(
        least, 2,
        "the smallest number of agents that ran at the same time"
    );
    node_objects(&cluster);
}

/// The manifest of a Node.
fn node(name: &str, labels: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: {{{spec}}}\n"
    )
}

/// The hosts with running containers of an owner, and their number on each.
fn places(cluster: &Cluster, name: &str) -> Vec<(String, usize)> {
    let counted = cluster
        .hosts
        .iter()
        .map(|host| (host.name.clone(), host.running(name).len()));
    counted.filter(|(_, count)| *count > 0).collect()
}

fn node_objects(cluster: &Cluster) {
    let web = |replicas: u32| deployment("web", replicas, APP);
    let place = |name: &str, expected: &[(&str, usize)]| {
        let expected: Vec<(String, usize)> = expected
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        let began = Instant::now();
        cluster.wait_for(SOON, &format!("{name} runs on {expected:?}"), || {
            (places(cluster, name) == expected).then_some(())
        });
        eprintln!("{name} runs on {expected:?}: {:.1?}", began.elapsed());
    };
    cluster.deploy(&[("web.yaml", &web(3))]);
    place("web", &[("n1", 1), ("n2", 1), ("n3", 1)]);
    let before = containers(cluster, &[]);

    // A cordoned node gets no new pods, and its running pods stay.
    let cordon = node("n3", "", "unschedulable: true");
    cluster.deploy(&[("web.yaml", &web(5)), ("node.yaml", &cordon)]);
    place("web", &[("n1", 2), ("n2", 2), ("n3", 1)]);
    for (host, containers) in &before {
        let after = cluster.host(host).containers();
        // Only web is compared: pods of the commit before may still have been stopping.
        let mut web = containers
            .iter()
            .filter(|container| container.pod.starts_with("web-"));
        assert!(
            web.all(|container| after.contains(container)),
            "{host}: a running pod was touched by the cordon"
        );
    }

    // The effect NoExecute moves running pods, and a nodeSelector selects by the labels in Git.
    let taint = node("n3", "", "taints: [{key: broken, effect: NoExecute}]");
    let labels = node("n2", "disk: fast", "");
    let selective = deployment_with("selective", 2, APP, "minReadySeconds: 0").replace(
        "    spec:\n",
        "    spec:\n      nodeSelector: {disk: fast}\n",
    );
    cluster.deploy(&[
        ("web.yaml", &web(4)),
        ("taint.yaml", &taint),
        ("n2.yaml", &labels),
        ("selective.yaml", &selective),
    ]);
    place("web", &[("n1", 2), ("n2", 2)]);
    place("selective", &[("n2", 2)]);
}

#[test]
fn a_webhook_to_one_host_makes_all_hosts_fetch() {
    const SECRET: &str = "it is no secret in a test";
    let cluster = Cluster::builder(3)
        .over_https()
        .config("[source]\npoll = '1h'\n")
        .without_daemons()
        .start();
    let hooked = cluster.host("n2");
    let secret = hooked.host.dir().join("webhook-secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    cluster.configure(
        hooked,
        &format!("[webhook]\nsecret-file = '{}'\n", secret.display()),
    );
    let web =
        |container: &str| format!("{}---\n{}", deployment("web", 3, container), service("web"));
    cluster.push(&[("web.yaml", &web(APP))]);
    cluster.start_daemons();
    cluster.eventually_running("web", 3);
    for host in &cluster.hosts {
        host.wait_status("the first commit is healthy", |status| {
            status["phase"] == "Healthy"
        });
    }
    eprintln!("{} leads, n2 has the webhook", leader(&cluster).unwrap());

    let commit = cluster.push(&[("web.yaml", &web(APP_2))]);
    let body = format!("{{\"ref\": \"refs/heads/main\", \"after\": \"{commit}\"}}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let mut signature = "X-Hub-Signature-256: sha256=".to_owned();
    for byte in hmac::sign(&key, body.as_bytes()).as_ref() {
        write!(signature, "{byte:02x}").unwrap();
    }
    let began = Instant::now();
    let response = hooked.host.exec(&[
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--max-time",
        "10",
        "-H",
        "X-GitHub-Event: push",
        "-H",
        &signature,
        "--data-binary",
        &body,
        "http://127.0.0.1:9464/webhook/github",
    ]);
    assert_eq!(response.stdout, "202", "{response:?}");
    for host in &cluster.hosts {
        host.wait_status("the new commit is fetched", |status| {
            status["head"]["id"] == commit.as_str()
        });
    }
    eprintln!(
        "one webhook: all hosts have fetched after {:.1?}",
        began.elapsed()
    );
    for host in &cluster.hosts {
        host.wait_status("the new commit is healthy", |status| {
            status["healthy"]["id"] == commit.as_str()
        });
    }
    eprintln!("one webhook: healthy after {:.1?}", began.elapsed());
}

/// The leader cannot fetch any more: it withdraws in favour of a host that has the commit, and the
/// rollout does without its node.
#[test]
fn a_leader_that_cannot_fetch_withdraws_and_does_not_block_a_rollout() {
    let cluster = Cluster::builder(3).over_https().without_daemons().start();
    let n1 = cluster.host("n1");
    let token = n1.host.dir().join("token");
    fs::write(&token, "the server needs no token\n").unwrap();
    cluster.configure(
        n1,
        &format!("[source]\ntoken-file = '{}'\n", token.display()),
    );
    n1.start();
    cluster.wait_for(SOON, "n1 leads", || {
        leader(&cluster).filter(|name| name == "n1")
    });
    cluster.start_daemons();
    cluster.deploy(&[
        ("web.yaml", &deployment("web", 3, APP)),
        ("agent.yaml", &daemon_set("agent", APP)),
    ]);
    let before = n1.running("agent");

    fs::remove_file(&token).unwrap();
    n1.wait_status("the fetch of n1 fails", |status| {
        status["source"]["error"].is_string()
    });
    let commit = cluster.push(&[
        ("web.yaml", &deployment("web", 3, APP_2)),
        ("agent.yaml", &daemon_set("agent", APP_2)),
    ]);
    let began = Instant::now();
    cluster.wait_for(SOON, "another host leads", || {
        leader(&cluster).filter(|name| name != "n1")
    });
    eprintln!(
        "a leader that cannot fetch has withdrawn after {:.1?}",
        began.elapsed()
    );
    let status = cluster
        .host("n2")
        .wait_status("the commit is healthy without n1", |status| {
            status["healthy"]["id"] == commit.as_str() && status["phase"] == "Healthy"
        });
    eprintln!("healthy without that host after {:.1?}", began.elapsed());
    let notes = status["notes"].to_string();
    assert!(
        notes.contains("n1") && notes.contains("has not got the commit"),
        "{notes}"
    );
    assert_eq!(
        n1.running("agent"),
        before,
        "the agent of n1 must keep running unchanged"
    );

    fs::write(&token, "the server needs no token\n").unwrap();
    for host in &cluster.hosts {
        host.wait_status(
            "the commit is healthy and all hosts have fetched it",
            |status| {
                status["healthy"]["id"] == commit.as_str()
                    && !status["notes"].to_string().contains("has not got")
            },
        );
    }
    cluster.wait_for(SOON, "n1 runs the agent of the commit", || {
        (n1.running("agent") != before).then_some(())
    });
}
