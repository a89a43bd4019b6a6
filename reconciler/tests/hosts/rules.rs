//! Rules between pods, and requests to a host, that the host checks itself; and what the leader
//! does if a host refuses a pod.

use std::{collections::BTreeMap, time::Duration};

use reconciler::{
    cluster::Note,
    name::{PodUid, TemplateHash},
    object::{IntOrPercent, PodSelector, PodSpec, PodTerm, Selector, SpreadConstraint},
    observed::Observed,
    plan::Next,
    state::{Refused, StopReason, Unfit, UnfitReason},
};

use crate::{
    build::{PodSpecExt, bare, commit, daemon_set, pod, replica_set, rolling},
    host_plan::{forge, misplace, plan_of, plan_with, pod_on, request_stop, settled},
    world::{World, name},
};

const HOST: &str = "kubernetes.io/hostname";

fn pods_of(app: &str) -> PodSelector {
    let labels = [("app".to_owned(), app.to_owned())].into();
    PodSelector {
        labels: Some(Selector {
            labels,
            expressions: Vec::new(),
        }),
        ..PodSelector::default()
    }
}

fn term(app: &str) -> PodTerm {
    PodTerm {
        pods: pods_of(app),
        topology_key: HOST.to_owned(),
        ..PodTerm::default()
    }
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

fn requesting(mut spec: PodSpec, cpu: u64) -> PodSpec {
    spec.containers[0].resources.cpu_request_milli = Some(cpu);
    spec
}

fn only_on(mut spec: PodSpec, node: &str) -> PodSpec {
    spec.node_selector.insert(HOST.to_owned(), node.to_owned());
    spec
}

#[track_caller]
fn expect_refused(world: &World, host: &str, uid: &PodUid, why: Unfit) {
    let plan = plan_of(world, host, Vec::new(), &[]);
    let refused = &plan.report.refused;
    assert_eq!(
        refused.get(uid),
        Some(&Refused::Unfit(UnfitReason::Placement(why).into())),
        "{refused:?}"
    );
    assert_eq!(refused.len(), 1, "{refused:?}");
}

#[test]
fn no_placement_of_the_leader_by_these_rules_is_refused() {
    let world = settled(
        commit("c1")
            .with(replica_set(
                "web",
                2,
                requesting(apart(pod("web:1"), "web"), 900),
            ))
            .with(replica_set(
                "set",
                3,
                spread(near(pod("set:1"), "web"), "set"),
            ))
            .with(bare("one", apart(pod("one:1"), "nobody")))
            .build(),
    );
    for host in ["a", "b"] {
        let plan = plan_of(&world, host, Vec::new(), &[]);
        assert!(
            plan.report.refused.is_empty(),
            "{host}: {:?}",
            plan.report.refused
        );
    }
}

#[test]
fn a_host_refuses_a_pod_beside_one_that_anti_affinity_excludes() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("web", 2, apart(pod("web:1"), "web")))
            .build(),
    );
    let uid = pod_on(&world, "web", "a");
    let forged = forge(&mut world, &uid, "a");
    expect_refused(&world, "a", &forged, Unfit::PodAntiAffinity);

    // The anti-affinity of another pod excludes this pod.
    let both = || {
        let lonely = only_on(apart(pod("lonely:1"), "web"), "a");
        commit("c1")
            .with(bare("lonely", lonely))
            .with(replica_set("web", 2, pod("web:1")))
            .build()
    };
    let mut world = settled(both());
    let webs: Vec<PodUid> = world
        .pods("web")
        .iter()
        .map(|record| record.uid.clone())
        .collect();
    misplace(&mut world, &webs[1], "a");
    expect_refused(&world, "a", &webs[1], Unfit::ExistingPodAntiAffinity);
}

