//! The state in which a history must end: exactly the workloads of the last commit run, and no
//! event is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use reconciler::{
    name::{CommitId, NodeName, ObjectKey, PodUid, WorkloadKind},
    plan::Role,
    state::{ClusterState, CommitState, Phase, PodRecord},
};

use crate::{clock::Time, history::WantedWorkload, store::Sabotage, world::World};

/// The outcome of a history.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) hash: u64,
    pub(crate) violation: Option<String>,
    pub(crate) tail: String,
    pub(crate) cycles: u64,
    pub(crate) decisions: u64,
}

/// Longer than every back-off and deadline, also with a clock that is an hour ahead.
const END_LIMIT: Time = 4 * 3_600_000;

/// Runs the history of a seed to its end.
pub(crate) fn play(seed: u64, sabotage: Sabotage, verbose: bool) -> Outcome {
    let mut world = World::new(seed, sabotage);
    world.transcript.verbose = verbose;
    let end = world.schedule_history();
    world.run_until(end);
    world.end_faults_and_wait();
    let end = world.now + 300_000;
    world.run_until(end);
    world.push_last_commit();
    world.expect_settled();
    Outcome {
        seed,
        hash: world.transcript.hash(),
        tail: world.transcript.tail(if verbose { 0 } else { 150 }),
        violation: world.violation,
        cycles: world.cycles,
        decisions: world.decisions,
    }
}

impl World {
    /// Ends all faults, and waits until the store is trusted everywhere.
    pub(crate) fn end_faults_and_wait(&mut self) {
        self.end_faults();
        // A host that distrusts the store waits until a person adopts a copy.
        let deadline = self.now + 300_000;
        while self.violation.is_none() {
            self.run_until(self.now + 5_000);
            if !self.is_frozen() || self.now > deadline {
                break;
            }
        }
        let end = self.now + 25_000;
        self.run_until(end);
        self.faults_over = true;
        let end = self.now + 20_000;
        self.run_until(end);
    }

    /// Waits until no event is left, and then checks that the last commit is in effect.
    fn expect_settled(&mut self) {
        if let Some(last) = self.pushed.last().map(|commit| commit.id.clone()) {
            self.expect_settled_on(&last);
        }
    }

    /// Waits until no event is left, and then checks that the content of the repository runs and
    /// that this commit is healthy.
    pub(crate) fn expect_settled_on(&mut self, last: &CommitId) {
        let end = self.now + END_LIMIT;
        let is_idle = self.run_until_idle(end);
        let next = self.next_at();
        self.require(is_idle, || {
            format!("events never end: the next one is at {next:?}")
        });
        if self.violation.is_none() {
            self.check_end(last);
        }
    }

    fn check_end(&mut self, last: &CommitId) {
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
            self.check_workload(&name, &wanted, state.pods.values());
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
        self.check_hosts(&state.pods);
        self.check_traffic(&state);
        self.check_history(&state, last);
    }

    /// Every host sends the traffic of each Service to exactly the ready pods of its workload, on
    /// all hosts.
    fn check_traffic(&mut self, state: &ClusterState) {
        for host in 0..self.hosts.len() {
            self.cycle_after(host, 0);
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
            let allocation = state.services.get(&ObjectKey::new("default", service));
            let Some(address) = allocation.and_then(|allocation| allocation.cluster_ip) else {
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

    /// The rollout's history records the outcome of each commit.
    fn check_history(&mut self, state: &ClusterState, last: &CommitId) {
        let healthy = |id: &CommitId| {
            let mut entries = state.rollout.history.iter();
            entries.any(|entry| entry.commit == *id && entry.state == CommitState::Healthy)
        };
        let wrongly_healthy = self.bad.iter().find(|id| healthy(id)).cloned();
        self.require(wrongly_healthy.is_none(), || {
            format!("{wrongly_healthy:?} cannot run, and the history records it as healthy")
        });
        self.require(healthy(last), || {
            "the history does not record the last commit as healthy".to_owned()
        });
    }

    fn check_workload<'a>(
        &mut self,
        name: &str,
        wanted: &WantedWorkload,
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
                    format!("{name}: {} has no node: {:?}", record.uid, record.place)
                });
                return;
            };
            *nodes.entry(record.place.node().unwrap()).or_default() += 1;
            let image = host
                .registry
                .find(&wanted.image)
                .map(|image| image.id.clone());
            let runs = host.engine.containers.iter().any(|(id, container)| {
                container.identity.uid == record.uid
                    && container.role == Role::Main
                    && container.state.is_alive()
                    && Some(&container.image) == image.as_ref()
                    && host.is_probed_ready(id, self.now)
            });
            let (uid, node) = (record.uid.clone(), host.name.clone());
            self.require(runs, || {
                format!("{name}: {uid} does not run {} on {node}", wanted.image)
            });
        }
        // A pod that stopped may have occupied a place when the new pods were placed: then one node
        // has one pod more than its share.
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
        let not_once_per_node =
            wanted.kind == WorkloadKind::DaemonSet && nodes.values().any(|count| *count != 1);
        self.require(!not_once_per_node, || {
            format!("{name} does not have container pod on each node: {nodes:?}")
        });
    }

    /// Every container belongs to a pod of its host, and nothing else is left on the hosts.
    fn check_hosts(&mut self, pods: &BTreeMap<PodUid, PodRecord>) {
        let mut left = Vec::new();
        for host in self.hosts.iter().filter(|host| !host.removed) {
            let belongs = |uid: &PodUid| {
                pods.get(uid)
                    .is_some_and(|record| record.place.node() == Some(&host.name))
            };
            for container in host.engine.containers.values() {
                if !belongs(&container.identity.uid) {
                    left.push(format!("{}: {container:?}", host.name));
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
