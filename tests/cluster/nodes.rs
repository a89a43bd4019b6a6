//! Nodes that are drained, given up for good, at fault themselves, or the first that a commit comes
//! to.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    manifest::{APP, APP_2, deployment, deployment_with, service, shell_with},
    scene::{
        containers, daemon_set, deploy, everything, push, readiness, start, wait_leader_other_than,
        wait_running, wait_whole,
    },
    support::{Cluster, ClusterHost, Container, NODE_PORT, SOON, assert_all_answered},
    watch::never_doubled,
};

/// How long all must be well on the canaries.
const CANARY_SOAK: Duration = Duration::from_secs(4);

#[test]
fn a_node_is_drained_and_given_up_for_good() {
    let cluster = start(Cluster::builder(3));
    deploy(&cluster, &everything(APP, "n3"));
    wait_whole(&cluster);
    drained_and_taken_back(&cluster);
    // New pods of `web`, so that one is on the host that was drained.
    deploy(&cluster, &everything(APP_2, "n3"));
    wait_whole(&cluster);
    given_up_and_back(&cluster);
}

/// Runs of an owner's pods on each host.
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

/// The least number of ready pods of an owner, by the leader, while something happens.
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

fn drained_and_taken_back(cluster: &Cluster) {
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

    // Pods leave, others first, and what nobody can move is named and stays.
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n3, annotations: {windlass.dev/drain: 'true'}}\n";
    never_doubled(cluster, &[], || {
        let calls: Vec<_> = cluster
            .hosts
            .iter()
            .map(|host| host.poll(&host.url(NODE_PORT, "/")))
            .collect();
        let began = Instant::now();
        let (least, ()) = least_ready(cluster, "slim", || {
            deploy(cluster, &with(&slim(4), &[("node.yaml", node)]));
            for (name, count) in [("web", 3), ("slim", 4)] {
                wait_places(cluster, name, "all have left n3", |at| {
                    at[2] == 0 && at.iter().sum::<usize>() == count
                });
            }
        });
        eprintln!(
            "a node is drained after {:.1?}; of 4 pods at least {least} were ready",
            began.elapsed()
        );
        assert!(
            (3..=4).contains(&least),
            "maxUnavailable is 1, and {least} of 4 were ready"
        );
        for call in calls {
            assert_all_answered(&call.finish());
        }
    });
    let stayed: BTreeSet<Container> = before
        .into_iter()
        .filter(|one| !one.pod.starts_with("web") && !one.pod.starts_with("slim"))
        .collect();
    let left = || (drained.containers() == stayed).then_some(());
    cluster.wait_for(
        SOON,
        "agent, bare and data stay on n3 as they were, and nothing else",
        left,
    );
    let named = [
        "Pod/default/bare stays on n3, which is drained: nothing makes a bare Pod anew elsewhere",
        "Deployment/default/data stays on n3, which is drained: it writes to the host's disk",
    ];
    let says = |host: &ClusterHost| {
        let said = host.windlass(&["status"]).ok();
        named.map(|words| said.contains(words))
    };
    assert_eq!(
        says(cluster.host("n1")),
        [true, true],
        "the leader says what stays"
    );
    // Whoever leads says so, and whoever does not lead any more says nothing of it.
    let office = cluster
        .etcd
        .keys(&format!("{}/election/", cluster.etcd.prefix()));
    let held = office
        .iter()
        .find(|key| cluster.etcd.get(key).is_some_and(|name| name == "n1"))
        .unwrap();
    cluster.etcd.delete(held);
    let next = wait_leader_other_than(cluster, "n1");
    for (host, expected) in [(next.as_str(), true), ("n1", false)] {
        cluster.wait_for(SOON, &format!("{host} says what stays: {expected}"), || {
            (says(cluster.host(host)) == [expected; 2]).then_some(())
        });
    }

    // What was taken off stays off; what is new may come again.
    let elsewhere = containers(cluster, &[]);
    deploy(cluster, &with(&slim(4), &[]));
    assert_eq!(
        containers(cluster, &[]),
        elsewhere,
        "a pod that is placed never moves by itself"
    );
    deploy(cluster, &with(&slim(6), &[]));
    wait_places(cluster, "slim", "new pods come to n3 again", |at| {
        at == [2, 2, 2]
    });
}

