//! A lost store: pods that an adopted older copy does not contain keep running, and no pod runs
//! twice because of the adoption.

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
fn pods_made_from_an_older_state_have_other_names_and_uids() {
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
fn nothing_is_made_beside_pods_that_are_observed_running() {
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
    world.forget_records(&before);
    world.run(30);
    assert_eq!(
        [uids(&world, "set"), uids(&world, "web")].concat(),
        before,
        "exactly these pods are in the state again"
    );
    assert!(world.stops.is_empty(), "{:?}", world.stops);
}

/// A pod that the state contains, beside one of the same owner that it does not contain. Returns
/// both uids.
fn observed_beside_another(workload: Workload, on: &str, known: &str) -> (World, PodUid, PodUid) {
    let owner = workload.key.object.name.clone();
    let mut world = World::new(&["a", "b"]);
    world.push(commit("c1").with(workload).build());
    world.run(30);
    let record = world.pods(&owner)[0].clone();
    let mut observed = World::identity(&record);
    observed.uid = PodUid::new("observed");
    world.running.entry(name(on)).or_default().push(observed);
    world.state.pods.get_mut(&record.uid).unwrap().place = PodPlace::Node(name(known));
    (world, record.uid, PodUid::new("observed"))
}

#[test]
fn of_two_bare_pods_with_one_name_the_recorded_one_stays() {
    let (mut world, known, observed) = observed_beside_another(bare("one", pod("one:1")), "b", "a");
    world.run(30);
    assert_eq!(uids(&world, "one"), [known]);
    assert!(world.stops.contains_key(&observed));
}

#[test]
fn of_two_bare_pods_with_one_name_the_reported_one_stays_if_the_other_node_is_lost() {
    let (mut world, known, observed) = observed_beside_another(bare("one", pod("one:1")), "b", "a");
    world.set_life("a", NodeLife::Lost);
    world.run(30);
    assert_eq!(uids(&world, "one"), [observed]);
    assert!(world.stops.contains_key(&known));
}

#[test]
fn of_two_daemon_pods_on_a_node_one_stays() {
    let (mut world, ..) = observed_beside_another(daemon_set("agent", pod("agent:1")), "a", "a");
    world.run(30);
    assert_eq!(world.nodes_of("agent"), ["a", "b"]);
}

#[test]
fn of_two_daemon_pods_on_a_node_before_its_update_one_stays() {
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
    let mut observed = World::identity(world.on("agent", "b").unwrap());
    assert_ne!(
        observed.template,
        world.on("agent", "a").unwrap().template,
        "node b is not updated yet"
    );
    observed.uid = PodUid::new("observed");
    world.running.entry(name("b")).or_default().push(observed);
    world.run(2);
    assert_eq!(world.nodes_of("agent"), ["a", "b"]);
}

/// Two nodes with a DaemonSet, a bare Pod and a Deployment, whose store was adopted from the state
/// that `copy` leaves.
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
fn pods_missing_in_an_adopted_copy_stay_and_pods_gone_since_are_not_started() {
    let all_uids = |world: &World| -> BTreeSet<PodUid> {
        ["agent", "one", "web"]
            .iter()
            .flat_map(|owner| uids(world, owner))
            .collect()
    };
    let mut newer = BTreeSet::new();
    let mut world = adopted(|world| {
        // Every pod was replaced after the copy was made.
        let before = world.state.clone();
        newer = all_uids(world);
        let mut old = before.clone();
        for uid in &newer {
            let mut record = old.pods.remove(uid).unwrap();
            record.uid = PodUid::new(format!("old-{uid}"));
            world.absent.insert(record.uid.clone());
            old.pods.insert(record.uid.clone(), record);
        }
        world.forget_records(&Vec::from_iter(newer.clone()));

        world.state.pods = old.pods;
    });
    world.run_second();
    assert_eq!(all_uids(&world), newer);
    world.run(30);
    assert_eq!(all_uids(&world), newer);
    assert!(world.stops.is_empty(), "{:?}", world.stops);
    assert!(world.state.rollout.adopted.unwrap().stock_taken);
}

#[test]
fn nothing_is_decided_before_every_node_that_is_not_lost_has_reported_its_pods() {
    for (life, waits) in [
        (NodeLife::Silent(Silence::DaemonAnswers), true),
        (NodeLife::Lost, false),
    ] {
        let mut world = adopted(|world| {
            let bare = uids(world, "one");
            world.forget_records(&bare);
        });
        let node = world.running.keys().next().unwrap().clone();

        world.set_life(node.as_str(), life);
        world.run(30);
        assert_eq!(world.state.rollout.adopted.unwrap().stock_taken, !waits);
        assert_eq!(uids(&world, "one").is_empty(), waits);
        let noted = world.notes.contains(&Note::StockMissing(node.clone()));
        assert_eq!(noted, waits, "{:?}", world.notes);

        world.set_life(node.as_str(), NodeLife::Ready);
        world.run(30);
        assert_eq!(
            uids(&world, "one").len(),
            1,
            "if a second pod was made meanwhile, one of the two stops"
        );
        world.expect_healthy("c1");
    }
}

#[test]
fn a_node_that_comes_back_reports_its_pods_before_any_pod_starts_there() {
    let mut agent = PodUid::new("");
    let mut world = adopted(|world| {
        agent = world.on("agent", "b").unwrap().uid.clone();
        world.forget_records(std::slice::from_ref(&agent));
    });

    world.set_life("b", NodeLife::Lost);
    world.run(30);
    assert!(world.state.rollout.adopted.unwrap().stock_taken);

    // The node is back, and its last report is from before the adoption.
    world.set_life("b", NodeLife::Ready);
    world.without_new_reports.insert(name("b"));
    world.run(5);
    assert_eq!(world.nodes_of("agent"), ["a"]);
    world.without_new_reports.clear();
    world.run(5);
    assert_eq!(
        world.on("agent", "b").map(|record| &record.uid),
        Some(&agent)
    );
    assert!(!world.stops.contains_key(&agent), "{:?}", world.stops);
}

#[test]
fn of_two_daemon_pods_the_absent_one_stops() {
    let (mut world, ..) = observed_beside_another(daemon_set("agent", pod("agent:1")), "a", "a");
    let known = world.on("agent", "a").unwrap().uid.clone();
    world.absent.insert(known.clone());
    world.run(30);
    assert_eq!(
        world.on("agent", "a").map(|record| record.uid.as_str()),
        Some("observed"),
        "the running pod stays"
    );
    assert!(world.stops.contains_key(&known));
}
