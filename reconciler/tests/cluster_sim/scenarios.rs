//! Short scenarios with fixed faults: the outcome of a commit if one clock is wrong by an hour, if
//! one host cannot run the commit, and if its images cannot be pulled for an unknown reason.

use jiff::SignedDuration;
use reconciler::{
    name::{CommitId, NodeName, WorkloadKind},
    state::{FailureClass, FailureReason, NodeFault, Phase, Stored},
};

use crate::{
    clock::Clock,
    history::{Repository, Update, WantedWorkload, build},
    store::Sabotage,
    world::World,
};

/// Three hosts, and by how many seconds the clock of each is wrong.
fn cluster(offsets: [i64; 3]) -> World {
    let mut world = World::new(7, Sabotage::None);
    for seconds in offsets {
        let host = world.add_host();
        world.hosts[host].clock = Clock::new(SignedDuration::from_secs(seconds));
        world.start(host);
    }
    world
}

fn workload(kind: WorkloadKind, image: &str) -> WantedWorkload {
    let update = Update::Rolling(1, 0);
    WantedWorkload {
        kind,
        replicas: 3,
        image: image.to_owned(),
        update,
        disk: false,
        min_ready: 5,
        service: None,
    }
}

fn push_workloads(world: &mut World, workloads: &[(&str, WantedWorkload)]) -> CommitId {
    let workloads = workloads
        .iter()
        .map(|(name, workload)| ((*name).to_owned(), workload.clone()))
        .collect();
    // Without faults no host fetches a commit a minute late, which would only make these scenarios
    // longer.
    let before = std::mem::replace(&mut world.faults_over, true);
    let commit = push(
        world,
        &Repository {
            workloads,
            ..Repository::default()
        },
    );
    world.faults_over = before;
    commit
}

/// Pushes a repository, and records for the referee whether the commit may be called bad.
pub(crate) fn push(world: &mut World, repository: &Repository) -> CommitId {
    let commit = build(world.pushed.len() + 1, repository);
    let id = commit.id.clone();
    for workload in repository.workloads.values() {
        match workload.image.as_str() {
            "missing:1" | "crash:1" => drop(world.bad.insert(id.clone())),
            "local:1" => drop(world.bad_on_one_host.insert(id.clone())),
            _ => {}
        }
    }
    world.push(commit);
    id
}

fn run(world: &mut World, seconds: u64) {
    world.run_until(world.now + seconds * 1_000);
    assert_eq!(world.violation, None, "{}", world.transcript.tail(100));
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

/// One of three clocks is an hour ahead or behind: on each host in turn, so that it is once the
/// leader's clock and twice another host's.
fn skews() -> impl Iterator<Item = [i64; 3]> {
    [3_600, -3_600]
        .into_iter()
        .flat_map(|off| [[off, 0, 0], [0, off, 0], [0, 0, off]])
}

#[test]
fn a_good_commit_is_healthy_with_any_clock_wrong() {
    for offsets in skews() {
        let mut world = cluster(offsets);
        push_workloads(
            &mut world,
            &[("web", workload(WorkloadKind::Deployment, "good:1"))],
        );
        run(&mut world, 120);
        let agent = workload(WorkloadKind::DaemonSet, "good:2");
        let second = push_workloads(
            &mut world,
            &[
                ("web", workload(WorkloadKind::Deployment, "good:2")),
                ("agent", agent),
            ],
        );
        run(&mut world, 150);
        expect_healthy(&world, &second);
    }
}

#[test]
fn a_bad_commit_is_rolled_back_with_any_clock_wrong() {
    for offsets in skews() {
        for kind in [WorkloadKind::Deployment, WorkloadKind::DaemonSet] {
            let mut world = cluster(offsets);
            let good = push_workloads(&mut world, &[("web", workload(kind, "good:1"))]);
            run(&mut world, 120);
            expect_healthy(&world, &good);
            let missing = push_workloads(&mut world, &[("web", workload(kind, "missing:1"))]);
            run(&mut world, 60);
            expect_rolled_back(&world, &missing, &good, FailureClass::Image);
            let crashing = push_workloads(&mut world, &[("web", workload(kind, "crash:1"))]);
            run(&mut world, 210);
            expect_rolled_back(&world, &crashing, &good, FailureClass::CrashLoop);
        }
    }
}

#[test]
fn a_commit_that_one_host_cannot_run_is_healthy_and_names_the_host() {
    for offsets in skews().chain([[0; 3]]) {
        let mut world = cluster(offsets);
        push_workloads(
            &mut world,
            &[("agent", workload(WorkloadKind::DaemonSet, "good:1"))],
        );
        run(&mut world, 120);
        let bad_on_one_host = push_workloads(
            &mut world,
            &[("agent", workload(WorkloadKind::DaemonSet, "local:1"))],
        );
        run(&mut world, 240);
        expect_healthy(&world, &bad_on_one_host);
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
fn images_that_fail_for_an_unknown_reason_are_waited_for_until_the_deadline() {
    for offsets in skews() {
        let mut world = cluster(offsets);
        let good = push_workloads(
            &mut world,
            &[("web", workload(WorkloadKind::Deployment, "good:1"))],
        );
        run(&mut world, 120);
        world
            .hosts
            .iter_mut()
            .for_each(|host| host.registry.strange = true);
        let stuck = push_workloads(
            &mut world,
            &[("web", workload(WorkloadKind::Deployment, "good:2"))],
        );
        run(&mut world, 100);
        expect_is_preparing(&world, &stuck);

        // The referee takes a commit for good unless its images are known to be bad: it must accept
        // that this commit fails.
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
