//! Against a real etcd on loopback.

#![expect(clippy::unwrap_used, reason = "a test")]

mod access;
mod history;
mod host;
mod leases;
mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::sync::mpsc::UnboundedReceiver;

use self::host::{EtcdHost, delete, pair, put};
use self::server::{Certificates, EtcdServer, PREFIX};
use super::{
    Created, Etcd, EtcdConfig, Fence, KeyChange, SessionConfig, StoreEvent, StoredValue, Write,
    WriteError, lease::Deadline,
};
use crate::source::fetch::SecretText;
use reconciler::name::{Installation, NodeName};

/// Longer than any wait of these tests takes, also on a busy machine.
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_is_written_is_listed_and_then_watched_in_order() {
    let server = EtcdServer::one(&[]);
    server.ctl(&["put", "/windlass/test/a", "1"]);
    server.ctl(&["put", "/windlass/test2/stranger", "1"]);
    let mut host = EtcdHost::start(server.config(), "n1", "i1", false);
    let told = host.next("Listed", |event| match event {
        StoreEvent::Listed {
            etcd_cluster,
            revision,
            pairs,
            ..
        } => Some((etcd_cluster, revision, pairs)),
        _ => None,
    });
    let (etcd_cluster, revision, pairs) = told.await;
    let header = server.ctl(&["get", "x", "-w", "json"]);
    assert!(
        header.contains(&format!("\"cluster_id\":{etcd_cluster},")),
        "{etcd_cluster} {header}"
    );
    let a = pairs.iter().find(|pair| pair.key == "a").unwrap();
    assert!(a.revision <= revision && a.value == b"1");
    assert!(
        !pairs.iter().any(|pair| pair.key.contains("stranger")),
        "{pairs:?}"
    );

    // Each transaction has one revision; the same key twice makes two transactions.
    let last = host
        .etcd
        .write(vec![
            put("w/b", "1"),
            put("w/c", "2"),
            put("w/b", "3"),
            delete("w/c"),
        ])
        .await
        .unwrap();
    let changes = host.changes("w/", 4).await;
    let expected = vec![
        KeyChange::Put(pair("w/b", "1", last - 1)),
        KeyChange::Put(pair("w/c", "2", last - 1)),
        KeyChange::Put(pair("w/b", "3", last)),
        KeyChange::Delete {
            key: "w/c".to_owned(),
            revision: last,
        },
    ];
    assert_eq!(changes, expected);

    // More records than one transaction and one page can hold.
    let many: Vec<_> = (0..450)
        .map(|index| put(&format!("many/{index:03}"), &"x".repeat(5000)))
        .collect();
    let last = host.etcd.write(many).await.unwrap();
    host.changes("many/", 450).await;
    // The futures of etcd's client are large; the store's futures must fit in those of the daemon.
    assert!(size_of_val(&host.etcd.write(Vec::new())) < 4096);
    host.etcd.relist();
    let (revision, pairs) = host.listed().await;
    assert!(revision >= last);
    assert_eq!(
        pairs
            .iter()
            .filter(|pair| pair.key.starts_with("many/"))
            .count(),
        450
    );
    assert!(pairs.is_sorted_by(|a, b| a.key < b.key));
}

#[tokio::test]
async fn a_key_is_created_once() {
    let server = EtcdServer::one(&[]);
    let host = EtcdHost::start(server.config(), "n1", "i1", false);
    let Created::Made(made) = host.etcd.create("k", b"1".to_vec()).await.unwrap() else {
        panic!("it is new")
    };
    let again = host.etcd.create("k", b"2".to_vec()).await.unwrap();
    assert_eq!(again, Created::Exists(pair("k", "1", made)));
}

