//! What a host does not believe of what the store says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use reconciler::{
    commit::Commit,
    name::{ContainerId, ImageId, NodeName, PodUid, TemplateHash},
    network::HostNetwork,
    node::{NodeInput, NodePlan, Pins, node},
    object::{Taint, TaintEffect},
    observed::{ContainerState, Observed, ObservedContainer},
    plan::{LaneKey, PodIdentity, Role},
    pod::{
        files::DnsFacts,
        memory::{NodeMemory, PodMemory},
    },
    state::{NodeFacts, NodeSystem, PodPlace, Refused, StopReason, StopRecord, Unfit, UnfitReason},
};

use crate::{
    build::{PodSpecExt, bare, commit, commit_id, daemon_set, node_port, pod, replica_set},
    world::{World, facts, name},
};

/// A healthy cluster of two, whose store somebody writes to.
pub(crate) fn settled(commit: Arc<Commit>) -> World {
    let mut world = World::new(&["a", "b"]);
    world.push(commit);
    world.run(30);
    world.expect_healthy("c1");
    world
}

/// What a host makes of the store; `running` are pods that it has containers of.
pub(crate) fn ask(world: &World, host: &str, taints: Vec<Taint>, running: &[PodUid]) -> NodePlan {
    let running = running
        .iter()
        .map(|uid| World::identity(&world.state.pods[uid]))
        .collect();
    ask_with(
        world,
        host,
        taints,
        running,
        Observed::default(),
        &world.memory,
    )
}

pub(crate) fn ask_with(
    world: &World,
    host: &str,
    taints: Vec<Taint>,
    running: Vec<PodIdentity>,
    mut observed: Observed,
    memory: &NodeMemory,
) -> NodePlan {
    let number = if host == "a" { 1 } else { 2 };
    let mut own = facts(number, host);
    own.taints = taints;
    own.system = NodeSystem {
        cpus: 2,
        memory_kib: 1024 * 1024,
        ..NodeSystem::default()
    };
    let network = HostNetwork {
        pod_range: "10.42.0.0/16".parse().unwrap(),
        pod_subnet: own.pod_subnet,
        service_range: "10.96.0.0/16".parse().unwrap(),
        dns: "10.96.0.10".parse().unwrap(),
        node_address: own.address,
        mtu: 1500,
        vxlan: reconciler::network::VxlanSettings::default(),
    };
    for identity in running {
        let id = ContainerId::new(format!("{}-sandbox", identity.uid));
        let container = ObservedContainer {
            identity,
            role: Role::Sandbox,
            name: String::new(),
            attempt: 0,
            image: ImageId::new("pause"),
            state: ContainerState::Running { started: world.now },
        };
        observed.containers.insert(id, container);
    }
    let others = world
        .nodes
        .values()
        .map(|known| known.facts.clone())
        .filter(|facts| facts.name != own.name);
    let peers: BTreeMap<NodeName, NodeFacts> =
        others.map(|facts| (facts.name.clone(), facts)).collect();
    node(&NodeInput {
        now: world.now,
        node: &name(host),
        facts: &own,
        settings: &world.settings,
        network: &network,
        dns: &DnsFacts {
            zone: "cluster.local".to_owned(),
            ..DnsFacts::default()
        },
        drain: Duration::from_secs(2),
        state: &world.state,
        commits: &world.commits,
        kept: &world.kept,
        barred: &world.barred,
        observed: &observed,
        memory,
        pins: &Pins::new(),
        peers: &peers,
        reports: &world.reports,
    })
}

/// The lanes of pods: such a host has no image yet, and pulls those of its commit behind.
fn of_pods(plan: &NodePlan) -> Vec<&LaneKey> {
    plan.lanes
        .iter()
        .map(|lane| &lane.key)
        .filter(|key| matches!(key, LaneKey::Pod(_)))
        .collect()
}

/// Writes one more pod like `uid` into the store, on this host.
pub(crate) fn forge(world: &mut World, uid: &PodUid, host: &str) -> PodUid {
    let mut record = world.state.pods[uid].clone();
    world.state.serial += 1;
    record.serial = world.state.serial;
    record.uid = PodUid::new(format!("forged-{}", record.serial));
    record.key.name = format!("{}-forged-{}", record.key.name, record.serial);
    record.place = PodPlace::Node(name(host));
    let uid = record.uid.clone();
    world.state.pods.insert(uid.clone(), record);
    uid
}

