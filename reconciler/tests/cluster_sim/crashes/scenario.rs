//! The crash scenarios.

use std::sync::Arc;

use reconciler::{
    commit::Commit,
    name::{CommitId, NodeName, WorkloadKind},
    object::NodeObject,
    state::{CommitState, Phase, PodRecord},
};

use crate::{
    clock::Time,
    faults::{Fault, FaultTarget},
    history::{Repository, Update, WantedWorkload},
    scenarios::push,
    world::World,
};

/// A scenario. Each of its acts begins when the condition of the act before holds, so that a crash
/// makes the scenario longer and changes nothing else in it.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// How many crash points the scenario has at least.
    pub(super) least_points: u64,
    pub(super) acts: &'static [Act],
    /// Which commit must be healthy in the end: 0 is the last commit that was pushed, 1 the one
    /// before.
    pub(super) commits_after_last_healthy: usize,
}

/// What happens in an act, and the condition that ends the act.
pub(super) struct Act {
    pub(super) happens: fn(&mut World),
    pub(super) until: fn(&World) -> bool,
}

const fn act(happens: fn(&mut World), until: fn(&World) -> bool) -> Act {
    Act { happens, until }
}

/// The first act of each prepares the cluster: crash points are counted from the second act on.
pub(super) const SCENARIOS: [Scenario; 10] = [
    Scenario {
        name: "first-rollout",
        least_points: 200,
        commits_after_last_healthy: 0,
        acts: &[act(|_| {}, |_| true), act(first_roll_out, is_settled)],
    },
    Scenario {
        name: "rolling-update",
        least_points: 220,
        commits_after_last_healthy: 0,
        acts: &[
            act(
                |world| world.push_workloads(&rolling("good:1", 2)),
                is_settled,
            ),
            act(
                |world| world.push_workloads(&rolling("good:2", 2)),
                is_settled,
            ),
        ],
    },
    Scenario {
        name: "recreate",
        least_points: 180,
        commits_after_last_healthy: 0,
        acts: &[
            act(
                |world| world.push_workloads(&recreating("good:1")),
                is_settled,
            ),
            act(
                |world| world.push_workloads(&recreating("good:2")),
                is_settled,
            ),
        ],
    },
    Scenario {
        name: "canary",
        least_points: 200,
        commits_after_last_healthy: 0,
        acts: &[
            act(with_canary, is_settled),
            act(
                |world| world.push_workloads(&rolling("good:2", 1)),
                is_settled,
            ),
        ],
    },
    Scenario {
        name: "bad-commit",
        least_points: 200,
        commits_after_last_healthy: 1,
        acts: &[
            act(
                |world| world.push_workloads(&rolling("good:1", 2)),
                is_settled,
            ),
            act(bad_commit, is_rolled_back),
        ],
    },
    Scenario {
        name: "lost-host",
        least_points: 60,
        commits_after_last_healthy: 0,
        acts: &[
            act(|world| world.push_workloads(&everything()), is_settled),
            act(
                |world| {
                    world.apply_fault(Fault::PowerOff {
                        host: AFFECTED,
                        lost: false,
                        long: FOREVER,
                    })
                },
                is_given_up,
            ),
            act(|world| world.apply_fault(Fault::PowerOn(1)), is_settled),
        ],
    },
    Scenario {
        name: "drain",
        least_points: 90,
        commits_after_last_healthy: 0,
        acts: &[
            act(|world| world.push_workloads(&everything()), is_settled),
            act(drain, is_drained),
            act(end_drain, is_settled),
        ],
    },
    Scenario {
        name: "scale-down",
        least_points: 180,
        commits_after_last_healthy: 0,
        acts: &[
            act(|world| world.push_workloads(&scaled(4, 3)), is_settled),
            act(|world| world.push_workloads(&scaled(1, 1)), is_settled),
            act(|world| world.push_workloads(&scaled(2, 0)[..2]), is_settled),
        ],
    },
    Scenario {
        name: "wiped-store",
        least_points: 30,
        commits_after_last_healthy: 0,
        acts: &[
            act(|world| world.push_workloads(&everything()), is_settled),
            act(|world| world.apply_fault(Fault::Wipe), is_adopted),
        ],
    },
    Scenario {
        name: "restored-store",
        least_points: 140,
        commits_after_last_healthy: 0,
        acts: &[
            act(
                |world| world.push_workloads(&recreating("good:1")[..2]),
                is_settled,
            ),
            act(back_up_and_push, |world| follows(world, "good:2")),
            act(|world| world.apply_fault(Fault::Restore(1_000)), is_adopted),
        ],
    },
];

