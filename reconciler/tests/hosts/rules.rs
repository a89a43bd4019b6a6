//! What pods say of each other and ask of a host, held by the host itself; and what a leader makes of a host that refuses.

use reconciler::{
    name::PodUid,
    node::Refused,
    object::{IntOrPercent, PodSelector, PodSpec, PodTerm, Selector, SpreadConstraint},
    state::StopReason,
};

use crate::{
    build::{bare, commit, pod, replica_set, rolling},
    refusals::{ask, forge, misplace, one, settled, tell_to_stop},
    world::{World, name},
};

const HOST: &str = "kubernetes.io/hostname";

fn pods_of(app: &str) -> PodSelector {
    let labels = [("app".to_owned(), app.to_owned())].into();
    PodSelector { labels: Some(Selector { labels, expressions: Vec::new() }), ..PodSelector::default() }
}

fn term(app: &str) -> PodTerm {
    PodTerm { pods: pods_of(app), topology_key: HOST.to_owned(), ..PodTerm::default() }
}

fn apart(mut spec: PodSpec, app: &str) -> PodSpec {
    spec.affinity.anti.required.push(term(app));
    spec
}

fn near(mut spec: PodSpec, app: &str) -> PodSpec {
    spec.affinity.pods.required.push(term(app));
    spec
}

fn spread(mut spec: PodSpec, app: &str) -> PodSpec {
    spec.spread.push(SpreadConstraint {
        max_skew: 1,
        topology_key: HOST.to_owned(),
        required: true,
        pods: pods_of(app),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    });
    spec
}

fn asking(mut spec: PodSpec, cpu: u64) -> PodSpec {
    spec.containers[0].resources.cpu_request_milli = Some(cpu);
    spec
}

fn only_on(mut spec: PodSpec, node: &str) -> PodSpec {
    spec.node_selector.insert(HOST.to_owned(), node.to_owned());
    spec
}

#[track_caller]
fn expect_refused(world: &World, host: &str, uid: &PodUid, why: &str) {
    let plan = ask(world, host, Vec::new(), &[]);
    let refused = &plan.report.refused;
    assert_eq!(refused.get(uid), Some(&Refused::Unfit(why.to_owned())), "{refused:?}");
    assert_eq!(refused.len(), 1, "{refused:?}");
}

#[test]
fn nothing_is_refused_of_what_a_leader_places_by_these_rules() {
    let world = settled(
        commit("c1")
            .with(replica_set("web", 2, asking(apart(pod("web:1"), "web"), 900)))
            .with(replica_set("set", 3, spread(near(pod("set:1"), "web"), "set")))
            .with(bare("one", apart(pod("one:1"), "nobody")))
            .build(),
    );
    for host in ["a", "b"] {
        let plan = ask(&world, host, Vec::new(), &[]);
        assert!(plan.report.refused.is_empty(), "{host}: {:?}", plan.report.refused);
    }
}

#[test]
fn pods_that_must_be_apart_are_not_begun_together() {
    let mut world = settled(commit("c1").with(replica_set("web", 2, apart(pod("web:1"), "web"))).build());
    let uid = one(&world, "web", "a");
    let forged = forge(&mut world, &uid, "a");
    expect_refused(&world, "a", &forged, "have a pod near that spec.affinity.podAntiAffinity forbids");

    // Whom another one keeps off.
    let both = || {
        let lonely = only_on(apart(pod("lonely:1"), "web"), "a");
        commit("c1").with(bare("lonely", lonely)).with(replica_set("web", 2, pod("web:1"))).build()
    };
    let mut world = settled(both());
    let webs: Vec<PodUid> = world.pods("web").iter().map(|record| record.uid.clone()).collect();
    misplace(&mut world, &webs[1], "a");
    expect_refused(&world, "a", &webs[1], "have a pod near whose podAntiAffinity forbids this one");
}

#[test]
fn a_spread_that_must_hold_is_held() {
    let mut world = settled(commit("c1").with(replica_set("web", 4, spread(pod("web:1"), "web"))).build());
    let newest = world.pods("web")[3].uid.clone();
    let host = world.state.pods[&newest].place.node().unwrap().clone();
    let other = if host == name("a") { "b" } else { "a" };
    misplace(&mut world, &newest, other);
    expect_refused(&world, other, &newest, "would break spec.topologySpreadConstraints");
    // One that is on its way out was there when the new one was placed.
    let gone = forge(&mut world, &newest, host.as_str());
    tell_to_stop(&mut world, &gone);
    assert!(ask(&world, other, Vec::new(), &[]).report.refused.is_empty());
}

