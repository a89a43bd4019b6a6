//! The store lost, hung, slow, wiped and taken back: what was decided stays up, and a person says
//! what is believed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use crate::{
    manifest::{APP, deployment, service},
    scene::{daemon_set, leader, other},
    support::{Cluster, ClusterHost, Container, NODE_PORT, Poller, SOON, assert_all_answered},
};

/// What runs on every host, with ids and times of start.
pub(crate) type Running = BTreeMap<String, BTreeSet<Container>>;

/// What runs on every host of the owners named.
pub(crate) fn running(cluster: &Cluster, owners: &[&str]) -> Running {
    let of_owners = |one: &Container| owners.iter().any(|owner| one.pod.starts_with(owner));
    let on = |host: &ClusterHost| host.containers().into_iter().filter(of_owners).collect();
    cluster
        .hosts
        .iter()
        .map(|host| (host.name.clone(), on(host)))
        .collect()
}

/// `web` with three replicas and a node port.
pub(crate) fn web() -> String {
    format!("{}---\n{}", deployment("web", 3, APP), service("web"))
}

/// What stands in a daemon's way.
pub(crate) fn troubles(host: &ClusterHost) -> Vec<String> {
    let told = host.status()["troubles"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    told.iter()
        .filter_map(|one| one.as_str())
        .map(str::to_owned)
        .collect()
}

/// Waits until a daemon tells of trouble in these words.
#[track_caller]
pub(crate) fn wait_trouble(host: &ClusterHost, words: &str) {
    host.wait_status(&format!("it tells {words:?}"), |status| {
        let told = status["troubles"].as_array();
        told.is_some_and(|told| {
            told.iter()
                .any(|one| one.as_str().is_some_and(|one| one.contains(words)))
        })
    });
}

/// Waits until no daemon tells of trouble.
#[track_caller]
pub(crate) fn wait_well(cluster: &Cluster) {
    for host in &cluster.hosts {
        host.wait_status("it tells of no trouble", |status| {
            status["troubles"].as_array().is_some_and(Vec::is_empty)
        });
    }
}

/// Makes a host's copy the store's content.
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
fn assert_all_were_answered(calls: Vec<Poller>) {
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

/// The pods that answer at a host's node port.
#[track_caller]
fn answering(cluster: &Cluster, host: &ClusterHost, count: usize) -> BTreeSet<String> {
    let url = host.url(NODE_PORT, "/");
    let mut seen = BTreeSet::new();
    cluster.wait_for(SOON, &format!("{count} pods answer at {url}"), || {
        seen.extend(host.curl(&url));
        (seen.len() >= count).then(|| seen.clone())
    })
}

/// Deploys `extra` beside what there is, and checks that nothing else was touched.
#[track_caller]
fn push_works(
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
        "no container was touched"
    );
}

#[test]
fn nothing_stops_while_etcd_is_gone() {
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
    let gone = Instant::now();
    for host in &cluster.hosts {
        wait_trouble(host, "the store does not answer since 2");
    }

    // What dies is restarted by its host, names are known, and daemons come back with what they
    // have on their disks.
    let calls = poll_node_ports(&cluster.hosts);
    let victim = n1.running("agent").into_iter().next().unwrap();
    n1.host.docker(&["kill", &victim.id]);
    cluster.wait_for(SOON, "the container is restarted without etcd", || {
        n1.running("agent")
            .into_iter()
            .find(|one| one.started > victim.started)
    });
    let inside = n2.running("web").into_iter().next().unwrap().id;
    let found = n2
        .host
        .docker(&["exec", &inside, "nslookup", "web.default.svc.cluster.local"]);
    assert!(found.contains(&cluster_ip(&cluster)), "{found}");
    n1.terminate();
    n1.start();
    wait_trouble(n1, "the store does not answer since 2");
    n2.kill();
    n2.start();
    wait_trouble(n2, "nobody listens there");
    // Not one call has failed: neither through hosts nor through daemons that were restarted.
    assert_all_were_answered(calls);

    // A host that was switched off and on has its pods from its own disk. Without a store the
    // others do not hear that its endpoint is gone: calls that are led there fail until it is back,
    // and no others.
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
            "only a third of the calls is led there: {answers:?}"
        );
    }
    assert_all_were_answered(direct.into());
    // All of its endpoints are on all hosts, those of other hosts on it too.
    for host in &cluster.hosts {
        assert_eq!(answering(&cluster, host, 3).len(), 3);
    }
    let calls = poll_node_ports(&cluster.hosts);
    cluster.wait_for(SOON, "etcd has been gone for 40 s", || {
        (gone.elapsed() > Duration::from_secs(40)).then_some(())
    });

    // Nothing was touched but what was killed or switched off.
    let mut after = running(&cluster, &["web", "agent"]);
    assert_eq!(after["n2"], before["n2"]);
    assert_eq!(
        after["n1"]
            .iter()
            .filter(|one| one.pod != victim.pod)
            .collect::<Vec<_>>(),
        before["n1"]
            .iter()
            .filter(|one| one.pod != victim.pod)
            .collect::<Vec<_>>()
    );
    cluster.etcd.start_member(0);
    wait_well(&cluster);
    // That etcd is back restarts nothing; what was lost meanwhile may be started anew.
    let back = running(&cluster, &["web", "agent"]);
    for host in ["n1", "n2", "n3"] {
        let kept: Vec<_> = after[host]
            .iter()
            .filter(|one| one.state == "running" && !back[host].contains(one))
            .collect();
        assert!(kept.is_empty(), "{host}: {kept:#?} are not there any more");
    }
    after = back;
    push_works(&cluster, &files, 1, &after, &["web", "agent"]);
    assert_all_were_answered(calls);
}

