//! What runs of a commit that is not eligible any more is kept up in place, and nothing new of it
//! is started.

use std::{collections::BTreeMap, time::Duration};

use reconciler::{
    name::{PodUid, TemplateHash},
    node::NodePlan,
    observed::Observed,
    plan::LaneKey,
    pod::memory::{NodeMemory, Origin, PodMemory},
    state::CommitState,
};

use crate::{
    build::{commit, commit_id, node_port, pod, replica_set},
    refusals::{ask, ask_with, forge, one, settled},
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

/// A set of two, one on each host, of a commit that is not eligible any more.
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
fn a_pod_that_was_begun_is_gone_on_with_and_a_new_one_is_not_begun() {
    let mut world = withdrawn();
    let running = one(&world, "set", "a");
    let forged = forge(&mut world, &running, "a");
    // The sandbox alone runs: the container is to be made again, which its image comes before.
    let plan = ask(&world, "a", Vec::new(), std::slice::from_ref(&running));
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
    // On a host that has nothing of it, nothing is started at all.
    let plan = ask(&world, "b", Vec::new(), &[]);
    assert!(plan.lanes.is_empty(), "{:#?}", plan.lanes);
}

#[test]
fn after_a_reboot_the_hosts_own_record_says_what_a_pod_was() {
    let mut world = withdrawn();
    let running = one(&world, "set", "a");
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
    let ask = |world: &World| {
        ask_with(
            world,
            "a",
            Vec::new(),
            Vec::new(),
            Observed::default(),
            &memory,
        )
    };
    let plan = ask(&world);
    assert!(
        wants_image(&plan, "set:1") || has_lane(&plan, &running),
        "{:#?}",
        plan.lanes
    );
    // What the store says of it by now does not change what it is.
    let record = world.state.pods.get_mut(&running).unwrap();
    record.commit = commit_id("c9");
    record.template = TemplateHash::new("1-0123456789");
    let plan = ask(&world);
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
fn the_leader_makes_nothing_of_it_and_takes_up_what_is_pushed_next() {
    let mut world = withdrawn();
    let lost = one(&world, "set", "b");
    world.state.pods.remove(&lost);
    world.now += Duration::from_secs(60);
    world.run(30);
    assert_eq!(world.places("set"), ["a"], "nothing new of it is started");
    // The same workload, signed: the pod that runs is of it, and the missing one is made.
    world.push(
        commit("c2")
            .with(replica_set("set", 2, pod("set:1")))
            .build(),
    );
    world.run(60);
    world.expect_healthy("c2");
    assert_eq!(world.places("set"), ["a", "b"]);
}

#[test]
fn what_a_new_commit_takes_away_from_it_counts_against_the_budget() {
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
    assert_eq!(world.places("two").len(), 1);
}

#[test]
fn a_commit_that_fails_does_not_go_back_to_it() {
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
fn services_of_it_lead_to_its_pods_on_hosts_that_have_some_and_on_those_that_have_none() {
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
    let plan = ask(&world, other, Vec::new(), &[]);
    assert!(
        format!("{:?}", plan.services).contains(&address.to_string()),
        "{:?}",
        plan.services
    );
    let plan = ask(&world, &host, Vec::new(), std::slice::from_ref(&uid));
    assert!(plan.services.is_some(), "what runs here keeps its Services");
}

#[test]
fn what_a_host_has_judged_not_to_be_eligible_goes_elsewhere() {
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
    let plan = ask(&world, &host, Vec::new(), &[]);
    let why = &plan.report.refused[&uid];
    assert!(
        why.is_for_this_node() && why.to_string().contains("may not run on this node"),
        "{why}"
    );
}

#[test]
fn a_record_that_is_rewritten_does_not_change_what_a_pod_is() {
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
    let plan = ask_with(
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
    let own = plan
        .lanes
        .iter()
        .filter(|lane| lane.key == LaneKey::Pod(uid.clone()));
    assert!(
        !format!("{:?}", own.collect::<Vec<_>>()).contains("other:1"),
        "{:#?}",
        plan.lanes
    );
}