/// Gives a pod that was placed on one host to another one, and nobody has it yet.
pub(crate) fn misplace(world: &mut World, uid: &PodUid, host: &str) {
    world.state.pods.get_mut(uid).unwrap().place = PodPlace::Node(name(host));
    world
        .reports
        .values_mut()
        .for_each(|report| drop(report.pods.remove(uid)));
}

pub(crate) fn tell_to_stop(world: &mut World, uid: &PodUid) {
    let stop = StopRecord {
        at: world.now,
        reason: StopReason::OwnerRemoved,
    };
    world.state.pods.get_mut(uid).unwrap().stop = Some(stop);
}

pub(crate) fn one(world: &World, owner: &str, host: &str) -> PodUid {
    world.on(owner, host).unwrap().uid.clone()
}

#[test]
fn nothing_is_refused_of_what_the_leader_decides() {
    let world = settled(
        commit("c1")
            .with(replica_set("set", 2, pod("set:1")))
            .with(daemon_set("agent", pod("agent:1").with_host_port(8080)))
            .with(bare("one", pod("one:1")))
            .build(),
    );
    for host in ["a", "b"] {
        let plan = ask(&world, host, Vec::new(), &[]);
        assert!(plan.report.refused.is_empty(), "{:?}", plan.report.refused);
    }
}

#[test]
fn surplus_pods_are_not_started_and_the_oldest_are() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("set", 2, pod("set:1")))
            .with(daemon_set("agent", pod("agent:1")))
            .with(bare("one", pod("one:1")))
            .build(),
    );
    let set = one(&world, "set", "a");
    let forged: Vec<PodUid> = (0..3).map(|_| forge(&mut world, &set, "a")).collect();
    let agent = one(&world, "agent", "a");
    let second = forge(&mut world, &agent, "a");
    let bare = world.pods("one")[0].uid.clone();
    let twin = forge(&mut world, &bare, "a");
    let plan = ask(&world, "a", Vec::new(), &[]);
    let refused = &plan.report.refused;
    // One more than wanted may be there for a drain.
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
    // What runs already is not stopped for that.
    let plan = ask(&world, "a", Vec::new(), std::slice::from_ref(&twin));
    assert!(!plan.report.refused.contains_key(&twin));
}

#[test]
fn nothing_is_started_beside_what_runs_in_its_place() {
    let mut world = settled(
        commit("c1")
            .with(daemon_set("agent", pod("agent:1")))
            .build(),
    );
    let known = one(&world, "agent", "a");
    let newer = forge(&mut world, &known, "a");
    // It runs, though it was made later.
    let plan = ask(&world, "a", Vec::new(), std::slice::from_ref(&newer));
    assert_eq!(
        plan.report.refused,
        BTreeMap::from([(known.clone(), Refused::Surplus { pods: 2, most: 1 })])
    );
    // It runs, though nothing is known of it.
    let found = World::identity(&world.state.pods.remove(&newer).unwrap());
    let plan = ask_with(
        &world,
        "a",
        Vec::new(),
        vec![found],
        Observed::default(),
        &NodeMemory::default(),
    );
    assert_eq!(
        plan.report.refused,
        BTreeMap::from([(known.clone(), Refused::Surplus { pods: 2, most: 1 })])
    );
    // It stops, and is not gone.
    let stops = forge(&mut world, &known, "a");
    tell_to_stop(&mut world, &stops);
    world
        .state
        .pods
        .get_mut(&stops)
        .unwrap()
        .stop
        .as_mut()
        .unwrap()
        .reason = StopReason::ScaledDown;
    let plan = ask(&world, "a", Vec::new(), std::slice::from_ref(&stops));
    assert_eq!(
        plan.report.refused,
        BTreeMap::from([(known, Refused::Surplus { pods: 2, most: 1 })])
    );
}

