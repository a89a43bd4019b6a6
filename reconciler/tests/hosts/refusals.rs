//! Assignments and stops in the store that a host refuses.

use std::collections::{BTreeMap, BTreeSet};

use reconciler::{
    name::{ObjectKey, PodUid, TemplateHash},
    object::{Taint, TaintEffect},
    observed::Observed,
    plan::LaneKey,
    pod::memory::{NodeMemory, PodMemory},
    state::{PodPlace, PodRecord, Refused, StopReason, Unfit, UnfitReason},
};

use crate::{
    build::{PodSpecExt, bare, commit, commit_id, daemon_set, node_port, pod, replica_set},
    host_plan::{forge, misplace, plan_of, plan_with, pod_lanes, pod_on, request_stop, settled},
    world::{World, name},
};

#[test]
fn no_decision_of_the_leader_is_refused() {
    let world = settled(
        commit("c1")
            .with(replica_set("set", 2, pod("set:1")))
            .with(daemon_set("agent", pod("agent:1").with_host_port(8080)))
            .with(bare("one", pod("one:1")))
            .build(),
    );
    for host in ["a", "b"] {
        let plan = plan_of(&world, host, Vec::new(), &[]);
        assert!(plan.report.refused.is_empty(), "{:?}", plan.report.refused);
    }
}

#[test]
fn the_oldest_pods_are_started_and_surplus_ones_are_refused() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("set", 2, pod("set:1")))
            .with(daemon_set("agent", pod("agent:1")))
            .with(bare("one", pod("one:1")))
            .build(),
    );
    let set = pod_on(&world, "set", "a");
    let forged: Vec<PodUid> = (0..3).map(|_| forge(&mut world, &set, "a")).collect();
    let agent = pod_on(&world, "agent", "a");
    let second = forge(&mut world, &agent, "a");
    let bare = world.pods("one")[0].uid.clone();
    let twin = forge(&mut world, &bare, "a");
    let plan = plan_of(&world, "a", Vec::new(), &[]);
    let refused = &plan.report.refused;

    // A drain may make one pod more than the workload wants.
    assert!(!refused.contains_key(&forged[0]), "{refused:?}");
    assert_eq!(refused[&forged[1]], Refused::Surplus { pods: 5, most: 3 });
    assert!(
        refused.contains_key(&forged[2])
            && refused.contains_key(&second)
            && refused.contains_key(&twin)
    );
    assert_eq!(refused.len(), 4, "{refused:?}");
    let status = &plan.report.pods[&twin];
    assert_eq!(status.reason.as_deref(), Some("AssignmentRefused"));
    assert!(
        status
            .message
            .as_ref()
            .unwrap()
            .contains("no commit in use asks for more than 1")
    );

    // A pod that runs already is not stopped for being surplus.
    let plan = plan_of(&world, "a", Vec::new(), std::slice::from_ref(&twin));
    assert!(!plan.report.refused.contains_key(&twin));
}

#[test]
fn a_pod_is_refused_while_another_runs_in_its_place() {
    let mut world = settled(
        commit("c1")
            .with(daemon_set("agent", pod("agent:1")))
            .build(),
    );
    let known = pod_on(&world, "agent", "a");
    let newer = forge(&mut world, &known, "a");

    // The newer pod runs: the older one is refused.
    let plan = plan_of(&world, "a", Vec::new(), std::slice::from_ref(&newer));
    assert_eq!(
        plan.report.refused,
        BTreeMap::from([(known.clone(), Refused::Surplus { pods: 2, most: 1 })])
    );

    // A running pod without a record also counts.
    let unrecorded = World::identity(&world.state.pods.remove(&newer).unwrap());
    let plan = plan_with(
        &world,
        "a",
        Vec::new(),
        vec![unrecorded],
        Observed::default(),
        &NodeMemory::default(),
    );
    assert_eq!(
        plan.report.refused,
        BTreeMap::from([(known.clone(), Refused::Surplus { pods: 2, most: 1 })])
    );

    // A pod that is stopping also counts, until it is gone.
    let stops = forge(&mut world, &known, "a");
    request_stop(&mut world, &stops);
    world
        .state
        .pods
        .get_mut(&stops)
        .unwrap()
        .stop
        .as_mut()
        .unwrap()
        .reason = StopReason::ScaledDown;
    let plan = plan_of(&world, "a", Vec::new(), std::slice::from_ref(&stops));
    assert_eq!(
        plan.report.refused,
        BTreeMap::from([(known, Refused::Surplus { pods: 2, most: 1 })])
    );
}

