//! Canary rollouts: a commit reaches a few nodes first.

use std::{collections::BTreeSet, sync::Arc};

use reconciler::{commit::Commit, name::PodUid, state::NodeLife};

use crate::{
    build::{commit, commit_id, daemon_set, deployment, pod, replica_set},
    world::{World, name},
};

fn both(id: &str, version: u32) -> Arc<Commit> {
    commit(id)
        .with(daemon_set("agent", pod(&format!("agent:{version}"))))
        .with(deployment("web", 4, pod(&format!("web:{version}"))))
        .with(replica_set("set", version, pod("set:1")))
        .build()
}

fn settled() -> World {
    let mut world = World::new(&["a", "b", "c"]);
    world.settings.rollout.canary_nodes = BTreeSet::from([name("b")]);
    world.push(both("c1", 1));
    world.run(30);
    world.expect_healthy("c1");
    world.bounds.clear();
    world
}

fn updated<'a>(world: &'a World, owner: &str) -> Vec<&'a str> {
    let c2 = commit_id("c2");
    let workload = &world.commits[&c2]
        .objects
        .workloads
        .values()
        .find(|workload| workload.key.object.name == owner)
        .unwrap();
    let mut nodes: Vec<&str> = world
        .pods(owner)
        .into_iter()
        .filter(|record| record.template == workload.template.hash)
        .map(|record| record.place.node().unwrap().as_str())
        .collect();
    nodes.sort_unstable();
    nodes
}

#[test]
fn only_the_canaries_are_updated_until_they_have_soaked() {
    let mut world = settled();
    world.push(both("c2", 2));
    world.run(25);
    assert_eq!(updated(&world, "agent"), ["b"]);
    assert_eq!(updated(&world, "web"), ["b"]);
    assert_eq!(
        world.pods("web").len(),
        4,
        "the wanted number of pods runs throughout"
    );
    assert_eq!(
        world.pods("set").len(),
        1,
        "a workload that cannot be updated in two steps waits"
    );
    assert_eq!(world.state.rollout.phase.as_str(), "Progressing");
    world.run(60);
    world.expect_healthy("c2");
    assert_eq!(updated(&world, "agent"), ["a", "b", "c"]);
    assert_eq!(updated(&world, "web").len(), 4);
    assert_eq!(world.pods("set").len(), 2);
    assert!(
        world.bounds["web"].0 >= 3 && world.bounds["web"].1 <= 5,
        "{:?}",
        world.bounds
    );
}

#[test]
fn a_failure_on_the_canary_changes_no_other_node() {
    let mut world = settled();
    let on_others = |world: &World| -> BTreeSet<PodUid> {
        let agents = world.pods("agent").into_iter();
        agents
            .filter(|pod| pod.place.node() != Some(&name("b")))
            .map(|pod| pod.uid.clone())
            .collect()
    };
    let before = on_others(&world);
    world.break_on("b", "c2");

    world.push(both("c2", 2));
    world.run(60);
    world.expect_healthy("c1");
    assert!(world.state.rollout.bad.contains_key(&commit_id("c2")));
    assert!(world.state.rollout.wave.is_none());
    assert_eq!(on_others(&world), before);
    assert_eq!(world.pods("web").len(), 4);
}

