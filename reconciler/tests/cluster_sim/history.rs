//! The random history of a seed: how many hosts there are, which commits are pushed, and which
//! faults happen when.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::SignedDuration;
use reconciler::{
    commit::Commit,
    name::{NodeName, WorkloadKind},
    object::{Control, IntOrPercent, NodeObject, Taint, TaintEffect, Workload},
};

use crate::{
    build::{PodSpecExt, bare, commit, daemon_set, node_port, pod, recreate, replica_set, rolling},
    clock::Time,
    faults::{Fault, FaultTarget},
    host::Host,
    registry::Behaviour,
    store::Sabotage,
    world::{Event, World},
};

/// Images that run.
const GOOD: [&str; 5] = ["good:1", "good:2", "good:3", "slow:1", "stubborn:1"];
/// Images that do not run; `local:1` fails on one host only.
const BAD: [&str; 5] = ["missing:1", "crash:1", "deaf:1", "broken:1", "local:1"];

/// A workload of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedWorkload {
    pub(crate) kind: WorkloadKind,
    pub(crate) replicas: u32,
    pub(crate) image: String,
    pub(crate) update: Update,
    /// Whether its pods write to the disk of their host.
    pub(crate) disk: bool,
    /// `minReadySeconds`.
    pub(crate) min_ready: u64,
    /// The name of its Service, if that is not the workload's own name.
    pub(crate) service: Option<String>,
}

impl WantedWorkload {
    /// The name of its Service; `name` is the workload's.
    pub(crate) fn service<'a>(&'a self, name: &'a str) -> &'a str {
        self.service.as_deref().unwrap_or(name)
    }
}

/// The update strategy of a Deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// `maxSurge` and `maxUnavailable`.
    Rolling(u32, u32),
    /// No pod of the new template starts before all pods of the old one are gone.
    Recreate,
}

/// The content of the repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repository {
    pub(crate) workloads: BTreeMap<String, WantedWorkload>,
    pub(crate) nodes: BTreeMap<NodeName, NodeObject>,
}

fn workload(name: &str, wanted: &WantedWorkload) -> Workload {
    let mut spec = pod(&wanted.image).with_readiness();
    // Eight nodes may replace pods that ignore SIGTERM one after another: all of these grace
    // periods must fit into the deadline.
    spec.termination_grace = Duration::from_secs(5);
    if wanted.disk {
        spec = spec.with_disk();
    }
    let mut made = match wanted.kind {
        WorkloadKind::Pod => bare(name, spec),
        WorkloadKind::DaemonSet => daemon_set(name, spec),
        WorkloadKind::ReplicaSet | WorkloadKind::ReplicationController => {
            replica_set(name, wanted.replicas, spec)
        }
        WorkloadKind::Deployment => {
            let count = |number: u32| IntOrPercent::Int(number);
            let mut made = match wanted.update {
                Update::Rolling(surge, unavailable) => rolling(
                    name,
                    wanted.replicas,
                    spec,
                    count(surge),
                    count(unavailable),
                ),
                Update::Recreate => recreate(name, wanted.replicas, spec),
            };
            if let Control::Deployment {
                progress_deadline, ..
            } = &mut made.control
            {
                *progress_deadline = Some(Duration::from_secs(100));
            }
            made
        }
    };
    if let Control::Deployment { min_ready, .. }
    | Control::DaemonSet { min_ready, .. }
    | Control::Replicas { min_ready, .. } = &mut made.control
    {
        *min_ready = Duration::from_secs(wanted.min_ready);
    }
    made
}

pub(crate) fn build(number: usize, repository: &Repository) -> Arc<Commit> {
    let mut builder = commit(&format!("c{number:03}")).allow_deletions();
    for (name, wanted) in &repository.workloads {
        builder = builder.with(workload(name, wanted)).service(
            wanted.service(name),
            name,
            node_port(None),
        );
    }
    let built = builder.build();
    let mut built = Arc::into_inner(built).unwrap();
    built.objects.nodes = repository.nodes.clone();
    let words: Vec<String> = repository
        .workloads
        .iter()
        .map(|(name, wanted)| {
            let WantedWorkload {
                kind,
                replicas,
                image,
                update,
                disk,
                ..
            } = wanted;
            let disk = if *disk { " disk" } else { "" };
            let service = wanted.service(name);
            format!("{name}={kind:?}x{replicas} {image} {update:?}{disk} behind {service}")
        })
        .collect();
    built.subject = format!(
        "{} {:?}",
        words.join(", "),
        repository.nodes.keys().collect::<Vec<_>>()
    );
    Arc::new(built)
}

