//! What the tales tell.

use std::sync::Arc;

use reconciler::{
    commit::Commit,
    name::{CommitId, NodeName, WorkloadKind},
    object::NodeObject,
    state::{CommitState, Phase, PodRecord},
};

use crate::{
    clock::Time,
    faults::{Fault, Whom},
    story::{Repository, Update, Wanted},
    tales::push,
    world::World,
};

/// A tale. Each of its acts begins when what the last one waits for has come, so that a crash makes
/// the tale longer and changes nothing else in it.
pub(super) struct Tale {
    pub(super) name: &'static str,
    /// It has so many points at the least.
    pub(super) least: u64,
    pub(super) acts: &'static [Act],
    /// How many commits before the last one that must be healthy in the end was pushed.
    pub(super) last: usize,
}

/// What happens in an act, and what must come of it before the next.
pub(super) struct Act {
    pub(super) happens: fn(&mut World),
    pub(super) until: fn(&World) -> bool,
}

const fn act(happens: fn(&mut World), until: fn(&World) -> bool) -> Act {
    Act { happens, until }
}

/// The first act is how it was before: what can be cut begins with the second.
pub(super) const TALES: [Tale; 10] = [
    Tale {
        name: "first-rollout",
        least: 200,
        last: 0,
        acts: &[act(|_| {}, |_| true), act(first_roll_out, all_is_well)],
    },
    Tale {
        name: "rolling-update",
        least: 220,
        last: 0,
        acts: &[
            act(|world| world.want(&rolling("good:1", 2)), all_is_well),
            act(|world| world.want(&rolling("good:2", 2)), all_is_well),
        ],
    },
    Tale {
        name: "recreate",
        least: 180,
        last: 0,
        acts: &[
            act(|world| world.want(&recreating("good:1")), all_is_well),
            act(|world| world.want(&recreating("good:2")), all_is_well),
        ],
    },
    Tale {
        name: "canary",
        least: 200,
        last: 0,
        acts: &[
            act(with_canary, all_is_well),
            act(|world| world.want(&rolling("good:2", 1)), all_is_well),
        ],
    },
    Tale {
        name: "bad-commit",
        least: 200,
        last: 1,
        acts: &[
            act(|world| world.want(&rolling("good:1", 2)), all_is_well),
            act(bad_commit, is_rolled_back),
        ],
    },
    Tale {
        name: "lost-host",
        least: 60,
        last: 0,
        acts: &[
            act(|world| world.want(&everything()), all_is_well),
            act(
                |world| {
                    world.strike(Fault::PowerOff {
                        host: LOST,
                        lost: false,
                        long: FOR_GOOD,
                    })
                },
                is_given_up,
            ),
            act(|world| world.strike(Fault::PowerOn(1)), all_is_well),
        ],
    },
    Tale {
        name: "drain",
        least: 90,
        last: 0,
        acts: &[
            act(|world| world.want(&everything()), all_is_well),
            act(drain, is_drained),
            act(end_drain, all_is_well),
        ],
    },
    Tale {
        name: "scale-down",
        least: 180,
        last: 0,
        acts: &[
            act(|world| world.want(&scaled(4, 3)), all_is_well),
            act(|world| world.want(&scaled(1, 1)), all_is_well),
            act(|world| world.want(&scaled(2, 0)[..2]), all_is_well),
        ],
    },
    Tale {
        name: "wiped-store",
        least: 30,
        last: 0,
        acts: &[
            act(|world| world.want(&everything()), all_is_well),
            act(|world| world.strike(Fault::Wipe), is_adopted),
        ],
    },
    Tale {
        name: "restored-store",
        least: 140,
        last: 0,
        acts: &[
            act(|world| world.want(&recreating("good:1")[..2]), all_is_well),
            act(back_up_and_go_on, |world| follows(world, "good:2")),
            act(|world| world.strike(Fault::Restore(1_000)), is_adopted),
        ],
    },
];

