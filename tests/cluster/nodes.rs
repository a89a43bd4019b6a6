//! Nodes that are drained, removed from the cluster, at fault themselves, or canaries.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::{
    manifest::{APP, APP_2, deployment, deployment_with, service, shell_with},
    scene::{
        containers, daemon_set, deploy, everything, push, readiness, start, wait_all_running,
        wait_leader_other_than, wait_running,
    },
    support::{
        Cluster, ClusterHost, Container, NODE_PORT, SOON, assert_all_answered, is_ready, unwrapped,
    },
    watch::assert_no_pod_runs_twice,
};

/// How long a commit must soak on the canaries.
const CANARY_SOAK: Duration = Duration::from_secs(4);

#[test]
fn a_node_is_drained_and_a_node_is_removed_from_the_cluster() {
    let cluster = start(Cluster::builder(3));
    deploy(&cluster, &everything(APP, "n3"));
    wait_all_running(&cluster);
    drained_and_released(&cluster);
    // New pods of `web` may run on the node that was drained, and one of them does.
    deploy(&cluster, &everything(APP_2, "n3"));
    wait_all_running(&cluster);
    removed_and_joined_again(&cluster);
}

/// The number of running containers of an owner on each host.
fn places(cluster: &Cluster, name: &str) -> Vec<usize> {
    cluster
        .hosts
        .iter()
        .map(|host| host.running(name).len())
        .collect()
}

#[track_caller]
fn wait_places(cluster: &Cluster, name: &str, what: &str, good: impl Fn(&[usize]) -> bool) {
    cluster.wait_for(SOON, &format!("{name}: {what}"), || {
        good(&places(cluster, name)).then_some(())
    });
}

/// The smallest number of ready pods of an owner while `act` runs, and the result of `act`.
#[track_caller]
fn least_ready<T>(cluster: &Cluster, name: &str, act: impl FnOnce() -> T) -> (usize, T) {
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let sample = scope.spawn(|| {
            let mut least = usize::MAX;
            while !end.load(Ordering::Relaxed) {
                least = least.min(cluster.ready(name).len());
                thread::sleep(Duration::from_millis(50));
            }
            least
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        end.store(true, Ordering::Relaxed);
        let least = sample.join().unwrap();
        let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (least, done)
    })
}

