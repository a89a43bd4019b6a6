//! Versions side by side: a cluster of an earlier version is taken over, and the leader decides
//! nothing that the oldest living member cannot read.

use std::collections::BTreeSet;

use reconciler::{
    name::{ContainerId, NodeName},
    state::{RecordFormat, RecordKey},
};

use super::{
    bed::{LoopBed, RunningLoop},
    etcd::EtcdProcess,
    record::RecordedCluster,
    web,
};

/// The calls that change a pod: all but those for its files, and pulls.
fn calls_to_pods(bed: &LoopBed) -> Vec<String> {
    let changes_pod = |call: &String| {
        let harmless = ["pull ", "prepare_files "];
        !harmless.iter().any(|begin| call.starts_with(begin))
    };
    bed.engine.calls().into_iter().filter(changes_pod).collect()
}

/// The running containers of pods other than `web`.
fn others_than_web(bed: &LoopBed) -> BTreeSet<ContainerId> {
    let containers = bed.engine.containers().into_iter();
    containers
        .filter(|(_, container)| {
            !container.identity.pod.name.starts_with("web-") && container.state.is_alive()
        })
        .map(|(id, _)| id)
        .collect()
}

async fn until_current(daemon: &mut RunningLoop) {
    daemon
        .until("the host does not follow the store", |view| {
            let current = view
                .cluster
                .as_ref()
                .is_some_and(|cluster| cluster.store == "current" && cluster.leader.is_some());
            current && view.troubles.is_empty() && view.converged
        })
        .await;
}

async fn until_leader(daemon: &mut RunningLoop, leader: &str) {
    let leader = Some(NodeName::new(leader));
    daemon
        .until("another host leads", |view| {
            let cluster = view.cluster.as_ref();
            cluster.is_some_and(|cluster| cluster.leader == leader)
        })
        .await;
}

#[tokio::test]
async fn a_cluster_of_an_earlier_version_is_taken_over_without_a_restart_and_follows_pushes() {
    let cluster = RecordedCluster::start().await;
    let beds =
        [1, 2, 3].map(|number| LoopBed::recorded(&cluster.host(number), cluster.store.clone()));
    let before: Vec<_> = beds.iter().map(|bed| bed.engine.containers()).collect();
    assert!(before.iter().all(|containers| containers.len() >= 4));

    let mut daemons = Vec::new();
    for bed in &beds {
        daemons.push(bed.start().await);
    }
    let recorded_head = beds[0].work.head();
    for (daemon, bed) in daemons.iter_mut().zip(&beds) {
        daemon.fetch(bed, bed).await;
        until_current(daemon).await;
        daemon.until_healthy(&recorded_head).await;
    }
    // Whatever a daemon does to the pods that it takes over, it does in its first cycles.
    for daemon in &mut daemons {
        for _ in 0..3 {
            let made = daemon.view().made;
            daemon.links_change();
            daemon
                .until("there is no further cycle", |view| view.made > made)
                .await;
        }
    }
    for (bed, before) in beds.iter().zip(&before) {
        assert_eq!(calls_to_pods(bed), Vec::<String>::new());
        assert_eq!(bed.engine.containers(), *before);
    }

    let manifests = std::fs::read_to_string(beds[0].work.path().join("all.yaml")).unwrap();
    let next_version = manifests.replace("app:2'", "app:1'");
    assert_ne!(next_version, manifests);
    let untouched: Vec<_> = beds.iter().map(others_than_web).collect();
    let pushed = daemons[0].push(&beds[0], &next_version).await;
    for (daemon, bed) in daemons.iter().zip(&beds).skip(1) {
        daemon.fetch(bed, &beds[0]).await;
    }
    for daemon in &mut daemons {
        daemon.until_healthy(&pushed).await;
    }
    for (bed, untouched) in beds.iter().zip(&untouched) {
        assert_eq!(others_than_web(bed), *untouched);
    }
    assert_eq!(
        beds.iter()
            .map(|bed| bed.alive("web-").len())
            .sum::<usize>(),
        3
    );
}

