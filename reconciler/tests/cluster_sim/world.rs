//! The simulated world: hosts, a store and virtual time, with a queue of events that happen one
//! after another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use reconciler::{
    commit::Commit,
    name::{CommitId, NodeName},
    plan::LaneKey,
    pod::memory::NodeMemory,
    settings::{ClusterSettings, RolloutSettings, ServiceRanges},
    state::NodeReport,
};

use crate::{
    clock::{Time, stamp},
    crash_point::CrashPoints,
    faults::Fault,
    history::Repository,
    host::{Host, Running},
    random::Random,
    referee::Referee,
    store::{Sabotage, Store},
    transcript::Transcript,
};

/// An event of the queue. The second number is the generation of the daemon that the event is for:
/// an event for an earlier generation is dropped.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A daemon runs a cycle: it observes, plans and acts.
    Cycle(usize, u64),
    /// A step of a lane has taken its time and has its effect now.
    Step(usize, u64, LaneKey),
    /// A daemon's watch delivers the changes of the store.
    Watch(usize, u64),
    /// A daemon renews its leases, and is a candidate for leader.
    Keep(usize, u64),
    /// A leader decides, or writes its next decided changes.
    Lead(usize, u64),
    /// A daemon sends its report.
    Send(usize, u64),
    /// A report arrives at the store.
    Arrive(NodeName, u64, Arc<NodeReport>),
    /// A host has fetched and verified a commit.
    Fetch(usize, CommitId),
    /// A lease may have expired.
    Expire,
    /// A fault, or an action of a person.
    Fault(Fault),
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) random: Random,
    pub(crate) store: Store,
    pub(crate) hosts: Vec<Host>,
    pub(crate) settings: ClusterSettings,
    /// All commits that were pushed, oldest first.
    pub(crate) pushed: Vec<Arc<Commit>>,
    /// The content of the repository that must run in the end; bad commits differ from it.
    pub(crate) repository: Repository,
    /// Commits that cannot run.
    pub(crate) bad: BTreeSet<CommitId>,
    /// Commits that cannot run on one host, and can on the others.
    pub(crate) bad_on_one_host: BTreeSet<CommitId>,
    /// Nodes that a person has removed from the cluster, and that the leader must still record as
    /// removed.
    pub(crate) removed_nodes: Vec<NodeName>,
    pub(crate) referee: Referee,
    pub(crate) transcript: Transcript,
    /// The first violated rule. It ends the history.
    pub(crate) violation: Option<String>,
    /// There are no more faults and delays, and leases do not expire.
    pub(crate) faults_over: bool,
    /// Workloads that a commit renamed: the old name and the new name.
    pub(crate) renames: BTreeSet<(String, String)>,
    /// The workload that the last push changed.
    pub(crate) changed_last: Option<String>,
    pub(crate) cycles: u64,
    pub(crate) decisions: u64,
    /// How many changes a leader writes in one transaction; a random number if this is `None`.
    pub(crate) changes_per_write: Option<usize>,
    /// The points at which daemons can crash.
    pub(crate) crash_points: CrashPoints,
    /// Whether the store is stopped, to be replaced by a backup.
    pub(crate) restoring: bool,
    /// Whether an adoption of the store by a person is in the queue.
    pub(crate) adopting: bool,
    queue: BTreeMap<(Time, u64), Event>,
    number: u64,
    expire_at: Option<Time>,
}

impl World {
    pub(crate) fn new(seed: u64, sabotage: Sabotage) -> Self {
        let rollout = RolloutSettings {
            deadline: std::time::Duration::from_secs(120),
            deletion_percent: 100,
            ..RolloutSettings::default()
        };
        let ranges = ServiceRanges {
            addresses: "10.96.0.0/16".parse().unwrap(),
            dns: std::net::Ipv4Addr::new(10, 96, 0, 10),
            node_ports: 30000..=32767,
        };
        Self {
            now: 0,
            random: Random::new(seed),
            store: Store::new(sabotage),
            hosts: Vec::new(),
            settings: ClusterSettings {
                rollout,
                ranges,
                max_pods: 50,
            },
            pushed: Vec::new(),
            repository: Repository::default(),
            bad: BTreeSet::new(),
            bad_on_one_host: BTreeSet::new(),
            removed_nodes: Vec::new(),
            referee: Referee::default(),
            transcript: Transcript::default(),
            violation: None,
            faults_over: false,
            renames: BTreeSet::new(),
            changed_last: None,
            cycles: 0,
            decisions: 0,
            changes_per_write: None,
            crash_points: CrashPoints::default(),
            restoring: false,
            adopting: false,
            queue: BTreeMap::new(),
            number: 0,
            expire_at: None,
        }
    }

    pub(crate) fn at(&mut self, time: Time, event: Event) {
        self.number += 1;
        self.queue.insert((time.max(self.now), self.number), event);
    }

    pub(crate) fn after(&mut self, wait: Time, event: Event) {
        self.at(self.now + wait, event);
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        self.transcript.note(self.now, line());
    }