fn drained_and_released(cluster: &Cluster) {
    let slim = |replicas: u32| {
        let strategy = "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}";
        deployment_with("slim", replicas, APP, strategy)
    };
    let with = |slim: &str, more: &[(&'static str, &str)]| {
        let mut files = everything(APP, "n3");
        files.push(("slim.yaml", slim.to_owned()));
        files.extend(more.iter().map(|(name, text)| (*name, (*text).to_owned())));
        files
    };
    deploy(cluster, &with(&slim(4), &[]));
    wait_running(cluster, "slim", 4, &[]);
    let drained = cluster.host("n3");
    let before = drained.containers();
    assert!(
        !drained.running("slim").is_empty() && !drained.running("web").is_empty(),
        "{before:#?}"
    );

    // Replicas start on other nodes before those on n3 stop; pods that cannot run elsewhere stay
    // and are reported.
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n3, annotations: {windlass.dev/drain: 'true'}}\n";
    assert_no_pod_runs_twice(cluster, &[], || {
        let calls: Vec<_> = cluster
            .hosts
            .iter()
            .map(|host| host.poll(&host.url(NODE_PORT, "/")))
            .collect();
        let began = Instant::now();
        let (least, ()) = least_ready(cluster, "slim", || {
            deploy(cluster, &with(&slim(4), &[("node.yaml", node)]));
            for (name, count) in [("web", 3), ("slim", 4)] {
                wait_places(cluster, name, "no pod runs on n3", |at| {
                    at[2] == 0 && at.iter().sum::<usize>() == count
                });
            }
        });
        eprintln!(
            "a node is drained after {:.1?}; at least {least} of 4 pods were ready",
            began.elapsed()
        );
        assert!(
            (3..=4).contains(&least),
            "maxUnavailable is 1, but only {least} of 4 pods were ready"
        );
        for call in calls {
            assert_all_answered(&call.finish());
        }
    });
    let stayed: BTreeSet<Container> = before
        .into_iter()
        .filter(|container| !container.pod.starts_with("web") && !container.pod.starts_with("slim"))
        .collect();
    let only_these = || (drained.containers() == stayed).then_some(());
    cluster.wait_for(
        SOON,
        "exactly the unchanged containers of agent, bare and data are on n3",
        only_these,
    );
    let expected_notes = [
        "Pod/default/bare stays on n3, which is drained: nothing makes a bare Pod anew elsewhere",
        "Deployment/default/data stays on n3, which is drained: it writes to the host's disk",
    ];
    let reports = |host: &ClusterHost| {
        let status = unwrapped(&host.windlass(&["status"]).ok());
        expected_notes.map(|note| status.contains(note))
    };
    assert_eq!(
        reports(cluster.host("n1")),
        [true, true],
        "the leader reports the pods that stay"
    );
    // After a change of leader only the new leader reports them.
    let candidates = cluster
        .etcd
        .keys(&format!("{}/election/", cluster.etcd.prefix()));
    let leader_key = candidates
        .iter()
        .find(|key| cluster.etcd.get(key).is_some_and(|name| name == "n1"))
        .unwrap();
    cluster.etcd.delete(leader_key);
    let next = wait_leader_other_than(cluster, "n1");
    for (host, expected) in [(next.as_str(), true), ("n1", false)] {
        cluster.wait_for(
            SOON,
            &format!("{host} reports the pods that stay: {expected}"),
            || (reports(cluster.host(host)) == [expected; 2]).then_some(()),
        );
    }

    // When the drain ends, pods that have moved do not move back, and new pods may run on n3.
    let elsewhere = containers(cluster, &[]);
    deploy(cluster, &with(&slim(4), &[]));
    assert_eq!(
        containers(cluster, &[]),
        elsewhere,
        "a pod was moved back to n3"
    );
    deploy(cluster, &with(&slim(6), &[]));
    wait_places(cluster, "slim", "the two new pods run on n3", |at| {
        at == [2, 2, 2]
    });
}

/// What a host's kernel has about another host and the subnet of its pods: routes, neighbours,
/// forwarding entries and rules of NAT.
fn kernel_entries(host: &ClusterHost, other: &ClusterHost, subnet: &str) -> Vec<String> {
    let mut entries = Vec::new();
    for command in [
        &["ip", "route", "show", "proto", "87"][..],
        &["ip", "neighbour", "show", "dev", "windlass1"],
        &["bridge", "fdb", "show", "dev", "windlass1"],
        &["nft", "list", "table", "ip", "windlass"],
    ] {
        let output = host.host.exec(command).ok();
        let address = other.host.address.to_string();
        let names_other = |line: &&str| {
            line.split(|c: char| c.is_whitespace() || c == ',')
                .any(|word| word.starts_with(subnet) || word == address)
        };
        entries.extend(
            output
                .lines()
                .filter(names_other)
                .map(|line| format!("{}: {}", command[0], line.trim())),
        );
    }
    entries
}

