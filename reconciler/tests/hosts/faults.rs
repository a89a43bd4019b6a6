//! Failures of a commit, and failures of a node.

use std::{sync::Arc, time::Duration};

use reconciler::{
    commit::Commit,
    foreign::ForeignText,
    name::NodeName,
    object::{Control, DaemonSetUpdate, IntOrPercent, Workload},
    state::{FailureClass, NodeLife, NotReady, Phase, Preparation},
};

use crate::{
    build::{PodSpecExt, bare, commit, commit_id, daemon_set, deployment, pod, recreate, rolling},
    world::{World, name},
};

fn web(id: &str, image: &str) -> Arc<Commit> {
    commit(id).with(deployment("web", 3, pod(image))).build()
}

fn daemons(id: &str, image: &str) -> Arc<Commit> {
    commit(id).with(daemon_set("agent", pod(image))).build()
}

/// Three nodes on which the first commit is healthy.
fn settled(first: Arc<Commit>) -> World {
    let mut world = World::new(&["a", "b", "c"]);
    let id = first.id.clone();
    world.push(first);
    world.run(30);
    world.expect_healthy(id.as_str());
    world
}

#[test]
fn a_node_that_fails_alone_does_not_fail_the_commit() {
    let mut world = settled(web("c1", "web:1"));
    world.break_on("b", "c2");
    world.push(web("c2", "web:2"));
    world.run(90);
    world.expect_healthy("c2");
    assert!(world.faulty.contains(&name("b")));
    assert_eq!(
        world.nodes_of("web"),
        ["a", "a", "c"],
        "the pod of node b runs on another node"
    );
    assert!(
        world.bounds["web"].1 <= 4,
        "maxSurge is honoured: {:?}",
        world.bounds
    );
    assert!(
        world.state.rollout.faulty.is_empty(),
        "no pod of the commit is left on the faulty node"
    );
}

#[test]
fn a_recreate_deployment_stops_the_pod_on_a_faulty_node_before_it_makes_another() {
    let web = |id: &str, image: &str| commit(id).with(recreate("web", 3, pod(image))).build();
    let mut world = settled(web("c1", "web:1"));
    world.break_on("b", "c2");

    world.push(web("c2", "web:2"));
    world.run(90);
    world.expect_healthy("c2");
    assert!(world.faulty.contains(&name("b")));
    assert_eq!(
        world.nodes_of("web"),
        ["a", "a", "c"],
        "the pod of node b runs on another node"
    );
    assert_eq!(
        world.bounds["web"].1, 3,
        "never beside the failed pod: {:?}",
        world.bounds
    );
}

#[test]
fn a_daemon_pod_stays_on_its_faulty_node_and_the_other_nodes_are_updated() {
    let mut world = settled(daemons("c1", "agent:1"));
    world.break_on("b", "c2");
    world.push(daemons("c2", "agent:2"));
    world.run(90);
    world.expect_healthy("c2");
    assert_eq!(world.nodes_of("agent"), ["a", "b", "c"]);
    assert!(
        world
            .pods("agent")
            .iter()
            .all(|record| record.commit == commit_id("c2"))
    );
    let why = &world.state.rollout.faulty[&name("b")];
    assert!(why.to_string().contains("crash loop"), "{why}");

    // The node stays faulty when it is lost, and when it comes back.
    for life in [NodeLife::Lost, NodeLife::Ready] {
        world.set_life("b", life);
        world.run(30);
        assert!(world.state.rollout.faulty.contains_key(&name("b")));
    }
    world.broken.clear();
    world.run(30);
    assert!(
        world.state.rollout.faulty.is_empty(),
        "node b is no longer faulty"
    );
}

#[test]
fn failures_on_two_of_three_nodes_fail_the_commit() {
    let mut world = settled(web("c1", "web:1"));
    world.break_on("b", "c2");
    world.break_on("c", "c2");

    world.push(web("c2", "web:2"));
    world.run(90);
    world.expect_healthy("c1");
    let rollback = world.state.rollout.rollback.as_ref().unwrap();
    assert_eq!(rollback.class, FailureClass::CrashLoop);
    assert!(
        rollback.reason.to_string().contains("2 of 3 nodes fail"),
        "{}",
        rollback.reason
    );
}

#[test]
fn a_failure_on_the_first_updated_node_fails_the_commit() {
    let mut world = settled(daemons("c1", "agent:1"));
    world.break_on("a", "c2");
    world.push(daemons("c2", "agent:2"));
    world.run(60);
    world.expect_healthy("c1");
    assert!(world.state.rollout.bad.contains_key(&commit_id("c2")));
}

#[test]
fn a_bare_pod_that_fails_on_its_only_node_fails_the_commit() {
    let mut world = settled(web("c1", "web:1"));
    world.break_on("a", "c2");
    world.break_on("b", "c2");
    world.break_on("c", "c2");
    let next = commit("c2")
        .with(deployment("web", 3, pod("web:1")))
        .with(bare("job", pod("job:1")))
        .build();
    world.push(next);
    world.run(60);
    world.expect_healthy("c1");
}

