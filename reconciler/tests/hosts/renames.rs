//! A workload that a commit deletes runs until the workloads that the commit adds are available,
//! unless both need the same port, disk or place.

use std::{collections::BTreeSet, sync::Arc};

use reconciler::{
    cluster::Note,
    commit::Commit,
    name::{NodeName, PodUid, WorkloadKind},
    object::{PodSpec, Workload},
};

use crate::{
    build::{
        PodSpecExt, bare, commit, commit_id, daemon_set, deployment, node_port, pod, replica_set,
    },
    world::{World, name},
};

/// A commit with these workloads and a Service `web` that selects the pods of `selected`.
fn with(id: &str, workloads: impl IntoIterator<Item = Workload>, selected: &str) -> Arc<Commit> {
    let commit = workloads
        .into_iter()
        .fold(commit(id), |commit, workload| commit.with(workload));
    commit
        .allow_deletions()
        .service("web", selected, node_port(None))
        .build()
}

fn web(replicas: u32) -> Workload {
    deployment("web", replicas, pod("web:1"))
}

/// Nodes on which these workloads are healthy.
fn settled(nodes: &[&str], workloads: impl IntoIterator<Item = Workload>) -> World {
    settled_in(World::new(nodes), workloads)
}

fn settled_in(mut world: World, workloads: impl IntoIterator<Item = Workload>) -> World {
    world.push(with("c1", workloads, "web"));
    world.run(30);
    world.expect_healthy("c1");
    world.bounds.clear();
    world.stops.clear();
    world.fewest_available = usize::MAX;
    world
}

fn uids(world: &World, owner: &str) -> BTreeSet<PodUid> {
    world
        .pods(owner)
        .into_iter()
        .map(|record| record.uid.clone())
        .collect()
}

#[test]
fn a_deleted_workload_runs_until_the_added_one_is_available() {
    let mut world = settled(&["a", "b"], [web(3)]);
    let before = uids(&world, "web");
    world.unready.insert("site".to_owned());

    world.push(with("c2", [deployment("site", 2, pod("web:2"))], "site"));
    world.run(60);
    assert_eq!((uids(&world, "web"), world.pods("site").len()), (before, 2));
    let awaits_site = |note: &Note| match note {
        Note::RunsOn { awaited, .. } => awaited
            .iter()
            .any(|workload| workload.object.name == "site"),
        _ => false,
    };
    assert!(world.notes.iter().any(awaits_site), "{:?}", world.notes);

    world.unready.clear();
    world.run(5);
    assert_eq!(
        world.pods("web").len(),
        3,
        "a pod without a probe must run for a while before it counts"
    );
    world.run(6);
    assert!(world.pods("web").is_empty(), "{:?}", world.pods("web"));
    world.run(30);
    world.expect_healthy("c2");
    assert!(world.fewest_available >= 2, "{}", world.fewest_available);
}

#[test]
fn a_service_decides_which_added_workloads_are_waited_for() {
    let mut world = settled(&["a", "b"], [web(1), deployment("lonely", 1, pod("web:1"))]);
    world.unready.insert("batch".to_owned());
    let added = [
        deployment("site", 1, pod("web:2")),
        deployment("batch", 1, pod("web:2")),
    ];

    world.push(with("c2", added, "site"));
    world.run(30);
    assert!(
        world.pods("web").is_empty(),
        "its Service selects an available workload"
    );
    assert_eq!(
        world.pods("lonely").len(),
        1,
        "without a Service it waits for all added workloads"
    );

    world.unready.clear();
    world.run(30);
    world.expect_healthy("c2");
    assert!(world.pods("lonely").is_empty());
}

#[test]
fn a_workload_that_had_no_pods_before_is_waited_for_like_an_added_one() {
    let kinds: [fn(u32) -> Workload; 2] = [
        |replicas| deployment("site", replicas, pod("web:2")),
        |replicas| replica_set("site", replicas, pod("web:2")),
    ];
    for site in kinds {
        let mut world = settled(&["a", "b"], [web(2), site(0)]);
        world.unready.insert("site".to_owned());
        world.push(with("c2", [site(2)], "site"));
        world.run(30);
        assert_eq!(world.pods("web").len(), 2, "{:?}", world.stops);

        world.unready.clear();
        world.run(60);
        world.expect_healthy("c2");
        assert!(world.pods("web").is_empty());
        assert!(world.fewest_available >= 2, "{}", world.fewest_available);
    }
}

