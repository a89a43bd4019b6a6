//! Mistakes in the configuration of hosts, and limits of the store and the nodes: each is reported
//! clearly, and no pod is stopped and no reservation taken.

use std::fs;

use serde_json::Value;

use crate::{
    manifest::{APP, deployment},
    scene::leader,
    store::{running, wait_no_troubles, wait_trouble, web},
    support::{Cluster, ClusterHost, EtcdOptions, SOON},
};

/// Starts a daemon with more configuration, which must end or wait with these texts in its log and
/// start no container.
#[track_caller]
fn assert_refuses_to_start(cluster: &Cluster, host: &ClusterHost, more: &str, texts: &[&str]) {
    cluster.configure(host, more);
    host.launch();
    cluster.wait_for(SOON, &format!("{} logs {texts:?}", host.name), || {
        let log = host.log();
        texts.iter().all(|text| log.contains(text)).then_some(())
    });
    host.kill();
    assert_eq!(host.containers().len(), 0, "a container was started");
}

#[test]
fn a_host_whose_configuration_does_not_fit_the_cluster_reports_why_and_changes_nothing() {
    let cluster = Cluster::builder(3).without_daemons().start();
    let [n1, n2, n3] = cluster.hosts.as_slice() else {
        panic!("three hosts")
    };
    n1.start();
    cluster.push(&[("web.yaml", &web())]);
    cluster.eventually_running("web", 3);
    let before = (running(&cluster, &["web"]), everything(&cluster));

    assert_refuses_to_start(
        &cluster,
        n2,
        "[node]\nname = 'n1'\n",
        &[
            "another installation (",
            ") holds the name n1 in the cluster: give one of the two hosts another `name` in [node], or stop the other one",
        ],
    );
    let subnet = cluster
        .etcd
        .keys(&format!("{}/subnets/", cluster.etcd.prefix()));
    let subnet = subnet[0].rsplit('/').next().unwrap().replace('-', "/");
    assert_refuses_to_start(
        &cluster,
        n2,
        &format!("[network]\npod-subnet = '{subnet}'\n"),
        &[&format!(
            "pod subnet {subnet} overlaps: it is reserved for node \"n1\"; give this host another `pod-subnet` in [network]"
        )],
    );
    assert_refuses_to_start(
        &cluster,
        n2,
        "[network]\npod-range = '10.99.0.0/16'\n",
        &[
            "the cluster has pod-range 10.244.0.0/16, and this host's configuration 10.99.0.0/16: all hosts must have the \
         same in [network]",
        ],
    );
    assert_refuses_to_start(
        &cluster,
        n2,
        "[network]\nservice-range = '10.111.0.0/16'\n",
        &["the cluster has service-range "],
    );
    let wrong_ca = n2.host.dir().join("wrong-ca.pem");
    fs::copy(cluster.etcd.client("n2").certificate, &wrong_ca).unwrap();
    assert_refuses_to_start(
        &cluster,
        n2,
        &format!("[store]\nca-file = '{}'\n", wrong_ca.display()),
        &[
            "waiting for the store: etcd at https://192.168.77.5:2379 does not answer: etcd's certificate is not signed by the \
         CA in ",
        ],
    );
    assert_refuses_to_start(
        &cluster,
        n2,
        "[store]\ncertificate-file = '/nothing/here'\n",
        &["the certificate for etcd cannot be read from /nothing/here"],
    );
    assert_eq!(
        (running(&cluster, &["web"]), everything(&cluster)),
        before,
        "the containers or the store's keys have changed"
    );

    // With a correct configuration the same host joins.
    cluster.configure(n2, "");
    n2.start();
    n3.start();
    wait_no_troubles(&cluster);

    // A member whose configuration becomes wrong later keeps its pods running.
    cluster.deploy(&[
        ("web.yaml", &web()),
        ("extra.yaml", &deployment("extra", 4, APP)),
    ]);
    cluster.eventually_running("extra", 4);
    let before = running(&cluster, &["web", "extra"]);
    let other = format!("{}-other", cluster.etcd.prefix());
    let identity = cluster
        .etcd
        .get(&format!("{}/cluster", cluster.etcd.prefix()))
        .unwrap();
    let mut other_cluster: Value = serde_json::from_str(&identity).unwrap();
    other_cluster["id"] = "0123456789ab".into();
    cluster
        .etcd
        .put(&format!("{other}/cluster"), &other_cluster.to_string());
    cluster
        .etcd
        .etcdctl(&[
            "role",
            "grant-permission",
            cluster.etcd.prefix(),
            "readwrite",
            "--prefix=true",
            &other,
        ])
        .ok();
    n3.terminate();
    cluster.configure(n3, &format!("[store]\nprefix = '{other}'\n"));
    n3.start();
    wait_trouble(
        n3,
        "the store holds cluster 0123456789ab, and this host belongs to ",
    );
    wait_trouble(n3, "its prefix in [store] is another cluster's");
    let written = cluster.etcd.keys(&format!("{other}/"));
    let allowed = [
        format!("{other}/cluster"),
        format!("{other}/nodes/n3/alive"),
    ];
    assert!(
        written.iter().all(|key| allowed.contains(key)),
        "the host has written keys of the other cluster: {written:?}"
    );
    n3.terminate();
    cluster.configure(n3, "");
    n3.start();
    wait_no_troubles(&cluster);

    // The store has the schema of a newer version.
    let mut newer: Value = serde_json::from_str(&identity).unwrap();
    newer["schema"] = 99.into();
    cluster.etcd.put(
        &format!("{}/cluster", cluster.etcd.prefix()),
        &newer.to_string(),
    );
    for host in &cluster.hosts {
        wait_trouble(
            host,
            "the store has schema 99, and this version knows schemas up to 1: run a newer Windlass here",
        );
    }
    cluster
        .etcd
        .put(&format!("{}/cluster", cluster.etcd.prefix()), &identity);
    wait_no_troubles(&cluster);
    assert_eq!(
        running(&cluster, &["web", "extra"]),
        before,
        "a container was restarted"
    );
}