#[test]
fn a_node_that_cannot_pull_the_images_does_not_delay_the_others() {
    for preparation in [
        Preparation::Failed(ForeignText::new("no such platform")),
        Preparation::Waiting(ForeignText::new("no disk")),
    ] {
        let mut world = settled(daemons("c1", "agent:1"));
        world.prepared.insert(name("c"), preparation.clone());

        world.push(daemons("c2", "agent:2"));
        world.run(20);
        let waits = matches!(preparation, Preparation::Waiting(_));
        assert_eq!(
            world.state.rollout.phase.as_str() == "Preparing",
            waits,
            "{preparation:?}"
        );
        world.run(70);
        world.expect_healthy("c2");
        assert!(world.state.rollout.faulty.contains_key(&name("c")));
        let old = world.on("agent", "c").unwrap();
        assert_eq!(
            old.commit,
            commit_id("c1"),
            "no pod is stopped before the new image is present"
        );
        world.prepared.clear();
        world.run(30);
        assert_eq!(world.on("agent", "c").unwrap().commit, commit_id("c2"));
        assert!(world.state.rollout.faulty.is_empty());
    }
}

#[test]
fn a_node_that_cannot_fetch_the_commit_does_not_delay_the_others() {
    let mut world = settled(daemons("c1", "agent:1"));
    world.without_commit.insert(name("c"));
    world.push(daemons("c2", "agent:2"));
    world.run(20);
    assert_eq!(
        world.state.rollout.phase.as_str(),
        "Preparing",
        "the commit may still arrive"
    );
    world.run(70);
    world.expect_healthy("c2");
    assert!(
        world.state.rollout.faulty[&name("c")]
            .to_string()
            .contains("has not got the commit")
    );
    assert_eq!(world.on("agent", "c").unwrap().commit, commit_id("c1"));
    world.without_commit.clear();
    world.run(30);
    assert_eq!(world.on("agent", "c").unwrap().commit, commit_id("c2"));
    assert!(world.state.rollout.faulty.is_empty());

    // Two of three nodes without the commit are not a failure of one node: the rollout waits, and
    // gives the reason.
    world.without_commit.extend([name("b"), name("c")]);

    world.push(daemons("c3", "agent:3"));
    world.run(60);
    assert!(
        matches!(&world.state.rollout.phase, Phase::Preparing { message } if message.to_string().contains("has not got the commit")),
        "{:?}",
        world.state.rollout.phase
    );
}

/// A workload whose pod must not run twice, on a node that is lost when the workload changes.
fn lost_with(workload: impl Fn(&str) -> Workload) -> World {
    let mut world = settled(commit("c1").with(workload("one:1")).build());
    let node = world.nodes_of("one")[0].to_owned();
    world.set_life(&node, NodeLife::Lost);
    world.run(20);
    world.push(commit("c2").with(workload("one:2")).build());
    world.run(900);
    world
}

#[test]
fn a_lost_node_does_not_delay_a_recreate_deployment() {
    let world = lost_with(|image| recreate("one", 1, pod(image)));
    world.expect_healthy("c2");
    assert_eq!(world.pods("one").len(), 1);
}

#[test]
fn a_commit_that_waits_for_a_lost_node_does_not_become_bad() {
    let with_data = |image: &str| recreate("one", 1, pod(image).with_disk());
    let workloads: [&dyn Fn(&str) -> Workload; 2] = [&|image| bare("one", pod(image)), &with_data];
    for workload in workloads {
        let mut world = lost_with(workload);
        let rollout = &world.state.rollout;
        assert!(rollout.bad.is_empty(), "{rollout:#?}");
        assert!(
            matches!(&rollout.phase, Phase::Progressing { message } if message.to_string().contains("node rm")),
            "{:?}",
            rollout.phase
        );
        assert!(
            world.pods("one").is_empty(),
            "no pod is made while the old one may still run on the lost node"
        );

        // Going back makes no pod either: the old pod may still run there, though the commit wants
        // its template again.
        world.push(commit("c3").with(workload("one:1")).build());
        world.run(30);
        assert!(world.pods("one").is_empty());
        let nodes: Vec<NodeName> = world.nodes.keys().cloned().collect();
        nodes
            .iter()
            .for_each(|node| world.set_life(node.as_str(), NodeLife::Ready));
        world.run(60);
        world.expect_healthy("c3");
        assert_eq!(world.pods("one").len(), 1);
    }
}

#[test]
fn images_that_two_of_three_nodes_cannot_pull_fail_the_commit() {
    let mut world = settled(daemons("c1", "agent:1"));
    for node in ["b", "c"] {
        world.prepared.insert(
            name(node),
            Preparation::Failed(ForeignText::new("no such image")),
        );
    }

    world.push(daemons("c2", "agent:2"));
    world.run(30);
    world.expect_healthy("c1");
    assert_eq!(
        world
            .state
            .rollout
            .rollback
            .as_ref()
            .map(|rollback| rollback.class),
        Some(FailureClass::Image)
    );
}

