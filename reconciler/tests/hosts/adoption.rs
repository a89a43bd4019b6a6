//! A store that was lost: what an older copy does not know runs on, and nothing is there twice
//! because of it.

use std::{collections::BTreeSet, time::Duration};

use reconciler::{
    cluster::Note,
    name::PodUid,
    object::{Control, Workload},
    state::{NodeLife, PodPlace, Silence},
};

use crate::{
    build::{bare, commit, daemon_set, deployment, pod, replica_set},
    world::{World, name},
};

fn uids(world: &World, owner: &str) -> Vec<PodUid> {
    world
        .pods(owner)
        .iter()
        .map(|record| record.uid.clone())
        .collect()
}

#[test]
fn what_is_made_from_an_older_state_is_none_of_what_was_made_since() {
    let mut world = World::new(&["a", "b"]);
    let before = world.state.clone();
    world.push(
        commit("c1")
            .with(deployment("web", 3, pod("web:1")))
            .build(),
    );
    world.run(30);
    let names = |world: &World| -> BTreeSet<String> {
        let pods = world.pods("web").into_iter();
        pods.flat_map(|pod| [pod.uid.to_string(), pod.key.name.clone()])
            .collect()
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
    let workloads = [
        deployment("web", 2, pod("web:1")),
        replica_set("set", 2, pod("set:1")),
    ];
    let commit = workloads
        .into_iter()
        .fold(commit("c1"), |commit, workload| commit.with(workload));
    let mut world = World::new(&["a", "b"]);
    world.push(commit.build());
    world.run(30);
    let before = [uids(&world, "set"), uids(&world, "web")].concat();
    world.forget_that_it_runs(&before);
    world.run(30);
    assert_eq!(
        [uids(&world, "set"), uids(&world, "web")].concat(),
        before,
        "all of them, and no others"
    );
    assert!(world.stops.is_empty(), "{:?}", world.stops);
}

/// One that the state knows beside one of the same owner that it does not.
fn found_beside_another(workload: Workload, on: &str, known: &str) -> (World, PodUid, PodUid) {
    let owner = workload.key.object.name.clone();
    let mut world = World::new(&["a", "b"]);
    world.push(commit("c1").with(workload).build());
    world.run(30);
    let record = world.pods(&owner)[0].clone();
    let mut found = World::identity(&record);
    found.uid = PodUid::new("found");
    world.running.entry(name(on)).or_default().push(found);
    world.state.pods.get_mut(&record.uid).unwrap().place = PodPlace::Node(name(known));
    (world, record.uid, PodUid::new("found"))
}

#[test]
fn of_two_bare_pods_of_one_name_the_one_stays_that_is_known() {
    let (mut world, known, found) = found_beside_another(bare("one", pod("one:1")), "b", "a");
    world.run(30);
    assert_eq!(uids(&world, "one"), [known]);
    assert!(world.stops.contains_key(&found));
}

#[test]
fn of_two_bare_pods_of_one_name_the_one_stays_that_is_heard_of() {
    let (mut world, known, found) = found_beside_another(bare("one", pod("one:1")), "b", "a");
    world.live("a", NodeLife::Lost);
    world.run(30);
    assert_eq!(uids(&world, "one"), [found]);
    assert!(world.stops.contains_key(&known));
}

#[test]
fn of_two_daemons_on_a_node_one_stays() {
    let (mut world, ..) = found_beside_another(daemon_set("agent", pod("agent:1")), "a", "a");
    world.run(30);
    assert_eq!(world.places("agent"), ["a", "b"]);
}

#[test]
fn of_two_daemons_on_a_node_that_is_not_updated_yet_one_stays() {
    let slow = |id: &str, image: &str| {
        let mut agent = daemon_set("agent", pod(image));
        if let Control::DaemonSet { min_ready, .. } = &mut agent.control {
            *min_ready = Duration::from_secs(20);
        }
        commit(id).with(agent).build()
    };
    let mut world = World::new(&["a", "b"]);
    world.push(slow("c1", "agent:1"));
    world.run(60);
    world.push(slow("c2", "agent:2"));
    world.run(5);
    let mut found = World::identity(world.on("agent", "b").unwrap());
    assert_ne!(
        found.template,
        world.on("agent", "a").unwrap().template,
        "it comes after the other node"
    );
    found.uid = PodUid::new("found");
    world.running.entry(name("b")).or_default().push(found);
    world.run(2);
    assert_eq!(world.places("agent"), ["a", "b"]);
}

/// A DaemonSet, a bare Pod and a Deployment on two nodes, and what the newest copy knows of them.
fn adopted(copy: impl FnOnce(&mut World)) -> World {
    let all = commit("c1")
        .with(daemon_set("agent", pod("agent:1")))
        .with(bare("one", pod("one:1")))
        .with(deployment("web", 2, pod("web:1")));
    let mut world = World::new(&["a", "b"]);
    world.push(all.build());
    world.run(30);
    world.expect_healthy("c1");
    copy(&mut world);
    world.state = std::mem::take(&mut world.state).adopted(world.now);
    world
}

#[test]
fn what_an_adopted_copy_does_not_know_stays_and_what_is_gone_since_is_not_begun() {
    let all = |world: &World| -> BTreeSet<PodUid> {
        ["agent", "one", "web"]
            .iter()
            .flat_map(|owner| uids(world, owner))
            .collect()
    };
    let mut since = BTreeSet::new();
    let mut world = adopted(|world| {
        // Everything was replaced since the copy was made.
        let before = world.state.clone();
        since = all(world);
        let mut old = before.clone();
        for uid in &since {
            let mut record = old.pods.remove(uid).unwrap();
            record.uid = PodUid::new(format!("old-{uid}"));
            world.absent.insert(record.uid.clone());
            old.pods.insert(record.uid.clone(), record);
        }
        world.forget_that_it_runs(&Vec::from_iter(since.clone()));
        world.state.pods = old.pods;
    });
    world.second();
    assert_eq!(all(&world), since);
    world.run(30);
    assert_eq!(all(&world), since);
    assert!(world.stops.is_empty(), "{:?}", world.stops);
    assert!(world.state.rollout.adopted.unwrap().stock_taken);
}

#[test]
fn nothing_is_decided_before_every_node_that_is_not_lost_has_said_what_it_runs() {
    for (life, waits) in [
        (NodeLife::Silent(Silence::DaemonAnswers), true),
        (NodeLife::Lost, false),
    ] {
        let mut world = adopted(|world| {
            let bare = uids(world, "one");
            world.forget_that_it_runs(&bare);
        });
        let node = world.running.keys().next().unwrap().clone();
        world.live(node.as_str(), life);
        world.run(30);
        assert_eq!(world.state.rollout.adopted.unwrap().stock_taken, !waits);
        assert_eq!(uids(&world, "one").is_empty(), waits);
        let said = world.notes.contains(&Note::StockMissing(node.clone()));
        assert_eq!(said, waits, "{:?}", world.notes);
        world.live(node.as_str(), NodeLife::Ready);
        world.run(30);
        assert_eq!(
            uids(&world, "one").len(),
            1,
            "one of two stops where one was made meanwhile"
        );
        world.expect_healthy("c1");
    }
}

#[test]
fn a_node_that_comes_back_says_what_it_runs_before_anything_is_begun_there() {
    let mut agent = PodUid::new("");
    let mut world = adopted(|world| {
        agent = world.on("agent", "b").unwrap().uid.clone();
        world.forget_that_it_runs(std::slice::from_ref(&agent));
    });
    world.live("b", NodeLife::Lost);
    world.run(30);
    assert!(world.state.rollout.adopted.unwrap().stock_taken);
    // It is heard of again, and what it said last is of before.
    world.live("b", NodeLife::Ready);
    world.mute.insert(name("b"));
    world.run(5);
    assert_eq!(world.places("agent"), ["a"]);
    world.mute.clear();
    world.run(5);
    assert_eq!(
        world.on("agent", "b").map(|record| &record.uid),
        Some(&agent)
    );
    assert!(!world.stops.contains_key(&agent), "{:?}", world.stops);
}

#[test]
fn nothing_stops_of_two_before_both_were_heard_of() {
    let (mut world, ..) = found_beside_another(daemon_set("agent", pod("agent:1")), "a", "a");
    let known = world.on("agent", "a").unwrap().uid.clone();
    world.absent.insert(known.clone());
    world.run(30);
    assert_eq!(
        world.on("agent", "a").map(|record| record.uid.as_str()),
        Some("found"),
        "it runs"
    );
    assert!(world.stops.contains_key(&known));
}