#[test]
fn one_member_of_three_may_be_gone_or_hang_all_may_be_slow_and_without_two_nothing_stops() {
    let cluster = Cluster::builder(3).members(3).start();
    let (web, agent) = (web(), daemon_set("agent", APP));
    let files = [("web.yaml", web.as_str()), ("agent.yaml", agent.as_str())];
    cluster.deploy(&files);
    cluster.eventually_running("web", 3);
    let before = running(&cluster, &["web"]);
    let calls = poll_node_ports(&cluster.hosts);
    let pushed = |replicas: u32, within: Duration| {
        let since = Instant::now();
        push_works(&cluster, &files, replicas, &before, &["web"]);
        let took = since.elapsed();
        assert!(took < within, "a push took {took:?}");
    };
    // Each in turn: the one that any daemon is connected to, and the one that leads etcd, are among
    // them.
    for member in 0..3 {
        cluster.etcd.stop_member(member);
        pushed(
            1 + u32::try_from(member).unwrap() % 2,
            Duration::from_secs(20),
        );
        cluster.etcd.start_member(member);
        cluster.wait_for(SOON, "the member is back", || {
            cluster
                .etcd
                .etcdctl(&["endpoint", "health"])
                .success()
                .then_some(())
        });
    }
    cluster.etcd.pause_member(1);
    pushed(2, Duration::from_secs(20));
    cluster.etcd.resume_member(1);
    for member in 0..3 {
        cluster.etcd.slow(member, 150);
    }
    pushed(1, Duration::from_secs(40));
    for member in 0..3 {
        cluster.etcd.slow(member, 0);
    }
    wait_well(&cluster);

    // Two of three have no quorum: what was decided stays up and is restarted, and nothing new is
    // decided.
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
        host.wait_status("it has seen the push", |status| {
            status["source"]["head"] == commit.as_str()
        });
    }
    cluster.wait_for(SOON, "the container is restarted without a quorum", || {
        n1.running("agent")
            .into_iter()
            .find(|one| one.started > victim.started)
    });
    for host in &cluster.hosts {
        assert_eq!(
            host.status()["target"]["id"],
            healthy.as_str(),
            "nothing new is decided"
        );
    }
    cluster.etcd.start_member(0);
    wait_well(&cluster);
    for host in &cluster.hosts {
        host.wait_status("the push is healthy", |status| {
            status["healthy"]["id"] == commit.as_str()
        });
    }
    assert_eq!(
        running(&cluster, &["web"]),
        before,
        "no container was touched"
    );
    assert_all_were_answered(calls);
}

