//! What the tests of failures run on: three hosts of which the first leads, and workloads that fail
//! in different ways.

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

/// `web` with three replicas and a Service, `agent` everywhere, and on one node, as long as that
/// takes pods, a bare Pod `bare` and a Deployment `data` that writes to its disk.
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

/// Deploys these files and waits for them.
#[track_caller]
pub(crate) fn deploy(cluster: &Cluster, files: &[(&'static str, String)]) -> String {
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    cluster.deploy(&files)
}

/// Pushes these files.
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

/// Who leads, as etcd says: the oldest key of the election.
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
    let said = cluster.etcd.etcdctl(&arguments);
    Some(said.stdout.trim().to_owned()).filter(|name| said.success() && !name.is_empty())
}

/// Waits until another host leads; gives its name.
#[track_caller]
pub(crate) fn wait_leader_other_than(cluster: &Cluster, name: &str) -> String {
    let other = || leader(cluster).filter(|leader| leader != name);
    cluster.wait_for(SOON, &format!("another leads than {name}"), other)
}

/// A host that does not lead and is none of these.
#[track_caller]
pub(crate) fn other<'a>(cluster: &'a Cluster, names: &[&str]) -> &'a ClusterHost {
    cluster
        .hosts
        .iter()
        .find(|host| !names.contains(&host.name.as_str()))
        .expect("another host")
}

/// What `get nodes` says of a node's readiness, by the table.
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

/// The running containers of all hosts but these, sandboxes too, with when they were started.
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

/// Waits until an owner has exactly so many running containers on all hosts together, without
/// these, and they are ready.
#[track_caller]
pub(crate) fn wait_running(
    cluster: &Cluster,
    name: &str,
    count: usize,
    without: &[&str],
) -> Duration {
    let start = Instant::now();
    let asked = other(cluster, without);
    cluster.wait_for(
        SOON,
        &format!("{count} pods of {name} run without {without:?}"),
        || {
            let hosts = cluster
                .hosts
                .iter()
                .filter(|host| !without.contains(&host.name.as_str()));
            let running: usize = hosts.map(|host| host.running(name).len()).sum();
            let pods = asked.host.pods().unwrap_or_default();
            let ready = pods.iter().filter(|pod| {
                let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
                let own = pod["metadata"]["name"].as_str().unwrap_or_default();
                let conditions = pod["status"]["conditions"].as_array();
                own.strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
                    && !without.contains(&node)
                    && pod["metadata"]["deletionTimestamp"].is_null()
                    && conditions.is_some_and(|all| {
                        all.iter()
                            .any(|one| one["type"] == "Ready" && one["status"] == "True")
                    })
            });
            (running == count && ready.count() == count).then_some(())
        },
    );
    start.elapsed()
}

/// Waits until every owner has exactly what it wants, everywhere, and nothing is left of anything
/// else.
#[track_caller]
pub(crate) fn wait_whole(cluster: &Cluster) {
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
            &format!("{count} records of {name}, and no more"),
            records,
        );
    }
    for host in &cluster.hosts {
        let left = || {
            host.containers()
                .iter()
                .all(|one| one.state == "running")
                .then_some(())
        };
        cluster.wait_for(
            SOON,
            &format!("nothing that has ended is left on {}", host.name),
            left,
        );
        for node in &cluster.hosts {
            let ready = || (readiness(host, &node.name) == "Ready").then_some(());
            cluster.wait_for(
                SOON,
                &format!("{} is ready, by {}", node.name, host.name),
                ready,
            );
        }
    }
}

/// Waits until pods of `web` on each host reach those on all hosts, and all of them by their
/// Service.
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
        // The application's own image has nothing that fetches: the host's program enters the pod's
        // network.
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

/// Says how a client fared, and checks that it was without an answer for no longer than this.
#[track_caller]
pub(crate) fn fared(what: &str, answers: &Answers, most: Duration) {
    let Answers {
        total,
        failed,
        longest_gap,
        first_failure,
        ..
    } = answers;
    eprintln!(
        "{what}: {failed} of {total} requests failed, {longest_gap:.1?} without an answer at most"
    );
    assert!(
        *longest_gap < most,
        "{what}: no answer for {longest_gap:?}: {first_failure:?}"
    );
}
