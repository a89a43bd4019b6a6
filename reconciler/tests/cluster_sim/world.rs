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
    rollout::Head,
    settings::{ClusterSettings, RolloutSettings, ServiceRanges},
    state::NodeReport,
};

use crate::{
    clock::{Time, stamp},
    crash_point::CrashPoints,
    faults::Fault,
    history::Repository,
    host::Host,
    random::Random,
    referee::Referee,
    store::{Sabotage, Store},
    transcript::Transcript,
    view::ReadResult,
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
            Event::Cycle(host, generation)
            | Event::Step(host, generation, _)
            | Event::Watch(host, generation)
            | Event::Keep(host, generation)
            | Event::Lead(host, generation)
            | Event::Send(host, generation) => Some((*host, *generation)),
            Event::Arrive(..) | Event::Fetch(..) | Event::Expire | Event::Fault(_) => None,
        };
        if let Some((host, generation)) = daemon {
            let host = &mut self.hosts[host];
            if host.daemon.is_none() || host.generation != generation {
                return;
            }
            if let Some(waiting) = &mut host.paused {
                waiting.push(event);
                return;
            }
        }
        match event {
            Event::Cycle(host, _) => self.cycle(host),
            Event::Step(host, _, key) => self.step(host, &key),
            Event::Watch(host, _) => self.watch(host),
            Event::Keep(host, _) => self.keep(host),
            Event::Lead(host, _) => self.lead(host),
            Event::Send(host, _) => self.send(host),
            Event::Arrive(node, number, report) => self.arrive(&node, number, &report),
            Event::Fetch(host, commit) => self.fetch(host, &commit),
            Event::Expire => self.expire(),
            Event::Fault(fault) => self.apply_fault(fault),
        }
    }

    /// Whether a host can reach the store.
    pub(crate) fn is_connected(&self, host: usize) -> bool {
        let one = &self.hosts[host];
        self.store.up && one.powered && one.reaches_store
    }

    /// The store was written: watches deliver the change after a delay, and a lease may expire
    /// earlier than was planned.
    pub(crate) fn after_write(&mut self) {
        for host in 0..self.hosts.len() {
            let wait = self.watch_delay();
            self.watch_after(host, wait);
        }
        self.schedule_expiry();
    }

    fn watch_delay(&mut self) -> Time {
        match self.random.within(0, 100) {
            0..3 if !self.faults_over => self.random.within(300, 2_000),
            3..20 => self.random.within(20, 200),
            _ => self.random.within(1, 20),
        }
    }

    /// At most one delivery is in the queue for each daemon: it brings all changes up to the time
    /// when it arrives.
    pub(crate) fn watch_after(&mut self, host: usize, wait: Time) {
        if !self.is_connected(host) {
            return;
        }
        let at = self.now + wait;
        let one = &mut self.hosts[host];
        let generation = one.generation;
        if let Some(daemon) = &mut one.daemon
            && daemon.watch_at.is_none()
        {
            daemon.watch_at = Some(at);
            self.at(at, Event::Watch(host, generation));
        }
    }

    pub(crate) fn cycle_after(&mut self, host: usize, wait: Time) {
        let at = self.now + wait;
        let one = &mut self.hosts[host];
        let generation = one.generation;
        if let Some(daemon) = &mut one.daemon
            && daemon.cycle_at.is_none_or(|sooner| sooner > at)
        {
            daemon.cycle_at = Some(at);
            self.at(at, Event::Cycle(host, generation));
        }
    }

    pub(crate) fn lead_after(&mut self, host: usize, wait: Time) {
        let at = self.now + wait;
        let one = &mut self.hosts[host];
        let generation = one.generation;
        if let Some(daemon) = &mut one.daemon
            && daemon.leading.is_some()
            && daemon.lead_at.is_none_or(|sooner| sooner > at)
        {
            daemon.lead_at = Some(at);
            self.at(at, Event::Lead(host, generation));
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

    fn watch(&mut self, host: usize) {
        let again = !self.faults_over && self.random.percent(2);
        let partly = !self.faults_over && self.random.percent(10);
        let connected = self.is_connected(host);
        let up_to = if partly && self.store.revision > self.hosts[host].view.revision {
            self.random
                .within(self.hosts[host].view.revision, self.store.revision)
                + 1
        } else {
            self.store.revision
        };
        let one = &mut self.hosts[host];
        let Some(daemon) = &mut one.daemon else {
            return;
        };
        daemon.watch_at = None;
        if !connected {
            return;
        }
        let mut result = one.view.follow(&self.store, up_to);
        if again {
            let listed = one.view.relist(&self.store);
            result = ReadResult {
                distrusts: result.distrusts || listed.distrusts,
                ..listed
            };
        }
        let behind = one.view.revision < self.store.revision;
        if behind {
            let wait = self.watch_delay();
            self.watch_after(host, wait);
        }
        self.handle_read(host, result);
        if result.decided {
            self.cycle_after(host, 1);
        }
        if result.reported || result.decided {
            self.lead_after(host, 5);
        }
    }

    fn fetch(&mut self, host: usize, id: &CommitId) {
        let Some(index) = self.pushed.iter().position(|commit| commit.id == *id) else {
            return;
        };
        let one = &mut self.hosts[host];
        if !one.powered || one.removed || !one.reaches_forge {
            return;
        }
        // A fetch brings all commits up to this one.
        for commit in &self.pushed[..=index] {
            one.verified
                .entry(commit.id.clone())
                .or_insert_with(|| Arc::clone(commit));
        }
        let newer = match &one.head {
            Head::Accepted(head) => {
                self.pushed.iter().position(|commit| commit.id == *head) < Some(index)
            }
            _ => true,
        };
        if newer {
            one.head = Head::Accepted(id.clone());
        }
        let name = one.name.clone();
        self.note(|| format!("{name} has fetched {id}"));
        if self.hosts[host].is_awake() {
            self.cycle_after(host, 1);
            self.lead_after(host, 5);
        }
    }

    fn send(&mut self, host: usize) {
        let connected = self.is_connected(host);
        let (lost, twice) = if self.faults_over {
            (false, false)
        } else {
            (self.random.percent(5), self.random.percent(5))
        };
        let wait = self.random.within(1, 15);
        let late = self.random.within(100, 3_000);
        let one = &mut self.hosts[host];
        let generation = one.generation;
        let Some(daemon) = &mut one.daemon else {
            return;
        };
        let Some(report) = daemon
            .report
            .clone()
            .filter(|report| daemon.sent_report.as_ref() != Some(report))
        else {
            return;
        };
        let belongs = one.view.may_publish();
        if !connected || lost || !belongs {
            // The report was not sent: the daemon tries again until it is.
            let wait = if connected { 300 } else { 1_000 };
            self.after(wait, Event::Send(host, generation));
            return;
        }
        daemon.sent_report = Some(Arc::clone(&report));
        if self.crashes_here(host, || "is about to send its report".to_owned()) {
            return;
        }
        let one = &mut self.hosts[host];
        one.reports += 1;
        let (name, number) = (one.name.clone(), one.reports);
        if twice {
            self.after(
                late,
                Event::Arrive(name.clone(), number, Arc::clone(&report)),
            );
        }
        self.after(wait, Event::Arrive(name, number, report));
        self.crashes_here(host, || "has sent its report".to_owned());
    }

    fn arrive(&mut self, node: &NodeName, number: u64, report: &Arc<NodeReport>) {
        let Some(host) = self.hosts.iter().position(|host| host.name == *node) else {
            return;
        };
        if !self.is_connected(host) {
            // The report was lost on its way. The daemon does not know that; its next session with
            // the store sends everything again.
            if let Some(daemon) = &mut self.hosts[host].daemon {
                daemon.sent_report = None;
                let generation = self.hosts[host].generation;
                self.after(1_000, Event::Send(host, generation));
            }
            return;
        }
        if self.store.report(node, number, report) {
            self.referee.report(self.now, node, &self.store.contents);
            self.after_write();
        }
    }

    /// Adds a commit to the repository; each host fetches it after a delay of its own.
    pub(crate) fn push(&mut self, commit: Arc<Commit>) {
        let id = commit.id.clone();
        self.note(|| format!("push {id}: {}", commit.subject));
        self.pushed.push(commit);
        for host in 0..self.hosts.len() {
            let wait = match self.random.within(0, 10) {
                0 if !self.faults_over => self.random.within(5_000, 90_000),
                1..4 => self.random.within(500, 5_000),
                _ => self.random.within(50, 500),
            };
            self.after(wait, Event::Fetch(host, id.clone()));
        }
    }

    /// A host's daemon starts with what is on the host's disk.
    pub(crate) fn start(&mut self, host: usize) {
        let one = &mut self.hosts[host];
        if !one.powered || one.daemon.is_some() || one.removed {
            return;
        }
        one.generation += 1;
        one.daemon = Some(crate::host::Daemon::default());
        let (name, generation) = (one.name.clone(), one.generation);
        let distrusts = one.view.marker.is_some() && !one.view.trusts();
        self.note(|| format!("{name}: the daemon starts"));
        if distrusts {
            self.alert_person();
        }
        self.after(10, Event::Keep(host, generation));
        self.watch_after(host, 20);
        self.cycle_after(host, 15);
        if let Some(newest) = self.pushed.last().map(|commit| commit.id.clone()) {
            let wait = self.random.within(100, 3_000);
            self.after(wait, Event::Fetch(host, newest));
        }
    }

    /// A daemon is killed. With `halfway` the steps that were under way have their effects, and no
    /// daemon has recorded them.
    pub(crate) fn kill(&mut self, host: usize, halfway: bool) {
        let now = stamp(self.now);
        let one = &mut self.hosts[host];
        let Some(daemon) = one.daemon.take() else {
            return;
        };
        one.paused = None;
        one.view.lose_connection();
        if self.store.sabotage == Sabotage::ForgetsMemory {
            one.memory = NodeMemory::default();
        }
        let steps: Vec<_> = daemon
            .lanes
            .into_values()
            .filter(|_| halfway)
            .map(|running| (running.lane.steps[running.at].clone(), running.lane))
            .collect();
        let name = one.name.clone();
        self.note(|| format!("{name}: the daemon is killed, halfway: {halfway}"));
        for (step, lane) in steps {
            self.before_effect(host, &lane, &step);
            let one = &mut self.hosts[host];
            let _ = one.engine.apply(&step, &one.registry, now);
            self.after_effect(host, &step);
        }
    }
}