const LOST: Whom = Whom::Number(1);
/// Longer than it is waited for anything.
const FOR_GOOD: Time = 3_600_000;

fn apart() -> NodeName {
    NodeName::new("n1")
}

fn deployment(replicas: u32, image: &str) -> Wanted {
    let update = Update::Rolling(1, 0);
    let kind = WorkloadKind::Deployment;
    Wanted {
        kind,
        replicas,
        image: image.to_owned(),
        update,
        disk: false,
        min_ready: 0,
        service: None,
    }
}

fn of_kind(kind: WorkloadKind, replicas: u32, image: &str) -> Wanted {
    Wanted {
        kind,
        ..deployment(replicas, image)
    }
}

/// One that recreates and writes to its host's disk.
fn database(replicas: u32, image: &str) -> Wanted {
    Wanted {
        update: Update::Recreate,
        disk: true,
        ..deployment(replicas, image)
    }
}

type Named = (&'static str, Wanted);

fn rolling(image: &str, replicas: u32) -> [Named; 2] {
    [
        ("agent", of_kind(WorkloadKind::DaemonSet, 1, image)),
        ("web", deployment(replicas, image)),
    ]
}

fn recreating(image: &str) -> [Named; 3] {
    let web = Wanted {
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
    world.want(&[
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
    world.want(&rolling("good:1", 1));
}

/// What it says is nothing that anybody wants in the end.
fn bad_commit(world: &mut World) {
    let good = world.repository.clone();
    world.want(&[("web", deployment(2, "crash:1"))]);
    world.repository = good;
}

fn drain(world: &mut World) {
    let object = NodeObject {
        unschedulable: true,
        drain: true,
        ..NodeObject::default()
    };
    world.repository.nodes.insert(apart(), object);
    world.want(&everything());
}

fn end_drain(world: &mut World) {
    world.repository.nodes.clear();
    world.want(&everything());
}

fn back_up_and_go_on(world: &mut World) {
    world.strike(Fault::Backup);
    world.want(&recreating("good:2")[..2]);
}

/// Whether the controllers follow a commit that wants this image.
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
    adopted.is_some_and(|adoption| adoption.stock_taken) && !world.is_frozen() && all_is_well(world)
}

fn all_is_well(world: &World) -> bool {
    let Some(last) = world.pushed.last() else {
        return true;
    };
    world.is_healthy(&last.id)
        && world.store.contents.state.outages.is_empty()
        && world.all_are_ready(|_| true)
}

fn is_rolled_back(world: &World) -> bool {
    let [good, bad] = [0, 1].map(|at| &world.pushed[at].id);
    let history = &world.store.contents.state.rollout.history;
    let left = history
        .iter()
        .any(|one| one.commit == *bad && one.state == CommitState::RolledBack);
    left && world.is_healthy(good) && world.all_are_ready(|_| true)
}

fn is_given_up(world: &World) -> bool {
    let outage = world.store.contents.state.outages.get(&apart());
    outage.is_some_and(|outage| outage.lost) && is_left(world)
}

fn is_drained(world: &World) -> bool {
    world
        .pushed
        .last()
        .is_some_and(|last| world.is_healthy(&last.id))
        && is_left(world)
}

/// Whether what can be elsewhere is, and runs there.
fn is_left(world: &World) -> bool {
    let moves = |record: &PodRecord| ["set", "web"].contains(&record.owner.object.name.as_str());
    let is_there = |record: &PodRecord| moves(record) && record.place.node() == Some(&apart());
    let mut pods = world.store.contents.state.pods.values();
    !pods.any(|record| is_there(record) && record.stop.is_none())
        && world.all_are_ready(|record| moves(record) && !is_there(record))
}

impl World {
    /// Somebody wants this from now on.
    fn want(&mut self, workloads: &[Named]) {
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

    /// Whether none of these pods stops, and each is ready where it is.
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