#[test]
fn a_pod_that_restarts_while_its_record_is_missing_keeps_its_address() {
    let mut world = settled(
        commit("c1")
            .with(daemon_set("agent", pod("agent:1")))
            .build(),
    );
    let uid = pod_on(&world, "agent", "a");

    world.state.pods.remove(&uid);
    let known = PodMemory {
        address: Some("10.42.1.7".parse().unwrap()),
        ..PodMemory::default()
    };
    let memory = NodeMemory {
        pods: BTreeMap::from([(uid.clone(), known.clone())]),
        ..NodeMemory::default()
    };

    // The lane of the pod has removed the old containers, and has made no new ones yet.
    let lanes = BTreeSet::from([LaneKey::Pod(uid.clone())]);
    let observed = Observed {
        lanes,
        ..Observed::default()
    };
    let plan = plan_with(&world, "a", Vec::new(), Vec::new(), observed, &memory);
    assert_eq!(plan.memory.pods, BTreeMap::from([(uid, known)]));
    assert!(pod_lanes(&plan).is_empty() && plan.cancel.is_empty());
}

#[test]
fn pods_on_a_lost_node_are_not_counted_as_surplus() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("set", 2, pod("set:1")))
            .build(),
    );
    let set = pod_on(&world, "set", "a");
    let more: Vec<PodUid> = (0..2).map(|_| forge(&mut world, &set, "a")).collect();
    assert_eq!(
        plan_of(&world, "a", Vec::new(), &[]).report.refused.len(),
        1
    );
    let outage = reconciler::state::Outage {
        since: world.now,
        lost: true,
    };

    world.state.outages.insert(name("b"), outage);
    assert!(
        plan_of(&world, "a", Vec::new(), &[])
            .report
            .refused
            .is_empty(),
        "{more:?}"
    );
}

#[test]
fn names_that_no_controller_gives_are_refused() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("set", 1, pod("set:1")))
            .with(bare("one", pod("one:1")))
            .build(),
    );
    let set = world.pods("set")[0].clone();
    let one = world.pods("one")[0].clone();
    let host = set.place.node().unwrap().as_str().to_owned();
    let forged = |record: &PodRecord, namespace: &str, name: &str, uid: &str| {
        let mut forged = record.clone();
        forged.key = ObjectKey::new(namespace, name);
        forged.uid = PodUid::new(uid);
        forged.place = set.place.clone();
        forged
    };
    for (record, is_refused) in [
        (forged(&set, "default", "set-forged", "forged"), false),
        (forged(&set, "prod", "set-forged", "forged"), true),
        (forged(&set, "default", "other-forged", "forged"), true),
        (forged(&set, "default", "set-other-forged", "forged"), true),
        (forged(&set, "default", "set-$(id)", "forged"), true),
        (forged(&set, "default", "set-", "forged"), true),
        (forged(&set, "default", "set", "forged"), true),
        (forged(&set, "default", "set-forged", "a`id`"), true),
        (forged(&set, "default", "set-forged", "a\u{1b}[31m"), true),
        (forged(&set, "default", "set-forged", ""), true),
        (forged(&one, "default", "one-forged", "forged"), true),
    ] {
        world.state.pods.insert(record.uid.clone(), record.clone());
        let plan = plan_of(&world, &host, Vec::new(), &[]);
        let refused = plan.report.refused.get(&record.uid);
        assert_eq!(
            refused == Some(&Refused::Unresolved),
            is_refused,
            "{record:?}: {refused:?}"
        );
        world.state.pods.remove(&record.uid);
    }
}

