//! Properties of random histories: with any commits and any events the referee accepts every
//! decision and plan, and after a time without events the host has converged.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::prelude::*;
use reconciler::{
    commit::Commit,
    name::{ContainerId, WorkloadKey},
    object::{Control, IntOrPercent, PodSpec, RestartPolicy, Workload},
    state::{ClusterState, Phase, PodRecord},
};

use crate::{
    build::{
        PodSpecExt, bare, commit, daemon_set, deployment, node_port, on_delete, paused, pod,
        recreate, replica_set, replication_controller, rolling,
    },
    daemon::Sim,
    registry::Behaviour,
};

/// The images of the workloads. The first `GOOD` of them run.
const IMAGES: [(&str, Behaviour); 10] = [
    ("good:1", Behaviour::Fine),
    ("good:2", Behaviour::Fine),
    ("good:latest", Behaviour::Fine),
    ("slow:1", Behaviour::SlowReady(Duration::from_secs(20))),
    ("stubborn:1", Behaviour::IgnoresTerm),
    ("crash:1", Behaviour::ExitsAtOnce(1)),
    ("deaf:1", Behaviour::NeverReady),
    ("broken:1", Behaviour::Rejected),
    ("hook:1", Behaviour::HookFails),
    ("missing:1", Behaviour::Fine),
];
const GOOD: usize = 5;

/// A workload of a commit: its kind, replicas, image and variant, as numbers.
#[derive(Clone, Debug)]
struct WorkloadPlan {
    kind: u8,
    replicas: u32,
    image: usize,
    variant: u8,
}

#[derive(Clone, Debug)]
enum Event {
    Push(BTreeMap<u8, WorkloadPlan>, bool),
    Pass(u64),
    Crash(bool),
    Reboot,
    Kill(usize),
    Remove(usize),
    Pause(usize),
    CutLinks,
    Registry(bool),
    Disk(bool),
    Engine(bool),
    MoveTag,
    Restart(u8),
    LoseState,
}

fn wanted(images: std::ops::Range<usize>) -> impl Strategy<Value = WorkloadPlan> {
    (0..9_u8, 0..4_u32, images, 0..8_u8).prop_map(|(kind, replicas, image, variant)| WorkloadPlan {
        kind,
        replicas,
        image,
        variant,
    })
}

fn commits(images: std::ops::Range<usize>) -> impl Strategy<Value = BTreeMap<u8, WorkloadPlan>> {
    proptest::collection::btree_map(0..4_u8, wanted(images), 1..4)
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (commits(0..IMAGES.len()), any::<bool>()).prop_map(|(all, allow)| Event::Push(all, allow)),
        3 => (commits(0..GOOD), Just(true)).prop_map(|(all, allow)| Event::Push(all, allow)),
        8 => (1..40_000_u64).prop_map(Event::Pass),
        4 => (1..400_u64).prop_map(Event::Pass),
        1 => (600_000..700_000_u64).prop_map(Event::Pass),
        3 => any::<bool>().prop_map(Event::Crash),
        1 => Just(Event::Reboot),
        2 => any::<usize>().prop_map(Event::Kill),
        2 => any::<usize>().prop_map(Event::Remove),
        1 => any::<usize>().prop_map(Event::Pause),
        1 => Just(Event::CutLinks),
        1 => any::<bool>().prop_map(Event::Registry),
        1 => any::<bool>().prop_map(Event::Disk),
        1 => any::<bool>().prop_map(Event::Engine),
        1 => Just(Event::MoveTag),
        2 => (0..4_u8).prop_map(Event::Restart),
        1 => Just(Event::LoseState),
    ]
}

fn spec(wanted: &WorkloadPlan) -> PodSpec {
    let mut spec = pod(IMAGES[wanted.image].0).with_readiness();
    if wanted.image == 8 {
        spec = spec.with_post_start();
    }
    match wanted.variant {
        1 => spec.with_init("setup", "setup:1"),
        2 => spec.with_post_start(),
        3 => spec.with_config("conf"),
        4 => spec.with_liveness(),
        5 => {
            spec.containers
                .push(crate::build::container("side", "good:1"));
            spec
        }
        6 => {
            spec.host_network = true;
            spec
        }
        _ => spec,
    }
}

fn workload(name: &str, wanted: &WorkloadPlan) -> Workload {
    let spec = spec(wanted);
    match wanted.kind {
        0 => bare(name, spec.with_policy(policy(wanted.variant))),
        1 => replica_set(name, wanted.replicas, spec),
        2 => replication_controller(name, wanted.replicas, spec),
        3 => deployment(name, wanted.replicas, spec),
        4 => recreate(name, wanted.replicas, spec),
        5 => paused(deployment(name, wanted.replicas, spec)),
        6 => daemon_set(name, spec),
        7 => on_delete(daemon_set(name, spec)),
        _ => rolling(
            name,
            wanted.replicas,
            spec,
            IntOrPercent::Int(0),
            IntOrPercent::Int(2),
        ),
    }
}

