//! How a story must end: exactly what the last commit says runs, and nothing happens any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use reconciler::{
    name::{CommitId, NodeName, ObjectKey, PodUid, WorkloadKind},
    plan::Role,
    state::{ClusterState, CommitState, Phase, PodRecord},
};

use crate::{clock::Time, store::Sabotage, story::Wanted, world::World};

/// What became of a story.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) hash: u64,
    pub(crate) wrong: Option<String>,
    pub(crate) tail: String,
    pub(crate) looks: u64,
    pub(crate) decisions: u64,
}

/// Long enough for every back-off, deadline and clock that was set an hour ahead.
const PATIENCE: Time = 4 * 3_600_000;

/// Tells the story of a seed to its end.
pub(crate) fn tell(seed: u64, sabotage: Sabotage, aloud: bool) -> Outcome {
    let mut world = World::new(seed, sabotage);
    world.transcript.aloud = aloud;
    let end = world.tell();
    world.run_until(end);
    world.come_to_rest();
    let end = world.now + 300_000;
    world.run_until(end);
    world.push_the_end();
    world.settle();
    Outcome {
        seed,
        hash: world.transcript.hash(),
        tail: world.transcript.tail(if aloud { 0 } else { 150 }),
        wrong: world.wrong,
        looks: world.looks,
        decisions: world.decisions,
    }
}

impl World {
    /// All is well again, and nothing goes wrong any more.
    pub(crate) fn come_to_rest(&mut self) {
        self.heal();
        // Who does not believe the store waits for a person.
        let patience = self.now + 300_000;
        while self.wrong.is_none() {
            self.run_until(self.now + 5_000);
            if !self.is_frozen() || self.now > patience {
                break;
            }
        }
        let end = self.now + 25_000;
        self.run_until(end);
        self.calm = true;
        let end = self.now + 20_000;
        self.run_until(end);
    }

    /// Until nothing happens any more; then all must be as the last commit says.
    fn settle(&mut self) {
        if let Some(last) = self.pushed.last().map(|commit| commit.id.clone()) {
            self.settle_on(&last);
        }
    }

    /// Until nothing happens any more; then all must be as the repository says, and this commit
    /// healthy.
    pub(crate) fn settle_on(&mut self, last: &CommitId) {
        let end = self.now + PATIENCE;
        let dry = self.run_dry(end);
        let next = self.next_at();
        self.require(dry, || {
            format!("it never comes to rest: the next thing happens at {next:?}")
        });
        if self.wrong.is_none() {
            self.judge_end(last);
        }
    }

    fn judge_end(&mut self, last: &CommitId) {
        let state = self.store.contents.state.clone();
        let settled =
            state.rollout.phase == Phase::Healthy && state.rollout.target.as_ref() == Some(last);
        let rollout = state.rollout.clone();
        self.require(settled, || {
            format!("the last commit is not healthy: {rollout:#?}")
        });
        let stopping = state
            .pods
            .values()
            .find(|record| record.stop.is_some())
            .cloned();
        self.require(stopping.is_none(), || {
            format!("a stop record is left: {stopping:?}")
        });
        let outages = state.outages.clone();
        self.require(outages.is_empty(), || {
            format!("outages are left: {outages:?}")
        });
        for (name, wanted) in self.repository.workloads.clone() {
            self.judge_workload(&name, &wanted, state.pods.values());
        }
        let unknown = state
            .pods
            .values()
            .find(|record| {
                !self
                    .repository
                    .workloads
                    .contains_key(&record.owner.object.name)
            })
            .cloned();
        self.require(unknown.is_none(), || {
            format!("a pod of no workload is left: {unknown:?}")
        });
        self.judge_hosts(&state.pods);
        self.judge_traffic(&state);
        self.judge_fates(&state, last);
    }

    /// Every host sends the traffic of each Service to exactly the pods that run for it, on
    /// whichever host.
    fn judge_traffic(&mut self, state: &ClusterState) {
        for host in 0..self.hosts.len() {
            self.look_after(host, 0);
        }
        let end = self.now;
        self.run_until(end);
        for (name, workload) in self.repository.workloads.clone() {
            let service = workload.service(&name);
            let wanted: BTreeSet<Ipv4Addr> = state
                .pods
                .values()
                .filter(|record| record.owner.object.name == name)
                .flat_map(|record| {
                    let links = self
                        .hosts
                        .iter()
                        .flat_map(|host| host.engine.links.values());
                    links
                        .filter(|(pod, _)| *pod == record.uid)
                        .map(|(_, address)| *address)
                })
                .collect();
            let given = state.services.get(&ObjectKey::new("default", service));
            let Some(address) = given.and_then(|given| given.cluster_ip) else {
                self.require(false, || format!("service {name} has no address"));
                return;
            };
            for host in 0..self.hosts.len() {
                let Some(daemon) = &self.hosts[host].daemon else {
                    continue;
                };
                let table = daemon.services.iter().flat_map(|table| &table.cluster_ips);
                let backends: BTreeSet<Ipv4Addr> = table
                    .filter(|(at, _)| at.address == address)
                    .flat_map(|(_, backends)| {
                        backends.endpoints.iter().map(|endpoint| *endpoint.ip())
                    })
                    .collect();
                let node = self.hosts[host].name.clone();
                self.require(backends == wanted, || {
                    format!("{node} sends the traffic of {name} to {backends:?}, its pods are {wanted:?}")
                });
            }
        }
    }

