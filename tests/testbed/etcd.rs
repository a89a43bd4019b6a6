//! The store of the test bed: etcd answers, limits each node to its own keys, and fails in every
//! way that the tests need.

use std::fs;
use std::time::{Duration, Instant};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use crate::SOON;
use crate::support::{Etcd, EtcdOptions, Network, eventually};

/// A client of etcd's own protocol, with a node's user. Its connections belong to the network
/// namespace of the calling thread.
async fn connect(etcd: &Etcd, node: &str) -> Client {
    let files = etcd.client(node);
    let [ca, certificate, key] =
        [files.ca, files.certificate, files.key].map(|file| fs::read(file).unwrap());
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(certificate, key));
    Client::connect(etcd.endpoints(), Some(ConnectOptions::new().with_tls(tls)))
        .await
        .unwrap()
}

#[test]
fn nodes_campaign_with_the_rights_of_the_user_in_their_certificates() {
    let network = Network::start();
    let etcd = Etcd::start(&network, 3);
    network.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let ended = tokio::time::timeout(SOON, two_candidates(&etcd)).await;
            assert!(ended.is_ok(), "the election does not end");
        });
    });
}

async fn two_candidates(etcd: &Etcd) {
    let [mut one, mut two] = [connect(etcd, "n1").await, connect(etcd, "n2").await];
    let name = format!("{}/election", etcd.prefix());
    let first = one.lease_grant(60, None).await.unwrap().id();
    let second = two.lease_grant(60, None).await.unwrap().id();
    one.campaign(name.as_str(), "n1", first).await.unwrap();
    {
        // Etcd waits for the deletion of the leader's key on behalf of the candidate, with the
        // candidate's rights.
        let mut waiting = std::pin::pin!(two.campaign(name.as_str(), "n2", second));
        let early = tokio::time::timeout(Duration::from_millis(500), waiting.as_mut()).await;
        assert!(early.is_err(), "two candidates are elected: {early:?}");
        one.lease_revoke(first).await.unwrap();
        waiting.await.unwrap();
    }
    let leader = one.leader(name.as_str()).await.unwrap();
    assert_eq!(leader.kv().unwrap().value_str().unwrap(), "n2");
    let elsewhere = one.campaign("/elsewhere/election", "n1", second).await;
    assert!(
        elsewhere
            .unwrap_err()
            .to_string()
            .contains("permission denied")
    );
}

#[test]
fn a_node_writes_its_own_keys_and_the_leader_s_and_reads_the_whole_prefix() {
    let etcd = Etcd::start(&Network::start(), 1);
    assert_eq!(etcd.endpoints(), ["https://192.168.77.5:2379"]);

    for key in [
        "cluster",
        "cluster/id",
        "election/1",
        "decided/web",
        "subnets/n2",
        "nodes/n1/status",
    ] {
        etcd.etcdctl_as("n1", &["put", &format!("/windlass/test/{key}"), "value"])
            .ok();
        assert_eq!(
            etcd.get(&format!("/windlass/test/{key}")).as_deref(),
            Some("value")
        );
    }
    for key in [
        "nodes/n2/status",
        "nodes/n10/status",
        "nodes/n1",
        "clusters",
        "other",
    ] {
        let refused = etcd.etcdctl_as("n1", &["put", &format!("/windlass/test/{key}"), "value"]);
        assert!(
            refused.stderr.contains("permission denied"),
            "{key}: {refused:?}"
        );
    }
    let read = etcd
        .etcdctl_as("n2", &["get", "--prefix", "--keys-only", "/windlass/test/"])
        .ok();
    assert_eq!(read.split_whitespace().count(), 6, "{read}");
    for range in ["/windlass/", "/windlass/other/"] {
        let refused = etcd.etcdctl_as("n2", &["get", "--prefix", range]);
        assert!(
            refused.stderr.contains("permission denied"),
            "{range}: {refused:?}"
        );
    }
    let refused = etcd.etcdctl_as("n1", &["user", "list"]);
    assert!(refused.stderr.contains("permission denied"), "{refused:?}");

    etcd.add_node("n9");
    etcd.etcdctl_as("n9", &["put", "/windlass/test/nodes/n9/status", "late"])
        .ok();
    assert_eq!(
        etcd.keys("/windlass/test/nodes/"),
        [
            "/windlass/test/nodes/n1/status",
            "/windlass/test/nodes/n9/status"
        ]
    );
    etcd.delete("/windlass/test/nodes/n9/status");
    assert_eq!(etcd.get("/windlass/test/nodes/n9/status"), None);
}

#[test]
fn a_client_without_a_certificate_gets_no_answer() {
    let network = Network::start();
    let etcd = Etcd::start(&network, 1);
    let url = format!("{}/health", etcd.endpoints()[0]);
    let files = etcd.client("n1");
    let [ca, certificate, key] =
        [&files.ca, &files.certificate, &files.key].map(|file| file.to_str().unwrap());
    let with_certificate = network.exec(&[
        "curl",
        "-sS",
        "--cacert",
        ca,
        "--cert",
        certificate,
        "--key",
        key,
        &url,
    ]);
    assert!(
        with_certificate.stdout.contains("true"),
        "{with_certificate:?}"
    );
    let without_certificate = network.exec(&["curl", "-sS", "--cacert", ca, &url]);
    // With TLS 1.3 the refusal may come after the handshake: curl's error is then a failed
    // handshake (35), or a connection that is closed while curl sends (55) or receives (56).
    assert!(
        [35, 55, 56].contains(&without_certificate.code) && without_certificate.stdout.is_empty(),
        "{without_certificate:?}"
    );
    // A node's certificate is not valid for members, which connect to each other at another port.
    let peer = url.replace("2379/health", "2380/members");
    let as_member = network.exec(&[
        "curl",
        "-sS",
        "--cacert",
        ca,
        "--cert",
        certificate,
        "--key",
        key,
        &peer,
    ]);
    assert!(!as_member.success(), "{as_member:?}");
}