/// All keys but those that depend on leases.
fn everything(cluster: &Cluster) -> Vec<String> {
    let mut keys = cluster.etcd.keys(cluster.etcd.prefix());
    keys.retain(|key| !key.contains("/election/") && !key.ends_with("/alive"));
    keys
}

#[test]
fn a_full_store_is_reported_and_a_compacted_store_is_read_anew() {
    let options = EtcdOptions {
        quota: 4 * 1024 * 1024,
        ..EtcdOptions::default()
    };
    let cluster = Cluster::builder(2).etcd(options).start();
    let [n1, n2] = cluster.hosts.as_slice() else {
        panic!("two hosts")
    };
    let web = web();
    cluster.deploy(&[("web.yaml", &web)]);
    let before = running(&cluster, &["web"]);
    let junk = n1.host.dir().join("junk");
    fs::write(&junk, "x".repeat(1_000_000)).unwrap();
    let junk_key = "/junk";
    for _ in 0..8 {
        let fill = format!(
            "{} ctl --dir {} put {junk_key} < {}",
            script(),
            dir(&cluster),
            junk.display()
        );
        cluster.network.exec(&["bash", "-c", &fill]);
    }
    cluster.push(&[
        ("web.yaml", &web),
        ("extra.yaml", &deployment("extra", 1, APP)),
    ]);
    let reporting_host = || {
        cluster.hosts.iter().find(|host| {
            crate::store::troubles(host).iter().any(|trouble| {
                trouble.contains("is full (quota alarm) and takes no writes")
                    && trouble.contains("`etcdctl alarm disarm`")
            })
        })
    };
    cluster.wait_for(SOON, "a host reports that etcd is full", reporting_host);
    let killed = n1.running("web").into_iter().next().unwrap();
    n1.host.docker(&["kill", &killed.id]);
    cluster.wait_for(SOON, "the killed container is restarted", || {
        n1.running("web")
            .into_iter()
            .find(|container| container.pod == killed.pod && container.started > killed.started)
    });
    assert_eq!(
        running(&cluster, &["web"])["n2"],
        before["n2"],
        "a container of n2 was touched"
    );
    cluster.etcd.etcdctl(&["del", junk_key]).ok();
    cluster.etcd.compact();
    cluster.etcd.etcdctl(&["defrag"]).ok();
    cluster.etcd.etcdctl(&["alarm", "disarm"]).ok();
    cluster.eventually_running("extra", 1);
    wait_no_troubles(&cluster);

    // The store is compacted while n2 cannot watch it, so n2 cannot continue its watch.
    let store = cluster.etcd.machine(0).address;
    cluster.network.cut_from(n2, store);
    wait_trouble(n2, "the store does not answer since");
    for round in 0..20 {
        cluster.etcd.put(
            &format!("{}/nodes/n9/time", cluster.etcd.prefix()),
            &round.to_string(),
        );
    }
    cluster.etcd.compact();
    let before = running(&cluster, &["web"]);
    cluster.network.heal(n2);
    wait_no_troubles(&cluster);
    cluster.deploy(&[
        ("web.yaml", &web),
        ("extra.yaml", &deployment("extra", 2, APP)),
    ]);
    assert_eq!(running(&cluster, &["web"]), before);
}

fn script() -> String {
    crate::support::repository_root()
        .join("scripts/etcd")
        .display()
        .to_string()
}

fn dir(cluster: &Cluster) -> String {
    cluster
        .etcd
        .root()
        .ca
        .parent()
        .unwrap()
        .display()
        .to_string()
}

#[test]
fn of_a_million_replicas_as_many_run_as_the_nodes_have_room_for() {
    let cluster = Cluster::builder(2).config("[node]\nmax-pods = 4\n").start();
    cluster.deploy(&[("web.yaml", &deployment("web", 2, APP))]);
    let first_leader = leader(&cluster);
    let before = running(&cluster, &["web"]);
    cluster.push(&[("web.yaml", &deployment("web", 1_000_000, APP))]);
    cluster.eventually_running("web", 8);
    let pods = cluster.pods();
    assert_eq!(
        pods.len(),
        9,
        "the pods that fit, and one pod that stands for all others: {pods:#?}"
    );
    let unplaced = pods
        .iter()
        .find(|pod| pod["spec"]["nodeName"].is_null())
        .unwrap();
    let conditions = unplaced["status"]["conditions"].to_string();
    assert!(conditions.contains("0 of 2 nodes: 2 full"), "{conditions}");
    assert_eq!(
        leader(&cluster),
        first_leader,
        "the leader has lost its lease"
    );
    for host in &cluster.hosts {
        let id = host.pid();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let anon = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        let kilobytes: u64 = anon.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kilobytes < 60_000, "{}: {kilobytes} kB", host.name);
    }
    let after = running(&cluster, &["web"]);
    for (host, before) in before {
        assert!(
            before.is_subset(&after[&host]),
            "a running container of {host} was touched"
        );
    }
    cluster.deploy(&[("web.yaml", &deployment("web", 1, APP))]);
    cluster.eventually_running("web", 1);
}