/// The nodes that a host lists.
fn nodes(host: &ClusterHost) -> Vec<String> {
    let listed = host.windlass(&["get", "nodes", "-o", "json"]).json();
    let names = listed["items"].as_array().unwrap().iter();
    names
        .map(|node| {
            node["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

fn removed_and_joined_again(cluster: &Cluster) {
    let lost = cluster.host("n3");
    let others = ["n1", "n2"].map(|name| cluster.host(name));
    let pods = cluster.pods();
    let own = pods
        .iter()
        .find(|pod| pod["spec"]["nodeName"] == "n3")
        .expect("a pod on n3");
    let address = own["status"]["podIP"].as_str().unwrap();
    let subnet = &address[..=address.rfind('.').unwrap()];
    for host in others {
        let entries = kernel_entries(host, lost, subnet);
        for command in ["ip: ", "bridge: ", "nft: "] {
            assert!(
                entries.iter().any(|line| line.starts_with(command)),
                "no entry for n3: {command}: {entries:#?}"
            );
        }
    }
    for name in ["web", "agent", "data", "bare"] {
        assert!(
            !lost.running(name).is_empty(),
            "{name} does not run on n3: {:#?}",
            lost.containers()
        );
    }

    // A node whose daemon runs is not removed.
    let outcome = others[1].windlass(&["node", "rm", "n3"]);
    assert!(
        !outcome.success()
            && outcome
                .stderr
                .contains("node n3 lives: stop its daemon first"),
        "{outcome:?}"
    );

    cluster.network.cut(lost);
    wait_running(cluster, "web", 3, &["n3"]);
    for host in others {
        for name in ["bare", "data"] {
            assert_eq!(
                host.running(name).len(),
                0,
                "{name} was moved before its node was removed"
            );
        }
    }
    let began = Instant::now();
    let printed = others[1].windlass(&["node", "rm", "n3"]).ok();
    assert!(
        printed.contains("node n3 is not of the cluster any more"),
        "{printed}"
    );
    for (name, count) in [("bare", 1), ("data", 1), ("web", 3), ("agent", 2)] {
        wait_running(cluster, name, count, &["n3"]);
    }
    eprintln!(
        "a node removed: all its pods run elsewhere after {:.1?}",
        began.elapsed()
    );
    for host in others {
        assert_eq!(nodes(host), ["n1", "n2"], "{}", host.name);
        cluster.wait_for(
            SOON,
            &format!("the kernel of {} has no entry for n3", host.name),
            || {
                let entries = kernel_entries(host, lost, subnet);
                entries.is_empty().then_some(())
            },
        );
    }
    let before = containers(cluster, &["n3"]);

    // The removed host observes its removal, and stops its pods, which run elsewhere by now.
    let began = Instant::now();
    cluster.network.heal(lost);
    lost.wait_status("n3 reports that it was removed", |status| {
        let troubles = status["troubles"].as_array();
        troubles.is_some_and(|troubles| {
            troubles.iter().any(|trouble| {
                trouble.as_str().is_some_and(|text| {
                    text.contains("this host was taken out of the cluster by `windlass node rm`")
                })
            })
        })
    });
    cluster.wait_for(SOON, "no container is left on n3", || {
        lost.containers().is_empty().then_some(())
    });
    eprintln!(
        "a removed node: no container is left on it after {:.1?}",
        began.elapsed()
    );

    // A restart does not make the host a member again; `uninstall` and a start do.
    assert_no_pod_runs_twice(cluster, &[], || {
        lost.kill();
        lost.start();
        lost.wait_status("n3 reports again that it was removed", |status| {
            status["troubles"]
                .to_string()
                .contains("taken out of the cluster")
        });
        for host in others {
            assert_eq!(nodes(host), ["n1", "n2"], "{}", host.name);
        }
        lost.terminate();
        assert_eq!(
            containers(cluster, &["n3"]),
            before,
            "a container on another host was touched"
        );
        assert_eq!(lost.containers(), BTreeSet::new());
        let config = lost.host.dir().join("windlass.toml").display().to_string();
        lost.windlass(&["uninstall", "--yes", "--config", &config])
            .ok();
        let alive = format!("{}/nodes/n3/alive", cluster.etcd.prefix());
        let free = || cluster.etcd.get(&alive).is_none().then_some(());
        cluster.wait_for(SOON, "the name n3 is free", free);
        let began = Instant::now();
        lost.start();
        wait_all_running(cluster);
        eprintln!(
            "a removed node that was uninstalled is a member again after {:.1?}",
            began.elapsed()
        );
    });
    for host in others {
        assert_eq!(nodes(host), ["n1", "n2", "n3"], "{}", host.name);
        assert_eq!(readiness(host, "n3"), "Ready");
        let has_entries = || (!kernel_entries(host, lost, subnet).is_empty()).then_some(());
        cluster.wait_for(
            SOON,
            &format!("{} routes to n3's pods again", host.name),
            has_entries,
        );
    }
    let after = containers(cluster, &["n3"]);
    for (host, containers) in &before {
        assert!(
            containers.is_subset(&after[host]),
            "{host}: a container was touched"
        );
    }
    removed_while_its_daemon_was_stopped(cluster);
}

/// A host that was rebooted has not observed the decision that removed it. When its daemon starts,
/// the record on its own disk still names its pods.
fn removed_while_its_daemon_was_stopped(cluster: &Cluster) {
    let lost = cluster.host("n3");
    let mut files = everything(APP_2, "n3");
    let late = files
        .iter()
        .find(|(name, _)| *name == "bare.yaml")
        .unwrap()
        .1
        .replace("bare", "late");
    files.push(("late.yaml", late));
    deploy(cluster, &files);
    cluster.wait_for(SOON, "late runs on n3", || {
        (lost.running("late").len() == 1).then_some(())
    });
    assert_no_pod_runs_twice(cluster, &["n3"], || lost.reboot());
    assert_no_pod_runs_twice(cluster, &[], || {
        let reader = cluster.host("n1");
        cluster.wait_for(SOON, "n3 is not ready", || {
            readiness(reader, "n3").contains("NotReady").then_some(())
        });
        reader.windlass(&["node", "rm", "n3"]).ok();
        wait_running(cluster, "late", 1, &["n3"]);
        lost.start();
        cluster.wait_for(SOON, "n3 removes its containers", || {
            lost.containers().is_empty().then_some(())
        });
        wait_running(cluster, "late", 1, &["n3"]);
    });
    assert_eq!(nodes(cluster.host("n2")), ["n1", "n2"]);
}

#[test]
fn a_node_s_fault_does_not_fail_a_commit_and_a_canary_s_failure_does() {
    let cluster = Cluster::builder(3).start();
    a_node_s_fault_does_not_fail_the_commit(&cluster);
    for host in &cluster.hosts {
        host.terminate();
        let seconds = CANARY_SOAK.as_secs();
        cluster.configure(
            host,
            &format!("[rollout]\ncanary-nodes = ['n2']\ncanary-soak = '{seconds}s'\n"),
        );
    }
    cluster.start_daemons();
    canaries_run_a_commit_first(&cluster);
}

/// The files of `web` with its Service, and of the DaemonSet `agent`.
fn both(web: &str, agent: &str) -> Vec<(&'static str, String)> {
    vec![
        ("web.yaml", format!("{web}---\n{}", service("web"))),
        ("agent.yaml", daemon_set("agent", agent)),
    ]
}

/// Waits until every host publishes that `bad` failed for a reason that contains `reason`, and that
/// `good` is the target and healthy.
#[track_caller]
fn wait_rolled_back(cluster: &Cluster, bad: &str, good: &str, reason: &str) {
    for host in &cluster.hosts {
        host.wait_status(
            &format!("{bad} is rolled back to {good}: {reason}"),
            |status| {
                let published = status["bad"][bad].as_str();
                status["target"]["id"] == good
                    && status["phase"] == "Healthy"
                    && published.is_some_and(|published| published.contains(reason))
            },
        );
    }
}

/// Waits until `windlass status` on every host names a node that is at fault itself, with a reason
/// that contains `reason`.
#[track_caller]
fn wait_at_fault(cluster: &Cluster, node: &str, reason: &str) {
    // All hosts are read at the same time: the fault is published only as long as the node has a
    // pod that fails.
    thread::scope(|scope| {
        for host in &cluster.hosts {
            scope.spawn(move || {
                let what = format!("{} reports that {node} is at fault: {reason}", host.name);
                cluster.wait_for(SOON, &what, || {
                    let status = unwrapped(&host.windlass(&["status"]).stdout);
                    let start = format!("note node {node} is at fault itself: ");
                    status
                        .split(" note ")
                        .map(|note| format!("note {note}"))
                        .any(|note| note.contains(&start) && note.contains(&unwrapped(reason)))
                        .then_some(())
                });
            });
        }
    });
}

fn a_node_s_fault_does_not_fail_the_commit(cluster: &Cluster) {
    let healthy = |commit: &str| {
        let began = Instant::now();
        for host in &cluster.hosts {
            host.wait_status(
                "the commit is healthy although one node cannot run it",
                |status| {
                    status["healthy"]["id"] == commit
                        && status["phase"] == "Healthy"
                        && status["bad"][commit].is_null()
                },
            );
        }
        eprintln!("a node at fault: healthy after {:.1?}", began.elapsed());
    };
    let first = deploy(cluster, &both(&deployment("web", 3, APP), APP));
    let calls: Vec<_> = cluster
        .hosts
        .iter()
        .map(|host| host.poll(&host.url(NODE_PORT, "/")))
        .collect();

    // First fault: the engine of n3 does not have an image.
    for host in &cluster.hosts[..2] {
        host.host
            .docker(&["tag", "windlass-test/app:2", "windlass-test/kept:1"]);
    }
    let never = |image: &str| {
        APP_2.replace(
            "'windlass-test/app:2'",
            &format!("'windlass-test/{image}', imagePullPolicy: Never"),
        )
    };
    let commit = push(cluster, &both(&deployment("web", 3, &never("kept:1")), APP));
    healthy(&commit);
    wait_at_fault(
        cluster,
        "n3",
        "windlass-test/kept:1: it is not on this host, and imagePullPolicy is Never",
    );
    wait_places(cluster, "web", "all pods run where the image is", |at| {
        at[2] == 0 && at[0] + at[1] == 3
    });
    let before = containers(cluster, &[]);
    let bad = push(
        cluster,
        &both(&deployment("web", 3, &never("absent:1")), APP),
    );
    wait_rolled_back(
        cluster,
        &bad,
        &commit,
        "windlass-test/absent:1: it is not on this host",
    );
    assert_eq!(
        containers(cluster, &[]),
        before,
        "a commit whose image no host has has touched a container"
    );

    // Second fault: the disk of n3 does not have a directory, which only a started pod shows.
    for host in &cluster.hosts[..2] {
        std::fs::create_dir(host.host.path("/var/lib/needed")).unwrap();
    }
    let reads = |path: &str, manifest: &str| {
        let volume =
            format!("volumes: [{{name: disk, hostPath: {{path: {path}, type: Directory}}}}]");
        let mount =
            "periodSeconds: 1}, volumeMounts: [{name: disk, mountPath: /needed, readOnly: true}]}";
        manifest
            .replace("    spec:\n", &format!("    spec:\n      {volume}\n"))
            .replace("periodSeconds: 1}}", mount)
    };
    // All new pods start at once: if the only new pod failed, no other pod would show that the
    // fault is its node's.
    let all_at_once = "strategy: {rollingUpdate: {maxSurge: 3, maxUnavailable: 0}}";
    let reading = |path: &str| {
        both(
            &reads(path, &deployment_with("web", 3, APP, all_at_once)),
            APP,
        )
    };
    let commit = push(cluster, &reading("/var/lib/needed"));
    wait_at_fault(
        cluster,
        "n3",
        "hostPath /var/lib/needed (Directory) does not exist on this host",
    );
    healthy(&commit);
    wait_places(
        cluster,
        "web",
        "all pods run where the directory is",
        |at| at[2] == 0 && at[0] + at[1] == 3,
    );
    wait_running(cluster, "web", 3, &[]);
    let bad = push(cluster, &reading("/var/lib/nowhere"));
    wait_rolled_back(cluster, &bad, &commit, "/var/lib/nowhere");
    wait_running(cluster, "web", 3, &[]);
    for call in calls {
        assert_all_answered(&call.finish());
    }
    let history = cluster.host("n1").windlass(&["history"]).ok();
    let line = history
        .lines()
        .find(|line| line.starts_with(&first[..7]))
        .unwrap_or_default();
    assert!(line.contains("Healthy"), "{history}");
}

fn canaries_run_a_commit_first(cluster: &Cluster) {
    let web = |container: &str| both(&deployment("web", 3, container), container);
    deploy(cluster, &web(APP));
    wait_running(cluster, "web", 3, &[]);
    // A good commit runs on the canary, and soaks there, before another node is touched.
    let before = containers(cluster, &["n2"]);
    let commit = push(cluster, &web(APP_2));
    let reader = cluster.host("n1");
    reader.wait_status("the commit soaks on the canary", |status| {
        status["message"].as_str().is_some_and(|message| {
            message.contains("canaries n2: all is well, the others follow if it stays so")
        })
    });
    let settled = Instant::now();
    assert_eq!(
        containers(cluster, &["n2"]),
        before,
        "another node was touched before the commit soaked on the canary"
    );
    let mut moved: Vec<_> = cluster
        .ready("web")
        .into_iter()
        .chain(cluster.ready("agent"))
        .collect();
    moved.retain(|pod| pod["spec"]["containers"][0]["image"] == "windlass-test/app:2");
    assert_eq!(
        (moved.len(), Cluster::nodes_of(&moved)),
        (2, BTreeSet::from(["n2".to_owned()])),
        "{moved:#?}"
    );
    // The canary may still run other old pods, which are replaced with those of all other nodes.
    let mut canary = cluster.host("n2").containers();
    canary.retain(|container| {
        moved
            .iter()
            .any(|pod| pod["metadata"]["name"] == container.pod.as_str())
    });
    assert_eq!(canary.len(), 4, "two pods, each with its sandbox");
    cluster.wait_for(SOON, "another node runs the commit", || {
        (containers(cluster, &["n2"]) != before).then_some(())
    });
    let soaked = settled.elapsed();
    eprintln!("the commit soaked on the canary for {soaked:.1?}");
    assert!(
        soaked + Duration::from_secs(1) >= CANARY_SOAK,
        "the commit soaked on the canary for only {soaked:?}"
    );
    for host in &cluster.hosts {
        host.wait_status("the commit is healthy", |status| {
            status["healthy"]["id"] == commit.as_str()
        });
    }
    wait_running(cluster, "web", 3, &[]);
    let kept = cluster.host("n2").containers();
    assert!(
        canary.is_subset(&kept),
        "a new container on the canary was replaced: {canary:#?} {kept:#?}"
    );

    // Two bad commits: one whose image does not exist, and one that is ready on the canary for a
    // while and then crashes.
    let before = containers(cluster, &[]);
    let missing = format!(
        "{{name: app, image: '{}/team/absent:1'}}",
        cluster.registry.address()
    );
    let bad = push(cluster, &web(&missing));
    wait_rolled_back(cluster, &bad, &commit, "absent:1");
    assert_eq!(containers(cluster, &[]), before, "a container was touched");

    let began = Instant::now();
    let crash = shell_with(
        "touch /well; sleep 2; exit 7",
        "readinessProbe: {exec: {command: [test, -f, /well]}, periodSeconds: 1}",
    );
    let bad = push(cluster, &web(&crash));
    let bad_pods = || {
        let mut pods = cluster.pods();
        pods.retain(|pod| pod["spec"]["containers"][0]["image"] == "busybox");
        pods
    };
    let mut observed_nodes = BTreeSet::new();
    cluster.wait_for(SOON, "the bad commit has a ready pod", || {
        let pods = bad_pods();
        observed_nodes.extend(Cluster::nodes_of(&pods));
        pods.iter().any(is_ready).then_some(())
    });
    cluster.wait_for(SOON, "the bad commit has failed", || {
        observed_nodes.extend(Cluster::nodes_of(&bad_pods()));
        (!cluster.host("n1").status()["bad"][&bad].is_null()).then_some(())
    });
    wait_rolled_back(cluster, &bad, &commit, "exit code 7");
    eprintln!(
        "a commit that crashes on the canary: rolled back after {:.1?}",
        began.elapsed()
    );
    assert_eq!(
        observed_nodes,
        BTreeSet::from(["n2".to_owned()]),
        "the nodes that ran the bad commit"
    );
    // A pod that was stopped on the canary may be replaced on another host, so these may have more
    // containers than before.
    let after = containers(cluster, &["n2"]);
    for host in ["n1", "n3"] {
        let (old, new) = (&before[host], &after[host]);
        assert!(
            old.is_subset(new),
            "{host}: a container was touched: {old:#?} {new:#?}"
        );
    }
    wait_running(cluster, "web", 3, &[]);
    wait_running(cluster, "agent", 3, &[]);
}