#[tokio::test]
async fn an_etcd_that_hangs_is_lost_once_and_then_answers_again() {
    let server = EtcdServer::one(&[]);
    let mut host = EtcdHost::start(server.config(), "n1", "i1", true);
    host.listed().await;
    let fence = host.elected().await;
    assert!(fence.holds());
    server.members[0].signal(Signal::STOP);
    let stopped = Instant::now();
    let (mut lost, mut demoted) = (None, None);
    while lost.is_none() || demoted.is_none() {
        host.next("Lost and Demoted", |event| match event {
            StoreEvent::Lost { why } => {
                assert!(lost.replace(why).is_none(), "told twice");
                Some(())
            }
            StoreEvent::Demoted { why } => demoted.replace(why).is_none().then_some(()),
            _ => None,
        })
        .await;
        assert!(
            stopped.elapsed() < Duration::from_secs(6),
            "{:?}",
            stopped.elapsed()
        );
    }
    assert!(!fence.holds());
    let refused = host.etcd.write_fenced(&fence, vec![put("k", "1")]).await;
    assert_eq!(refused, Err(WriteError::Fenced));
    let unknown = host
        .etcd
        .write(vec![put("nodes/n1/x", "1")])
        .await
        .unwrap_err();
    assert!(
        unknown.to_string().contains("gave no answer within"),
        "{unknown}"
    );
    server.members[0].signal(Signal::CONT);
    host.next("Listed or Resumed", |event| match event {
        StoreEvent::Listed { .. } | StoreEvent::Resumed => Some(()),
        StoreEvent::Lost { why } => panic!("told twice: {why}"),
        _ => None,
    })
    .await;
    let again = host.elected().await;
    assert!(again.revision > fence.revision);
    host.etcd
        .write_fenced(&again, vec![put("k", "1")])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_full_etcd_refuses_with_a_reason() {
    let server = EtcdServer::one(&["--quota-backend-bytes=4000000"]);
    let mut host = EtcdHost::start(server.config(), "n1", "i1", false);
    host.listed().await;
    let mut refused = None;
    // Etcd updates the size of its database only after it has written to the disk, at intervals of
    // its own.
    for count in 0..500 {
        if let Err(error) = host
            .etcd
            .write(vec![put(&format!("big/{count}"), &"x".repeat(900_000))])
            .await
        {
            refused = Some(error);
            break;
        }
    }
    let Some(WriteError::Refused(why)) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        why.contains("etcdctl alarm disarm") && why.contains("full"),
        "{why}"
    );
    let large = host
        .etcd
        .write(vec![put("huge", &"x".repeat(3_000_000))])
        .await
        .unwrap_err();
    let WriteError::Refused(why) = large else {
        panic!("{large:?}")
    };
    assert!(why.contains("large"), "{why}");
}

#[tokio::test]
async fn a_host_starts_without_etcd_and_connects_later() {
    let mut server = EtcdServer::one(&[]);
    server.members[0].stop();
    let mut host = EtcdHost::start(server.config(), "n1", "i1", true);
    let why = host.lost().await;
    assert!(why.contains("nobody listens there"), "{why}");
    let unwritten = host.etcd.write(vec![put("k", "1")]).await.unwrap_err();
    assert!(
        unwritten.to_string().contains("nobody listens there"),
        "{unwritten}"
    );
    server.start();
    host.listed().await;
    host.elected().await;
}

#[tokio::test]
async fn an_end_point_that_accepts_connections_and_does_not_answer_is_left() {
    let server = EtcdServer::one(&[]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let real = server.members[0].url.clone();
    for endpoints in [vec![silent.clone(), real.clone()], vec![real, silent]] {
        let started = Instant::now();
        let node = format!("n{}", endpoints[0].len());
        let mut host = EtcdHost::start(
            EtcdConfig {
                endpoints,
                ..server.config()
            },
            &node,
            "i1",
            true,
        );
        host.listed().await;
        host.elected().await;
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
        host.etcd.end(true).await;
    }
}

#[tokio::test]
async fn one_member_of_three_may_hang() {
    let server = EtcdServer::three();
    let mut host = EtcdHost::start(server.config(), "n1", "i1", true);
    host.listed().await;
    let fence = host.elected().await;
    let used = host.etcd.inner.link.endpoints.subscribe().borrow().index;
    // A member that is not etcd's own leader: the election of a new one would take etcd two
    // seconds.
    let statuses = server.ctl(&["endpoint", "status", "-w", "fields"]);
    let ids: Vec<_> = statuses
        .lines()
        .filter(|line| line.starts_with("\"MemberID\""))
        .collect();
    let id = |index: usize| {
        format!(
            "{:x}",
            ids[index]
                .split(':')
                .next_back()
                .unwrap()
                .trim()
                .parse::<u64>()
                .unwrap()
        )
    };
    let other = (used + 1) % 3;
    let leader = statuses
        .lines()
        .find(|line| line.starts_with("\"Leader\""))
        .unwrap();
    let leader = format!(
        "{:x}",
        leader
            .split(':')
            .next_back()
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap()
    );
    if leader == id(used) {
        server.ctl(&["move-leader", &id(other)]);
    }
    server.members[used].signal(Signal::STOP);
    let stopped = Instant::now();
    while host
        .etcd
        .write_fenced(&fence, vec![put("k", "1")])
        .await
        .is_err()
    {
        assert!(
            fence.holds(),
            "leadership was lost after {:?}",
            stopped.elapsed()
        );
    }
    assert!(
        stopped.elapsed() < Duration::from_secs(3),
        "{:?}",
        stopped.elapsed()
    );
    let mut seen = false;
    while !seen {
        seen = host
            .next("the write", |event| match event {
                StoreEvent::Lost { why } | StoreEvent::Demoted { why } => panic!("{why}"),
                StoreEvent::Listed { pairs, .. } => Some(pairs.iter().any(|pair| pair.key == "k")),
                StoreEvent::Changed { changes, .. } => {
                    Some(changes.iter().any(|change| change.key() == "k"))
                }
                _ => None,
            })
            .await;
    }
    assert!(
        stopped.elapsed() < Duration::from_secs(5),
        "{:?}",
        stopped.elapsed()
    );
}