fn policy(variant: u8) -> RestartPolicy {
    match variant {
        0 => RestartPolicy::Never,
        7 => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

fn build_commit(number: usize, all: &BTreeMap<u8, WorkloadPlan>, allow: bool) -> Arc<Commit> {
    in_order(number, all.iter(), allow)
}

fn in_order<'a>(
    number: usize,
    all: impl Iterator<Item = (&'a u8, &'a WorkloadPlan)>,
    allow: bool,
) -> Arc<Commit> {
    let mut commit =
        commit(&format!("c{number:03}")).config_map("conf", &format!("{}", number % 3));
    for (name, wanted) in all {
        let name = format!("w{name}");
        commit = commit
            .with(workload(&name, wanted))
            .service(&name, &name, node_port(None));
    }
    if allow {
        commit.allow_deletions()
    } else {
        commit
    }
    .build()
}

fn sim() -> Sim {
    let mut sim = Sim::default();
    for (name, behaviour) in IMAGES.iter().filter(|(name, _)| *name != "missing:1") {
        sim.registry.push(name, *behaviour);
    }
    sim.registry
        .push("setup:1", Behaviour::Ends(Duration::from_secs(1), 0));
    sim
}

fn apply_event(sim: &mut Sim, number: usize, event: &Event) {
    sim.note(format!("event {event:?}"));
    let pick = |sim: &Sim, index: usize| -> Option<ContainerId> {
        let all: Vec<&ContainerId> = sim.host.containers.keys().collect();
        (!all.is_empty()).then(|| all[index % all.len()].clone())
    };
    match event {
        Event::Push(all, allow) => sim.push(build_commit(number, all, *allow)),
        Event::Pass(milliseconds) => sim.run(Duration::from_millis(*milliseconds)),
        Event::Crash(halfway) => sim.crash(*halfway),
        Event::Reboot => sim.reboot(),
        Event::Kill(index) => {
            if let Some(id) = pick(sim, *index) {
                sim.host.end(&id, 137, sim.now);
            }
        }
        Event::Remove(index) => {
            if let Some(id) = pick(sim, *index) {
                sim.host.remove(&id);
            }
        }
        Event::Pause(index) => {
            if let Some(id) = pick(sim, *index) {
                sim.host.pause(&id);
            }
        }
        Event::CutLinks => sim.host.links.clear(),
        Event::Registry(reachable) => sim.registry.reachable = *reachable,
        Event::Disk(full) => sim.host.disk_full = *full,
        Event::Engine(down) => sim.host.engine_down = *down,
        Event::MoveTag => {
            sim.registry.push("good:latest", Behaviour::Fine);
        }
        Event::Restart(name) => {
            let owners: Vec<WorkloadKey> = sim
                .state
                .pods
                .values()
                .filter(|record| record.owner.object.name == format!("w{name}"))
                .map(|record| record.owner.clone())
                .collect();
            let serial = sim.state.serial;
            sim.state
                .rollout
                .restarts
                .extend(owners.into_iter().map(|owner| (owner, serial)));
        }
        Event::LoseState => {
            let serial = sim.state.serial;
            let cluster = format!("{}+{serial}", sim.state.cluster);
            sim.state = ClusterState {
                cluster,
                ..ClusterState::default()
            };
            sim.crash(true);
        }
    }
    sim.cycle();
}

/// Ends all faults, and runs long enough to converge.
fn end_faults(sim: &mut Sim) {
    sim.host.disk_full = false;
    sim.host.engine_down = false;
    sim.registry.reachable = true;
    sim.note("calm".to_owned());
    sim.cycle();
    sim.run_seconds(4000);
}

/// Expects that all workloads of the driving commit have converged. A commit that fails for ever is
/// not checked.
fn expect_converged(sim: &mut Sim) {
    let phase = sim.state.rollout.phase.clone();
    match &phase {
        Phase::Healthy => {}
        Phase::Degraded { .. } | Phase::Empty => return,
        Phase::Preparing { .. } | Phase::Progressing { .. } | Phase::Soaking => {
            sim.fail("the rollout has not ended");
        }
    }
    let Some(driving) = sim.state.rollout.driving.clone() else {
        return;
    };
    let commit = sim.commits[&driving].clone();
    for (key, workload) in &commit.objects.workloads {
        let wanted = match &workload.control {
            Control::Pod | Control::DaemonSet { .. } => 1,
            Control::Replicas { replicas, .. } => *replicas as usize,
            Control::Deployment { paused: true, .. } => continue,
            Control::Deployment { replicas, .. } => *replicas as usize,
        };
        let name = &key.object.name;
        let pods: Vec<_> = sim
            .pods(name)
            .into_iter()
            .filter(|record| record.owner == *key)
            .collect();
        if pods.len() != wanted {
            sim.fail(&format!("{key} has {} pods and wants {wanted}", pods.len()));
        }
        let ended = pods
            .iter()
            .filter(|record| sim.status(&record.uid).phase.is_final())
            .count();
        let may_keep_old_pods = matches!(
            workload.control,
            Control::Replicas { .. } | Control::DaemonSet { .. }
        );
        if sim.ready(name) + ended != wanted && !may_keep_old_pods {
            sim.fail(&format!(
                "{key} has {} ready pods and wants {wanted}",
                sim.ready(name)
            ));
        }
    }
}

/// Whether all pods are ready or have ended, so that the loop can become idle. A pod that crashes
/// for ever never lets it.
fn can_become_idle(sim: &Sim) -> bool {
    sim.state.rollout.phase == Phase::Healthy
        && sim.state.pods.values().all(|record| {
            let status = sim.status(&record.uid);
            status.ready.is_some() || status.phase.is_final()
        })
}

fn history() -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec(event(), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 400, ..ProptestConfig::with_cases(cases(96)) })]

    #[test]
    fn every_plan_is_sound_and_the_loop_becomes_idle_after_any_history(events in history()) {
        let mut sim = sim();
        for (number, event) in events.iter().enumerate() {
            apply_event(&mut sim, number, event);
        }
        end_faults(&mut sim);
        expect_converged(&mut sim);
        if can_become_idle(&sim) {
            sim.expect_idle();
        }
    }

    #[test]
    fn a_good_commit_becomes_healthy_after_any_history(
        events in history(),
        last in commits(0..GOOD),
    ) {
        let mut sim = sim();
        for (number, event) in events.iter().enumerate() {
            apply_event(&mut sim, number, event);
        }
        sim.host.disk_full = false;
        sim.host.engine_down = false;
        sim.registry.reachable = true;
        sim.push(build_commit(999, &last, true));
        sim.run_seconds(60);
        // Pods of these kinds are not replaced by their controllers when the template changes: a
        // person must restart them.
        let serial = sim.state.serial;
        let is_not_replaced = |record: &PodRecord| {
            use reconciler::name::WorkloadKind as Kind;
            matches!(record.owner.kind, Kind::ReplicaSet | Kind::ReplicationController | Kind::DaemonSet)
        };
        let owners: Vec<WorkloadKey> =
            sim.state.pods.values().filter(|record| is_not_replaced(record)).map(|record| record.owner.clone()).collect();
        sim.state.rollout.restarts.extend(owners.into_iter().map(|owner| (owner, serial)));
        sim.cycle();
        sim.run_seconds(4000);
        sim.expect_healthy("c999");
        expect_converged(&mut sim);
    }

    #[test]
    fn the_same_input_in_another_order_gives_the_same_decisions_and_steps(events in history()) {
        let (mut forward, mut reversed) = (sim(), sim());
        for (number, event) in events.iter().enumerate() {
            apply_event(&mut forward, number, event);
            match event {
                Event::Push(all, allow) => {
                    reversed.note(format!("event {event:?}"));
                    reversed.push(in_order(number, all.iter().rev(), *allow));
                    reversed.cycle();
                }
                _ => apply_event(&mut reversed, number, event),
            }
        }
        prop_assert_eq!(&forward.transcript, &reversed.transcript);
        prop_assert_eq!(&forward.state, &reversed.state);
        prop_assert_eq!(&forward.memory, &reversed.memory);
    }

    #[test]
    fn a_crash_in_any_step_of_a_rollout_still_converges(
        first in commits(0..GOOD),
        second in commits(0..GOOD),
        milliseconds in 0..8_000_u64,
        halfway in any::<bool>(),
    ) {
        let mut sim = sim();
        sim.push(build_commit(1, &first, true));
        sim.run_seconds(200);
        sim.expect_healthy("c001");
        sim.push(build_commit(2, &second, true));
        sim.run(Duration::from_millis(milliseconds));
        sim.crash(halfway);
        sim.run_seconds(400);
        sim.expect_healthy("c002");
        expect_converged(&mut sim);
        sim.expect_idle();
        let known: usize = sim.state.pods.len();
        prop_assert_eq!(sim.memory.pods.len(), known);
        prop_assert_eq!(sim.host.files.len(), known);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the person who runs the tests chooses the number of cases"
)]
fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
