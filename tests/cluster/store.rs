//! A store that is lost, hung, slow, wiped or restored: pods that run keep running, and a person
//! decides which host's copy becomes the store's content.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use crate::{
    manifest::{APP, deployment, service},
    scene::{daemon_set, host_other_than, leader},
    support::{Cluster, ClusterHost, Container, NODE_PORT, Poller, SOON, assert_all_answered},
};

/// The containers on every host, with their ids and times of start.
pub(crate) type Running = BTreeMap<String, BTreeSet<Container>>;

/// The containers of these owners on every host.
pub(crate) fn running(cluster: &Cluster, owners: &[&str]) -> Running {
    let of_owners =
        |container: &Container| owners.iter().any(|owner| container.pod.starts_with(owner));
    let on = |host: &ClusterHost| host.containers().into_iter().filter(of_owners).collect();
    cluster
        .hosts
        .iter()
        .map(|host| (host.name.clone(), on(host)))
        .collect()
}

/// The manifest of `web`, with three replicas and a node port.
pub(crate) fn web() -> String {
    format!("{}---\n{}", deployment("web", 3, APP), service("web"))
}

/// The troubles that a host publishes.
pub(crate) fn troubles(host: &ClusterHost) -> Vec<String> {
    let troubles = host.status()["troubles"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    troubles
        .iter()
        .filter_map(|trouble| trouble.as_str())
        .map(str::to_owned)
        .collect()
}

/// Waits until a host publishes a trouble that contains a text.
#[track_caller]
pub(crate) fn wait_trouble(host: &ClusterHost, text: &str) {
    host.wait_status(&format!("a trouble with {text:?} is published"), |status| {
        let troubles = status["troubles"].as_array();
        troubles.is_some_and(|troubles| {
            troubles.iter().any(|trouble| {
                trouble
                    .as_str()
                    .is_some_and(|trouble| trouble.contains(text))
            })
        })
    });
}

/// Waits until every host publishes that it has no troubles.
#[track_caller]
pub(crate) fn wait_no_troubles(cluster: &Cluster) {
    for host in &cluster.hosts {
        host.wait_status("no troubles are published", |status| {
            status["troubles"].as_array().is_some_and(Vec::is_empty)
        });
    }
}

/// Makes a host's copy the content of the store; returns what the command prints.
#[track_caller]
pub(crate) fn adopt(host: &ClusterHost) -> String {
    host.windlass(&["cluster", "adopt-store"]).ok()
}

fn poll_node_ports<'a>(hosts: impl IntoIterator<Item = &'a ClusterHost>) -> Vec<Poller> {
    hosts
        .into_iter()
        .map(|host| host.poll(&host.url(NODE_PORT, "/")))
        .collect()
}

#[track_caller]
fn finish_and_assert_all_answered(calls: Vec<Poller>) {
    for call in calls {
        assert_all_answered(&call.finish());
    }
}