#[test]
fn a_deleted_workload_stops_at_once_if_no_workload_was_added() {
    let mut world = settled(&["a"], [web(1), deployment("other", 1, pod("web:1"))]);
    world.unready.insert("other".to_owned());
    world.push(with("c2", [deployment("other", 1, pod("web:2"))], "web"));
    world.run(2);
    assert!(
        world.pods("web").is_empty(),
        "a changed workload is not an added one"
    );
}

#[test]
fn a_rename_whose_new_pods_crash_changes_no_old_pod() {
    let mut world = settled(&["a", "b"], [web(2)]);
    let before = uids(&world, "web");
    world.break_on("a", "c2");
    world.break_on("b", "c2");

    world.push(with("c2", [deployment("site", 2, pod("web:2"))], "site"));
    world.run(90);
    world.expect_healthy("c1");
    assert!(world.state.rollout.bad.contains_key(&commit_id("c2")));
    assert_eq!(
        (uids(&world, "web"), world.pods("site").len()),
        (before.clone(), 0)
    );
    assert!(
        !world.stops.keys().any(|uid| before.contains(uid)),
        "{:?}",
        world.stops
    );
}

#[test]
fn a_rename_during_another_rename_stops_both_old_workloads() {
    let mut world = settled(&["a", "b"], [web(2)]);
    world.unready.insert("site".to_owned());
    world.push(with("c2", [deployment("site", 2, pod("web:2"))], "site"));
    world.run(5);

    world.unready.insert("shop".to_owned());
    world.push(with("c3", [deployment("shop", 2, pod("web:3"))], "shop"));
    world.run(20);
    assert_eq!(
        (world.pods("web").len(), world.pods("site").len()),
        (2, 2),
        "both wait for the last added workload"
    );

    world.unready.remove("shop");
    world.run(30);
    world.expect_healthy("c3");
    assert!(world.pods("web").is_empty() && world.pods("site").is_empty());
    assert!(world.fewest_available >= 2, "{}", world.fewest_available);
}

#[test]
fn a_rename_that_is_reverted_stops_no_old_pod() {
    let mut world = settled(&["a", "b"], [web(2)]);
    let before = uids(&world, "web");
    world.unready.insert("site".to_owned());
    world.push(with("c2", [deployment("site", 2, pod("web:2"))], "site"));
    world.run(5);
    world.push(with("c3", [web(2)], "web"));
    world.run(30);
    world.expect_healthy("c3");
    assert_eq!((uids(&world, "web"), world.pods("site").len()), (before, 0));
}

#[test]
fn many_renames_in_a_row_leave_only_the_last_workload() {
    let mut world = settled(&["a", "b"], [web(1), deployment("x", 1, pod("web:1"))]);
    for number in 2..14 {
        let name = format!("site{number}");

        world.unready.insert(name.clone());
        let next = deployment(&name, 1, pod("web:2"));
        let commit =
            commit(&format!("c{number:02}"))
                .with(next)
                .service("web", &name, node_port(None));
        let commit = if number == 2 {
            commit.allow_deletions()
        } else {
            commit
        };

        world.push(commit.build());
        world.run(3);
    }

    world.unready.clear();
    world.run(30);
    world.expect_healthy("c13");
    let left: Vec<_> = world
        .state
        .pods
        .values()
        .map(|record| record.owner.to_string())
        .collect();
    assert!(
        left.iter().all(|owner| owner.contains("site13")),
        "{left:?}"
    );
}

#[test]
fn a_failed_rollout_without_a_healthy_commit_ends_the_wait() {
    let mut world = World::new(&["a"]);
    world.unready.insert("web".to_owned());
    world.push(with("c1", [web(1)], "web"));
    world.run(30);

    world.unready.insert("site".to_owned());
    world.push(with("c2", [deployment("site", 1, pod("web:2"))], "site"));
    world.run(500);
    assert_eq!(
        world.pods("web").len(),
        1,
        "the old workload runs while the rollout lasts"
    );
    world.run(200);
    assert_eq!(world.state.rollout.phase.as_str(), "Degraded");
    assert!(world.pods("web").is_empty());
}

