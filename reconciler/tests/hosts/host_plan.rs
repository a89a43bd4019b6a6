//! The plans of single hosts, and changes of the store that no leader made.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use reconciler::{
    commit::Commit,
    name::{ContainerId, ImageId, NodeName, PodUid},
    network::HostNetwork,
    node::{NodeInput, NodePlan, Pins, node},
    object::Taint,
    observed::{ContainerState, Observed, ObservedContainer},
    plan::{LaneKey, PodIdentity, Role},
    pod::{files::DnsFacts, memory::NodeMemory},
    state::{NodeFacts, NodeSystem, PodPlace, StopReason, StopRecord},
};

use crate::world::{World, facts, name};

/// Two hosts on which a commit is healthy; a test then changes the store.
pub(crate) fn settled(commit: Arc<Commit>) -> World {
    let mut world = World::new(&["a", "b"]);
    world.push(commit);
    world.run(30);
    world.expect_healthy("c1");
    world
}

/// The plan of a host by the content of the store; `running` are pods whose sandboxes run on the
/// host.
pub(crate) fn plan_of(
    world: &World,
    host: &str,
    taints: Vec<Taint>,
    running: &[PodUid],
) -> NodePlan {
    let running = running
        .iter()
        .map(|uid| World::identity(&world.state.pods[uid]))
        .collect();
    plan_with(
        world,
        host,
        taints,
        running,
        Observed::default(),
        &world.memory,
    )
}

pub(crate) fn plan_with(
    world: &World,
    host: &str,
    taints: Vec<Taint>,
    running: Vec<PodIdentity>,
    mut observed: Observed,
    memory: &NodeMemory,
) -> NodePlan {
    let number = if host == "a" { 1 } else { 2 };
    let mut own_facts = facts(number, host);
    own_facts.taints = taints;
    own_facts.system = NodeSystem {
        cpus: 2,
        memory_kib: 1024 * 1024,
        ..NodeSystem::default()
    };
    let network = HostNetwork {
        pod_range: "10.42.0.0/16".parse().unwrap(),
        pod_subnet: own_facts.pod_subnet,
        service_range: "10.96.0.0/16".parse().unwrap(),
        dns: "10.96.0.10".parse().unwrap(),
        node_address: own_facts.address,
        mtu: 1500,
        vxlan: reconciler::network::VxlanSettings::default(),
    };
    for identity in running {
        let (id, sandbox) = sandbox(identity, world.now);
        observed.containers.insert(id, sandbox);
    }
    let others = world
        .nodes
        .values()
        .map(|known| known.facts.clone())
        .filter(|facts| facts.name != own_facts.name);
    let peers: BTreeMap<NodeName, NodeFacts> =
        others.map(|facts| (facts.name.clone(), facts)).collect();
    node(&NodeInput {
        now: world.now,
        node: &name(host),
        facts: &own_facts,
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

/// The running sandbox of a pod.
pub(crate) fn sandbox(
    identity: PodIdentity,
    started: Timestamp,
) -> (ContainerId, ObservedContainer) {
    let id = ContainerId::new(format!("{}-sandbox", identity.uid));
    let container = ObservedContainer {
        identity,
        role: Role::Sandbox,
        name: String::new(),
        attempt: 0,
        image: ImageId::new("pause"),
        state: ContainerState::Running { started },
    };
    (id, container)
}

/// The lanes of pods. The lanes that pull the images of the commit are left out.
pub(crate) fn pod_lanes(plan: &NodePlan) -> Vec<&LaneKey> {
    plan.lanes
        .iter()
        .map(|lane| &lane.key)
        .filter(|key| matches!(key, LaneKey::Pod(_)))
        .collect()
}

/// Adds a record to the store, like that of `uid`, for a pod on this host.
pub(crate) fn forge(world: &mut World, uid: &PodUid, host: &str) -> PodUid {
    let mut record = world.state.pods[uid].clone();
    world.state.serial += 1;
    record.serial = world.state.serial;
    record.uid = PodUid::new(format!("forged-{}", record.serial));
    if let Some((prefix, _)) = record.key.name.rsplit_once('-') {
        record.key.name = format!("{prefix}-forged{}", record.serial);
    }
    record.place = PodPlace::Node(name(host));
    let uid = record.uid.clone();
    world.state.pods.insert(uid.clone(), record);
    uid
}

/// Moves the record of a pod to another host; no host has the pod.
pub(crate) fn misplace(world: &mut World, uid: &PodUid, host: &str) {
    world.state.pods.get_mut(uid).unwrap().place = PodPlace::Node(name(host));
    world
        .reports
        .values_mut()
        .for_each(|report| drop(report.pods.remove(uid)));
}

pub(crate) fn request_stop(world: &mut World, uid: &PodUid) {
    let stop = StopRecord {
        at: world.now,
        reason: StopReason::OwnerRemoved,
    };
    world.state.pods.get_mut(uid).unwrap().stop = Some(stop);
}

pub(crate) fn pod_on(world: &World, owner: &str, host: &str) -> PodUid {
    world.on(owner, host).unwrap().uid.clone()
}