/// What a host's kernel has of another's: routes, forwarding entries, neighbours and rules of NAT.
fn traces(host: &ClusterHost, other: &ClusterHost, subnet: &str) -> Vec<String> {
    let mut found = Vec::new();
    for command in [
        &["ip", "route", "show", "proto", "87"][..],
        &["ip", "neighbour", "show", "dev", "windlass1"],
        &["bridge", "fdb", "show", "dev", "windlass1"],
        &["nft", "list", "table", "ip", "windlass"],
    ] {
        let said = host.host.exec(command).ok();
        let address = other.host.address.to_string();
        let named = |line: &&str| {
            line.split(|c: char| c.is_whitespace() || c == ',')
                .any(|word| word.starts_with(subnet) || word == address)
        };
        found.extend(
            said.lines()
                .filter(named)
                .map(|line| format!("{}: {}", command[0], line.trim())),
        );
    }
    found
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

fn given_up_and_back(cluster: &Cluster) {
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
        let found = traces(host, lost, subnet);
        for what in ["ip: ", "bridge: ", "nft: "] {
            assert!(
                found.iter().any(|line| line.starts_with(what)),
                "{what}: {found:#?}"
            );
        }
    }
    for name in ["web", "agent", "data", "bare"] {
        assert!(
            !lost.running(name).is_empty(),
            "{name} runs on n3: {:#?}",
            lost.containers()
        );
    }

    // Nobody gives up by mistake what lives.
    let said = others[1].windlass(&["node", "rm", "n3"]);
    assert!(
        !said.success() && said.stderr.contains("node n3 lives: stop its daemon first"),
        "{said:?}"
    );

    cluster.network.cut(lost);
    wait_running(cluster, "web", 3, &["n3"]);
    for host in others {
        for name in ["bare", "data"] {
            assert_eq!(host.running(name).len(), 0, "{name} has left its node");
        }
    }
    let began = Instant::now();
    let said = others[1].windlass(&["node", "rm", "n3"]).ok();
    assert!(
        said.contains("node n3 is not of the cluster any more"),
        "{said}"
    );
    for (name, count) in [("bare", 1), ("data", 1), ("web", 3), ("agent", 2)] {
        wait_running(cluster, name, count, &["n3"]);
    }
    eprintln!(
        "a node given up: all its pods run elsewhere after {:.1?}",
        began.elapsed()
    );
    for host in others {
        assert_eq!(nodes(host), ["n1", "n2"], "{}", host.name);
        cluster.wait_for(
            SOON,
            &format!("nothing of n3 is left on {}", host.name),
            || {
                let found = traces(host, lost, subnet);
                found.is_empty().then_some(())
            },
        );
    }
    let before = containers(cluster, &["n3"]);

    // It is told, and gives up what runs elsewhere by now.
    let began = Instant::now();
    cluster.network.heal(lost);
    lost.wait_status("it is told that it was taken out", |status| {
        let all = status["troubles"].as_array();
        all.is_some_and(|all| {
            all.iter().any(|one| {
                one.as_str().is_some_and(|one| {
                    one.contains("this host was taken out of the cluster by `windlass node rm`")
                })
            })
        })
    });
    cluster.wait_for(SOON, "it gives up all that it ran", || {
        lost.containers().is_empty().then_some(())
    });
    eprintln!("it is back and runs nothing after {:.1?}", began.elapsed());

    // Nor does it begin again after a start, until it is set up anew.
    never_doubled(cluster, &[], || {
        lost.kill();
        lost.start();
        lost.wait_status("it knows that it was taken out", |status| {
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
            "what runs elsewhere was touched"
        );
        assert_eq!(lost.containers(), BTreeSet::new());
        let config = lost.host.dir().join("windlass.toml").display().to_string();
        lost.windlass(&["uninstall", "--yes", "--config", &config])
            .ok();
        let alive = format!("{}/nodes/n3/alive", cluster.etcd.prefix());
        let free = || cluster.etcd.get(&alive).is_none().then_some(());
        cluster.wait_for(SOON, "its name is free", free);
        let began = Instant::now();
        lost.start();
        wait_whole(cluster);
        eprintln!(
            "set up anew it is a member again after {:.1?}",
            began.elapsed()
        );
    });
    for host in others {
        assert_eq!(nodes(host), ["n1", "n2", "n3"], "{}", host.name);
        assert_eq!(readiness(host, "n3"), "Ready");
        let back = || (!traces(host, lost, subnet).is_empty()).then_some(());
        cluster.wait_for(
            SOON,
            &format!("{} leads to n3's pods again", host.name),
            back,
        );
    }
    let after = containers(cluster, &["n3"]);
    for (host, had) in &before {
        assert!(had.is_subset(&after[host]), "{host}: what ran was touched");
    }
    given_up_while_it_was_off(cluster);
}

/// A host that went without a word, and does not know what was decided since: all it has is what it
/// remembers.
fn given_up_while_it_was_off(cluster: &Cluster) {
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
    never_doubled(cluster, &["n3"], || lost.reboot());
    never_doubled(cluster, &[], || {
        let asked = cluster.host("n1");
        cluster.wait_for(SOON, "n3 is not ready", || {
            readiness(asked, "n3").contains("NotReady").then_some(())
        });
        asked.windlass(&["node", "rm", "n3"]).ok();
        wait_running(cluster, "late", 1, &["n3"]);
        lost.start();
        cluster.wait_for(SOON, "it clears away what it ran", || {
            lost.containers().is_empty().then_some(())
        });
        wait_running(cluster, "late", 1, &["n3"]);
    });
    assert_eq!(nodes(cluster.host("n2")), ["n1", "n2"]);
}

#[test]
fn a_node_s_fault_is_not_the_commit_s_and_a_canary_s_fault_is_its_own() {
    let cluster = Cluster::builder(3).start();
    one_node_cannot(&cluster);
    for host in &cluster.hosts {
        host.terminate();
        let seconds = CANARY_SOAK.as_secs();
        cluster.configure(
            host,
            &format!("[rollout]\ncanary-nodes = ['n2']\ncanary-soak = '{seconds}s'\n"),
        );
    }
    cluster.start_daemons();
    canaries_first(&cluster);
}

/// `web` of three replicas with its Service, and `agent`.
fn both(web: &str, agent: &str) -> Vec<(&'static str, String)> {
    vec![
        ("web.yaml", format!("{web}---\n{}", service("web"))),
        ("agent.yaml", daemon_set("agent", agent)),
    ]
}

/// Every host says that this commit failed, with these words, and is back at the other.
#[track_caller]
fn wait_rolled_back(cluster: &Cluster, bad: &str, good: &str, words: &str) {
    for host in &cluster.hosts {
        host.wait_status(&format!("{bad} was left for {good}: {words}"), |status| {
            let told = status["bad"][bad].as_str();
            status["target"]["id"] == good
                && status["phase"] == "Healthy"
                && told.is_some_and(|told| told.contains(words))
        });
    }
}

/// Every host names a node that is at fault itself, with these words, for people to read.
#[track_caller]
fn wait_at_fault(cluster: &Cluster, node: &str, words: &str) {
    // All hosts at the same time: it is not said any more once the node has nothing to fail at.
    thread::scope(|scope| {
        for host in &cluster.hosts {
            scope.spawn(move || {
                let what = format!("{} says that {node} is at fault: {words}", host.name);
                cluster.wait_for(SOON, &what, || {
                    let said = host.windlass(&["status"]).stdout;
                    let start = format!("node {node} is at fault itself: ");
                    said.lines()
                        .any(|line| line.contains(&start) && line.contains(words))
                        .then_some(())
                });
            });
        }
    });
}

fn one_node_cannot(cluster: &Cluster) {
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
        eprintln!("one node cannot: healthy after {:.1?}", began.elapsed());
    };
    let first = deploy(cluster, &both(&deployment("web", 3, APP), APP));
    let calls: Vec<_> = cluster
        .hosts
        .iter()
        .map(|host| host.poll(&host.url(NODE_PORT, "/")))
        .collect();

    // An image that one engine does not have.
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
    wait_places(cluster, "web", "all are where the image is", |at| {
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
        "a commit whose image nobody has touches nothing"
    );

    // A directory that one disk does not have: found only by running there.
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
    // All at once: where the first new pod of all fails, nothing shows yet that it is its node's
    // fault.
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
    wait_places(cluster, "web", "all are where the directory is", |at| {
        at[2] == 0 && at[0] + at[1] == 3
    });
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

fn canaries_first(cluster: &Cluster) {
    let web = |container: &str| both(&deployment("web", 3, container), container);
    deploy(cluster, &web(APP));
    wait_running(cluster, "web", 3, &[]);
    // A good commit: all of it runs on the canary before anything else is touched, and long enough.
    let before = containers(cluster, &["n2"]);
    let commit = push(cluster, &web(APP_2));
    let reader = cluster.host("n1");
    reader.wait_status("all is well on the canary", |status| {
        status["message"].as_str().is_some_and(|said| {
            said.contains("canaries n2: all is well, the others follow if it stays so")
        })
    });
    let settled = Instant::now();
    assert_eq!(
        containers(cluster, &["n2"]),
        before,
        "others were touched before the canary was well"
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
    // Others of the canary's old pods may still be there, to go with all the rest.
    let mut canary = cluster.host("n2").containers();
    canary.retain(|one| {
        moved
            .iter()
            .any(|pod| pod["metadata"]["name"] == one.pod.as_str())
    });
    assert_eq!(canary.len(), 4, "two pods, each with its sandbox");
    cluster.wait_for(SOON, "the others follow", || {
        (containers(cluster, &["n2"]) != before).then_some(())
    });
    let held = settled.elapsed();
    eprintln!("the canary alone: {held:.1?}");
    assert!(
        held + Duration::from_secs(1) >= CANARY_SOAK,
        "the others followed after {held:?}"
    );
    for host in &cluster.hosts {
        host.wait_status("it is healthy", |status| {
            status["healthy"]["id"] == commit.as_str()
        });
    }
    wait_running(cluster, "web", 3, &[]);
    let kept = cluster.host("n2").containers();
    assert!(
        canary.is_subset(&kept),
        "the canary was touched twice: {canary:#?} {kept:#?}"
    );

    // Bad ones: an image that nobody has, and one that is well for a while and then is not.
    let before = containers(cluster, &[]);
    let missing = format!(
        "{{name: app, image: '{}/team/absent:1'}}",
        cluster.registry.address()
    );
    let bad = push(cluster, &web(&missing));
    wait_rolled_back(cluster, &bad, &commit, "absent:1");
    assert_eq!(containers(cluster, &[]), before, "something was touched");

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
    let well = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.is_some_and(|all| {
            all.iter()
                .any(|one| one["type"] == "Ready" && one["status"] == "True")
        })
    };
    let mut seen = BTreeSet::new();
    cluster.wait_for(SOON, "it is well on the canary", || {
        let pods = bad_pods();
        seen.extend(Cluster::nodes_of(&pods));
        pods.iter().any(well).then_some(())
    });
    cluster.wait_for(SOON, "it is left", || {
        seen.extend(Cluster::nodes_of(&bad_pods()));
        (!cluster.host("n1").status()["bad"][&bad].is_null()).then_some(())
    });
    wait_rolled_back(cluster, &bad, &commit, "exit code 7");
    eprintln!(
        "a canary that is well and then is not: rolled back after {:.1?}",
        began.elapsed()
    );
    assert_eq!(
        seen,
        BTreeSet::from(["n2".to_owned()]),
        "where the bad commit ran"
    );
    // What the canary had to give up for it may come back on another host.
    let after = containers(cluster, &["n2"]);
    for host in ["n1", "n3"] {
        let (had, has) = (&before[host], &after[host]);
        assert!(had.is_subset(has), "{host} was touched: {had:#?} {has:#?}");
    }
    wait_running(cluster, "web", 3, &[]);
    wait_running(cluster, "agent", 3, &[]);
}