impl World {
    /// Adds a host with its registry; its daemon does not run yet.
    pub(crate) fn add_host(&mut self) -> usize {
        let index = self.hosts.len();
        let off_by = match self.random.within(0, 6) {
            0 => SignedDuration::from_secs(3_600),
            1 => SignedDuration::from_secs(-40),
            _ => SignedDuration::from_millis(self.random.within(0, 400) as i64),
        };
        let mut host = Host::new(index, off_by);
        let push =
            |host: &mut Host, image: &str, behaviour| drop(host.registry.push(image, behaviour));
        for image in ["good:1", "good:2", "good:3"] {
            push(&mut host, image, Behaviour::Fine);
        }
        push(
            &mut host,
            "slow:1",
            Behaviour::SlowReady(Duration::from_secs(8)),
        );
        push(&mut host, "stubborn:1", Behaviour::IgnoresTerm);
        push(&mut host, "crash:1", Behaviour::ExitsAtOnce(1));
        push(&mut host, "deaf:1", Behaviour::NeverReady);
        push(&mut host, "broken:1", Behaviour::Rejected);
        let local = if index == 1 {
            Behaviour::ExitsAtOnce(1)
        } else {
            Behaviour::Fine
        };
        push(&mut host, "local:1", local);
        self.hosts.push(host);
        index
    }

    /// Starts the hosts and puts all faults into the queue. Returns when the last fault has
    /// happened.
    pub(crate) fn schedule_history(&mut self) -> Time {
        let hosts = match self.random.within(0, 20) {
            0 => 7,
            1..4 => 5,
            4..8 => 4,
            _ => 3,
        };
        for _ in 0..hosts {
            let host = self.add_host();
            self.start(host);
        }
        if self.random.percent(25) {
            let canary = self.hosts[self.random.index(hosts)].name.clone();
            self.settings.rollout.canary_nodes.insert(canary);
            self.settings.rollout.canary_soak = Duration::from_secs(self.random.within(1, 12));
        }
        self.repository = self.first();
        self.push_repository();
        let mut lost = 0;
        // Only the adoption of an outdated copy shows this sabotage: each of its histories loses
        // the store.
        if self.random.percent(20) || self.store.sabotage == Sabotage::NoStock {
            lost = self.random.within(20_000, 120_000);
            self.lose_store(lost, hosts);
        }
        let mut at = self.random.within(5_000, 60_000);
        let events = self.random.within(3, 11);
        for _ in 0..events {
            let fault = self.fault(hosts);
            if let Fault::Restore(_) = fault {
                let age = if self.random.percent(40) {
                    3_000
                } else {
                    60_000
                };
                let age = self.random.within(10, age).min(at * 9 / 10);
                self.at(at - age, Event::Fault(Fault::Backup));
            }
            self.at(at, Event::Fault(fault));
            at += match self.random.within(0, 4) {
                0 => self.random.within(1, 500),
                1 => self.random.within(500, 6_000),
                _ => self.random.within(5_000, 40_000),
            };
        }
        at.max(lost + 5_000)
    }

    fn first(&mut self) -> Repository {
        let count = self.random.within(1, 4);
        let mut repository = Repository::default();
        for number in 0..count {
            let wanted = self.wanted();
            repository.workloads.insert(format!("w{number}"), wanted);
        }
        repository
    }