    /// The history says of each commit what became of it.
    fn judge_fates(&mut self, state: &ClusterState, last: &CommitId) {
        let healthy = |id: &CommitId| {
            let mut entries = state.rollout.history.iter();
            entries.any(|entry| entry.commit == *id && entry.state == CommitState::Healthy)
        };
        let loved = self.bad.iter().find(|id| healthy(id)).cloned();
        self.require(loved.is_none(), || {
            format!("{loved:?} cannot run and the history calls it healthy")
        });
        self.require(healthy(last), || {
            "the history does not know the last commit as healthy".to_owned()
        });
    }

    fn judge_workload<'a>(
        &mut self,
        name: &str,
        wanted: &Wanted,
        records: impl Iterator<Item = &'a PodRecord>,
    ) {
        let members: Vec<NodeName> = self
            .hosts
            .iter()
            .filter(|host| !host.removed)
            .map(|host| host.name.clone())
            .collect();
        let pods: Vec<&PodRecord> = records
            .filter(|record| record.owner.object.name == name)
            .collect();
        let count = match wanted.kind {
            WorkloadKind::Pod => 1,
            WorkloadKind::DaemonSet => members.len(),
            _ => wanted.replicas as usize,
        };
        self.require(pods.len() == count, || {
            format!(
                "{name} has {} pods and wants {count}: {pods:#?}",
                pods.len()
            )
        });
        let mut nodes: BTreeMap<&NodeName, usize> = BTreeMap::new();
        for record in &pods {
            let place = record.place.node();
            let host = place.and_then(|node| self.hosts.iter().find(|host| host.name == *node));
            let Some(host) = host.filter(|host| !host.removed) else {
                self.require(false, || {
                    format!("{name}: {} is nowhere: {:?}", record.uid, record.place)
                });
                return;
            };
            *nodes.entry(record.place.node().unwrap()).or_default() += 1;
            let image = host
                .registry
                .find(&wanted.image)
                .map(|image| image.id.clone());
            let runs = host.engine.containers.iter().any(|(id, one)| {
                one.identity.uid == record.uid
                    && one.role == Role::Main
                    && one.state.is_alive()
                    && Some(&one.image) == image.as_ref()
                    && host.is_probed_ready(id, self.now)
            });
            let (uid, node) = (record.uid.clone(), host.name.clone());
            self.require(runs, || {
                format!("{name}: {uid} does not run {} on {node}", wanted.image)
            });
        }
        // What was there before may have been in the way, and then one node has one more than its
        // share.
        let share = count.div_ceil(members.len().max(1)) + 1;
        let crowded = self.changed_last.as_deref() == Some(name)
            && matches!(
                wanted.kind,
                WorkloadKind::Deployment | WorkloadKind::ReplicaSet
            )
            && nodes.values().any(|count| *count > share);
        self.require(!crowded, || {
            format!("{name} is not spread over {members:?}: {nodes:?}")
        });
        let twice =
            wanted.kind == WorkloadKind::DaemonSet && nodes.values().any(|count| *count != 1);
        self.require(!twice, || {
            format!("{name} is not once on each node: {nodes:?}")
        });
    }

    /// Every container is of a pod that belongs there, and nothing else is left.
    fn judge_hosts(&mut self, pods: &BTreeMap<PodUid, PodRecord>) {
        let mut left = Vec::new();
        for host in self.hosts.iter().filter(|host| !host.removed) {
            let belongs = |uid: &PodUid| {
                pods.get(uid)
                    .is_some_and(|record| record.place.node() == Some(&host.name))
            };
            for one in host.engine.containers.values() {
                if !belongs(&one.identity.uid) {
                    left.push(format!("{}: {one:?}", host.name));
                }
            }
            for uid in host.engine.files.keys().chain(host.memory.pods.keys()) {
                if !belongs(uid) {
                    left.push(format!("{}: files or memory of {uid}", host.name));
                }
            }
            let lanes = host.daemon.as_ref().map_or(0, |daemon| daemon.lanes.len());
            if lanes > 0 {
                left.push(format!("{}: {lanes} lanes", host.name));
            }
        }
        self.require(left.is_empty(), || format!("left behind: {left:#?}"));
    }
}