/// A format in which the rollout is a new kind of record.
fn rollout_since_two(key: &RecordKey) -> RecordFormat {
    match key {
        RecordKey::Rollout => RecordFormat::new(2),
        _ => RecordFormat::FIRST,
    }
}

#[tokio::test]
async fn a_leader_decides_nothing_that_the_oldest_member_cannot_read() {
    let etcd = EtcdProcess::new();
    let mut leader_bed = LoopBed::member(1, etcd.config());
    leader_bed.record_format = RecordFormat::new(2);
    leader_bed.record_since = rollout_since_two;
    let mut leader = leader_bed.start().await;
    let first = leader.push(&leader_bed, &web("web:1")).await;
    leader.until_healthy(&first).await;

    let mut member_bed = LoopBed::member(2, etcd.config());
    member_bed.record_format = RecordFormat::FIRST;
    let old_member = member_bed.start().await;
    old_member.fetch(&member_bed, &leader_bed).await;
    leader
        .until("the leader does not know the member", |view| {
            view.nodes.contains_key(&NodeName::new("n2"))
        })
        .await;
    let second = leader.push(&leader_bed, &web("web:2")).await;
    leader
        .until_troubled("node n2 reads records up to format 1: upgrade Windlass on that node")
        .await;
    let target = leader.view().state.rollout.target.clone();
    assert_eq!(target.as_ref(), Some(&first), "nothing was decided");
    assert_eq!(leader_bed.alive("web-").len(), 2);
    old_member.end().await;

    member_bed.record_format = RecordFormat::new(2);
    member_bed.record_since = rollout_since_two;
    let upgraded_member = member_bed.start().await;
    upgraded_member.fetch(&member_bed, &leader_bed).await;
    leader.until_healthy(&second).await;
    assert_eq!(leader.view().troubles, Vec::new());
}

#[tokio::test]
async fn a_format_that_no_version_has_stops_no_decision() {
    let etcd = EtcdProcess::new();
    let leader_bed = LoopBed::member(1, etcd.config());
    let mut leader = leader_bed.start().await;
    let first = leader.push(&leader_bed, &web("web:1")).await;
    leader.until_healthy(&first).await;

    let mut member_bed = LoopBed::member(2, etcd.config());
    member_bed.record_format = RecordFormat::new(0);
    let member = member_bed.start().await;
    leader
        .until("the leader does not know the member", |view| {
            view.nodes.contains_key(&NodeName::new("n2"))
        })
        .await;
    let second = leader.push(&leader_bed, &web("web:2")).await;
    member.fetch(&member_bed, &leader_bed).await;
    leader.until_healthy(&second).await;
}

#[tokio::test]
async fn a_host_that_cannot_read_a_newer_record_follows_on_and_leaves_leading_to_a_newer_host() {
    let etcd = EtcdProcess::new();
    let bed = LoopBed::member(1, etcd.config());
    let mut host = bed.start().await;
    let first = host.push(&bed, &web("web:1")).await;
    host.until_healthy(&first).await;
    until_leader(&mut host, "n1").await;

    let mut newer_bed = LoopBed::member(2, etcd.config());
    newer_bed.record_format = RecordFormat::new(99);
    let newer = newer_bed.start().await;
    newer.fetch(&newer_bed, &bed).await;
    let mut client = etcd.client().await;
    let key = "decided/claims/default/data";
    client.put(key, r#"{"claim": ["data", {}]}"#).await;

    // Both hosts are this version, so the newer host cannot read the record either: each leaves
    // leading only to a host with a newer format than its own.
    until_leader(&mut host, "n2").await;
    host.until_troubled("key decided/claims/default/data of the store cannot be read")
        .await;
    let second = host.push(&bed, &web("web:2")).await;
    newer.fetch(&newer_bed, &bed).await;
    host.until_healthy(&second).await;
    assert_eq!(client.values(key).await.len(), 1, "the record is kept");

    // Without a newer host the older one leads again, and decides.
    newer.end().await;
    until_leader(&mut host, "n1").await;
    let third = host.push(&bed, &web("web:1")).await;
    host.until("the host does not decide", |view| {
        view.state.rollout.target.as_ref() == Some(&third)
    })
    .await;
    assert_eq!(client.values(key).await.len(), 1, "the record is kept");
}