    fn wanted(&mut self) -> WantedWorkload {
        let kinds = [
            WorkloadKind::Deployment,
            WorkloadKind::Deployment,
            WorkloadKind::DaemonSet,
            WorkloadKind::ReplicaSet,
            WorkloadKind::Pod,
        ];
        let kind = *self.random.pick(&kinds);
        let image = if kind == WorkloadKind::ReplicaSet {
            "good:1"
        } else {
            *self.random.pick(&GOOD)
        };
        let rolling = [(1, 0), (0, 1), (1, 1), (2, 0)];
        let (surge, unavailable) = *self.random.pick(&rolling);
        let recreates = kind == WorkloadKind::Deployment && self.random.percent(35);
        let update = if recreates {
            Update::Recreate
        } else {
            Update::Rolling(surge, unavailable)
        };
        let min_ready = if self.random.percent(25) {
            self.random.within(1, 6)
        } else {
            0
        };
        let disk = self.random.percent(30);
        let replicas = self.random.within(1, 5) as u32;
        WantedWorkload {
            kind,
            replicas,
            image: image.to_owned(),
            update,
            disk,
            min_ready,
            service: None,
        }
    }

    fn fault(&mut self, hosts: usize) -> Fault {
        let host = if self.random.percent(40) {
            FaultTarget::Leader
        } else {
            FaultTarget::Number(self.random.index(hosts))
        };
        let short = self.random.within(100, 4_000);
        let long = self.random.within(2_000, 60_000);
        let some = if self.random.percent(50) { short } else { long };
        // Only a leader that writes after its lease has expired shows this sabotage: most of its
        // faults pause the leader.
        if self.store.sabotage == Sabotage::Unfenced && self.random.percent(50) {
            return Fault::Pause {
                host: FaultTarget::Leader,
                long: self.random.within(3_000, 8_000),
            };
        }
        match self.random.within(0, 45) {
            0..10 => Fault::Push { good: true },
            10..15 => Fault::Push { good: false },
            15..19 => Fault::Kill {
                host,
                halfway: self.random.percent(50),
                down: some,
            },
            19 => Fault::Restart { host, down: some },
            20..23 => Fault::Pause { host, long: some },
            23 => Fault::Jump {
                host,
                seconds: *self.random.pick(&[3_600, -3_600, 45, -45]),
            },
            24..28 => {
                let store = self.random.percent(80);
                let peers = !store || self.random.percent(60);
                Fault::Cut {
                    host,
                    store,
                    peers,
                    long: some,
                }
            }
            28..30 => Fault::StoreDown(some),
            30 => Fault::Compact,
            31..33 => Fault::EngineDown { host, long: some },
            33..36 => Fault::PowerOff {
                host,
                lost: self.random.percent(30),
                long: some,
            },
            36 => Fault::KillContainer { host },
            37 => Fault::Registry { host, long },
            38..40 => Fault::Forge { host, long },
            40 => Fault::NewNode,
            41 => Fault::Wipe,
            42..44 => Fault::Restore(some),
            _ => {
                let again = self
                    .random
                    .percent(60)
                    .then(|| self.random.within(5_000, 40_000));
                Fault::GiveUp { host, again }
            }
        }
    }

    fn push_repository(&mut self) {
        let commit = build(self.pushed.len() + 1, &self.repository);
        self.push(commit);
    }

