//! What is on a host and belongs to no pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use reconciler::{
    fault::{Fault, FaultKind},
    name::{LinkName, PodUid},
    observed::{LaneFailure, Observed},
    plan::{Lane, LaneKey, PodIdentity, Step},
    pod::{
        link::link_name,
        memory::{NodeMemory, PodMemory},
    },
};

use crate::{
    build::{bare, commit, daemon_set, pod},
    host_plan::{forge, plan_with, pod_on, settled},
    world::World,
};

#[test]
fn the_link_of_a_pod_that_is_nowhere_is_removed() {
    let world = settled(commit("c1").with(bare("web", pod("web:1"))).build());
    let web = world.pods("web")[0];
    let host = web.place.node().unwrap().to_string();
    let strange = LinkName::parse(&format!("{}strange", LinkName::PREFIX)).unwrap();
    let observed = Observed {
        links: BTreeSet::from([strange.clone(), link_name(&web.uid)]),
        ..Observed::default()
    };

    let plan = plan_with(
        &world,
        &host,
        Vec::new(),
        Vec::new(),
        observed,
        &world.memory,
    );

    let links: Vec<_> = plan
        .lanes
        .iter()
        .filter(|lane| matches!(lane.key, LaneKey::Link(_)))
        .map(|lane| (lane.key.clone(), lane.steps.clone()))
        .collect();
    let removed = vec![Step::Disconnect(strange.clone())];
    assert_eq!(links, [(LaneKey::Link(strange), removed)]);
}

/// Two pods of which the first runs on the host `a`, with the identity of a pod without a record.
fn with_orphan() -> (World, PodUid, PodUid, PodIdentity) {
    let mut world = settled(
        commit("c1")
            .with(daemon_set("agent", pod("agent:1")))
            .build(),
    );
    let (here, there) = (pod_on(&world, "agent", "a"), pod_on(&world, "agent", "b"));
    let orphan = forge(&mut world, &here, "a");
    let identity = World::identity(&world.state.pods.remove(&orphan).unwrap());
    (world, here, there, identity)
}

#[test]
fn links_of_pods_with_a_record_or_a_container_stay() {
    let (world, here, there, orphan) = with_orphan();
    let links = [&here, &there, &orphan.uid].map(link_name);
    let observed = Observed {
        links: BTreeSet::from(links),
        ..Observed::default()
    };
    let memory = &world.memory;
    let plan = plan_with(&world, "a", Vec::new(), vec![orphan], observed, memory);
    let is_link = |lane: &&Lane| matches!(lane.key, LaneKey::Link(_));
    assert_eq!(plan.lanes.iter().find(is_link), None);
}

#[test]
fn files_of_a_pod_without_record_and_container_are_removed_as_soon_as_a_lane_may_run() {
    let (world, here, there, orphan) = with_orphan();
    let strange = PodUid::new("strange");
    let key = LaneKey::Pod(strange.clone());
    let uids = [&strange, &here, &there, &orphan.uid];
    let files = uids.map(|uid| (uid.clone(), "digest".to_owned()));
    let failed = |seconds: u64| LaneFailure {
        fault: Fault::new(FaultKind::Other, "the removal failed"),
        container: None,
        since: world.now - Duration::from_secs(seconds),
        at: world.now - Duration::from_secs(seconds),
        count: 1,
        removes: true,
    };
    for (failure, runs, expected) in [
        (None, false, true),
        (None, true, false),
        (Some(failed(9)), false, false),
        (Some(failed(10)), false, true),
        (Some(failed(10)), true, false),
    ] {
        let observed = Observed {
            files: BTreeMap::from(files.clone()),
            lanes: runs.then(|| key.clone()).into_iter().collect(),
            failures: failure
                .clone()
                .map(|failure| (key.clone(), failure))
                .into_iter()
                .collect(),
            ..Observed::default()
        };
        let running = vec![orphan.clone()];
        let plan = plan_with(&world, "a", Vec::new(), running, observed, &world.memory);
        let removals = plan.lanes.iter().flat_map(|lane| &lane.steps);
        let removed: Vec<&PodUid> = removals
            .filter_map(|step| match step {
                Step::RemoveFiles(uid) => Some(uid),
                _ => None,
            })
            .collect();
        let wanted: Vec<&PodUid> = expected.then_some(&strange).into_iter().collect();
        assert_eq!(removed, wanted, "{failure:?}, runs: {runs}");
    }
}

#[test]
fn a_pod_without_a_record_for_its_host_is_reported_and_remembered() {
    let (world, here, there, orphan) = with_orphan();
    let misplaced = World::identity(&world.state.pods[&there]);
    let own = World::identity(&world.state.pods[&here]);
    let known = |number| PodMemory {
        address: Some(Ipv4Addr::new(10, 42, 1, number)),
        ..PodMemory::default()
    };
    let memory = NodeMemory {
        pods: BTreeMap::from([(orphan.uid.clone(), known(7)), (there.clone(), known(8))]),
        ..NodeMemory::default()
    };
    let running = vec![own, misplaced, orphan.clone()];
    let observed = Observed::default();
    let plan = plan_with(&world, "a", Vec::new(), running, observed, &memory);

    assert_eq!(plan.report.orphans, std::slice::from_ref(&orphan));
    assert!(!plan.report.pods.contains_key(&orphan.uid));
    let message = |uid| plan.report.pods[uid].message.as_deref();
    assert_eq!(
        message(&there),
        Some("it runs here, and its record names b")
    );
    assert_ne!(message(&here), message(&there));
    for uid in [&orphan.uid, &there] {
        assert_eq!(plan.memory.pods[uid], memory.pods[uid]);
    }
}
