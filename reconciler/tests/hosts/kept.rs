//! Pods of a commit that is not eligible any more are kept running in place, and no new pod of the
//! commit is started.

use std::{collections::BTreeMap, time::Duration};

use reconciler::{
    name::{ObjectKey, PodUid, TemplateHash},
    node::NodePlan,
    observed::Observed,
    plan::LaneKey,
    pod::memory::{NodeMemory, Origin, PodMemory},
    state::CommitState,
};

use crate::{
    build::{commit, commit_id, node_port, pod, replica_set},
    host_plan::{forge, plan_of, plan_with, pod_on, settled},
    world::World,
};

fn has_lane(plan: &NodePlan, uid: &PodUid) -> bool {
    plan.lanes
        .iter()
        .any(|lane| lane.key == LaneKey::Pod(uid.clone()))
}

fn wants_image(plan: &NodePlan, image: &str) -> bool {
    plan.lanes
        .iter()
        .any(|lane| matches!(&lane.key, LaneKey::Image(_, wanted) if wanted.as_str() == image))
}

/// A ReplicaSet with a pod on each of two hosts, of a commit that is not eligible any more.
fn withdrawn() -> World {
    let mut world = settled(
        commit("c1")
            .with(replica_set("set", 2, pod("set:1")))
            .build(),
    );
    world.keep_only("c1");
    world
}

#[test]
fn a_started_pod_of_a_kept_commit_is_completed_and_a_new_one_is_not_started() {
    let mut world = withdrawn();
    let running = pod_on(&world, "set", "a");
    let forged = forge(&mut world, &running, "a");

    // Only the sandbox runs: the container must be made again, and its image must be pulled before.
    let plan = plan_of(&world, "a", Vec::new(), std::slice::from_ref(&running));
    assert!(
        has_lane(&plan, &running) || wants_image(&plan, "set:1"),
        "{:#?}",
        plan.lanes
    );
    assert!(!has_lane(&plan, &forged), "{:#?}", plan.lanes);
    assert_eq!(
        plan.memory.pods[&running].origin.as_ref().unwrap().commit,
        commit_id("c1")
    );

    // On a host without a pod of the commit nothing is started.
    let plan = plan_of(&world, "b", Vec::new(), &[]);
    assert!(plan.lanes.is_empty(), "{:#?}", plan.lanes);
}

#[test]
fn after_a_reboot_the_hosts_own_record_gives_the_origin_of_a_pod() {
    let mut world = withdrawn();
    let running = pod_on(&world, "set", "a");
    let template = world.state.pods[&running].template.clone();
    let origin = Origin {
        commit: commit_id("c1"),
        template,
    };
    let memory = PodMemory {
        started: Some(world.now),
        origin: Some(origin),
        ..PodMemory::default()
    };
    let memory = NodeMemory {
        pods: BTreeMap::from([(running.clone(), memory)]),
        ..NodeMemory::default()
    };
    let plan_of = |world: &World| {
        plan_with(
            world,
            "a",
            Vec::new(),
            Vec::new(),
            Observed::default(),
            &memory,
        )
    };
    let plan = plan_of(&world);
    assert!(
        wants_image(&plan, "set:1") || has_lane(&plan, &running),
        "{:#?}",
        plan.lanes
    );

    // A changed record in the store does not change the origin of the pod.
    let record = world.state.pods.get_mut(&running).unwrap();
    record.commit = commit_id("c9");
    record.template = TemplateHash::new("1-0123456789");
    let plan = plan_of(&world);
    assert_eq!(
        plan.memory.pods[&running].origin.as_ref().unwrap().commit,
        commit_id("c1")
    );
    assert!(
        wants_image(&plan, "set:1") || has_lane(&plan, &running),
        "{:#?}",
        plan.lanes
    );
}

#[test]
fn the_leader_makes_no_pod_of_a_kept_commit_and_follows_the_next_one() {
    let mut world = withdrawn();
    let lost = pod_on(&world, "set", "b");
    world.state.pods.remove(&lost);

    world.now += Duration::from_secs(60);
    world.run(30);
    assert_eq!(
        world.nodes_of("set"),
        ["a"],
        "no new pod of the commit is started"
    );

    // The same workload in an eligible commit: the running pod belongs to it, and the missing pod
    // is made.
    world.push(
        commit("c2")
            .with(replica_set("set", 2, pod("set:1")))
            .build(),
    );
    world.run(60);
    world.expect_healthy("c2");
    assert_eq!(world.nodes_of("set"), ["a", "b"]);
}

#[test]
fn workloads_that_a_new_commit_deletes_from_a_kept_one_count_against_the_budget() {
    let set = |name: &str| replica_set(name, 1, pod(&format!("{name}:1")));
    let build = commit("c1")
        .with(set("one"))
        .with(set("two"))
        .with(set("three"))
        .with(set("four"));
    let mut world = settled(build.build());
    world.keep_only("c1");
    world.push(commit("c2").with(set("one")).build());
    world.run(60);
    let last = world.state.rollout.history.last().unwrap();
    assert_eq!(
        (&last.commit, last.state),
        (&commit_id("c2"), CommitState::Held)
    );
    assert_eq!(world.nodes_of("two").len(), 1);
}