    /// Pushes a commit with one change of the repository, or a commit in which one workload has an
    /// image that does not run.
    pub(crate) fn push_random_commit(&mut self, good: bool) {
        let names: Vec<String> = self.repository.workloads.keys().cloned().collect();
        let name = self.random.pick(&names).clone();
        if !good {
            let mut bad = self.repository.clone();
            let image = *self.random.pick(&BAD);
            let name = if self.random.percent(30) {
                self.rename(&mut bad, &name)
            } else {
                name
            };
            if let Some(wanted) = bad.workloads.get_mut(&name)
                && wanted.kind != WorkloadKind::ReplicaSet
            {
                wanted.image = image.to_owned();
                // A workload without replicas would not run the image, and the commit would be
                // healthy.
                wanted.replicas = wanted.replicas.max(1);
                let commit = build(self.pushed.len() + 1, &bad);
                if image == "local:1" {
                    self.bad_on_one_host.insert(commit.id.clone());
                } else {
                    self.bad.insert(commit.id.clone());
                }
                self.push(commit);
            }
            return;
        }
        match self.random.within(0, 10) {
            0 if names.len() > 1 => drop(self.repository.workloads.remove(&name)),
            1 => {
                let fresh = format!("w{}", self.pushed.len() + 10);
                let wanted = self.wanted();
                self.repository.workloads.insert(fresh, wanted);
            }
            2 => self.change_node(),
            5 => {
                let mut repository = self.repository.clone();
                self.rename(&mut repository, &name);
                self.repository = repository;
            }
            6 if names.len() > 1 => {
                let other = self.random.pick(&names).clone();
                self.exchange_services(&name, &other);
            }
            3 | 4 => {
                let replicas = self.random.within(0, 5) as u32;
                self.change(&name, |wanted| wanted.replicas = replicas);
            }
            _ => {
                let image = *self.random.pick(&GOOD);
                self.change(&name, |wanted| {
                    if wanted.kind != WorkloadKind::ReplicaSet {
                        wanted.image = image.to_owned();
                    }
                });
            }
        }
        self.push_repository();
    }

    /// Renames a workload and keeps its Service. Returns the new name.
    fn rename(&mut self, repository: &mut Repository, name: &str) -> String {
        let fresh = format!("w{}", self.pushed.len() + 10);
        if let Some(mut wanted) = repository.workloads.remove(name) {
            wanted.service = Some(wanted.service(name).to_owned());
            repository.workloads.insert(fresh.clone(), wanted);
            self.renames.insert((name.to_owned(), fresh.clone()));
        }
        fresh
    }

    /// Exchanges the Services of two workloads.
    fn exchange_services(&mut self, first_name: &str, second_name: &str) {
        let service = |name: &str| {
            self.repository
                .workloads
                .get(name)
                .map(|workload| workload.service(name).to_owned())
        };
        let (first, second) = (service(first_name), service(second_name));
        self.change(first_name, |wanted| wanted.service = second);
        self.change(second_name, |wanted| wanted.service = first);
    }

    fn change(&mut self, name: &str, how: impl FnOnce(&mut WantedWorkload)) {
        if let Some(wanted) = self.repository.workloads.get_mut(name) {
            how(wanted);
        }
    }

    /// Cordons, drains or taints one node, or removes its Node object.
    fn change_node(&mut self) {
        let index = self.random.index(self.hosts.len());
        let name = self.hosts[index].name.clone();
        if self.repository.nodes.remove(&name).is_some() {
            return;
        }
        let mut object = NodeObject::default();
        match self.random.within(0, 4) {
            0 => object.unschedulable = true,
            3 => (object.unschedulable, object.drain) = (true, true),
            which => object.taints.push(Taint {
                key: "example.com/off".to_owned(),
                value: String::new(),
                effect: if which == 1 {
                    TaintEffect::NoSchedule
                } else {
                    TaintEffect::NoExecute
                },
            }),
        }
        self.repository.nodes = BTreeMap::from([(name, object)]);
    }

    /// Pushes the last commit: a good one that changes a workload, so that there is something to
    /// roll out.
    pub(crate) fn push_last_commit(&mut self) {
        self.repository.nodes.clear();
        let image = *self.random.pick(&GOOD);
        let names: Vec<String> = self.repository.workloads.keys().cloned().collect();
        let name = self.random.pick(&names).clone();
        self.change(&name, |wanted| {
            if wanted.kind != WorkloadKind::ReplicaSet {
                wanted.image = image.to_owned();
            }
        });
        self.push_repository();
        // Pods that already run the wanted template stay on their nodes, also if they are not
        // spread well.
        let workloads = self
            .pushed
            .last()
            .into_iter()
            .flat_map(|commit| commit.objects.workloads.values());
        let hashes: Vec<_> = workloads
            .map(|workload| (&workload.key, &workload.template.hash))
            .collect();
        let mut pods = self.store.contents.state.pods.values();
        let stays = pods.any(|record| {
            record.owner.object.name == name && hashes.contains(&(&record.owner, &record.template))
        });
        self.changed_last = (!stays).then_some(name);
    }
}
