//! The events that a host receives after an interruption, and after the lease of another host has
//! run out.

use super::*;
use crate::store::etcd::LeaseFate;

/// Waits for changes of `a` and `b`, without a list in between.
async fn resumed(host: &mut EtcdHost) -> Vec<KeyChange> {
    let mut changes = Vec::new();
    let mut resumed = 0;
    let found = |changes: &[KeyChange]| {
        changes
            .iter()
            .filter(|change| change.key().len() == 1)
            .count()
    };
    while found(&changes) < 2 {
        host.next("the changes of a and b", |event| match event {
            StoreEvent::Listed { pairs, .. } => panic!("everything was listed: {pairs:?}"),
            StoreEvent::Resumed => {
                resumed += 1;
                Some(())
            }
            StoreEvent::Changed { changes: more, .. } => {
                assert_eq!(
                    resumed, 1,
                    "changes come after the word that the store is back: {more:?}"
                );
                changes.extend(more);
                Some(())
            }
            _ => None,
        })
        .await;
    }
    changes.retain(|change| change.key().len() == 1);
    changes
}

#[tokio::test]
async fn a_watch_that_broke_off_is_resumed_and_nothing_is_told_twice_or_missed() {
    let mut server = EtcdServer::one(&[]);
    let mut host = EtcdHost::start(server.config(), "n1", "i1", false);
    host.until_alive().await;
    for count in 0..3 {
        host.etcd
            .write(vec![put("a", &count.to_string()), put("more", "1")])
            .await
            .unwrap();
        host.changes("a", 1).await;
        server.aside(|server| {
            server.ctl(&["put", "/windlass/test/b", &count.to_string()]);
            server.ctl(&["del", "/windlass/test/a"]);
        });
        host.lost().await;
        server.start();
        let changes = resumed(&mut host).await;
        let [KeyChange::Put(b), KeyChange::Delete { key, revision }] = &changes[..] else {
            panic!("{changes:?}")
        };
        assert_eq!(
            (b.key.as_str(), b.value.as_slice()),
            ("b", count.to_string().as_bytes())
        );
        assert_eq!((key.as_str(), *revision), ("a", b.revision + 1));
    }
    // A host that requests a list receives one.
    host.etcd.relist();
    host.listed().await;
}

#[tokio::test]
async fn a_store_that_came_to_the_same_revision_by_another_way_is_listed() {
    let mut server = EtcdServer::one(&[]);
    let mut host = EtcdHost::start(server.config(), "n1", "i1", false);
    host.until_alive().await;
    let backup = server.snapshot();
    let told = host.etcd.write(vec![put("a", "1")]).await.unwrap();
    host.changes("a", 1).await;
    server.restore(&backup);
    server.aside(|server| {
        for _ in 0..5 {
            server.ctl(&["put", "/windlass/test/other", "1"]);
        }
    });
    host.lost().await;
    server.start();
    let found = host.next("Listed", |event| match event {
        StoreEvent::Resumed | StoreEvent::Changed { .. } => {
            panic!("it was taken for the same: {event:?}")
        }
        StoreEvent::Listed {
            revision, pairs, ..
        } => Some((revision, pairs)),
        _ => None,
    });
    let (revision, pairs) = found.await;
    assert!(revision >= told, "{revision} {told}");
    assert!(!pairs.iter().any(|pair| pair.key == "a"), "{pairs:?}");
}

#[tokio::test]
async fn after_a_compaction_during_an_outage_everything_is_listed_again() {
    let mut server = EtcdServer::one(&[]);
    server.ctl(&["put", "/windlass/test/old", "1"]);
    let mut host = EtcdHost::start(server.config(), "n1", "i1", false);
    let (before, _) = host.listed().await;
    host.etcd.write(vec![put("told", "1")]).await.unwrap();
    host.changes("told", 1).await;
    server.aside(|server| {
        server.ctl(&["del", "/windlass/test/old"]);
        for count in 0..5 {
            server.ctl(&["put", "/windlass/test/new", &count.to_string()]);
        }
        let (found, revision) = (server.ctl(&["get", "x", "-w", "json"]), "\"revision\":");
        let revision = found
            .split_once(revision)
            .unwrap()
            .1
            .split([',', '}'])
            .next()
            .unwrap()
            .to_owned();
        server.ctl(&["compact", &revision]);
    });
    host.lost().await;
    server.start();
    let (after, pairs) = host.listed().await;
    assert!(after > before);
    assert!(
        pairs
            .iter()
            .any(|pair| pair.key == "new" && pair.value == b"4"),
        "{pairs:?}"
    );
    assert!(!pairs.iter().any(|pair| pair.key == "old"), "{pairs:?}");
}

#[tokio::test]
async fn a_lease_that_has_run_out_is_known_to_have_before_etcd_takes_its_key_away() {
    let server = EtcdServer::one(&[]);
    let mut host = EtcdHost::start(server.config(), "n1", "i1", false);
    let n2 = NodeName::new("n2");
    assert_eq!(host.etcd.outlast(&n2).await, LeaseFate::Gone);
    // Etcd's own check for such leases may come at the same instant: then the attempt is repeated.
    for _ in 0..5 {
        let other = EtcdHost::start(server.config(), "n2", "i2", false);
        host.until("the other one", |keys| keys.contains_key("nodes/n2/alive"))
            .await;
        assert_eq!(host.etcd.outlast(&n2).await, LeaseFate::Renewed);
        let found = server.ctl(&["get", "/windlass/test/nodes/n2/alive", "-w", "json"]);
        let lease = found
            .split_once("\"lease\":")
            .unwrap()
            .1
            .split(['}', ','])
            .next()
            .unwrap();
        let lease = format!("{:x}", lease.parse::<i64>().unwrap());
        drop(other);
        let fate = host.etcd.outlast(&n2).await;
        // No client can renew the lease any more, whether its key is removed yet or not.
        let (_, said) = server.try_ctl(&["lease", "keep-alive", "--once", &lease]);
        assert!(
            said.contains("expired or revoked") || said.contains("not found"),
            "{fate:?} {said}"
        );
        host.until("its key is gone", |keys| {
            !keys.contains_key("nodes/n2/alive")
        })
        .await;
        if fate == LeaseFate::RanOut {
            return;
        }
        assert_eq!(fate, LeaseFate::Gone);
    }
    panic!("etcd was always faster");
}