#[test]
fn a_pod_that_is_made_again_while_its_record_is_lost_keeps_its_address() {
    let mut world = settled(
        commit("c1")
            .with(daemon_set("agent", pod("agent:1")))
            .build(),
    );
    let uid = one(&world, "agent", "a");
    world.state.pods.remove(&uid);
    let known = PodMemory {
        address: Some("10.42.1.7".parse().unwrap()),
        ..PodMemory::default()
    };
    let memory = NodeMemory {
        pods: BTreeMap::from([(uid.clone(), known.clone())]),
        ..NodeMemory::default()
    };
    // Its lane has removed what was left of it, and has not come further.
    let lanes = BTreeSet::from([LaneKey::Pod(uid.clone())]);
    let observed = Observed {
        lanes,
        ..Observed::default()
    };
    let plan = ask_with(&world, "a", Vec::new(), Vec::new(), observed, &memory);
    assert_eq!(plan.memory.pods, BTreeMap::from([(uid, known)]));
    assert!(of_pods(&plan).is_empty() && plan.cancel.is_empty());
}

#[test]
fn pods_whose_node_is_out_do_not_count() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("set", 2, pod("set:1")))
            .build(),
    );
    let set = one(&world, "set", "a");
    let more: Vec<PodUid> = (0..2).map(|_| forge(&mut world, &set, "a")).collect();
    assert_eq!(ask(&world, "a", Vec::new(), &[]).report.refused.len(), 1);
    let outage = reconciler::state::Outage {
        since: world.now,
        lost: true,
    };
    world.state.outages.insert(name("b"), outage);
    assert!(
        ask(&world, "a", Vec::new(), &[]).report.refused.is_empty(),
        "{more:?}"
    );
}

#[test]
fn hard_rules_hold_whatever_the_store_says() {
    let mut spec = pod("set:1");
    spec.node_selector
        .insert("kubernetes.io/hostname".into(), "a".into());
    let mut world = settled(commit("c1").with(replica_set("set", 1, spec)).build());
    let set = one(&world, "set", "a");
    let misplaced = forge(&mut world, &set, "b");
    let plan = ask(&world, "b", Vec::new(), &[]);
    assert!(matches!(plan.report.refused[&misplaced], Refused::Unfit(_)));
    let taint = Taint {
        key: "gpu".into(),
        value: String::new(),
        effect: TaintEffect::NoSchedule,
    };
    let plan = ask(&world, "a", vec![taint], &[]);
    assert_eq!(
        plan.report.refused[&set],
        Refused::Unfit(UnfitReason::Placement(Unfit::Taint("gpu".to_owned())).into())
    );
}

#[test]
fn a_host_port_and_the_number_of_pods_are_this_hosts_own() {
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
    let plan = ask(&world, &host, Vec::new(), &[]);
    assert!(matches!(
        plan.report.refused[&second],
        Refused::HostPort { port: 8080, .. }
    ));
    world.settings.max_pods = 0;
    let plan = ask(&world, &host, Vec::new(), &[]);
    assert!(
        plan.report
            .refused
            .values()
            .all(|why| *why == Refused::Full { most: 0 } || matches!(why, Refused::HostPort { .. }))
    );
    assert_eq!(plan.report.refused.len(), 2);
}

#[test]
fn an_unknown_template_is_refused_by_name() {
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
    let plan = ask(&world, &host, Vec::new(), &[]);
    assert_eq!(plan.report.refused[&uid], Refused::Unresolved);
}

#[test]
fn a_pod_whose_owner_is_in_the_commit_is_not_stopped_for_its_removal() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("set", 2, pod("set:1")))
            .build(),
    );
    let uid = one(&world, "set", "a");
    tell_to_stop(&mut world, &uid);
    let plan = ask(&world, "a", Vec::new(), std::slice::from_ref(&uid));
    assert_eq!(plan.report.refused[&uid], Refused::OwnerStays);
    assert!(plan.report.pods.contains_key(&uid) && !plan.report.gone.contains(&uid));
    // A stop of before the commit that brought the owner back is obeyed.
    world
        .state
        .pods
        .get_mut(&uid)
        .unwrap()
        .stop
        .as_mut()
        .unwrap()
        .at = jiff::Timestamp::UNIX_EPOCH;
    let plan = ask(&world, "a", Vec::new(), std::slice::from_ref(&uid));
    assert!(plan.report.refused.is_empty());
}