    /// Records a violation if a rule does not hold. The history ends with its first violation.
    pub(crate) fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            let violation = otherwise();
            self.transcript
                .note(self.now, format!("VIOLATION: {violation}"));
            self.violation = Some(violation);
        }
    }

    /// Handles all events up to a time.
    pub(crate) fn run_until(&mut self, end: Time) {
        while self.violation.is_none()
            && let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= end)
        {
            let ((time, _), event) = next.remove_entry();
            self.now = time;
            self.handle_event(event);
        }
        self.now = self.now.max(end);
    }

    /// Handles all events up to a time. Returns true if no event is left.
    pub(crate) fn run_until_idle(&mut self, end: Time) -> bool {
        self.run_until(end);
        self.queue.is_empty()
    }

    /// The time of the next event.
    pub(crate) fn next_at(&self) -> Option<Time> {
        self.queue.first_key_value().map(|((time, _), _)| *time)
    }

    fn handle_event(&mut self, event: Event) {
        let daemon = match &event {
            Event::Cycle(index, generation)
            | Event::Step(index, generation, _)
            | Event::Watch(index, generation)
            | Event::Keep(index, generation)
            | Event::Lead(index, generation)
            | Event::Send(index, generation) => Some((*index, *generation)),
            Event::Arrive(..) | Event::Fetch(..) | Event::Expire | Event::Fault(_) => None,
        };
        if let Some((index, generation)) = daemon {
            let host = &mut self.hosts[index];
            if host.daemon.is_none() || host.generation != generation {
                return;
            }
            if let Some(waiting) = &mut host.paused {
                waiting.push(event);
                return;
            }
        }
        match event {
            Event::Cycle(index, _) => self.cycle(index),
            Event::Step(index, _, key) => self.step(index, &key),
            Event::Watch(index, _) => self.watch(index),
            Event::Keep(index, _) => self.keep(index),
            Event::Lead(index, _) => self.lead(index),
            Event::Send(index, _) => self.send(index),
            Event::Arrive(node, number, report) => self.arrive(&node, number, &report),
            Event::Fetch(index, commit) => self.fetch(index, &commit),
            Event::Expire => self.expire(),
            Event::Fault(fault) => self.apply_fault(fault),
        }
    }

    /// Whether a host can reach the store.
    pub(crate) fn is_connected(&self, index: usize) -> bool {
        let host = &self.hosts[index];
        self.store.up && host.powered && host.reaches_store
    }

    /// The store was written: watches deliver the change after a delay, and a lease may expire
    /// earlier than was planned.
    pub(crate) fn after_write(&mut self) {
        for index in 0..self.hosts.len() {
            let wait = self.watch_delay();
            self.watch_after(index, wait);
        }
        self.schedule_expiry();
    }

    pub(crate) fn cycle_after(&mut self, index: usize, wait: Time) {
        let at = self.now + wait;
        let host = &mut self.hosts[index];
        let generation = host.generation;
        if let Some(daemon) = &mut host.daemon
            && daemon.cycle_at.is_none_or(|sooner| sooner > at)
        {
            daemon.cycle_at = Some(at);
            self.at(at, Event::Cycle(index, generation));
        }
    }

    pub(crate) fn lead_after(&mut self, index: usize, wait: Time) {
        let at = self.now + wait;
        let host = &mut self.hosts[index];
        let generation = host.generation;
        if let Some(daemon) = &mut host.daemon
            && daemon.leading.is_some()
            && daemon.lead_at.is_none_or(|sooner| sooner > at)
        {
            daemon.lead_at = Some(at);
            self.at(at, Event::Lead(index, generation));
        }
    }

    pub(crate) fn schedule_expiry(&mut self) {
        if self.faults_over {
            return;
        }
        if let Some(at) = self.store.next_expiry()
            && self.expire_at.is_none_or(|sooner| sooner > at)
        {
            self.expire_at = Some(at);
            self.at(at, Event::Expire);
        }
    }

    fn expire(&mut self) {
        if self.expire_at.is_some_and(|at| at <= self.now) {
            self.expire_at = None;
        }
        if self.faults_over {
            return;
        }
        let ended = self.store.expire(self.now);
        if !ended.is_empty() {
            self.note(|| ended.join(", "));
            self.leases_changed();
            self.after_write();
        }
        self.schedule_expiry();
    }

    pub(crate) fn leases_changed(&mut self) {
        let nodes = self.hosts.iter().map(|host| &host.name);
        self.referee.leases(self.now, nodes, &self.store.contents);
    }

    /// A host's daemon starts with what is on the host's disk.
    pub(crate) fn start(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if !host.powered || host.daemon.is_some() || host.removed {
            return;
        }
        host.generation += 1;
        host.daemon = Some(crate::host::Daemon::default());
        let (name, generation) = (host.name.clone(), host.generation);
        let distrusts = host.view.marker.is_some() && !host.view.trusts();
        self.note(|| format!("{name}: the daemon starts"));
        if distrusts {
            self.alert_person();
        }
        self.after(10, Event::Keep(index, generation));
        self.watch_after(index, 20);
        self.cycle_after(index, 15);
        if let Some(newest) = self.pushed.last().map(|commit| commit.id.clone()) {
            let wait = self.random.within(100, 3_000);
            self.after(wait, Event::Fetch(index, newest));
        }
    }

    /// A daemon is killed. With `halfway` the steps that were under way have their effects, and no
    /// daemon has recorded them.
    pub(crate) fn kill(&mut self, index: usize, halfway: bool) {
        let now = stamp(self.now);
        let host = &mut self.hosts[index];
        let Some(daemon) = host.daemon.take() else {
            return;
        };
        host.paused = None;
        host.view.lose_connection();
        if self.store.sabotage == Sabotage::ForgetsMemory {
            host.memory = NodeMemory::default();
        }
        let name = host.name.clone();
        self.note(|| format!("{name}: the daemon is killed, halfway: {halfway}"));
        if !halfway {
            return;
        }

        for Running { lane, at } in daemon.lanes.into_values() {
            let step = lane.steps[at].clone();
            self.before_effect(index, &lane, &step);
            let host = &mut self.hosts[index];
            let _ = host.engine.apply(&step, &host.registry, now);
            self.after_effect(index, &step);
        }
    }
}