#[test]
fn a_store_that_was_wiped_or_went_back_is_believed_when_a_person_says_so() {
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

    // What is asked on a host that does not lead is answered in the transaction that does it.
    let revision = |key: &str| {
        let key = format!("{}/decided/{key}", cluster.etcd.prefix());
        cluster
            .etcd
            .etcdctl(&["get", "-w", "json", "--", &key])
            .json()["kvs"][0]["mod_revision"]
            .as_u64()
    };
    let asked = other(&cluster, &[&leader(&cluster).unwrap()]);
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
    let said = adopt(n2);
    assert!(
        said.contains("the store holds this host's copy now (3 pods)"),
        "{said}"
    );
    wait_well(&cluster);
    push_works(&cluster, &files, 2, &before, &["web"]);
    assert_eq!(cluster_ip(&cluster), address);
    let said = adopt(n2);
    assert!(said.contains("there is nothing to adopt"), "{said}");

    // An old backup: what came after it is not forgotten, neither by a daemon that was restarted
    // nor because leases count the revision up again.
    let backup = cluster.network.dir().join("backup");
    cluster.etcd.snapshot(&backup);
    push_works(&cluster, &files, 3, &before, &["web"]);
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
    wait_well(&cluster);
    cluster.eventually_running("extra", 3);
    assert_eq!(
        running(&cluster, &["extra"]),
        extra,
        "what the backup did not know runs on"
    );
    push_works(&cluster, &files, 1, &before, &["web"]);
    assert_eq!(cluster_ip(&cluster), address);
    assert_all_were_answered(calls);

    // A host without memory comes to a wiped or restored store: it waits for those who know better,
    // and neither fills it nor leads by it.
    let identity = || {
        cluster
            .etcd
            .get(&format!("{}/cluster", cluster.etcd.prefix()))
    };
    set_up_anew(n3);
    cluster.etcd.wipe();
    n3.launch();
    wait_waiting(n3, "belongs to cluster");
    for host in [n1, n2] {
        wait_trouble(host, "the store has no cluster under its prefix");
    }
    assert_eq!(identity(), None);
    adopt(n2);
    n3.wait_answers();
    wait_well(&cluster);
    cluster.eventually_running("web", 3);
    assert_eq!(cluster_ip(&cluster), address);

    set_up_anew(n3);
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
    cluster.wait_for(SOON, "nobody leads", || {
        leader(&cluster).is_none().then_some(())
    });
    assert!(n3.containers().is_empty(), "{:?}", n3.containers());
    adopt(n1);
    n3.wait_answers();
    wait_well(&cluster);
    cluster.eventually_running("web", 3);
    cluster.eventually_running("extra", 1);
}

/// Takes a host's installation away: its daemon starts as a new host's.
#[track_caller]
fn set_up_anew(host: &ClusterHost) {
    host.terminate();
    host.windlass(&["uninstall", "--yes"]).ok();
}

/// Waits until a new host's daemon says that it waits, in these words.
#[track_caller]
fn wait_waiting(host: &ClusterHost, words: &str) {
    let start = Instant::now();
    loop {
        let said = host.windlass(&["status"]);
        if said.stderr.contains(words) {
            return;
        }
        assert!(
            !said.success() && start.elapsed() < SOON,
            "{} waits, {words:?}: {said:?}",
            host.name
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_lonely_host_brings_its_pods_into_a_cluster() {
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
    let look = || {
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
    let before = look();
    assert_eq!(before.0.len(), 3, "{before:?}");
    let calls = poll_node_ports([n1]);
    n1.terminate();
    cluster.configure(n1, "");
    n1.start();
    n1.wait_status("it goes on", healthy);
    cluster.wait_for(SOON, "everything is as it was", || {
        (look() == before).then_some(())
    });
    n2.start();
    n2.wait_status("it joins", healthy);
    answering(&cluster, n2, 3);
    push_works(
        &cluster,
        &[("web.yaml", &web)],
        2,
        &running(&cluster, &["web"]),
        &["web"],
    );
    assert!(
        !n2.running("extra").is_empty(),
        "new pods come to the new host"
    );
    assert_eq!(
        n1.containers()
            .into_iter()
            .filter(|one| one.pod.starts_with("web"))
            .collect::<BTreeSet<_>>(),
        before.3
    );
    assert_all_were_answered(calls);
}