#[test]
fn a_pod_that_must_be_near_another_is_not_begun_elsewhere() {
    let commit = commit("c1").with(bare("web", only_on(pod("web:1"), "a"))).with(replica_set(
        "set",
        1,
        near(pod("set:1"), "web"),
    ));
    let mut world = settled(commit.build());
    let uid = one(&world, "set", "a");
    misplace(&mut world, &uid, "b");
    expect_refused(&world, "b", &uid, "have no pod near that spec.affinity.podAffinity asks for");
}

#[test]
fn a_host_begins_no_more_than_it_has_room_for() {
    let mut world = settled(commit("c1").with(replica_set("web", 2, asking(pod("web:1"), 1500))).build());
    let uid = one(&world, "web", "a");
    let forged = forge(&mut world, &uid, "a");
    expect_refused(&world, "a", &forged, "have too little cpu left");
    // What runs is not stopped for it.
    let plan = ask(&world, "a", Vec::new(), std::slice::from_ref(&forged));
    assert!(plan.report.refused.is_empty(), "{:?}", plan.report.refused);
}

#[test]
fn a_pod_that_its_host_refuses_is_made_anew_elsewhere_after_a_while() {
    let mut world = settled(commit("c1").with(replica_set("web", 2, pod("web:1"))).build());
    let uid = one(&world, "web", "a");
    let why = Refused::Unfit("have taint gpu".to_owned());
    let created = world.state.pods[&uid].created;
    // It was refused from the beginning.
    world.now = created;
    world.refused.insert(uid.clone(), why);
    world.run(9);
    assert!(world.state.pods.contains_key(&uid) && world.stops.is_empty(), "{:?}", world.stops);
    world.run(3);
    assert_eq!(world.stops.get(&uid), Some(&StopReason::NodeExcluded));
    assert!(!world.state.pods.contains_key(&uid));
    assert_eq!(world.pods("web").len(), 2);
}

#[test]
fn a_stop_that_a_host_does_not_believe_ends_with_one_pod_in_its_place() {
    let mut world = settled(commit("c1").with(replica_set("web", 2, pod("web:1"))).build());
    let uid = one(&world, "web", "a");
    tell_to_stop(&mut world, &uid);
    world.refused.insert(uid.clone(), Refused::OwnerStays);
    world.run(5);
    assert!(!world.state.pods.contains_key(&uid), "{:?}", world.state.pods);
    assert_eq!(world.stops[&uid], StopReason::ScaledDown);
    assert_eq!(world.pods("web").len(), 2);
}

#[test]
fn a_canary_keeps_to_the_rules_too() {
    let web = |image: &str| {
        let bounds = (IntOrPercent::Int(1), IntOrPercent::Int(0));
        rolling("web", 2, apart(pod(image), "web"), bounds.0, bounds.1)
    };
    let mut world = World::new(&["a", "b", "c"]);
    world.settings.rollout.canary_nodes.insert(name("a"));
    world.push(commit("c1").with(web("web:1")).build());
    world.run(60);
    world.expect_healthy("c1");
    let old = world.places("web").join(" ");
    world.push(commit("c2").with(web("web:2")).build());
    world.run(20);
    let taken = world.places("web");
    assert!(taken.windows(2).all(|pair| pair[0] != pair[1]), "two on one node: {taken:?}, before: {old}");
}

#[test]
fn a_roll_out_leaves_the_new_pods_spread() {
    for (surge, unavailable) in [(1, 0), (0, 1), (3, 0), (1, 1)] {
        let web = |image: &str| {
            rolling("web", 3, pod(image), IntOrPercent::Int(surge), IntOrPercent::Int(unavailable))
        };
        let mut world = World::new(&["a", "b", "c"]);
        world.push(commit("c1").with(web("web:1")).build());
        world.run(30);
        for round in 2..6 {
            world.push(commit(&format!("c{round}")).with(web(&format!("web:{round}"))).build());
            world.run(60);
            world.expect_healthy(&format!("c{round}"));
            assert_eq!(world.places("web"), ["a", "b", "c"], "surge {surge}, unavailable {unavailable}");
        }
    }
}
