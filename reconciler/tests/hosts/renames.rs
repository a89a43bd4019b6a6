//! What leaves a commit runs on until what the commit adds in its place is available, except where
//! both need one thing.

use std::{collections::BTreeSet, sync::Arc};

use reconciler::{
    cluster::Note,
    commit::Commit,
    name::{NodeName, PodUid, WorkloadKind},
    object::{PodSpec, Workload},
};

use crate::{
    build::{PodSpecExt, bare, commit, commit_id, daemon_set, deployment, node_port, pod},
    world::{World, name},
};

/// A commit of these, with a Service `web` that selects one of them.
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

/// These run and are healthy.
fn settled(nodes: &[&str], workloads: impl IntoIterator<Item = Workload>) -> World {
    settled_in(World::new(nodes), workloads)
}

fn settled_in(mut world: World, workloads: impl IntoIterator<Item = Workload>) -> World {
    world.push(with("c1", workloads, "web"));
    world.run(30);
    world.expect_healthy("c1");
    world.bounds.clear();
    world.stops.clear();
    world.fewest = usize::MAX;
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
fn what_left_the_commit_runs_until_what_was_added_is_available() {
    let mut world = settled(&["a", "b"], [web(3)]);
    let before = uids(&world, "web");
    world.unready.insert("site".to_owned());
    world.push(with("c2", [deployment("site", 2, pod("web:2"))], "site"));
    world.run(60);
    assert_eq!((uids(&world, "web"), world.pods("site").len()), (before, 2));
    let awaits_site = |note: &Note| match note {
        Note::RunsOn { awaited, .. } => awaited.iter().any(|one| one.object.name == "site"),
        _ => false,
    };
    assert!(world.notes.iter().any(awaits_site), "{:?}", world.notes);
    world.unready.clear();
    world.run(5);
    assert_eq!(
        world.pods("web").len(),
        3,
        "without a probe it takes time to show that it works"
    );
    world.run(6);
    assert!(world.pods("web").is_empty(), "{:?}", world.pods("web"));
    world.run(30);
    world.expect_healthy("c2");
    assert!(world.fewest >= 2, "{}", world.fewest);
}

#[test]
fn a_service_says_which_of_the_added_ones_are_waited_for() {
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
        "its Service leads to what is available"
    );
    assert_eq!(
        world.pods("lonely").len(),
        1,
        "no Service selects it: it waits for all that was added"
    );
    world.unready.clear();
    world.run(30);
    world.expect_healthy("c2");
    assert!(world.pods("lonely").is_empty());
}

#[test]
fn what_nothing_is_added_for_stops_at_once() {
    let mut world = settled(&["a"], [web(1), deployment("other", 1, pod("web:1"))]);
    world.unready.insert("other".to_owned());
    world.push(with("c2", [deployment("other", 1, pod("web:2"))], "web"));
    world.run(2);
    assert!(
        world.pods("web").is_empty(),
        "what was only changed takes no place"
    );
}

#[test]
fn a_rename_that_crashes_has_touched_nothing() {
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
fn a_rename_in_the_middle_of_another_leaves_nothing_of_either() {
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
        "both wait for the last"
    );
    world.unready.remove("shop");
    world.run(30);
    world.expect_healthy("c3");
    assert!(world.pods("web").is_empty() && world.pods("site").is_empty());
    assert!(world.fewest >= 2, "{}", world.fewest);
}

