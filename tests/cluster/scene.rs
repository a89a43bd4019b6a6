//! The cluster that the tests of failures use: three hosts of which the first leads, and workloads
//! that react to failures in different ways.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::{
    manifest::{APP, deployment, deployment_with, pod, service},
    support::{Answers, Cluster, ClusterBuilder, ClusterHost, Container, SOON},
};

/// A DaemonSet of one container.
pub(crate) fn daemon_set(name: &str, container: &str) -> String {
    deployment(name, 0, container)
        .replace("kind: Deployment", "kind: DaemonSet")
        .replace("  replicas: 0\n", "")
        .replace(
            "  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}\n",
            "",
        )
}

/// `web` with three replicas and a Service, a DaemonSet `agent`, and two workloads that prefer one
/// node: a bare Pod `bare`, and a Deployment `data` that writes to the node's disk.
pub(crate) fn everything(container: &str, near: &str) -> Vec<(&'static str, String)> {
    let web = format!("{}---\n{}", deployment("web", 3, container), service("web"));
    let data = deployment_with("data", 1, APP, "strategy: {type: Recreate}")
        .replace("    spec:\n", &format!("    spec:\n{}      volumes: [{{name: disk, hostPath: {{path: /var/lib/data, type: DirectoryOrCreate}}}}]\n", prefer(near, 6)))
        .replace("periodSeconds: 1}}", "periodSeconds: 1}, volumeMounts: [{name: disk, mountPath: /data}]}");
    let bare = pod("bare", APP).replace("spec:\n", &format!("spec:\n{}", prefer(near, 2)));
    vec![
        ("web.yaml", web),
        ("agent.yaml", daemon_set("agent", APP)),
        ("data.yaml", data),
        ("bare.yaml", bare),
    ]
}

fn prefer(node: &str, indent: usize) -> String {
    format!(
        "{:indent$}affinity: {{nodeAffinity: {{preferredDuringSchedulingIgnoredDuringExecution: [{{weight: 100, \
         preference: {{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]}}}}]}}}}\n",
        ""
    )
}

