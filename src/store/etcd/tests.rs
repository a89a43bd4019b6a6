//! Against a real etcd on loopback.

#![expect(clippy::unwrap_used, reason = "a test")]

mod history;
mod server;

use std::{
    collections::BTreeMap,
    net::TcpListener,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::sync::mpsc::UnboundedReceiver;

use self::server::{Certificates, EtcdServer, PREFIX};
use super::{
    Created, Etcd, EtcdConfig, Fence, KeyChange, SessionConfig, StoreEvent, StoredValue, Write,
    WriteError, lease::Deadline,
};
use crate::source::fetch::SecretText;
use reconciler::name::{Installation, NodeName};

/// Longer than any wait of these tests takes, also on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// A host: its handle of the store, and the events that it received.
struct EtcdHost {
    etcd: Etcd,
    events: UnboundedReceiver<StoreEvent>,
    /// A fence received while the test waited for another event.
    fence: Option<Fence>,
    /// The content of the store by the events received until now.
    keys: BTreeMap<String, Vec<u8>>,
}

impl EtcdHost {
    fn start(config: EtcdConfig, node: &str, installation: &str, candidate: bool) -> Self {
        let session = SessionConfig {
            node: NodeName::new(node),
            alive: format!(r#"{{"installation":"{installation}"}}"#).into_bytes(),
            installation: Installation::new(installation),
            candidate,
            node_ttl: Duration::from_secs(5),
            leader_ttl: Duration::from_secs(3),
        };
        let (etcd, events) = Etcd::start(config, session).unwrap();
        Self {
            etcd,
            events,
            fence: None,
            keys: BTreeMap::new(),
        }
    }

    /// The next event that `pick` selects; other events only update the content.
    async fn next<T>(&mut self, what: &str, mut pick: impl FnMut(StoreEvent) -> Option<T>) -> T {
        let mut passed = Vec::new();
        let found = tokio::time::timeout(LONG, async {
            loop {
                let event = self.events.recv().await.expect("the tasks run");
                passed.push(format!("{event:?}"));
                match &event {
                    StoreEvent::Elected(fence) => self.fence = Some(fence.clone()),
                    StoreEvent::Demoted { .. } => self.fence = None,
                    StoreEvent::Listed { pairs, .. } => {
                        self.keys = pairs
                            .iter()
                            .map(|pair| (pair.key.clone(), pair.value.clone()))
                            .collect();
                    }
                    StoreEvent::Changed { changes, .. } => {
                        changes.iter().for_each(|change| match change {
                            KeyChange::Put(pair) => {
                                self.keys.insert(pair.key.clone(), pair.value.clone());
                            }
                            KeyChange::Delete { key, .. } => {
                                self.keys.remove(key);
                            }
                        })
                    }
                    _ => {}
                }
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("no {what} within {LONG:?}, but {passed:#?}"),
        }
    }

    async fn listed(&mut self) -> (i64, Vec<StoredValue>) {
        let pick = |event| match event {
            StoreEvent::Listed {
                revision, pairs, ..
            } => Some((revision, pairs)),
            _ => None,
        };
        self.next("Listed", pick).await
    }

    async fn lost(&mut self) -> String {
        self.next("Lost", |event| {
            if let StoreEvent::Lost { why } = event {
                Some(why)
            } else {
                None
            }
        })
        .await
    }

    async fn elected(&mut self) -> Fence {
        if self.fence.is_none() {
            self.next("Elected", |event| {
                matches!(event, StoreEvent::Elected(_)).then_some(())
            })
            .await;
        }
        self.fence.take().unwrap()
    }

    async fn demoted(&mut self) -> String {
        self.next("Demoted", |event| {
            if let StoreEvent::Demoted { why } = event {
                Some(why)
            } else {
                None
            }
        })
        .await
    }

    async fn conflict(&mut self) -> String {
        self.next("Conflict", |event| {
            if let StoreEvent::Conflict { why } = event {
                Some(why)
            } else {
                None
            }
        })
        .await
    }

    /// Waits until `holds` is true for the store's content.
    async fn until(&mut self, what: &str, holds: impl Fn(&BTreeMap<String, Vec<u8>>) -> bool) {
        while !holds(&self.keys) {
            self.next(what, |event| {
                matches!(
                    event,
                    StoreEvent::Listed { .. } | StoreEvent::Changed { .. }
                )
                .then_some(())
            })
            .await;
        }
    }

    async fn until_alive(&mut self) {
        self.until("an alive key", |keys| keys.contains_key("nodes/n1/alive"))
            .await;
    }

    async fn until_candidates(&mut self, count: usize, but: &str) {
        let others = |key: &&String| key.starts_with("election/") && !but.ends_with(key.as_str());
        self.until("candidates", |keys| {
            keys.keys().filter(others).count() == count
        })
        .await;
    }

    /// Waits for `count` changes of keys that begin with `begin`, and returns them in order.
    async fn changes(&mut self, begin: &str, count: usize) -> Vec<KeyChange> {
        let mut found = Vec::new();
        while found.len() < count {
            let more = self.next("Changed", |event| match event {
                StoreEvent::Changed { changes, revision } => {
                    assert_eq!(
                        revision,
                        changes
                            .iter()
                            .map(|change| change.revision())
                            .max()
                            .unwrap()
                    );
                    Some(changes)
                }
                _ => None,
            });
            found.extend(
                more.await
                    .into_iter()
                    .filter(|change| change.key().starts_with(begin)),
            );
        }
        found
    }
}

fn put(key: &str, value: &str) -> Write {
    Write::Put {
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
    }
}

fn delete(key: &str) -> Write {
    Write::Delete {
        key: key.to_owned(),
    }
}

fn pair(key: &str, value: &str, revision: i64) -> StoredValue {
    StoredValue {
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
        revision,
    }
}

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
async fn an_etcd_that_hangs_is_lost_once_and_found_again() {
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
async fn a_leader_of_before_writes_nothing() {
    let server = EtcdServer::one(&[]);
    let mut first = EtcdHost::start(server.config(), "n1", "i1", true);
    let old = first.elected().await;
    assert!(
        first
            .etcd
            .write_fenced(&old, vec![put("k", "first")])
            .await
            .unwrap()
            > old.revision
    );
    let mut second = EtcdHost::start(server.config(), "n2", "i2", true);
    second.listed().await;
    // A user who deletes the election key ends the term, although the lease lives on.
    server.ctl(&["del", &old.key]);
    let why = first.demoted().await;
    assert!(why.contains("deleted"), "{why}");
    let new = second.elected().await;
    assert!(new.revision > old.revision);
    assert!(!old.holds());
    assert_eq!(
        first.etcd.write_fenced(&old, vec![put("k", "late")]).await,
        Err(WriteError::Fenced)
    );
    // A leader whose clock stands still takes its lease for valid; etcd refuses its write.
    let deluded = Deadline::new();
    deluded.set(Instant::now() + LONG);
    let deluded = Fence {
        until: deluded,
        ..old
    };
    assert!(deluded.holds());
    assert_eq!(
        first
            .etcd
            .write_fenced(&deluded, vec![put("k", "late")])
            .await,
        Err(WriteError::Fenced)
    );
    second
        .etcd
        .write_fenced(&new, vec![put("k", "second")])
        .await
        .unwrap();
    assert!(server.ctl(&["get", "/windlass/test/k"]).contains("second"));
}

#[tokio::test]
async fn who_ends_or_stands_no_longer_is_followed_at_once() {
    let server = EtcdServer::one(&[]);
    let mut first = EtcdHost::start(server.config(), "n1", "i1", true);
    let before = first.elected().await;
    let mut second = EtcdHost::start(server.config(), "n2", "i2", true);
    second.until_candidates(2, "").await;
    let asked = Instant::now();
    first.etcd.set_candidate(false);
    first.demoted().await;
    let fence = second.elected().await;
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    first.etcd.set_candidate(true);
    first.until_candidates(2, &before.key).await;
    let asked = Instant::now();
    second.etcd.end(true).await;
    assert!(!fence.holds());
    first.elected().await;
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    let left = server.ctl(&["get", "--prefix", "--keys-only", PREFIX]);
    assert!(
        !left.contains("nodes/n2/alive") && left.contains("nodes/n1/alive"),
        "{left}"
    );
    // A daemon that stops without leaving keeps its node's lease until that runs out.
    first.etcd.end(false).await;
    let left = server.ctl(&["get", "--prefix", "--keys-only", PREFIX]);
    assert!(
        left.contains("nodes/n1/alive") && !left.contains("election/"),
        "{left}"
    );
}

#[test]
fn a_deadline_passes_although_nothing_runs() {
    let until = Deadline::new();
    let fence = Fence {
        key: "k".to_owned(),
        revision: 1,
        until: until.clone(),
    };
    assert!(!fence.holds());
    let end = Instant::now() + Duration::from_millis(200);
    until.set(end);
    assert!(fence.holds());
    while Instant::now() < end {
        std::thread::yield_now();
    }
    assert!(!fence.holds());
}

#[tokio::test]
async fn a_full_etcd_refuses_in_words() {
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
async fn a_name_is_held_by_one_installation() {
    let server = EtcdServer::one(&[]);
    let mut first = EtcdHost::start(server.config(), "n1", "i1", false);
    first.until_alive().await;
    let mut other = EtcdHost::start(server.config(), "n1", "i2", false);
    let why = other.conflict().await;
    assert!(
        why.contains("i1") && why.contains("n1") && why.contains("`name`"),
        "{why}"
    );

    // A restarted daemon takes over its own name, also if the process before did not end in order.
    let restarted = EtcdHost::start(server.config(), "n1", "i1", false);
    // The process before does not take the name back: as far as it can know, it is a copy.
    let why = first.conflict().await;
    assert!(why.contains("copy"), "{why}");
    drop(first);

    restarted.etcd.end(true).await;
    drop(restarted);
    let held = |keys: &BTreeMap<_, _>| {
        keys.get("nodes/n1/alive")
            .is_some_and(|value: &Vec<u8>| value == br#"{"installation":"i2"}"#)
    };
    other.until("the alive key of i2", held).await;
}

#[tokio::test]
async fn a_lease_that_is_gone_is_granted_anew() {
    let server = EtcdServer::one(&[]);
    let mut host = EtcdHost::start(server.config(), "n1", "i1", false);
    host.until_alive().await;
    let leases = server.ctl(&["lease", "list"]);
    server.ctl(&["lease", "revoke", leases.lines().last().unwrap().trim()]);
    let changes = host.changes("nodes/n1/alive", 2).await;
    assert!(
        matches!(&changes[..], [KeyChange::Delete { .. }, KeyChange::Put(_)]),
        "{changes:?}"
    );
    // A key that somebody deleted is written again, too.
    server.ctl(&["del", "/windlass/test/nodes/n1/alive"]);
    let changes = host.changes("nodes/n1/alive", 2).await;
    assert!(
        matches!(&changes[..], [KeyChange::Delete { .. }, KeyChange::Put(_)]),
        "{changes:?}"
    );
}

#[tokio::test]
async fn certificates_are_users_and_wrong_ones_are_explained() {
    let (certificates, strangers) = (Certificates::new(), Certificates::new());
    let server = EtcdServer::with_tls(&certificates);
    for arguments in [
        "user add root --no-password",
        "role add root",
        "user grant-role root root",
        "user add etcd --no-password",
        "user grant-role etcd root",
        "role add n1",
        "role grant-permission n1 --prefix=true read /windlass/test/",
        "role grant-permission n1 --prefix=true readwrite /windlass/test/nodes/n1/",
        "role grant-permission n1 --prefix=true readwrite /windlass/test/election/",
        "user add n1 --no-password",
        "user grant-role n1 n1",
        "auth enable",
    ] {
        server.ctl(&arguments.split(' ').collect::<Vec<_>>());
    }
    let config = |tls| EtcdConfig {
        tls: Some(tls),
        ..server.config()
    };
    let mut host = EtcdHost::start(config(certificates.issue("n1")), "n1", "i1", true);
    host.until_alive().await;
    host.elected().await;
    host.etcd
        .write(vec![put("nodes/n1/status", "1")])
        .await
        .unwrap();
    let refused = host
        .etcd
        .write(vec![put("nodes/n2/status", "1")])
        .await
        .unwrap_err();
    let WriteError::Refused(why) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        why.contains("does not allow this") && why.contains("n1.crt"),
        "{why}"
    );
    // The second session also waits for the name under etcd's rules for users.
    let mut second = EtcdHost::start(config(certificates.issue("n1")), "n1", "i1", true);
    second.until_candidates(2, "").await;
    drop(host);
    second.elected().await;

    let wrong_ca = super::EtcdTls {
        ca: strangers.issue("x").ca,
        ..certificates.issue("n2")
    };
    let why = EtcdHost::start(config(wrong_ca), "n2", "i2", false)
        .lost()
        .await;
    assert!(
        why.contains("is not signed by the CA in") && why.contains("ca.crt"),
        "{why}"
    );
    let stranger = super::EtcdTls {
        ca: certificates.issue("x").ca,
        ..strangers.issue("n2")
    };
    let why = EtcdHost::start(config(stranger), "n2", "i2", false)
        .lost()
        .await;
    assert!(
        why.contains("not accept this host's certificate") && why.contains("n2.crt"),
        "{why}"
    );
    let nobody = certificates.issue("nobody");
    let why = EtcdHost::start(config(nobody), "n2", "i2", false)
        .lost()
        .await;
    assert!(why.contains("nobody.crt"), "{why}");
}

#[tokio::test]
async fn a_password_works_and_a_wrong_one_is_explained() {
    let server = EtcdServer::one(&[]);
    for arguments in [
        "user add root:r",
        "user grant-role root root",
        "role add n1",
        "role grant-permission n1 --prefix=true readwrite /windlass/test/",
        "user add n1:secret",
        "user grant-role n1 n1",
        "auth enable",
    ] {
        server.ctl(&arguments.split(' ').collect::<Vec<_>>());
    }
    let config = |password| EtcdConfig {
        user: Some(("n1".to_owned(), SecretText::new(password))),
        ..server.config()
    };
    let mut host = EtcdHost::start(config("secret"), "n1", "i1", true);
    host.until_alive().await;
    let fence = host.elected().await;
    host.etcd
        .write_fenced(&fence, vec![put("k", "1")])
        .await
        .unwrap();
    let why = EtcdHost::start(config("wrong"), "n2", "i2", false)
        .lost()
        .await;
    assert!(
        why.contains("the user n1 by this password") && !why.contains("wrong"),
        "{why}"
    );
    let why = EtcdHost::start(server.config(), "n2", "i2", false)
        .lost()
        .await;
    assert!(why.contains("asks for a user"), "{why}");
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
async fn an_end_point_that_takes_connections_and_says_nothing_is_passed_over() {
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

#[tokio::test]
async fn what_is_wrong_in_the_configuration_is_said_at_once() {
    let session = |alive: &str| SessionConfig {
        node: NodeName::new("n1"),
        alive: alive.as_bytes().to_vec(),
        installation: Installation::new("i1"),
        candidate: false,
        node_ttl: Duration::from_secs(5),
        leader_ttl: Duration::from_secs(3),
    };
    let config = |endpoint: &str, prefix: &str| EtcdConfig {
        endpoints: vec![endpoint.to_owned()],
        prefix: prefix.to_owned(),
        tls: None,
        user: None,
    };
    let alive = r#"{"installation":"i1"}"#;
    let error = |config, alive: &str| Etcd::start(config, session(alive)).unwrap_err().to_string();
    assert!(error(config("127.0.0.1:2379", "/w"), alive).contains("must be as https://"));
    assert!(error(config("http://127.0.0.1:2379", "/"), alive).contains("must name this cluster"));
    assert!(error(config("http://127.0.0.1:2379", "/w"), "{}").contains("`installation`"));
    let tls = super::EtcdTls {
        ca: "/none/ca".into(),
        certificate: "/none/c".into(),
        key: "/none/k".into(),
    };
    let with_tls = |endpoint| EtcdConfig {
        tls: Some(tls.clone()),
        ..config(endpoint, "/w")
    };
    assert!(error(with_tls("http://127.0.0.1:2379"), alive).contains("write https://"));
    assert!(error(with_tls("https://127.0.0.1:2379"), alive).contains("/none/ca"));
}