#[test]
fn a_rename_that_is_taken_back_in_the_middle_stops_nothing_old() {
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
fn many_renames_in_a_row_are_still_explained_and_leave_nothing() {
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
fn a_roll_out_that_ends_badly_with_nothing_to_go_back_to_ends_the_wait() {
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
        "it waits as long as the rollout lasts"
    );
    world.run(200);
    assert_eq!(world.state.rollout.phase.as_str(), "Degraded");
    assert!(world.pods("web").is_empty());
}

/// Renames `web` to `site` where each node has room for one of them, and says when both were on one
/// node.
fn squeezed(nodes: &[&str], old: Workload, new: Workload, world: World) -> World {
    let mut world = settled_in(world, [old]);
    let count = world.pods("web").len();
    world.push(with("c2", [new], "site"));
    world.run(1);
    world.run(60);
    world.expect_healthy("c2");
    assert!(world.pods("web").is_empty());
    assert_eq!(world.pods("site").len(), count);
    assert!(!world.shared, "both were on one node at a time");
    assert!(
        world.fewest + 1 >= nodes.len(),
        "only {} were up, of {count}",
        world.fewest
    );
    world
}

#[test]
fn where_both_need_a_host_port_the_old_pods_make_room_one_at_a_time() {
    let nodes = ["a", "b", "c"];
    let spec = |image: &str| pod(image).with_host_port(8080);
    let (old, new) = (
        deployment("web", 3, spec("web:1")),
        deployment("site", 3, spec("web:2")),
    );
    squeezed(&nodes, old, new, World::new(&nodes));
    let (old, new) = (
        daemon_set("web", spec("web:1")),
        daemon_set("site", spec("web:2")),
    );
    squeezed(&nodes, old, new, World::new(&nodes));
}

#[test]
fn where_both_write_to_one_path_of_a_host_they_are_never_there_together() {
    let disk = |image: &str| pod(image).with_disk();
    let (old, new) = (
        deployment("web", 1, disk("web:1")),
        deployment("site", 1, disk("web:2")),
    );
    squeezed(&["a"], old, new, World::new(&["a"]));
    let nodes = ["a", "b", "c"];
    let (old, new) = (
        daemon_set("web", disk("web:1")),
        daemon_set("site", disk("web:2")),
    );
    squeezed(&nodes, old, new, World::new(&nodes));
}

#[test]
fn what_writes_to_a_host_begins_nowhere_before_the_old_one_is_gone() {
    let nodes = ["a", "b", "c"];
    let disk = |image: &str| pod(image).with_disk();
    let mut world = settled_in(World::new(&nodes), [deployment("web", 3, disk("web:1"))]);
    world.push(with("c2", [deployment("site", 3, disk("web:2"))], "site"));
    world.run(30);
    world.expect_healthy("c2");
    assert_eq!(
        (world.places("site"), world.pods("web").len()),
        (nodes.to_vec(), 0)
    );
    assert!(!world.shared, "both were on one node at a time");
}

#[test]
fn on_full_nodes_the_old_pods_make_room_one_at_a_time() {
    let nodes = ["a", "b", "c"];
    let full = || {
        let mut world = World::new(&nodes);
        world.settings.max_pods = 1;
        world
    };
    squeezed(&nodes, web(3), deployment("site", 3, pod("web:2")), full());
    squeezed(
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
    squeezed(&nodes, old, new, small);
}

#[test]
fn a_rename_that_is_never_ready_on_full_nodes_takes_one_pod_away_at_most() {
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
fn a_bare_pod_of_another_name_waits_like_all_others() {
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
fn a_bare_pod_under_the_name_of_another_owners_pod_comes_after_it() {
    let mut world = settled(&["a"], [daemon_set("web", pod("web:1"))]);
    let taken = world.pods("web")[0].key.name.clone();
    let mut heir = bare("site", pod("web:2"));
    heir.key.object.name.clone_from(&taken);
    world.push(with("c2", [heir], "site"));
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
    assert!(world.fewest >= 2, "{}", world.fewest);
}

#[test]
fn canaries_take_the_new_name_first_and_the_old_one_stays_until_all_have_it() {
    let mut world = World::new(&["a", "b", "c"]);
    world.settings.rollout.canary_nodes = BTreeSet::from([name("b")]);
    let mut world = settled_in(world, [daemon_set("web", pod("web:1"))]);
    world.push(with("c2", [daemon_set("site", pod("web:2"))], "site"));
    world.run(20);
    assert_eq!(world.places("site"), ["b"]);
    assert_eq!(world.places("web"), ["a", "b", "c"]);
    world.run(60);
    world.expect_healthy("c2");
    assert_eq!(
        (world.places("site"), world.pods("web").len()),
        (vec!["a", "b", "c"], 0)
    );
    assert!(world.fewest >= 3, "{}", world.fewest);
}

#[test]
fn canaries_do_not_wait_for_what_another_workload_holds_until_the_second_step() {
    let nodes = ["a", "b", "c"];
    let mut world = World::new(&nodes);
    world.settings.rollout.canary_nodes = BTreeSet::from([name("b")]);
    let spec = |image: &str| pod(image).with_host_port(8080);
    let world = squeezed(
        &nodes,
        daemon_set("web", spec("web:1")),
        daemon_set("site", spec("web:2")),
        world,
    );
    let on: BTreeSet<&NodeName> = world
        .pods("site")
        .iter()
        .filter_map(|pod| pod.place.node())
        .collect();
    assert_eq!(on.len(), 3);
}