#[test]
fn a_host_refuses_pods_that_break_its_hard_rules() {
    let mut spec = pod("set:1");
    spec.node_selector
        .insert("kubernetes.io/hostname".into(), "a".into());
    let mut world = settled(commit("c1").with(replica_set("set", 1, spec)).build());
    let set = pod_on(&world, "set", "a");
    let misplaced = forge(&mut world, &set, "b");
    let plan = plan_of(&world, "b", Vec::new(), &[]);
    assert!(matches!(plan.report.refused[&misplaced], Refused::Unfit(_)));
    let taint = Taint {
        key: "gpu".into(),
        value: String::new(),
        effect: TaintEffect::NoSchedule,
    };
    let plan = plan_of(&world, "a", vec![taint], &[]);
    assert_eq!(
        plan.report.refused[&set],
        Refused::Unfit(UnfitReason::Placement(Unfit::Taint("gpu".to_owned())).into())
    );
}

#[test]
fn a_taken_host_port_and_a_full_host_are_refused() {
    let web = |name| replica_set(name, 1, pod("web:1").with_host_port(8080));
    let mut world = settled(commit("c1").with(web("first")).with(web("second")).build());
    let second = world.pods("second")[0].uid.clone();
    let host = world.pods("first")[0]
        .place
        .node()
        .unwrap()
        .as_str()
        .to_owned();
    misplace(&mut world, &second, &host);
    let plan = plan_of(&world, &host, Vec::new(), &[]);
    assert!(matches!(
        plan.report.refused[&second],
        Refused::HostPort { port: 8080, .. }
    ));
    world.settings.max_pods = 0;
    let plan = plan_of(&world, &host, Vec::new(), &[]);
    assert!(
        plan.report
            .refused
            .values()
            .all(|why| *why == Refused::Full { most: 0 } || matches!(why, Refused::HostPort { .. }))
    );
    assert_eq!(plan.report.refused.len(), 2);
}

#[test]
fn an_unknown_template_is_refused() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("set", 1, pod("set:1")))
            .build(),
    );
    let uid = world.pods("set")[0].uid.clone();
    let host = world.pods("set")[0]
        .place
        .node()
        .unwrap()
        .as_str()
        .to_owned();
    let record = world.state.pods.get_mut(&uid).unwrap();
    record.template = TemplateHash::new("1-forged");
    let plan = plan_of(&world, &host, Vec::new(), &[]);
    assert_eq!(plan.report.refused[&uid], Refused::Unresolved);
}

#[test]
fn a_stop_for_a_removed_owner_is_refused_while_the_commit_has_the_owner() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("set", 2, pod("set:1")))
            .build(),
    );
    let uid = pod_on(&world, "set", "a");
    request_stop(&mut world, &uid);
    let plan = plan_of(&world, "a", Vec::new(), std::slice::from_ref(&uid));
    assert_eq!(plan.report.refused[&uid], Refused::OwnerStays);
    assert!(plan.report.pods.contains_key(&uid) && !plan.report.gone.contains(&uid));

    // A stop from before the commit that added the owner again is carried out.
    world
        .state
        .pods
        .get_mut(&uid)
        .unwrap()
        .stop
        .as_mut()
        .unwrap()
        .at = jiff::Timestamp::UNIX_EPOCH;
    let plan = plan_of(&world, "a", Vec::new(), std::slice::from_ref(&uid));
    assert!(plan.report.refused.is_empty());
}

#[test]
fn stops_of_owners_that_no_commit_removed_are_limited_by_the_budget() {
    let all = || {
        (0..4).fold(commit("c1"), |builder, number| {
            builder.with(daemon_set(&format!("d{number}"), pod("agent:1")))
        })
    };
    let mut world = settled(all().build());

    // Another commit has only one of the owners, and no superseded commit explains the removal of
    // the others.
    let other = commit("c9").with(daemon_set("d0", pod("agent:1"))).build();
    world.commits.insert(other.id.clone(), other);
    let rollout = &mut world.state.rollout;
    (rollout.driving, rollout.target, rollout.healthy) = (
        Some(commit_id("c9")),
        Some(commit_id("c9")),
        Some(commit_id("c9")),
    );
    let uids: Vec<PodUid> = (0..4)
        .map(|number| pod_on(&world, &format!("d{number}"), "a"))
        .collect();
    uids[1..]
        .iter()
        .for_each(|uid| request_stop(&mut world, uid));
    let plan = plan_of(&world, "a", Vec::new(), &uids);
    assert_eq!(plan.report.refused.len(), 3);
    assert_eq!(
        plan.report.refused[&uids[1]],
        Refused::Budget {
            owners: 3,
            of: 4,
            allowed: 1
        }
    );

    // A superseded commit that had these owners explains their removal.
    world.state.rollout.left.push(commit_id("c1"));
    let plan = plan_of(&world, "a", Vec::new(), &uids);
    assert!(plan.report.refused.is_empty());
}