#[test]
fn a_host_refuses_a_pod_that_breaks_a_required_spread() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("web", 4, spread(pod("web:1"), "web")))
            .build(),
    );
    let newest = world.pods("web")[3].uid.clone();
    let host = world.state.pods[&newest].place.node().unwrap().clone();
    let other = if host == name("a") { "b" } else { "a" };
    misplace(&mut world, &newest, other);
    expect_refused(&world, other, &newest, Unfit::Spread);
    // A pod that is stopping counted when the new one was placed.
    let gone = forge(&mut world, &newest, host.as_str());
    request_stop(&mut world, &gone);
    assert!(
        plan_of(&world, other, Vec::new(), &[])
            .report
            .refused
            .is_empty()
    );
}

/// Two hosts, and a pod that is placed on `b` and must be beside the pod `web`, which is on `a`.
fn away_from_what_it_requires() -> (World, PodUid) {
    let commit = commit("c1")
        .with(bare("web", only_on(pod("web:1"), "a")))
        .with(replica_set("set", 1, near(pod("set:1"), "web")));
    let mut world = settled(commit.build());
    let uid = pod_on(&world, "set", "a");
    misplace(&mut world, &uid, "b");
    (world, uid)
}

#[test]
fn a_host_refuses_a_pod_without_the_pod_that_its_affinity_requires() {
    let (world, uid) = away_from_what_it_requires();
    expect_refused(&world, "b", &uid, Unfit::PodAffinity);
}

#[test]
fn a_pod_whose_workload_is_not_known_may_be_the_one_that_an_affinity_requires() {
    let (mut world, uid) = away_from_what_it_requires();
    let supporting = pod_on(&world, "web", "a");
    let other = forge(&mut world, &supporting, "b");
    let record = world.state.pods.get_mut(&other).unwrap();
    record.template = TemplateHash::new("unknown");

    let refused = plan_of(&world, "b", Vec::new(), &[]).report.refused;
    assert!(!refused.contains_key(&uid), "{refused:?}");

    // A pod that is being stopped is not relied on.
    request_stop(&mut world, &other);
    let refused = plan_of(&world, "b", Vec::new(), &[]).report.refused;
    let why = UnfitReason::Placement(Unfit::PodAffinity);
    assert_eq!(refused.get(&uid), Some(&Refused::Unfit(why.into())));
}

#[test]
fn a_host_refuses_a_pod_that_it_has_no_room_for() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("web", 2, requesting(pod("web:1"), 1500)))
            .build(),
    );
    let uid = pod_on(&world, "web", "a");
    let forged = forge(&mut world, &uid, "a");
    expect_refused(&world, "a", &forged, Unfit::Cpu);
    // Running pods are not stopped for lack of room.
    let plan = plan_of(&world, "a", Vec::new(), &[uid, forged]);
    assert!(plan.report.refused.is_empty(), "{:?}", plan.report.refused);
}

#[test]
fn running_pods_count_by_their_labels_and_not_by_their_records() {
    let all = || {
        commit("c1")
            .with(replica_set(
                "web",
                2,
                requesting(apart(pod("web:1"), "web"), 1500),
            ))
            .with(replica_set("port", 2, pod("port:1").with_host_port(8080)))
            .build()
    };
    for serial in [0, 1, u64::MAX] {
        let mut world = settled(all());
        let (web, port) = (pod_on(&world, "web", "a"), pod_on(&world, "port", "a"));
        let (forged_web, forged_port) =
            (forge(&mut world, &web, "a"), forge(&mut world, &port, "a"));
        for uid in [&forged_web, &forged_port] {
            world.state.pods.get_mut(uid).unwrap().serial = serial;
        }

        // A running pod is known by its own labels.
        let running = [
            World::identity(&world.state.pods[&web]),
            World::identity(&world.state.pods[&port]),
        ];
        for uid in [&web, &port] {
            world.state.pods.get_mut(uid).unwrap().template = TemplateHash::new("1-forged");
        }
        let plan = plan_with(
            &world,
            "a",
            Vec::new(),
            running.to_vec(),
            Observed::default(),
            &world.memory,
        );
        let refused = &plan.report.refused;
        assert!(
            matches!(refused.get(&forged_web), Some(Refused::Unfit(_))),
            "{serial}: {refused:?}"
        );
        assert!(
            matches!(refused.get(&forged_port), Some(Refused::HostPort { .. })),
            "{serial}: {refused:?}"
        );

        // Pods above the wanted number are refused, whatever serial their records have.
        let more: Vec<PodUid> = (0..3)
            .map(|_| forge(&mut world, &forged_port, "b"))
            .collect();
        let running: Vec<PodUid> = world
            .on("port", "b")
            .into_iter()
            .map(|record| record.uid.clone())
            .collect();
        for uid in &more {
            world.state.pods.get_mut(uid).unwrap().serial = serial;
        }
        let plan = plan_of(&world, "b", Vec::new(), &running);
        assert!(
            more.iter().all(|uid| plan.report.refused.contains_key(uid)),
            "{:?}",
            plan.report.refused
        );
    }
}