#[test]
fn owners_that_no_commit_took_away_go_only_within_the_budget() {
    let all = || {
        (0..4).fold(commit("c1"), |builder, number| {
            builder.with(daemon_set(&format!("d{number}"), pod("agent:1")))
        })
    };
    let mut world = settled(all().build());
    // Another commit that has only one of them, with nothing to explain where the others went.
    let other = commit("c9").with(daemon_set("d0", pod("agent:1"))).build();
    world.commits.insert(other.id.clone(), other);
    let rollout = &mut world.state.rollout;
    (rollout.driving, rollout.target, rollout.healthy) = (
        Some(commit_id("c9")),
        Some(commit_id("c9")),
        Some(commit_id("c9")),
    );
    let uids: Vec<PodUid> = (0..4)
        .map(|number| one(&world, &format!("d{number}"), "a"))
        .collect();
    uids[1..]
        .iter()
        .for_each(|uid| tell_to_stop(&mut world, uid));
    let plan = ask(&world, "a", Vec::new(), &uids);
    assert_eq!(plan.report.refused.len(), 3);
    assert_eq!(
        plan.report.refused[&uids[1]],
        Refused::Budget {
            owners: 3,
            of: 4,
            allowed: 1
        }
    );
    // A commit that was left explains it.
    world.state.rollout.left.push(commit_id("c1"));
    let plan = ask(&world, "a", Vec::new(), &uids);
    assert!(plan.report.refused.is_empty());
}

#[test]
fn what_waited_for_its_commit_is_checked_once_that_is_there() {
    let mut spec = pod("set:1");
    spec.node_selector
        .insert("kubernetes.io/hostname".into(), "a".into());
    let mut world = settled(commit("c1").with(replica_set("set", 1, spec)).build());
    let set = one(&world, "set", "a");
    let misplaced = forge(&mut world, &set, "b");
    let commits = std::mem::take(&mut world.commits);
    let plan = ask(&world, "b", Vec::new(), &[]);
    assert!(
        plan.report.refused.is_empty() && plan.lanes.is_empty(),
        "{plan:?}"
    );
    world.memory = plan.memory;
    world.commits = commits;
    let plan = ask(&world, "b", Vec::new(), &[]);
    assert!(
        matches!(plan.report.refused[&misplaced], Refused::Unfit(_)),
        "{:?}",
        plan.report.refused
    );
}

#[test]
fn a_pod_of_a_commit_that_is_not_there_takes_no_part_and_keeps_nothing_from_being_led() {
    let web = replica_set("web", 2, pod("web:1"));
    let mut world = settled(
        commit("c1")
            .with(web)
            .service("web", "web", node_port(None))
            .build(),
    );
    let uid = one(&world, "web", "a");
    let unknown = forge(&mut world, &uid, "a");
    let record = world.state.pods.get_mut(&unknown).unwrap();
    (record.commit, record.template) = (commit_id("c9"), TemplateHash::new("1-of-c9"));
    let running = world
        .pods("web")
        .into_iter()
        .map(|record| record.uid.clone())
        .collect::<Vec<_>>();
    assert!(
        ask(&world, "a", Vec::new(), &running[..1])
            .services
            .is_some()
    );
    // One that runs here, and whose commit is gone, may be what a Service leads to: that stays as
    // it is.
    assert!(ask(&world, "a", Vec::new(), &[unknown]).services.is_none());
}

#[test]
fn a_pod_that_another_host_runs_is_not_begun_a_second_time() {
    let mut world = settled(
        commit("c1")
            .with(replica_set("set", 2, pod("set:1")))
            .build(),
    );
    let uid = one(&world, "set", "a");
    let record = world.state.pods.get_mut(&uid).unwrap();
    record.place = PodPlace::Node(name("b"));
    // Host a still has it, and says so, whatever its record says by now; and it keeps its address.
    let memory = PodMemory {
        address: "10.42.1.7".parse().ok(),
        ..PodMemory::default()
    };
    world.memory.pods.insert(uid.clone(), memory.clone());
    let plan = ask(&world, "a", Vec::new(), std::slice::from_ref(&uid));
    assert!(
        of_pods(&plan).is_empty() && plan.report.orphans.is_empty(),
        "{plan:?}"
    );
    assert_eq!(plan.memory.pods.get(&uid), Some(&memory));
    let said = plan.report.pods[&uid].message.clone().unwrap();
    assert_eq!(said, "it runs here, and its record names b");
    world.reports.insert(name("a"), plan.report);
    let plan = ask(&world, "b", Vec::new(), &[]);
    assert_eq!(
        plan.report.refused[&uid],
        Refused::Elsewhere { node: name("a") }
    );
    // One that is not there any more says nothing.
    world.reports.remove(&name("a"));
    assert!(ask(&world, "b", Vec::new(), &[]).report.refused.is_empty());
}