/// Pushes these files and waits until every host publishes that their commit is healthy; returns
/// the commit's id.
#[track_caller]
pub(crate) fn deploy(cluster: &Cluster, files: &[(&'static str, String)]) -> String {
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    cluster.deploy(&files)
}

/// Pushes these files; returns the commit's id.
#[track_caller]
pub(crate) fn push(cluster: &Cluster, files: &[(&'static str, String)]) -> String {
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    cluster.push(&files)
}

/// Starts the daemons so that the first host leads.
#[track_caller]
pub(crate) fn start(builder: ClusterBuilder) -> Cluster {
    let cluster = builder.without_daemons().start();
    cluster.hosts[0].start();
    cluster.wait_for(SOON, "the first host leads", || {
        leader(&cluster).filter(|name| *name == "n1")
    });
    cluster.start_daemons();
    cluster
}

/// The name of the leader, which is the value of the oldest key of the election in etcd.
pub(crate) fn leader(cluster: &Cluster) -> Option<String> {
    let prefix = format!("{}/election/", cluster.etcd.prefix());
    let oldest = [
        "--sort-by=CREATE",
        "--order=ASCEND",
        "--limit=1",
        "--print-value-only",
    ];
    let mut arguments = vec!["get", "--prefix", prefix.as_str()];
    arguments.extend(oldest);
    let answer = cluster.etcd.etcdctl(&arguments);
    Some(answer.stdout.trim().to_owned()).filter(|name| answer.success() && !name.is_empty())
}

/// Waits until another host leads; returns its name.
#[track_caller]
pub(crate) fn wait_leader_other_than(cluster: &Cluster, name: &str) -> String {
    let other = || leader(cluster).filter(|leader| leader != name);
    cluster.wait_for(SOON, &format!("a host other than {name} leads"), other)
}

/// The first host that has none of these names.
#[track_caller]
pub(crate) fn host_other_than<'a>(cluster: &'a Cluster, names: &[&str]) -> &'a ClusterHost {
    cluster
        .hosts
        .iter()
        .find(|host| !names.contains(&host.name.as_str()))
        .expect("another host")
}

/// The status of a node in the table that `windlass get nodes` prints on a host.
pub(crate) fn readiness(host: &ClusterHost, node: &str) -> String {
    let table = host.windlass(&["get", "nodes"]).stdout;
    let line = table
        .lines()
        .find(|line| line.split_whitespace().next() == Some(node))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned()
}

/// The containers of all hosts but those in `without`, with sandboxes, in any state.
#[track_caller]
pub(crate) fn containers(
    cluster: &Cluster,
    without: &[&str],
) -> BTreeMap<String, BTreeSet<Container>> {
    let hosts = cluster
        .hosts
        .iter()
        .filter(|host| !without.contains(&host.name.as_str()));
    hosts
        .map(|host| (host.name.clone(), host.containers()))
        .collect()
}

/// Waits until an owner has exactly `count` running containers, and as many ready pods, on all
/// hosts but those in `without`; returns how long that took.
#[track_caller]
pub(crate) fn wait_running(
    cluster: &Cluster,
    name: &str,
    count: usize,
    without: &[&str],
) -> Duration {
    let start = Instant::now();
    let reader = host_other_than(cluster, without);
    cluster.wait_for(
        SOON,
        &format!("{count} pods of {name} run, not counting hosts {without:?}"),
        || {
            let hosts = cluster
                .hosts
                .iter()
                .filter(|host| !without.contains(&host.name.as_str()));
            let running: usize = hosts.map(|host| host.running(name).len()).sum();
            let pods = reader.host.pods().unwrap_or_default();
            let ready = pods.iter().filter(|pod| {
                let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
                let own = pod["metadata"]["name"].as_str().unwrap_or_default();
                let conditions = pod["status"]["conditions"].as_array();
                own.strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
                    && !without.contains(&node)
                    && pod["metadata"]["deletionTimestamp"].is_null()
                    && conditions.is_some_and(|conditions| {
                        conditions.iter().any(|condition| {
                            condition["type"] == "Ready" && condition["status"] == "True"
                        })
                    })
            });
            (running == count && ready.count() == count).then_some(())
        },
    );
    start.elapsed()
}

/// Waits until every owner of [`everything`] has exactly its replicas, running and recorded, no
/// host has a container that has ended, and every host publishes that all nodes are ready.
#[track_caller]
pub(crate) fn wait_all_running(cluster: &Cluster) {
    for (name, count) in [
        ("web", 3),
        ("agent", cluster.hosts.len()),
        ("data", 1),
        ("bare", 1),
    ] {
        wait_running(cluster, name, count, &[]);
        let records = || {
            let pods = cluster.pods();
            let named = pods.iter().filter(|pod| {
                let own = pod["metadata"]["name"].as_str().unwrap_or_default();
                own.strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            });
            (named.count() == count).then_some(())
        };
        cluster.wait_for(
            SOON,
            &format!("exactly {count} pods of {name} are recorded"),
            records,
        );
    }
    for host in &cluster.hosts {
        let all_run = || {
            host.containers()
                .iter()
                .all(Container::is_running)
                .then_some(())
        };
        cluster.wait_for(
            SOON,
            &format!("all containers on {} run", host.name),
            all_run,
        );
        for node in &cluster.hosts {
            let ready = || (readiness(host, &node.name) == "Ready").then_some(());
            cluster.wait_for(
                SOON,
                &format!("{} publishes that {} is ready", host.name, node.name),
                ready,
            );
        }
    }
}

/// Waits until a pod of `web` on each host reaches all pods of `web`, by their addresses and by
/// their Service.
#[track_caller]
pub(crate) fn wait_pods_reach_pods(cluster: &Cluster) {
    let service = cluster.hosts[0]
        .windlass(&["get", "service", "web", "-o", "json"])
        .json();
    let by_service = format!("http://{}/", service["spec"]["clusterIP"].as_str().unwrap());
    let pods = cluster.ready("web");
    let addresses = pods
        .iter()
        .map(|pod| pod["status"]["podIP"].as_str().unwrap());
    let mut urls: Vec<String> = addresses
        .map(|address| format!("http://{address}:8080/"))
        .collect();
    urls.push(by_service);
    for host in &cluster.hosts {
        // The application's image contains no HTTP client, so the host's curl runs in the pod's
        // network namespace.
        let container = host
            .running("web")
            .into_iter()
            .next()
            .expect("a replica on every host");
        let process = host
            .host
            .docker(&["inspect", "-f", "{{.State.Pid}}", &container.id]);
        for url in &urls {
            let fetch = [
                "nsenter",
                "-t",
                process.trim(),
                "-n",
                "curl",
                "-sf",
                "--max-time",
                "2",
                url,
            ];
            let reached = || host.host.exec(&fetch).success().then_some(());
            cluster.wait_for(
                SOON,
                &format!("a pod on {} reaches {url}", host.name),
                reached,
            );
        }
    }
}

/// Prints what a poller got, and checks that its longest time without an answer is below a limit.
#[track_caller]
pub(crate) fn assert_gap_below(what: &str, answers: &Answers, limit: Duration) {
    let Answers {
        total,
        failed,
        longest_gap,
        first_failure,
        ..
    } = answers;
    eprintln!(
        "{what}: {failed} of {total} requests failed, at most {longest_gap:.1?} without an answer"
    );
    assert!(
        *longest_gap < limit,
        "{what}: no answer for {longest_gap:?}; the first failure: {first_failure:?}"
    );
}