#[test]
fn three_members_answer_without_one_and_not_without_two() {
    let network = Network::start();
    let etcd = Etcd::start(&network, 3);
    assert_eq!(etcd.endpoints().len(), 3);
    etcd.put("/windlass/test/x", "1");

    etcd.stop_member(0);
    eventually(SOON, "two members accept a write", || {
        etcd.etcdctl(&["put", "/windlass/test/x", "2"]).success()
    });
    etcd.pause_member(1);
    let alone = etcd.etcdctl(&["--command-timeout=2s", "get", "/windlass/test/x"]);
    assert!(!alone.success(), "one member of three answers: {alone:?}");
    etcd.resume_member(1);
    eventually(SOON, "two members answer again", || {
        etcd.etcdctl(&["get", "/windlass/test/x"]).success()
    });
    etcd.start_member(0);
    eventually(SOON, "all members answer", || {
        etcd.etcdctl(&["endpoint", "health"]).success()
    });

    network.cut(etcd.machine(2));
    etcd.kill_member(1);
    let alone = etcd.etcdctl(&["--command-timeout=2s", "get", "/windlass/test/x"]);
    assert!(!alone.success(), "one member of three answers: {alone:?}");
    network.heal(etcd.machine(2));
    etcd.start_member(1);
    eventually(SOON, "all members answer", || {
        etcd.etcdctl(&["endpoint", "health"]).success()
    });
    assert_eq!(etcd.get("/windlass/test/x").as_deref(), Some("2"));
}

#[test]
fn a_store_is_wiped_and_restored_with_its_users() {
    let network = Network::start();
    for members in [1, 3] {
        let etcd = Etcd::start(&network, members);
        let put = |node: &str, value| {
            etcd.etcdctl_as(
                node,
                &["put", &format!("/windlass/test/nodes/{node}/x"), value],
            )
        };
        put("n1", "old").ok();
        let revision = etcd.revision();
        let file = network.dir().join("snapshot");
        etcd.snapshot(&file);
        put("n1", "new").ok();

        etcd.wipe();
        assert_eq!(etcd.keys(""), Vec::<String>::new());
        assert!(etcd.revision() < revision);
        put("n2", "on an empty store").ok();
        let refused = etcd.etcdctl_as("n2", &["put", "/windlass/test/nodes/n1/x", "n2's"]);
        assert!(refused.stderr.contains("permission denied"), "{refused:?}");

        etcd.restore(&file);
        assert_eq!(etcd.keys(""), ["/windlass/test/nodes/n1/x"]);
        assert_eq!(
            etcd.get("/windlass/test/nodes/n1/x").as_deref(),
            Some("old")
        );
        assert_eq!(etcd.revision(), revision);
        put("n2", "on a restored store").ok();
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_slow_member_answers_later_and_a_paused_member_does_not_answer() {
    let etcd = Etcd::start(&Network::start(), 1);
    etcd.put("/windlass/test/x", "1");
    let took = || {
        let start = Instant::now();
        assert_eq!(etcd.get("/windlass/test/x").as_deref(), Some("1"));
        start.elapsed()
    };
    etcd.slow(0, 200);
    // A TLS handshake and a request take two round trips at least, with 400 ms of delay each.
    assert!(
        took() >= Duration::from_millis(800),
        "the slow member answers too fast"
    );
    etcd.slow(0, 0);
    eventually(SOON, "the member answers without the delay", || {
        took() < Duration::from_millis(800)
    });

    etcd.pause_member(0);
    let paused = etcd.etcdctl(&["--command-timeout=1s", "get", "/windlass/test/x"]);
    assert!(!paused.success(), "{paused:?}");
    etcd.resume_member(0);
    took();
}

#[test]
fn a_full_store_refuses_writes_and_a_compacted_store_has_no_history() {
    let options = EtcdOptions {
        quota: 256 << 10,
        ..EtcdOptions::default()
    };
    let etcd = Etcd::start_with(&Network::start(), 1, options);
    etcd.put("/windlass/test/x", "1");
    let revision = etcd.revision();
    let large = "x".repeat(100 << 10);
    eventually(SOON, "the store is full", || {
        let outcome = etcd.etcdctl(&["put", "/windlass/test/large", &large]);
        outcome.stderr.contains("database space exceeded")
    });
    assert!(etcd.etcdctl(&["alarm", "list"]).ok().contains("NOSPACE"));
    assert_eq!(etcd.get("/windlass/test/x").as_deref(), Some("1"));

    etcd.compact();
    let past = etcd.etcdctl(&["get", "/windlass/test/x", &format!("--rev={revision}")]);
    assert!(past.stderr.contains("compacted"), "{past:?}");
    etcd.etcdctl(&["defrag"]).ok();
    etcd.etcdctl(&["alarm", "disarm"]).ok();
    etcd.put("/windlass/test/x", "2");
}