#[test]
fn a_pod_that_its_host_refuses_is_replaced_on_another_host() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("web", 2, pod("web:1")))
            .build(),
    );
    let uid = pod_on(&world, "web", "a");
    world.refused.insert(uid.clone(), Refused::Full { most: 1 });
    world.run(3);
    assert_eq!(world.stops.get(&uid), Some(&StopReason::NodeExcluded));
    assert!(!world.state.pods.contains_key(&uid));
    assert_eq!(world.nodes_of("web"), ["b", "b"]);
}

#[test]
fn a_host_turns_a_pod_away_after_it_has_refused_it_for_ten_seconds() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("web", 1, only_on(pod("web:1"), "a")))
            .build(),
    );
    let uid = pod_on(&world, "web", "a");
    misplace(&mut world, &uid, "b");
    let plan = plan_of(&world, "b", Vec::new(), &[]);
    assert!(plan.report.refused.contains_key(&uid) && plan.report.turned_away.is_empty());
    assert_eq!(plan.next, Next::After(Duration::from_secs(10)));
    world.memory = plan.memory;

    world.now += Duration::from_secs(9);
    let plan = plan_of(&world, "b", Vec::new(), &[]);
    assert!(plan.report.turned_away.is_empty());
    world.memory = plan.memory;

    world.now += Duration::from_secs(1);
    assert!(
        plan_of(&world, "b", Vec::new(), &[])
            .report
            .turned_away
            .contains(&uid)
    );

    // A pod that may run here again is no longer recorded as refused.
    misplace(&mut world, &uid, "a");
    let plan = plan_of(&world, "a", Vec::new(), &[]);
    assert_eq!(plan.memory.pods[&uid].refused, None);
}

#[test]
fn nodes_get_at_most_their_own_maximum_of_pods() {
    let mut world = World::new(&["a", "b"]);
    world
        .nodes
        .get_mut(&name("a"))
        .unwrap()
        .facts
        .system
        .max_pods = 1;
    world.push(
        commit("c1")
            .with(replica_set("web", 4, pod("web:1")))
            .build(),
    );
    world.run(30);
    world.expect_healthy("c1");
    assert_eq!(world.nodes_of("web"), ["a", "b", "b", "b"]);
}

#[test]
fn a_daemon_pod_is_stopped_on_a_node_that_is_not_selected_any_more() {
    let label = |world: &mut World, node: &str, disk: &str| {
        let facts = &mut world.nodes.get_mut(&name(node)).unwrap().facts;
        facts.labels.insert("disk".to_owned(), disk.to_owned());
    };
    let mut world = World::new(&["a", "b"]);
    label(&mut world, "a", "fast");
    label(&mut world, "b", "fast");
    let mut spec = pod("agent:1");
    spec.node_selector
        .insert("disk".to_owned(), "fast".to_owned());
    world.push(commit("c1").with(daemon_set("agent", spec)).build());
    world.run(30);
    world.expect_healthy("c1");
    assert_eq!(world.nodes_of("agent"), ["a", "b"]);
    let stopped = world.on("agent", "b").unwrap().uid.clone();

    label(&mut world, "b", "slow");
    world.run(5);

    assert_eq!(world.nodes_of("agent"), ["a"]);
    let stops = BTreeMap::from([(stopped, StopReason::NodeExcluded)]);
    assert_eq!(world.stops, stops);
}