/// Renames `web` to `site` on nodes that have room for one pod of both, and checks that no node had
/// both at a time.
fn rename_without_room(nodes: &[&str], old: Workload, new: Workload, world: World) -> World {
    let mut world = settled_in(world, [old]);
    let count = world.pods("web").len();
    world.push(with("c2", [new], "site"));
    world.run(1);
    world.run(60);
    world.expect_healthy("c2");
    assert!(world.pods("web").is_empty());
    assert_eq!(world.pods("site").len(), count);
    assert!(
        !world.shared_node,
        "pods of both were on one node at the same time"
    );
    assert!(
        world.fewest_available + 1 >= nodes.len(),
        "only {} of {count} pods were available",
        world.fewest_available
    );
    world
}

#[test]
fn workloads_with_the_same_host_port_are_exchanged_one_pod_at_a_time() {
    let nodes = ["a", "b", "c"];
    let spec = |image: &str| pod(image).with_host_port(8080);
    let (old, new) = (
        deployment("web", 3, spec("web:1")),
        deployment("site", 3, spec("web:2")),
    );
    rename_without_room(&nodes, old, new, World::new(&nodes));
    let (old, new) = (
        daemon_set("web", spec("web:1")),
        daemon_set("site", spec("web:2")),
    );
    rename_without_room(&nodes, old, new, World::new(&nodes));
}

#[test]
fn workloads_that_write_to_the_same_path_are_never_on_one_node_together() {
    let disk = |image: &str| pod(image).with_disk();
    let (old, new) = (
        deployment("web", 1, disk("web:1")),
        deployment("site", 1, disk("web:2")),
    );
    rename_without_room(&["a"], old, new, World::new(&["a"]));
    let nodes = ["a", "b", "c"];
    let (old, new) = (
        daemon_set("web", disk("web:1")),
        daemon_set("site", disk("web:2")),
    );
    rename_without_room(&nodes, old, new, World::new(&nodes));
}

#[test]
fn a_path_and_a_path_below_it_are_the_same_disk() {
    for (old, new) in [("/srv", "/srv/db"), ("/srv/db", "/srv")] {
        let old = deployment("web", 1, pod("web:1").with_disk_at(old));
        let new = deployment("site", 1, pod("web:2").with_disk_at(new));
        rename_without_room(&["a"], old, new, World::new(&["a"]));
    }
}

#[test]
fn a_workload_that_writes_to_a_host_starts_after_the_old_one_is_gone() {
    let nodes = ["a", "b", "c"];
    let disk = |image: &str| pod(image).with_disk();

    let mut world = settled_in(World::new(&nodes), [deployment("web", 3, disk("web:1"))]);
    world.push(with("c2", [deployment("site", 3, disk("web:2"))], "site"));
    world.run(30);
    world.expect_healthy("c2");
    assert_eq!(
        (world.nodes_of("site"), world.pods("web").len()),
        (nodes.to_vec(), 0)
    );
    assert!(
        !world.shared_node,
        "pods of both were on one node at the same time"
    );
}

#[test]
fn on_full_nodes_workloads_are_exchanged_one_pod_at_a_time() {
    let nodes = ["a", "b", "c"];
    let full = || {
        let mut world = World::new(&nodes);
        world.settings.max_pods = 1;
        world
    };
    rename_without_room(&nodes, web(3), deployment("site", 3, pod("web:2")), full());
    rename_without_room(
        &nodes,
        daemon_set("web", pod("web:1")),
        daemon_set("site", pod("web:2")),
        full(),
    );
    let requests = |image: &str| -> PodSpec {
        let mut spec = pod(image);
        spec.containers[0].resources.cpu_request_milli = Some(1500);
        spec
    };
    let mut small = World::new(&nodes);
    for node in small.nodes.values_mut() {
        (node.facts.system.cpus, node.facts.system.memory_kib) = (2, 1 << 20);
    }
    let (old, new) = (
        deployment("web", 3, requests("web:1")),
        deployment("site", 3, requests("web:2")),
    );
    rename_without_room(&nodes, old, new, small);
}

