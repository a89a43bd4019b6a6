//! Short tales without chance in what goes wrong: what becomes of a commit where one clock is off
//! by an hour, where one host cannot run it, and where its images cannot be had for reasons that
//! nobody knows.

use jiff::SignedDuration;
use reconciler::{
    name::{CommitId, NodeName, WorkloadKind},
    state::{FailureClass, FailureReason, NodeFault, Phase, Stored},
};

use crate::{
    clock::Clock,
    store::Sabotage,
    story::{Repository, Update, Wanted, build},
    world::World,
};

/// Three hosts whose clocks are off by so many seconds.
fn cluster(offsets: [i64; 3]) -> World {
    let mut world = World::new(7, Sabotage::None);
    for seconds in offsets {
        let host = world.add_host();
        world.hosts[host].clock = Clock::new(SignedDuration::from_secs(seconds));
        world.start(host);
    }
    world
}

fn wanted(kind: WorkloadKind, image: &str) -> Wanted {
    let update = Update::Rolling(1, 0);
    Wanted {
        kind,
        replicas: 3,
        image: image.to_owned(),
        update,
        disk: false,
        min_ready: 5,
        service: None,
    }
}

fn wants(world: &mut World, workloads: &[(&str, Wanted)]) -> CommitId {
    let workloads = workloads
        .iter()
        .map(|(name, wanted)| ((*name).to_owned(), wanted.clone()))
        .collect();
    // A host that comes to the repository a minute late is no matter of these tales.
    let calm = std::mem::replace(&mut world.calm, true);
    let commit = push(
        world,
        &Repository {
            workloads,
            ..Repository::default()
        },
    );
    world.calm = calm;
    commit
}

/// Pushes a repository; the referee asks which commits may be called bad.
pub(crate) fn push(world: &mut World, repository: &Repository) -> CommitId {
    let commit = build(world.pushed.len() + 1, repository);
    let id = commit.id.clone();
    for wanted in repository.workloads.values() {
        match wanted.image.as_str() {
            "missing:1" | "crash:1" => drop(world.bad.insert(id.clone())),
            "local:1" => drop(world.doubtful.insert(id.clone())),
            _ => {}
        }
    }
    world.push(commit);
    id
}

fn run(world: &mut World, seconds: u64) {
    world.run_until(world.now + seconds * 1_000);
    assert_eq!(world.wrong, None, "{}", world.transcript.tail(100));
}

#[track_caller]
fn expect_healthy(world: &World, commit: &CommitId) {
    let rollout = &world.store.contents.state.rollout;
    let healthy = rollout.phase == Phase::Healthy && rollout.target.as_ref() == Some(commit);
    assert!(healthy, "{rollout:#?}\n{}", world.transcript.tail(100));
}

#[track_caller]
fn expect_rolled_back(world: &World, from: &CommitId, to: &CommitId, class: FailureClass) {
    expect_healthy(world, to);
    let rollback = world
        .store
        .contents
        .state
        .rollout
        .rollback
        .as_ref()
        .unwrap();
    assert_eq!(
        (&rollback.from, rollback.class),
        (from, class),
        "{}",
        rollback.reason
    );
}

/// One clock of three an hour ahead or behind, on each host in turn: the leader's own, and
/// another's.
fn skews() -> impl Iterator<Item = [i64; 3]> {
    [3_600, -3_600]
        .into_iter()
        .flat_map(|off| [[off, 0, 0], [0, off, 0], [0, 0, off]])
}

#[test]
fn a_good_commit_is_healthy_whichever_clock_is_off() {
    for offsets in skews() {
        let mut world = cluster(offsets);
        wants(
            &mut world,
            &[("web", wanted(WorkloadKind::Deployment, "good:1"))],
        );
        run(&mut world, 120);
        let agent = wanted(WorkloadKind::DaemonSet, "good:2");
        let second = wants(
            &mut world,
            &[
                ("web", wanted(WorkloadKind::Deployment, "good:2")),
                ("agent", agent),
            ],
        );
        run(&mut world, 150);
        expect_healthy(&world, &second);
    }
}

#[test]
fn a_bad_commit_is_rolled_back_whichever_clock_is_off() {
    for offsets in skews() {
        for kind in [WorkloadKind::Deployment, WorkloadKind::DaemonSet] {
            let mut world = cluster(offsets);
            let good = wants(&mut world, &[("web", wanted(kind, "good:1"))]);
            run(&mut world, 120);
            expect_healthy(&world, &good);
            let missing = wants(&mut world, &[("web", wanted(kind, "missing:1"))]);
            run(&mut world, 60);
            expect_rolled_back(&world, &missing, &good, FailureClass::Image);
            let crashing = wants(&mut world, &[("web", wanted(kind, "crash:1"))]);
            run(&mut world, 210);
            expect_rolled_back(&world, &crashing, &good, FailureClass::CrashLoop);
        }
    }
}

#[test]
fn a_commit_that_one_host_cannot_run_is_healthy_and_the_host_is_named() {
    for offsets in skews().chain([[0; 3]]) {
        let mut world = cluster(offsets);
        wants(
            &mut world,
            &[("agent", wanted(WorkloadKind::DaemonSet, "good:1"))],
        );
        run(&mut world, 120);
        let doubtful = wants(
            &mut world,
            &[("agent", wanted(WorkloadKind::DaemonSet, "local:1"))],
        );
        run(&mut world, 240);
        expect_healthy(&world, &doubtful);
        let faulty = &world.store.contents.state.rollout.faulty;
        let named: Vec<&NodeName> = faulty.keys().collect();
        assert_eq!(named, [&NodeName::new("n1")], "{offsets:?}");
        assert!(
            faulty.values().all(|fault| matches!(
                fault,
                Stored::Decided(NodeFault::Pod(FailureReason::CrashLoop { .. }))
            )),
            "{faulty:?}"
        );
    }
}

#[test]
fn images_that_cannot_be_had_for_reasons_nobody_knows_have_until_the_dead_line() {
    for offsets in skews() {
        let mut world = cluster(offsets);
        let good = wants(
            &mut world,
            &[("web", wanted(WorkloadKind::Deployment, "good:1"))],
        );
        run(&mut world, 120);
        world
            .hosts
            .iter_mut()
            .for_each(|host| host.registry.strange = true);
        let stuck = wants(
            &mut world,
            &[("web", wanted(WorkloadKind::Deployment, "good:2"))],
        );
        run(&mut world, 100);
        expect_is_preparing(&world, &stuck);
        // It is not the commit of the stories' referee: the referee takes it for a good one.
        world.bad.insert(stuck.clone());
        run(&mut world, 60);
        expect_rolled_back(&world, &stuck, &good, FailureClass::Deadline);
    }
}

#[track_caller]
fn expect_is_preparing(world: &World, commit: &CommitId) {
    let rollout = &world.store.contents.state.rollout;
    let preparing = matches!(rollout.phase, Phase::Preparing { .. });
    assert!(
        preparing && rollout.target.as_ref() == Some(commit),
        "{rollout:#?}"
    );
}