#[test]
fn a_failed_commit_is_not_rolled_back_to_a_kept_one() {
    let mut world = withdrawn();
    world.push(
        commit("c2")
            .with(replica_set("other", 2, pod("other:1")))
            .with(replica_set("set", 2, pod("set:1")))
            .build(),
    );
    world.break_on("a", "c2");
    world.break_on("b", "c2");
    world.run(900);
    assert_eq!(
        world.state.rollout.phase.as_str(),
        "Degraded",
        "{:#?}",
        world.state.rollout
    );
    assert_eq!(world.state.rollout.driving, Some(commit_id("c2")));
}

#[test]
fn services_of_a_kept_commit_lead_to_its_pods_on_every_host() {
    let build = commit("c1")
        .with(replica_set("set", 1, pod("set:1")))
        .service("set", "set", node_port(None));
    let mut world = settled(build.build());
    let uid = world.pods("set")[0].uid.clone();
    let host = world.state.pods[&uid]
        .place
        .node()
        .unwrap()
        .as_str()
        .to_owned();
    let other = if host == "a" { "b" } else { "a" };
    world.keep_only("c1");
    let address = std::net::Ipv4Addr::new(10, 42, if host == "a" { 1 } else { 2 }, 9);
    for report in world.reports.values_mut() {
        if let Some(status) = report.pods.get_mut(&uid) {
            status.address = Some(address);
        }
    }
    let plan = plan_of(&world, other, Vec::new(), &[]);
    assert!(
        format!("{:?}", plan.services).contains(&address.to_string()),
        "{:?}",
        plan.services
    );
    let plan = plan_of(&world, &host, Vec::new(), std::slice::from_ref(&uid));
    assert!(
        plan.services.is_some(),
        "a host with a pod keeps its Services"
    );
}

#[test]
fn an_assignment_of_a_commit_that_is_not_eligible_on_a_host_is_refused_for_this_host() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("set", 1, pod("set:1")))
            .build(),
    );
    let uid = world.pods("set")[0].uid.clone();
    let host = world.state.pods[&uid]
        .place
        .node()
        .unwrap()
        .as_str()
        .to_owned();
    world.commits.clear();
    world.barred.insert(commit_id("c1"));
    let plan = plan_of(&world, &host, Vec::new(), &[]);
    let why = &plan.report.refused[&uid];
    assert!(
        why.is_for_this_node() && why.to_string().contains("may not run on this node"),
        "{why}"
    );
}

#[test]
fn a_rewritten_record_does_not_change_the_names_of_a_pod() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("set", 1, pod("set:1")))
            .build(),
    );
    let record = world.pods("set")[0].clone();
    let host = record.place.node().unwrap().as_str().to_owned();
    let running = World::identity(&record);
    world.state.pods.get_mut(&record.uid).unwrap().key = ObjectKey::new("prod", "set-forged");
    let plan = plan_with(
        &world,
        &host,
        Vec::new(),
        vec![running],
        Observed::default(),
        &world.memory,
    );
    // Its sandbox runs, and its container is made next.
    let lanes = format!("{:#?}", plan.lanes);
    assert!(
        lanes.contains(&record.key.name) && !lanes.contains("prod"),
        "{lanes}"
    );
    assert!(plan.report.refused.is_empty(), "{:?}", plan.report.refused);
}

#[test]
fn a_rewritten_record_does_not_change_the_template_of_a_pod() {
    let build = commit("c1")
        .with(replica_set("set", 1, pod("set:1")))
        .with(replica_set("other", 1, pod("other:1")));
    let mut world = settled(build.build());
    let uid = world.pods("set")[0].uid.clone();
    let host = world.state.pods[&uid]
        .place
        .node()
        .unwrap()
        .as_str()
        .to_owned();
    let template = world.state.pods[&uid].template.clone();
    let origin = Origin {
        commit: commit_id("c1"),
        template: template.clone(),
    };
    let memory = PodMemory {
        started: Some(world.now),
        origin: Some(origin),
        ..PodMemory::default()
    };
    let memory = NodeMemory {
        pods: BTreeMap::from([(uid.clone(), memory)]),
        ..NodeMemory::default()
    };
    let other = world.pods("other")[0].clone();
    let record = world.state.pods.get_mut(&uid).unwrap();
    (record.owner, record.template) = (other.owner, other.template);
    let running = World::identity(&reconciler::state::PodRecord {
        template: template.clone(),
        ..record.clone()
    });
    let running = reconciler::plan::PodIdentity {
        owner: "ReplicaSet/default/set".parse().unwrap(),
        ..running
    };
    let plan = plan_with(
        &world,
        &host,
        Vec::new(),
        vec![running],
        Observed::default(),
        &memory,
    );
    assert_eq!(
        plan.memory.pods[&uid].origin.as_ref().unwrap().template,
        template
    );
    let lanes_of_pod = plan
        .lanes
        .iter()
        .filter(|lane| lane.key == LaneKey::Pod(uid.clone()));
    assert!(
        !format!("{:?}", lanes_of_pod.collect::<Vec<_>>()).contains("other:1"),
        "{:#?}",
        plan.lanes
    );
}