#[test]
fn a_rename_that_is_never_ready_on_full_nodes_stops_one_pod_at_most() {
    let mut world = World::new(&["a", "b", "c"]);
    world.settings.max_pods = 1;
    let mut world = settled_in(world, [web(3)]);
    world.unready.insert("site".to_owned());
    world.push(with("c2", [deployment("site", 3, pod("web:2"))], "site"));
    world.run(300);
    assert_eq!(world.pods("web").len(), 2);
    world.run(400);
    world.expect_healthy("c1");
    assert_eq!(world.pods("web").len(), 3);
}

#[test]
fn a_renamed_bare_pod_runs_until_the_new_one_is_ready() {
    let mut world = settled(&["a"], [bare("web", pod("web:1"))]);
    world.unready.insert("site".to_owned());
    world.push(with("c2", [bare("site", pod("web:2"))], "site"));
    world.run(30);
    assert_eq!((world.pods("web").len(), world.pods("site").len()), (1, 1));
    world.unready.clear();
    world.run(30);
    world.expect_healthy("c2");
    assert!(world.pods("web").is_empty());
}

#[test]
fn a_bare_pod_with_the_name_of_an_old_pod_starts_after_that_is_gone() {
    let mut world = settled(&["a"], [daemon_set("web", pod("web:1"))]);
    let taken = world.pods("web")[0].key.name.clone();
    let mut renamed = bare("site", pod("web:2"));
    renamed.key.object.name.clone_from(&taken);

    world.push(with("c2", [renamed], "site"));
    world.run(30);
    world.expect_healthy("c2");
    let kinds: Vec<WorkloadKind> = world
        .state
        .pods
        .values()
        .map(|record| record.owner.kind)
        .collect();
    assert_eq!(kinds, [WorkloadKind::Pod]);
}

#[test]
fn another_kind_under_the_same_name_is_another_workload() {
    let nodes = ["a", "b"];
    let mut world = settled(&nodes, [web(2)]);
    world.push(with("c2", [daemon_set("web", pod("web:1"))], "web"));
    world.run(30);
    world.expect_healthy("c2");
    assert!(
        world
            .state
            .pods
            .values()
            .all(|record| record.owner.kind == WorkloadKind::DaemonSet)
    );
    assert!(world.fewest_available >= 2, "{}", world.fewest_available);
}

#[test]
fn canaries_get_the_renamed_daemon_set_first_and_the_old_one_stays_until_all_have_it() {
    let mut world = World::new(&["a", "b", "c"]);
    world.settings.rollout.canary_nodes = BTreeSet::from([name("b")]);

    let mut world = settled_in(world, [daemon_set("web", pod("web:1"))]);
    world.push(with("c2", [daemon_set("site", pod("web:2"))], "site"));
    world.run(20);
    assert_eq!(world.nodes_of("site"), ["b"]);
    assert_eq!(world.nodes_of("web"), ["a", "b", "c"]);
    world.run(60);
    world.expect_healthy("c2");
    assert_eq!(
        (world.nodes_of("site"), world.pods("web").len()),
        (vec!["a", "b", "c"], 0)
    );
    assert!(world.fewest_available >= 3, "{}", world.fewest_available);
}

#[test]
fn canaries_do_not_wait_for_a_host_port_that_the_old_daemon_set_holds() {
    let nodes = ["a", "b", "c"];
    let mut world = World::new(&nodes);
    world.settings.rollout.canary_nodes = BTreeSet::from([name("b")]);
    let spec = |image: &str| pod(image).with_host_port(8080);
    let world = rename_without_room(
        &nodes,
        daemon_set("web", spec("web:1")),
        daemon_set("site", spec("web:2")),
        world,
    );
    let nodes_of_site: BTreeSet<&NodeName> = world
        .pods("site")
        .iter()
        .filter_map(|pod| pod.place.node())
        .collect();
    assert_eq!(nodes_of_site.len(), 3);
}

#[test]
fn a_generated_name_is_not_that_of_another_pod() {
    let web_beside = |other: &str| {
        let mut world = World::new(&["a"]);
        let other = bare(other, pod("other:1"));
        world.push(with(
            "c1",
            [replica_set("web", 1, pod("web:1")), other],
            "web",
        ));
        world.run(30);
        world.expect_healthy("c1");
        world.pods("web")[0].key.name.clone()
    };
    // Names depend on the cluster, the time and the order of the pods only.
    let generated = web_beside("other");
    assert_eq!(web_beside("another"), generated);
    assert_ne!(web_beside(&generated), generated);
}
