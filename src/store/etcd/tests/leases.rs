//! The leases of a host: its name, and its leadership.

use super::*;

#[tokio::test]
async fn an_earlier_leader_writes_nothing() {
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
async fn a_leader_that_ends_or_withdraws_is_followed_at_once() {
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
async fn a_key_whose_lease_does_not_surely_last_is_late() {
    let server = EtcdServer::one(&[]);
    let mut host = EtcdHost::start(server.config(), "n1", "i1", false);
    host.until_alive().await;
    for (key, seconds) in [("long", "600"), ("short", "20"), ("gone", "600")] {
        let granted = server.ctl(&["lease", "grant", seconds]);
        let lease = granted.split_whitespace().nth(1).unwrap();
        server.ctl(&[
            "put",
            &format!("/windlass/test/{key}"),
            "1",
            "--lease",
            lease,
        ]);
    }
    // The watch of a host may receive the end of a key later than etcd knows it.
    server.ctl(&["del", "/windlass/test/gone"]);
    server.ctl(&["put", "/windlass/test/without", "1"]);
    let keys = || ["long", "short", "gone", "without"].map(str::to_owned);
    let late = host
        .etcd
        .late(keys().to_vec(), Duration::from_secs(60))
        .await;
    let expected = ["short", "gone", "without"].map(str::to_owned);
    assert_eq!(late, BTreeSet::from(expected));
    // Nothing is known about a key while etcd does not answer.
    server.members[0].signal(Signal::STOP);
    let late = host
        .etcd
        .late(keys().to_vec(), Duration::from_secs(60))
        .await;
    server.members[0].signal(Signal::CONT);
    assert_eq!(late, BTreeSet::from(keys()));
}