const AFFECTED: FaultTarget = FaultTarget::Number(1);
/// Longer than any condition is waited for.
const FOREVER: Time = 3_600_000;

fn affected_node() -> NodeName {
    NodeName::new("n1")
}

fn deployment(replicas: u32, image: &str) -> WantedWorkload {
    let update = Update::Rolling(1, 0);
    let kind = WorkloadKind::Deployment;
    WantedWorkload {
        kind,
        replicas,
        image: image.to_owned(),
        update,
        disk: false,
        min_ready: 0,
        service: None,
    }
}

fn of_kind(kind: WorkloadKind, replicas: u32, image: &str) -> WantedWorkload {
    WantedWorkload {
        kind,
        ..deployment(replicas, image)
    }
}

/// A Deployment with `strategy: Recreate` that writes to the disk of its host.
fn database(replicas: u32, image: &str) -> WantedWorkload {
    WantedWorkload {
        update: Update::Recreate,
        disk: true,
        ..deployment(replicas, image)
    }
}

type Named = (&'static str, WantedWorkload);

fn rolling(image: &str, replicas: u32) -> [Named; 2] {
    [
        ("agent", of_kind(WorkloadKind::DaemonSet, 1, image)),
        ("web", deployment(replicas, image)),
    ]
}

fn recreating(image: &str) -> [Named; 3] {
    let web = WantedWorkload {
        update: Update::Recreate,
        ..deployment(2, image)
    };
    [
        ("db", database(1, image)),
        ("job", of_kind(WorkloadKind::Pod, 1, image)),
        ("web", web),
    ]
}

fn everything() -> [Named; 5] {
    let image = "good:1";
    [
        ("agent", of_kind(WorkloadKind::DaemonSet, 1, image)),
        ("db", database(2, image)),
        ("job", of_kind(WorkloadKind::Pod, 1, image)),
        ("set", of_kind(WorkloadKind::ReplicaSet, 2, image)),
        ("web", deployment(2, image)),
    ]
}

fn scaled(web: u32, set: u32) -> [Named; 3] {
    let image = "good:1";
    let set = of_kind(WorkloadKind::ReplicaSet, set, image);
    [
        ("web", deployment(web, image)),
        ("set", set),
        ("db", database(1, image)),
    ]
}

fn first_roll_out(world: &mut World) {
    world.push_workloads(&[
        ("agent", of_kind(WorkloadKind::DaemonSet, 1, "good:1")),
        ("db", database(1, "good:2")),
        ("job", of_kind(WorkloadKind::Pod, 1, "good:1")),
        ("web", deployment(2, "slow:1")),
    ]);
}

fn with_canary(world: &mut World) {
    world
        .settings
        .rollout
        .canary_nodes
        .insert(NodeName::new("n2"));
    world.push_workloads(&rolling("good:1", 1));
}

/// Pushes a bad commit. What must run in the end is still the content of the commit before.
fn bad_commit(world: &mut World) {
    let good = world.repository.clone();
    world.push_workloads(&[("web", deployment(2, "crash:1"))]);
    world.repository = good;
}

fn drain(world: &mut World) {
    let object = NodeObject {
        unschedulable: true,
        drain: true,
        ..NodeObject::default()
    };
    world.repository.nodes.insert(affected_node(), object);
    world.push_workloads(&everything());
}

fn end_drain(world: &mut World) {
    world.repository.nodes.clear();
    world.push_workloads(&everything());
}

fn back_up_and_push(world: &mut World) {
    world.apply_fault(Fault::Backup);
    world.push_workloads(&recreating("good:2")[..2]);
}

/// Whether the driving commit wants this image.
fn follows(world: &World, image: &str) -> bool {
    let rollout = &world.store.contents.state.rollout;
    let driving = world
        .pushed
        .iter()
        .find(|commit| Some(&commit.id) == rollout.driving.as_ref());
    let runs = |commit: &Arc<Commit>| {
        let mut workloads = commit.objects.workloads.values();
        workloads.any(|workload| workload.template.spec.containers[0].image.as_str() == image)
    };
    driving.is_some_and(runs)
}

fn is_adopted(world: &World) -> bool {
    let adopted = world.store.contents.state.rollout.adopted;
    adopted.is_some_and(|adoption| adoption.stock_taken) && !world.is_frozen() && is_settled(world)
}

fn is_settled(world: &World) -> bool {
    let Some(commits_after_last_healthy) = world.pushed.last() else {
        return true;
    };
    world.is_healthy(&commits_after_last_healthy.id)
        && world.store.contents.state.outages.is_empty()
        && world.all_are_ready(|_| true)
}

fn is_rolled_back(world: &World) -> bool {
    let [good, bad] = [0, 1].map(|at| &world.pushed[at].id);
    let history = &world.store.contents.state.rollout.history;
    let is_recorded = history
        .iter()
        .any(|entry| entry.commit == *bad && entry.state == CommitState::RolledBack);
    is_recorded && world.is_healthy(good) && world.all_are_ready(|_| true)
}

fn is_given_up(world: &World) -> bool {
    let outage = world.store.contents.state.outages.get(&affected_node());
    outage.is_some_and(|outage| outage.lost) && movable_pods_run_elsewhere(world)
}

fn is_drained(world: &World) -> bool {
    world
        .pushed
        .last()
        .is_some_and(|commits_after_last_healthy| world.is_healthy(&commits_after_last_healthy.id))
        && movable_pods_run_elsewhere(world)
}

/// Whether all pods that can run on another node than the affected one do so, and are ready.
fn movable_pods_run_elsewhere(world: &World) -> bool {
    let moves = |record: &PodRecord| ["set", "web"].contains(&record.owner.object.name.as_str());
    let is_there =
        |record: &PodRecord| moves(record) && record.place.node() == Some(&affected_node());
    let mut pods = world.store.contents.state.pods.values();
    !pods.any(|record| is_there(record) && record.stop.is_none())
        && world.all_are_ready(|record| moves(record) && !is_there(record))
}

impl World {
    /// Pushes a commit with these workloads, and expects them in the end.
    fn push_workloads(&mut self, workloads: &[Named]) {
        self.repository.workloads = workloads
            .iter()
            .map(|(name, wanted)| ((*name).to_owned(), wanted.clone()))
            .collect();
        let repository: Repository = self.repository.clone();
        push(self, &repository);
    }

    fn is_healthy(&self, commit: &CommitId) -> bool {
        let rollout = &self.store.contents.state.rollout;
        rollout.phase == Phase::Healthy && rollout.target.as_ref() == Some(commit)
    }

    /// Whether none of the chosen pods stops, and each is ready on its node.
    fn all_are_ready(&self, which: impl Fn(&PodRecord) -> bool) -> bool {
        let contents = &self.store.contents;
        contents
            .state
            .pods
            .values()
            .filter(|record| which(record))
            .all(|record| {
                let report = record
                    .place
                    .node()
                    .and_then(|node| contents.reports.get(node));
                let status = report.and_then(|report| report.pods.get(&record.uid));
                record.stop.is_none() && status.is_some_and(|status| status.ready.is_some())
            })
    }
}
