//! Draining a node by a commit.

use std::sync::Arc;

use reconciler::{
    cluster::{Note, Undrained},
    commit::Commit,
    name::NodeName,
    object::{IntOrPercent, NodeObject, Taint, TaintEffect, Workload},
    state::StopReason,
};

use crate::{
    build::{
        PodSpecExt, bare, commit, daemon_set, deployment, pod, recreate, replica_set, rolling,
    },
    world::{World, name},
};

/// A commit with these workloads that drains `node`, if any.
fn draining(id: &str, node: Option<&str>, workloads: Vec<Workload>) -> Arc<Commit> {
    let builder = workloads
        .into_iter()
        .fold(commit(id), |builder, workload| builder.with(workload));
    let mut commit_with_nodes = Arc::into_inner(builder.build()).unwrap();
    if let Some(node) = node {
        let object = NodeObject {
            drain: true,
            unschedulable: true,
            ..NodeObject::default()
        };
        commit_with_nodes
            .objects
            .nodes
            .insert(NodeName::new(node), object);
    }
    Arc::new(commit_with_nodes)
}

fn settled(workloads: Vec<Workload>) -> World {
    let mut world = World::new(&["a", "b", "c"]);
    world.push(draining("c1", None, workloads));
    world.run(30);
    world.expect_healthy("c1");
    world.bounds.clear();
    world
}

/// The reason of the first note, which must be about pods that stay.
fn why_it_stays(world: &World) -> Undrained {
    match &world.notes[..] {
        [Note::NotDrained { why, .. }, ..] => why.clone(),
        notes => panic!("{notes:?}"),
    }
}

#[test]
fn pods_leave_a_drained_node_and_stay_available() {
    let workloads = || {
        vec![
            deployment("web", 3, pod("web:1")),
            replica_set("set", 3, pod("set:1")),
        ]
    };

    let mut world = settled(workloads());
    world.push(draining("c2", Some("b"), workloads()));
    world.run(60);
    world.expect_healthy("c2");
    for owner in ["web", "set"] {
        assert!(
            !world.nodes_of(owner).contains(&"b"),
            "{owner}: {:?}",
            world.nodes_of(owner)
        );
        assert_eq!(world.bounds[owner], (3, 4), "{owner}");
    }
    assert_eq!(
        world
            .stops
            .values()
            .filter(|reason| **reason == StopReason::Drained)
            .count(),
        2
    );
    assert!(world.notes.is_empty(), "{:?}", world.notes);
}

#[test]
fn daemon_and_bare_pods_stay_on_a_drained_node_with_a_note() {
    let workloads = || {
        vec![
            daemon_set("agent", pod("agent:1")),
            bare("one", pod("one:1")),
        ]
    };

    let mut world = settled(workloads());
    let node = world.nodes_of("one")[0].to_owned();
    world.push(draining("c2", Some(&node), workloads()));
    world.run(30);
    world.expect_healthy("c2");
    assert_eq!(world.nodes_of("agent"), ["a", "b", "c"]);
    assert_eq!(world.nodes_of("one"), [node.as_str()]);
    assert_eq!(why_it_stays(&world), Undrained::BarePod);
}

#[test]
fn pods_that_write_to_the_hosts_disk_stay() {
    let workload = || vec![deployment("db", 1, pod("db:1").with_disk())];
    let mut world = settled(workload());
    let node = world.nodes_of("db")[0].to_owned();
    world.push(draining("c2", Some(&node), workload()));
    world.run(30);
    assert_eq!(world.nodes_of("db"), [node.as_str()]);
    assert_eq!(why_it_stays(&world), Undrained::WritesToDisk);
}

#[test]
fn pods_that_no_other_node_takes_stay_with_a_note() {
    let workload = |make: fn(&str, u32, reconciler::object::PodSpec) -> Workload| {
        let mut spec = pod("web:1");
        spec.node_selector
            .insert("kubernetes.io/hostname".into(), "b".into());
        vec![make("web", 1, spec)]
    };

    let mut world = settled(workload(deployment));
    world.push(draining("c2", Some("b"), workload(deployment)));
    world.run(30);
    assert!(
        world.on("web", "b").is_some(),
        "{:?}",
        world.nodes_of("web")
    );
    assert!(matches!(why_it_stays(&world), Undrained::Unplaced(_)));

    let mut world = settled(workload(recreate));
    world.push(draining("c2", Some("b"), workload(recreate)));
    world.run(30);
    assert_eq!(
        world.nodes_of("web"),
        ["b"],
        "a pod without another node is not stopped"
    );
}