fn cluster_ip(cluster: &Cluster) -> String {
    let service = cluster.hosts[0]
        .windlass(&["get", "service", "web", "-o", "json"])
        .json();
    service["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

/// Waits until `count` different pods have answered at a host's node port; returns their answers.
#[track_caller]
fn answering(cluster: &Cluster, host: &ClusterHost, count: usize) -> BTreeSet<String> {
    let url = host.url(NODE_PORT, "/");
    let mut answers = BTreeSet::new();
    cluster.wait_for(SOON, &format!("{count} pods answer at {url}"), || {
        answers.extend(host.curl(&url));
        (answers.len() >= count).then(|| answers.clone())
    })
}

/// Deploys `extra` beside other files, and checks that no container of these owners was touched.
#[track_caller]
fn deploy_extra(
    cluster: &Cluster,
    files: &[(&str, &str)],
    replicas: u32,
    before: &Running,
    owners: &[&str],
) {
    let extra = deployment("extra", replicas, APP);
    let all: Vec<(&str, &str)> = files
        .iter()
        .copied()
        .chain([("extra.yaml", extra.as_str())])
        .collect();
    cluster.deploy(&all);
    cluster.eventually_running("extra", replicas as usize);
    assert_eq!(
        running(cluster, owners),
        *before,
        "a container was touched by the rollout of extra"
    );
}

#[test]
fn no_pod_stops_while_etcd_is_stopped() {
    let cluster = Cluster::start(3);
    let [n1, n2, n3] = cluster.hosts.as_slice() else {
        panic!("three hosts")
    };
    let (web, agent) = (web(), daemon_set("agent", APP));
    let files = [("web.yaml", web.as_str()), ("agent.yaml", agent.as_str())];
    cluster.deploy(&files);
    let pods = cluster.eventually_running("web", 3);
    assert_eq!(Cluster::nodes_of(&pods).len(), 3, "{pods:#?}");
    let address_on = |node: &str| {
        let pod = pods
            .iter()
            .find(|pod| pod["spec"]["nodeName"] == node)
            .unwrap();
        pod["status"]["podIP"].as_str().unwrap().to_owned()
    };
    let before = running(&cluster, &["web", "agent"]);
    for host in &cluster.hosts {
        answering(&cluster, host, 3);
    }

    cluster.etcd.stop_member(0);
    let stopped = Instant::now();
    for host in &cluster.hosts {
        wait_trouble(host, "the store does not answer since 2");
    }

    // A container that is killed is restarted by its host, names resolve, and restarted daemons
    // continue with the state on their disks.
    let calls = poll_node_ports(&cluster.hosts);
    let victim = n1.running("agent").into_iter().next().unwrap();
    n1.host.docker(&["kill", &victim.id]);
    cluster.wait_for(SOON, "the container is restarted without etcd", || {
        n1.running("agent")
            .into_iter()
            .find(|container| container.started > victim.started)
    });
    let inside = n2.running("web").into_iter().next().unwrap().id;
    let lookup = n2
        .host
        .docker(&["exec", &inside, "nslookup", "web.default.svc.cluster.local"]);
    assert!(lookup.contains(&cluster_ip(&cluster)), "{lookup}");
    n1.terminate();
    n1.start();
    wait_trouble(n1, "the store does not answer since 2");
    n2.kill();
    n2.start();
    wait_trouble(n2, "nobody listens there");
    // No request has failed, not even to the hosts whose daemons were restarted.
    finish_and_assert_all_answered(calls);

    // A rebooted host starts its pods from the state on its own disk. Without a store the other
    // hosts do not observe that its endpoint is gone: until the pod answers again, exactly the
    // requests that go to this endpoint fail.
    let direct = [
        n1.poll(&format!("http://{}:8080/", address_on("n2"))),
        n2.poll(&format!("http://{}:8080/", address_on("n1"))),
    ];
    let through = poll_node_ports([n1, n2]);
    n3.reboot();
    n3.start();
    cluster.wait_for(SOON, "the rebooted host's pod is up", || {
        n3.running("web").into_iter().next()
    });
    cluster.wait_for(SOON, "the rebooted host's pod answers", || {
        n1.curl(&format!("http://{}:8080/", address_on("n3")))
    });
    for call in through {
        let answers = call.finish();
        assert!(
            answers.failed * 2 < answers.total,
            "more requests failed than go to one of three endpoints: {answers:?}"
        );
    }
    finish_and_assert_all_answered(direct.into());
    // Every host routes to the endpoints on all hosts, the rebooted host included.
    for host in &cluster.hosts {
        assert_eq!(answering(&cluster, host, 3).len(), 3);
    }
    let calls = poll_node_ports(&cluster.hosts);
    cluster.wait_for(SOON, "etcd was stopped 40 s ago", || {
        (stopped.elapsed() > Duration::from_secs(40)).then_some(())
    });

    // No other container was touched than the killed one and those of the rebooted host.
    let mut after = running(&cluster, &["web", "agent"]);
    assert_eq!(after["n2"], before["n2"]);
    assert_eq!(
        after["n1"]
            .iter()
            .filter(|container| container.pod != victim.pod)
            .collect::<Vec<_>>(),
        before["n1"]
            .iter()
            .filter(|container| container.pod != victim.pod)
            .collect::<Vec<_>>()
    );
    cluster.etcd.start_member(0);
    wait_no_troubles(&cluster);
    // No running container is restarted when etcd answers again; containers that had ended may be
    // replaced.
    let with_etcd = running(&cluster, &["web", "agent"]);
    for host in ["n1", "n2", "n3"] {
        let replaced: Vec<_> = after[host]
            .iter()
            .filter(|container| container.is_running() && !with_etcd[host].contains(container))
            .collect();
        assert!(
            replaced.is_empty(),
            "{host}: these containers were replaced: {replaced:#?}"
        );
    }
    after = with_etcd;
    deploy_extra(&cluster, &files, 1, &after, &["web", "agent"]);
    finish_and_assert_all_answered(calls);
}

#[test]
fn rollouts_work_without_one_member_of_three_or_with_slow_members_and_no_pod_stops_without_two() {
    let cluster = Cluster::builder(3).members(3).start();
    let (web, agent) = (web(), daemon_set("agent", APP));
    let files = [("web.yaml", web.as_str()), ("agent.yaml", agent.as_str())];
    cluster.deploy(&files);
    cluster.eventually_running("web", 3);
    let before = running(&cluster, &["web"]);
    let calls = poll_node_ports(&cluster.hosts);
    let deploy_within = |replicas: u32, limit: Duration| {
        let start = Instant::now();
        deploy_extra(&cluster, &files, replicas, &before, &["web"]);
        let took = start.elapsed();
        assert!(took < limit, "the rollout took {took:?}");
    };
    // Each member is stopped in turn, so that the member that a daemon is connected to and the
    // leader of etcd are among them.
    for member in 0..3 {
        cluster.etcd.stop_member(member);
        deploy_within(
            1 + u32::try_from(member).unwrap() % 2,
            Duration::from_secs(20),
        );
        cluster.etcd.start_member(member);
        cluster.wait_for(SOON, "the started member answers", || {
            cluster
                .etcd
                .etcdctl(&["endpoint", "health"])
                .success()
                .then_some(())
        });
    }
    cluster.etcd.pause_member(1);
    deploy_within(2, Duration::from_secs(20));
    cluster.etcd.resume_member(1);
    for member in 0..3 {
        cluster.etcd.slow(member, 150);
    }
    deploy_within(1, Duration::from_secs(40));
    for member in 0..3 {
        cluster.etcd.slow(member, 0);
    }
    wait_no_troubles(&cluster);

    // Without two of three members etcd has no quorum: pods keep running and are restarted, and no
    // decision is made.
    cluster.etcd.stop_member(0);
    cluster.etcd.stop_member(2);
    for host in &cluster.hosts {
        wait_trouble(host, "the store does not answer since 2");
    }
    let n1 = &cluster.hosts[0];
    let victim = n1.running("agent").into_iter().next().unwrap();
    n1.host.docker(&["kill", &victim.id]);
    let healthy = n1.status()["healthy"]["id"].as_str().unwrap().to_owned();
    let waits = deployment("waits", 1, APP);
    let commit = cluster.push(&[files[0], files[1], ("waits.yaml", waits.as_str())]);
    for host in &cluster.hosts {
        host.wait_status("the push is fetched", |status| {
            status["source"]["head"] == commit.as_str()
        });
    }
    cluster.wait_for(SOON, "the container is restarted without a quorum", || {
        n1.running("agent")
            .into_iter()
            .find(|container| container.started > victim.started)
    });
    for host in &cluster.hosts {
        assert_eq!(
            host.status()["target"]["id"],
            healthy.as_str(),
            "the target has changed without a quorum"
        );
    }
    cluster.etcd.start_member(0);
    wait_no_troubles(&cluster);
    for host in &cluster.hosts {
        host.wait_status("the push is healthy", |status| {
            status["healthy"]["id"] == commit.as_str()
        });
    }
    assert_eq!(
        running(&cluster, &["web"]),
        before,
        "a container of web was touched"
    );
    finish_and_assert_all_answered(calls);
}

#[test]
fn a_wiped_or_restored_store_is_used_again_after_a_person_adopts_it() {
    let cluster = Cluster::start(3);
    let [n1, n2, n3] = cluster.hosts.as_slice() else {
        panic!("three hosts")
    };
    let web = web();
    let files = [("web.yaml", web.as_str())];
    cluster.deploy(&files);
    cluster.eventually_running("web", 3);
    let (before, address) = (running(&cluster, &["web"]), cluster_ip(&cluster));
    let calls = poll_node_ports(&cluster.hosts);

    // The leader answers a command from another host in the same transaction that carries it out.
    let revision = |key: &str| {
        let key = format!("{}/decided/{key}", cluster.etcd.prefix());
        cluster
            .etcd
            .etcdctl(&["get", "-w", "json", "--", &key])
            .json()["kvs"][0]["mod_revision"]
            .as_u64()
    };
    let asked = host_other_than(&cluster, &[&leader(&cluster).unwrap()]);
    asked.windlass(&["suspend"]).ok();
    let answered = revision(&format!("answers/{}", asked.name));
    assert!(
        answered.is_some() && answered == revision("rollout"),
        "{answered:?}"
    );
    asked.windlass(&["resume"]).ok();

    cluster.etcd.wipe();
    for host in &cluster.hosts {
        wait_trouble(host, "the store has no cluster under its prefix");
        wait_trouble(
            host,
            "run `windlass cluster adopt-store` on a host that knows better",
        );
    }
    let printed = adopt(n2);
    assert!(
        printed.contains("the store holds this host's copy now (3 pods)"),
        "{printed}"
    );
    wait_no_troubles(&cluster);
    deploy_extra(&cluster, &files, 2, &before, &["web"]);
    assert_eq!(cluster_ip(&cluster), address);
    let printed = adopt(n2);
    assert!(printed.contains("there is nothing to adopt"), "{printed}");

    // An old backup is restored: every host reports it, also after its daemon was restarted, and
    // after new writes have raised the store's revision above the last one that the host has read.
    let backup = cluster.network.dir().join("backup");
    cluster.etcd.snapshot(&backup);
    deploy_extra(&cluster, &files, 3, &before, &["web"]);
    let extra = running(&cluster, &["extra"]);
    cluster.etcd.restore(&backup);
    for host in &cluster.hosts {
        wait_trouble(host, "was restored from a backup");
    }
    let known = fs::read_to_string(n3.host.path("/var/lib/windlass/store.json")).unwrap();
    let known: serde_json::Value = serde_json::from_str(&known).unwrap();
    while cluster.etcd.revision() <= known["revision"].as_u64().unwrap() + 60 {
        cluster.etcd.put(
            &format!("{}/nodes/n9/time", cluster.etcd.prefix()),
            "goes on",
        );
    }
    n3.terminate();
    n3.start();
    for host in &cluster.hosts {
        wait_trouble(host, "was restored from a backup");
    }
    adopt(n1);
    wait_no_troubles(&cluster);
    cluster.eventually_running("extra", 3);
    assert_eq!(
        running(&cluster, &["extra"]),
        extra,
        "a pod that is not in the backup was touched"
    );
    deploy_extra(&cluster, &files, 1, &before, &["web"]);
    assert_eq!(cluster_ip(&cluster), address);
    finish_and_assert_all_answered(calls);

    // A new host joins at a wiped or restored store: it waits for the hosts that have a copy, and
    // neither fills the store nor leads.
    let identity = || {
        cluster
            .etcd
            .get(&format!("{}/cluster", cluster.etcd.prefix()))
    };
    uninstall(n3);
    cluster.etcd.wipe();
    n3.launch();
    wait_waiting(n3, "belongs to cluster");
    for host in [n1, n2] {
        wait_trouble(host, "the store has no cluster under its prefix");
    }
    assert_eq!(identity(), None);
    adopt(n2);
    n3.wait_answers();
    wait_no_troubles(&cluster);
    cluster.eventually_running("web", 3);
    assert_eq!(cluster_ip(&cluster), address);

    uninstall(n3);
    let name = format!("{}/nodes/n3/alive", cluster.etcd.prefix());
    cluster.wait_for(SOON, "the name n3 is free", || {
        cluster.etcd.get(&name).is_none().then_some(())
    });
    cluster.etcd.snapshot(&backup);
    n1.windlass(&["suspend"]).ok();
    n1.windlass(&["resume"]).ok();
    cluster.etcd.restore(&backup);
    n3.launch();
    wait_waiting(n3, "does not trust the content of the store");
    for host in [n1, n2] {
        wait_trouble(host, "was restored from a backup");
    }
    cluster.wait_for(SOON, "there is no leader", || {
        leader(&cluster).is_none().then_some(())
    });
    assert!(n3.containers().is_empty(), "{:?}", n3.containers());
    adopt(n1);
    n3.wait_answers();
    wait_no_troubles(&cluster);
    cluster.eventually_running("web", 3);
    cluster.eventually_running("extra", 1);
}

/// Removes a host's installation, so that its daemon starts as on a new host.
#[track_caller]
fn uninstall(host: &ClusterHost) {
    host.terminate();
    host.windlass(&["uninstall", "--yes"]).ok();
}

/// Waits until `windlass status` on a new host fails with a reason for which its daemon waits.
#[track_caller]
fn wait_waiting(host: &ClusterHost, reason: &str) {
    let start = Instant::now();
    loop {
        let outcome = host.windlass(&["status"]);
        if outcome.stderr.contains(reason) {
            return;
        }
        assert!(
            !outcome.success() && start.elapsed() < SOON,
            "{} does not wait with the reason {reason:?}: {outcome:?}",
            host.name
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_host_without_a_store_keeps_its_pods_when_it_becomes_a_cluster() {
    let cluster = Cluster::builder(2).without_daemons().start();
    let [n1, n2] = cluster.hosts.as_slice() else {
        panic!("two hosts")
    };
    let file = n1.host.dir().join("windlass.toml");
    let mut alone: toml::Table = toml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    alone.remove("store");
    fs::write(&file, toml::to_string(&alone).unwrap()).unwrap();
    n1.start();
    let web = web();
    let commit = cluster.push(&[("web.yaml", &web)]);
    let healthy = |status: &serde_json::Value| {
        status["healthy"]["id"] == commit.as_str() && status["phase"] == "Healthy"
    };
    n1.wait_status("the commit is healthy", healthy);
    let observe = || {
        let mut pods: Vec<_> = cluster
            .ready("web")
            .iter()
            .map(|pod| {
                (
                    pod["metadata"]["uid"].clone(),
                    pod["status"]["podIP"].clone(),
                    pod["spec"]["nodeName"].clone(),
                )
            })
            .map(|parts| format!("{parts:?}"))
            .collect();
        pods.sort();
        let service = n1.windlass(&["get", "service", "web", "-o", "json"]).json();
        let history = n1.windlass(&["history", "-o", "json"]).json();
        (pods, service["spec"].clone(), history, n1.containers())
    };
    let before = observe();
    assert_eq!(before.0.len(), 3, "{before:?}");
    let calls = poll_node_ports([n1]);
    n1.terminate();
    cluster.configure(n1, "");
    n1.start();
    n1.wait_status("the commit is healthy with the store", healthy);
    cluster.wait_for(
        SOON,
        "pods, Service, history and containers are unchanged",
        || (observe() == before).then_some(()),
    );
    n2.start();
    n2.wait_status("the commit is healthy on the new host", healthy);
    answering(&cluster, n2, 3);
    deploy_extra(
        &cluster,
        &[("web.yaml", &web)],
        2,
        &running(&cluster, &["web"]),
        &["web"],
    );
    assert!(
        !n2.running("extra").is_empty(),
        "no new pod runs on the new host"
    );
    assert_eq!(
        n1.containers()
            .into_iter()
            .filter(|container| container.pod.starts_with("web"))
            .collect::<BTreeSet<_>>(),
        before.3
    );
    finish_and_assert_all_answered(calls);
}