#[test]
fn only_the_canary_replaces_pods_even_if_other_nodes_have_more() {
    for replicas in [3, 1] {
        let web = |id: &str, version: u32| {
            commit(id)
                .with(deployment("web", replicas, pod(&format!("web:{version}"))))
                .build()
        };
        let mut world = World::new(&["a", "b"]);
        world.settings.rollout.canary_nodes = BTreeSet::from([name("b")]);

        world.push(web("c1", 1));
        world.run(30);
        world.expect_healthy("c1");
        let on_a = |world: &World| -> BTreeSet<PodUid> {
            let pods = world.pods("web").into_iter();
            pods.filter(|pod| pod.place.node() == Some(&name("a")))
                .map(|pod| pod.uid.clone())
                .collect()
        };
        let before = on_a(&world);
        assert_eq!(
            before.len(),
            if replicas == 3 { 2 } else { 1 },
            "{:?}",
            world.nodes_of("web")
        );

        world.push(web("c2", 2));
        world.run(25);
        assert_eq!(updated(&world, "web"), ["b"]);
        assert_eq!(on_a(&world), before, "{replicas} replicas");

        // The canary's old pod was replaced. If the canary had none, the new pod runs in addition.
        assert_eq!(
            world.pods("web").len(),
            before.len() + 1,
            "{:?}",
            world.nodes_of("web")
        );
        world.run(60);
        world.expect_healthy("c2");
        assert_eq!(updated(&world, "web").len(), replicas as usize);
    }
}

#[test]
fn an_earlier_failure_on_another_node_does_not_delay_the_canary() {
    let mut world = settled();
    // The commit was healthy when it was judged: the failure of this node began later.
    world.break_on("c", "c1");
    world.run(30);
    world.expect_healthy("c1");
    world.push(both("c2", 2));
    world.run(25);
    assert_eq!(updated(&world, "agent"), ["b"]);
    world.broken.clear();
    world.run(60);
    world.expect_healthy("c2");
}

#[test]
fn a_new_failure_on_another_node_does_not_delay_the_canary() {
    let mut world = settled();
    world.break_on("c", "c1");
    world.push(both("c2", 2));
    world.run(25);
    assert_eq!(updated(&world, "agent"), ["b"]);
}

#[test]
fn without_a_ready_canary_there_is_no_wave() {
    let mut world = settled();
    world.set_life("b", NodeLife::Lost);
    world.push(both("c2", 2));
    world.run(29);
    world.expect_healthy("c2");
    assert_eq!(updated(&world, "agent"), ["a", "c"]);
}

#[test]
fn a_canary_lost_during_the_wave_delays_the_other_nodes() {
    let mut world = settled();
    world.push(both("c2", 2));
    world.run(5);
    world.set_life("b", NodeLife::Lost);
    world.run(60);
    assert_eq!(world.state.rollout.phase.as_str(), "Progressing");
    assert!(world.state.rollout.waiting);
    world.set_life("b", NodeLife::Ready);
    world.run(90);
    world.expect_healthy("c2");
}

#[test]
fn lost_pods_are_replaced_from_the_old_commit_during_a_wave() {
    let mut world = settled();
    world.push(both("c2", 2));
    world.run(5);
    world.set_life("c", NodeLife::Lost);
    world.run(10);
    assert_eq!(world.pods("web").len(), 4, "{:?}", world.nodes_of("web"));
    assert_eq!(updated(&world, "web"), ["b"]);
    world.set_life("c", NodeLife::Ready);
    world.run(90);
    world.expect_healthy("c2");
}

#[test]
fn pods_of_a_superseded_commit_stay_during_the_canary_wave() {
    let mut world = World::new(&["a", "b", "c"]);
    world.push(
        commit("c1")
            .with(deployment("web", 3, pod("web:1")))
            .build(),
    );
    world.run(30);
    world.expect_healthy("c1");

    world.push(
        commit("c2")
            .with(deployment("web", 3, pod("web:2")))
            .build(),
    );

    // All pods are updated, and the commit is not healthy yet.
    for _ in 0..60 {
        world.run_second();
        if world.state.rollout.phase.as_str() == "Soaking" {
            break;
        }
    }
    assert_eq!(world.state.rollout.phase.as_str(), "Soaking");
    world.settings.rollout.canary_nodes.insert(name("a"));
    world.bounds.clear();
    let next = commit("c3")
        .with(deployment("web", 3, pod("web:2")))
        .with(deployment("api", 1, pod("api:1")));
    world.push(next.build());
    world.run(120);
    world.expect_healthy("c3");
    assert_eq!(world.bounds["web"], (3, 3), "no pod is stopped");
}
