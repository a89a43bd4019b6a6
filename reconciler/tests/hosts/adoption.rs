//! A store that was lost: what an older copy does not know runs on, and nothing is there twice because of it.

use std::collections::BTreeSet;

use reconciler::name::PodUid;

use crate::{
    build::{commit, deployment, pod, replica_set},
    world::World,
};

fn uids(world: &World, owner: &str) -> Vec<PodUid> {
    world.pods(owner).iter().map(|record| record.uid.clone()).collect()
}

#[test]
fn what_is_made_from_an_older_state_is_none_of_what_was_made_since() {
    let mut world = World::new(&["a", "b"]);
    let before = world.state.clone();
    world.push(commit("c1").with(deployment("web", 3, pod("web:1"))).build());
    world.run(30);
    let names = |world: &World| -> BTreeSet<String> {
        let pods = world.pods("web").into_iter();
        pods.flat_map(|pod| [pod.uid.to_string(), pod.key.name.clone()]).collect()
    };
    let first = names(&world);
    world.state = before;
    world.reports.clear();
    world.run(30);
    let second = names(&world);
    assert_eq!((first.len(), second.len()), (6, 6));
    assert!(first.is_disjoint(&second), "{first:?} and {second:?}");
}

#[test]
fn nothing_is_made_beside_what_is_found_running() {
    let workloads = [deployment("web", 2, pod("web:1")), replica_set("set", 2, pod("set:1"))];
    let commit = workloads.into_iter().fold(commit("c1"), |commit, workload| commit.with(workload));
    let mut world = World::new(&["a", "b"]);
    world.push(commit.build());
    world.run(30);
    let before = [uids(&world, "set"), uids(&world, "web")].concat();
    world.forget_that_it_runs(&before);
    world.run(30);
    assert_eq!([uids(&world, "set"), uids(&world, "web")].concat(), before, "all of them, and no others");
    assert!(world.stops.is_empty(), "{:?}", world.stops);
}