#[test]
fn a_refused_stop_ends_with_the_wanted_number_of_pods() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("web", 2, pod("web:1")))
            .build(),
    );
    let uid = pod_on(&world, "web", "a");
    request_stop(&mut world, &uid);
    world.refused.insert(uid.clone(), Refused::OwnerStays);
    world.run(5);
    assert!(
        !world.state.pods.contains_key(&uid),
        "{:?}",
        world.state.pods
    );
    assert_eq!(world.stops[&uid], StopReason::ScaledDown);
    assert_eq!(world.pods("web").len(), 2);
}

#[test]
fn a_canary_keeps_the_rules_between_pods() {
    // If a pod may be unavailable, the canary's old pod stops first. If none may, the canary is
    // skipped.
    for (surge, unavailable, replicas) in [(1, 0, 2), (0, 1, 2), (0, 1, 3), (1, 1, 3)] {
        let web = |image: &str| {
            let bounds = (IntOrPercent::Int(surge), IntOrPercent::Int(unavailable));
            rolling(
                "web",
                replicas,
                apart(pod(image), "web"),
                bounds.0,
                bounds.1,
            )
        };
        let mut world = World::new(&["a", "b", "c"]);
        world.settings.rollout.canary_nodes.insert(name("a"));

        // An unchanged workload causes no note, although the canary has no room for its pods.
        let unchanged = |name, spec: PodSpec| {
            rolling(
                name,
                1,
                spec.with_host_port(8080),
                IntOrPercent::Int(1),
                IntOrPercent::Int(0),
            )
        };
        let first = || unchanged("first", only_on(pod("first:1"), "a"));
        let second = || unchanged("second", pod("second:1"));

        world.push(
            commit("c1")
                .with(first())
                .with(second())
                .with(web("web:1"))
                .build(),
        );
        world.run(60);
        world.expect_healthy("c1");
        assert!(world.nodes_of("web").contains(&"a"));

        world.push(
            commit("c2")
                .with(first())
                .with(second())
                .with(web("web:2"))
                .build(),
        );
        let mut noted = false;
        for _ in 0..60 {
            world.run(1);
            let nodes = world.nodes_of("web");
            let case = format!("surge {surge}, unavailable {unavailable}, {replicas} pods");
            assert!(
                nodes.windows(2).all(|pair| pair[0] != pair[1]),
                "{case}: two on one node: {nodes:?}"
            );
            let barred: Vec<(&str, &str)> = world
                .notes
                .iter()
                .filter_map(|note| match note {
                    Note::CanaryBarred { workload, node, .. } => {
                        Some((workload.object.name.as_str(), node.as_str()))
                    }
                    _ => None,
                })
                .collect();
            noted |= barred.contains(&("web", "a"));
            assert!(
                barred.iter().all(|(workload, _)| *workload != "second"),
                "{barred:?}"
            );
        }
        assert_eq!(
            noted,
            unavailable == 0,
            "surge {surge}, unavailable {unavailable}, {replicas} pods"
        );
        world.expect_healthy("c2");
    }
}

#[test]
fn a_rollout_keeps_the_new_pods_spread() {
    for (surge, unavailable) in [(1, 0), (0, 1), (3, 0), (1, 1)] {
        let web = |image: &str| {
            rolling(
                "web",
                3,
                pod(image),
                IntOrPercent::Int(surge),
                IntOrPercent::Int(unavailable),
            )
        };

        let mut world = World::new(&["a", "b", "c"]);
        world.push(commit("c1").with(web("web:1")).build());
        world.run(30);
        for round in 2..6 {
            world.push(
                commit(&format!("c{round}"))
                    .with(web(&format!("web:{round}")))
                    .build(),
            );
            world.run(60);
            world.expect_healthy(&format!("c{round}"));
            assert_eq!(
                world.nodes_of("web"),
                ["a", "b", "c"],
                "surge {surge}, unavailable {unavailable}"
            );
        }
    }
}