#[test]
fn recreate_moves_one_pod_at_a_time() {
    let workload = || vec![recreate("web", 2, pod("web:1"))];
    let mut world = settled(workload());
    let node = world.nodes_of("web")[0].to_owned();
    world.push(draining("c2", Some(&node), workload()));
    world.run(30);
    world.expect_healthy("c2");
    assert!(world.on("web", &node).is_none());
    assert_eq!(world.bounds["web"], (1, 2));
    assert!(world.nodes.contains_key(&name(&node)));
}

#[test]
fn pods_that_are_down_leave_a_drained_node_without_surge() {
    let workloads = || {
        let (surge, unavailable) = (IntOrPercent::Int(0), IntOrPercent::Int(1));
        vec![
            rolling("web", 3, pod("web:1"), surge, unavailable),
            recreate("one", 1, pod("one:1")),
        ]
    };

    let mut world = settled(workloads());
    let node = world.nodes_of("one")[0].to_owned();
    assert!(world.on("web", &node).is_some());
    for owner in ["web", "one"] {
        world.unready.insert(owner.to_owned());
    }
    world.push(draining("c2", Some(&node), workloads()));
    world.run(60);
    for (owner, pods) in [("web", 3), ("one", 1)] {
        let nodes = world.nodes_of(owner);
        assert!(!nodes.contains(&node.as_str()), "{owner}: {nodes:?}");
        assert_eq!(nodes.len(), pods, "{owner}: {nodes:?}");
    }
    assert_eq!(
        world.stops.len(),
        2,
        "each pod moved once: {:?}",
        world.stops
    );
    world.unready.clear();
    world.run(30);
    world.expect_healthy("c2");
}

#[test]
fn replica_sets_with_pods_of_an_old_template_are_noted() {
    let mut world = settled(vec![replica_set("set", 2, pod("set:1"))]);
    assert!(world.notes.is_empty());
    world.push(draining(
        "c2",
        None,
        vec![replica_set("set", 2, pod("set:2"))],
    ));
    world.run(30);
    world.expect_healthy("c2");
    assert!(
        matches!(world.notes[..], [Note::OldTemplate { pods: 2, .. }]),
        "{:?}",
        world.notes
    );
}

#[test]
fn pods_evicted_by_a_taint_count_as_unavailable() {
    let web = |image: &str| {
        rolling(
            "web",
            2,
            pod(image),
            IntOrPercent::Int(0),
            IntOrPercent::Int(1),
        )
    };

    let mut world = World::new(&["a", "b"]);
    world.push(commit("c1").with(web("web:1")).build());
    world.run(30);
    world.expect_healthy("c1");
    world.bounds.clear();
    let mut next = Arc::into_inner(commit("c2").with(web("web:2")).build()).unwrap();
    let taint = Taint {
        key: "example.com/off".to_owned(),
        value: String::new(),
        effect: TaintEffect::NoExecute,
    };
    next.objects.nodes.insert(
        name("a"),
        NodeObject {
            taints: vec![taint],
            ..NodeObject::default()
        },
    );

    world.push(Arc::new(next));
    world.run(60);
    world.expect_healthy("c2");
    assert_eq!(world.bounds["web"].0, 1, "maxUnavailable is 1");
    assert_eq!(world.nodes_of("web"), ["b", "b"]);
}

#[test]
fn pods_of_an_unchanged_deployment_leave_a_node_with_a_new_no_execute_taint() {
    let web = || deployment("web", 2, pod("web:1"));
    let mut world = World::new(&["a", "b"]);
    world.push(commit("c1").with(web()).build());
    world.run(30);
    assert_eq!(world.nodes_of("web"), ["a", "b"]);
    world.stops.clear();
    let mut next = Arc::into_inner(commit("c2").with(web()).build()).unwrap();
    let taint = Taint {
        key: "example.com/off".to_owned(),
        value: String::new(),
        effect: TaintEffect::NoExecute,
    };
    let tainted = NodeObject {
        taints: vec![taint],
        ..NodeObject::default()
    };
    next.objects.nodes.insert(name("a"), tainted);
    world.push(Arc::new(next));
    world.run(60);
    world.expect_healthy("c2");
    assert_eq!(world.nodes_of("web"), ["b", "b"]);
    let reasons: Vec<_> = world.stops.values().copied().collect();
    assert_eq!(reasons, [StopReason::NodeExcluded]);
}