#[test]
fn a_lost_node_is_not_waited_for_and_its_daemon_pod_is_not_changed() {
    let mut world = settled(daemons("c1", "agent:1"));
    world.set_life("c", NodeLife::Lost);
    world.push(daemons("c2", "agent:2"));
    world.run(60);
    world.expect_healthy("c2");
    assert_eq!(
        world.on("agent", "c").map(|record| &record.commit),
        Some(&commit_id("c1"))
    );
    assert_eq!(
        world.on("agent", "b").map(|record| &record.commit),
        Some(&commit_id("c2"))
    );

    world.set_life("c", NodeLife::Ready);
    world.join("d");
    world.run(30);
    assert_eq!(
        world.nodes_of("agent"),
        ["a", "b", "c", "d"],
        "a new node gets its pod"
    );
    assert!(
        world
            .pods("agent")
            .iter()
            .all(|record| record.commit == commit_id("c2"))
    );
}

#[test]
fn pods_on_a_lost_node_do_not_keep_a_deployment_from_settling() {
    let mut world = settled(web("c1", "web:1"));
    world.set_life("c", NodeLife::Lost);
    world.run(20);
    assert_eq!(world.pods("web").len(), 3);
    world.push(web("c2", "web:2"));
    world.run(60);
    world.expect_healthy("c2");
    assert!(!world.nodes_of("web").contains(&"c"));
}

#[test]
fn a_failure_on_a_node_that_is_not_ready_is_the_nodes() {
    let mut world = settled(daemons("c1", "agent:1"));
    world.set_life(
        "c",
        NodeLife::NotReady(NotReady::Reported(ForeignText::new("the engine hangs"))),
    );
    world.break_on("c", "c2");

    world.push(daemons("c2", "agent:2"));
    world.run(60);
    world.expect_healthy("c2");
    assert!(
        world.state.rollout.faulty[&name("c")]
            .to_string()
            .contains("the engine hangs")
    );
}

#[test]
fn a_daemon_set_honours_max_unavailable_over_all_nodes() {
    let mut world = World::new(&["a", "b", "c", "d", "e"]);
    world.push(daemons("c1", "agent:1"));
    world.run(30);
    world.bounds.clear();
    world.push(daemons("c2", "agent:2"));
    world.run(60);
    world.expect_healthy("c2");
    assert_eq!(world.bounds["agent"].0, 4, "one node at a time");
}

#[test]
fn a_daemon_set_with_surge_replaces_a_pod_after_the_new_one_is_available() {
    let surging = |id: &str, image: &str| {
        let mut agent = daemon_set("agent", pod(image));
        if let Control::DaemonSet {
            update, min_ready, ..
        } = &mut agent.control
        {
            *min_ready = Duration::from_secs(4);
            *update = DaemonSetUpdate::RollingUpdate {
                max_unavailable: IntOrPercent::Int(0),
                max_surge: IntOrPercent::Int(1),
            };
        }
        commit(id).with(agent).build()
    };
    let mut world = World::new(&["a", "b", "c"]);
    world.push(surging("c1", "agent:1"));
    world.run(30);
    world.bounds.clear();
    world.push(surging("c2", "agent:2"));
    world.run(60);
    world.expect_healthy("c2");
    assert_eq!(
        world.bounds["agent"],
        (3, 4),
        "one node at a time, none without a pod"
    );
    assert_eq!(world.nodes_of("agent"), ["a", "b", "c"]);

    // A new pod that crashes replaces none.
    for node in ["a", "b", "c"] {
        world.break_on(node, "c3");
    }
    world.push(surging("c3", "agent:3"));
    world.run(20);
    let pods = world.pods("agent").into_iter();
    let old = pods.filter(|record| record.commit == commit_id("c2") && record.stop.is_none());
    assert_eq!(old.count(), 3);
}

#[test]
fn the_deadline_begins_again_with_each_updated_node() {
    let slow = |id: &str, image: &str| {
        let mut agent = daemon_set("agent", pod(image));
        if let Control::DaemonSet { min_ready, .. } = &mut agent.control {
            *min_ready = Duration::from_secs(4);
        }
        commit(id).with(agent).build()
    };
    let mut world = World::new(&["a", "b", "c", "d", "e"]);
    world.settings.rollout.deadline = Duration::from_secs(12);

    world.push(slow("c1", "agent:1"));
    world.run(60);
    world.expect_healthy("c1");

    world.push(slow("c2", "agent:2"));
    world.run(60);
    world.expect_healthy("c2");
}

#[test]
fn max_surge_and_max_unavailable_hold_over_several_nodes() {
    let web = |id: &str, image: &str| {
        let workload = rolling(
            "web",
            4,
            pod(image),
            IntOrPercent::Int(1),
            IntOrPercent::Int(0),
        );
        commit(id).with(workload).build()
    };
    let mut world = settled(web("c1", "web:1"));
    world.bounds.clear();

    world.push(web("c2", "web:2"));
    world.run(60);
    world.expect_healthy("c2");
    assert_eq!(world.bounds["web"], (4, 5));
}