#[test]
fn an_assignment_that_waits_for_its_commit_is_checked_when_the_commit_arrives() {
    let mut spec = pod("set:1");
    spec.node_selector
        .insert("kubernetes.io/hostname".into(), "a".into());
    let mut world = settled(commit("c1").with(replica_set("set", 1, spec)).build());
    let set = pod_on(&world, "set", "a");
    let misplaced = forge(&mut world, &set, "b");
    let commits = std::mem::take(&mut world.commits);
    let plan = plan_of(&world, "b", Vec::new(), &[]);
    assert!(
        plan.report.refused.is_empty() && plan.lanes.is_empty(),
        "{plan:?}"
    );
    world.memory = plan.memory;
    world.commits = commits;
    let plan = plan_of(&world, "b", Vec::new(), &[]);
    assert!(
        matches!(plan.report.refused[&misplaced], Refused::Unfit(_)),
        "{:?}",
        plan.report.refused
    );
}

#[test]
fn an_assignment_of_a_missing_commit_does_not_keep_services_from_being_updated() {
    let web = replica_set("web", 2, pod("web:1"));
    let mut world = settled(
        commit("c1")
            .with(web)
            .service("web", "web", node_port(None))
            .build(),
    );
    let uid = pod_on(&world, "web", "a");
    let unknown = forge(&mut world, &uid, "a");
    let record = world.state.pods.get_mut(&unknown).unwrap();
    (record.commit, record.template) = (commit_id("c9"), TemplateHash::new("1-of-c9"));
    let running = world
        .pods("web")
        .into_iter()
        .map(|record| record.uid.clone())
        .collect::<Vec<_>>();
    assert!(
        plan_of(&world, "a", Vec::new(), &running[..1])
            .services
            .is_some()
    );

    // A running pod whose commit is missing may be an endpoint of a Service: the Services stay as
    // they are.
    assert!(
        plan_of(&world, "a", Vec::new(), &[unknown])
            .services
            .is_none()
    );
}

#[test]
fn a_pod_that_another_host_runs_is_refused() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("set", 2, pod("set:1")))
            .build(),
    );
    let uid = pod_on(&world, "set", "a");
    let record = world.state.pods.get_mut(&uid).unwrap();
    record.place = PodPlace::Node(name("b"));

    // Host a still runs the pod and reports it, although the record names host b; the pod keeps its
    // address.
    let memory = PodMemory {
        address: "10.42.1.7".parse().ok(),
        ..PodMemory::default()
    };
    world.memory.pods.insert(uid.clone(), memory.clone());
    let plan = plan_of(&world, "a", Vec::new(), std::slice::from_ref(&uid));
    assert!(
        pod_lanes(&plan).is_empty() && plan.report.orphans.is_empty(),
        "{plan:?}"
    );
    assert_eq!(plan.memory.pods.get(&uid), Some(&memory));
    let message = plan.report.pods[&uid].message.clone().unwrap();
    assert_eq!(message, "it runs here, and its record names b");
    world.reports.insert(name("a"), plan.report);
    let plan = plan_of(&world, "b", Vec::new(), &[]);
    assert_eq!(
        plan.report.refused[&uid],
        Refused::Elsewhere { node: name("a") }
    );

    // A host without a report does not keep the pod from starting.
    world.reports.remove(&name("a"));
    assert!(
        plan_of(&world, "b", Vec::new(), &[])
            .report
            .refused
            .is_empty()
    );
}
