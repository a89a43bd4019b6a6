//! The world: hosts, a store and time, in which one thing happens after another.

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
    cut::Cuts,
    faults::Fault,
    host::Host,
    random::Random,
    referee::Referee,
    store::{Sabotage, Store},
    story::Repository,
    transcript::Transcript,
    view::News,
};

/// Something that happens at a time. The number is the generation of the daemon it happens to.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A daemon observes, plans and acts.
    Look(usize, u64),
    /// A step of a lane is done.
    Step(usize, u64, LaneKey),
    /// A daemon's watch brings what has happened.
    Watch(usize, u64),
    /// A daemon renews its leases, and campaigns.
    Keep(usize, u64),
    /// A leader decides, or writes what it has decided.
    Lead(usize, u64),
    /// A daemon sends its report.
    Send(usize, u64),
    /// A report arrives at the store.
    Arrive(NodeName, u64, Arc<NodeReport>),
    /// A host's clone has a commit, fetched and verified.
    Fetch(usize, CommitId),
    /// Leases may have run out.
    Expire,
    /// The story goes on.
    Fault(Fault),
}

/// The world.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) random: Random,
    pub(crate) store: Store,
    pub(crate) hosts: Vec<Host>,
    pub(crate) settings: ClusterSettings,
    /// All commits that were pushed, oldest first.
    pub(crate) pushed: Vec<Arc<Commit>>,
    /// What somebody wants now; bad commits differ from it.
    pub(crate) repository: Repository,
    /// Commits that cannot run.
    pub(crate) bad: BTreeSet<CommitId>,
    /// Commits that cannot run on one host.
    pub(crate) doubtful: BTreeSet<CommitId>,
    /// Nodes that somebody gave up by hand.
    pub(crate) given_up: Vec<NodeName>,
    pub(crate) referee: Referee,
    pub(crate) transcript: Transcript,
    /// The first thing that must not be.
    pub(crate) wrong: Option<String>,
    /// Faults are over: nobody dawdles, and leases need no keeping.
    pub(crate) calm: bool,
    /// Workloads that were given another name: the old one and the new one.
    pub(crate) renames: BTreeSet<(String, String)>,
    /// The workload that the last push changed.
    pub(crate) changed_last: Option<String>,
    pub(crate) looks: u64,
    pub(crate) decisions: u64,
    /// So many changes are written at a time; by chance where nobody says.
    pub(crate) part: Option<usize>,
    /// Where daemons can be cut in half.
    pub(crate) cuts: Cuts,
    /// A backup is about to take the store's place.
    pub(crate) restoring: bool,
    /// Somebody is about to adopt a store.
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
            doubtful: BTreeSet::new(),
            given_up: Vec::new(),
            referee: Referee::default(),
            transcript: Transcript::default(),
            wrong: None,
            calm: false,
            renames: BTreeSet::new(),
            changed_last: None,
            looks: 0,
            decisions: 0,
            part: None,
            cuts: Cuts::default(),
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

    /// Something is as it must not be: nothing happens any more.
    pub(crate) fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds && self.wrong.is_none() {
            let what = otherwise();
            self.transcript.note(self.now, format!("WRONG: {what}"));
            self.wrong = Some(what);
        }
    }

    /// Everything that happens up to a time.
    pub(crate) fn run_until(&mut self, end: Time) {
        while self.wrong.is_none()
            && let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= end)
        {
            let ((time, _), event) = next.remove_entry();
            self.now = time;
            self.happen(event);
        }
        self.now = self.now.max(end);
    }

    /// Everything that happens by itself, until nothing does, or this time has come; true if
    /// nothing does.
    pub(crate) fn run_dry(&mut self, end: Time) -> bool {
        self.run_until(end);
        self.queue.is_empty()
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<Time> {
        self.queue.first_key_value().map(|((time, _), _)| *time)
    }

    fn happen(&mut self, event: Event) {
        let daemon = match &event {
            Event::Look(host, generation)
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
            Event::Look(host, _) => self.look(host),
            Event::Step(host, _, key) => self.step(host, &key),
            Event::Watch(host, _) => self.watch(host),
            Event::Keep(host, _) => self.keep(host),
            Event::Lead(host, _) => self.lead(host),
            Event::Send(host, _) => self.send(host),
            Event::Arrive(node, number, report) => self.arrive(&node, number, &report),
            Event::Fetch(host, commit) => self.fetch(host, &commit),
            Event::Expire => self.expire(),
            Event::Fault(fault) => self.strike(fault),
        }
    }

    /// Whether a host can speak with the store.
    pub(crate) fn is_connected(&self, host: usize) -> bool {
        let one = &self.hosts[host];
        self.store.up && one.powered && one.reaches_store
    }

    /// The store has something new: watches bring it after a while, and a lease may end sooner than
    /// was thought.
    pub(crate) fn written(&mut self) {
        for host in 0..self.hosts.len() {
            let wait = self.watch_delay();
            self.watch_after(host, wait);
        }
        self.mind_leases();
    }

    fn watch_delay(&mut self) -> Time {
        match self.random.within(0, 100) {
            0..3 if !self.calm => self.random.within(300, 2_000),
            3..20 => self.random.within(20, 200),
            _ => self.random.within(1, 20),
        }
    }

    /// One watch is on its way at a time: it brings all there is when it arrives.
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

    pub(crate) fn look_after(&mut self, host: usize, wait: Time) {
        let at = self.now + wait;
        let one = &mut self.hosts[host];
        let generation = one.generation;
        if let Some(daemon) = &mut one.daemon
            && daemon.look_at.is_none_or(|sooner| sooner > at)
        {
            daemon.look_at = Some(at);
            self.at(at, Event::Look(host, generation));
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

    pub(crate) fn mind_leases(&mut self) {
        if self.calm {
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
        if self.calm {
            return;
        }
        let ended = self.store.expire(self.now);
        if !ended.is_empty() {
            self.note(|| ended.join(", "));
            self.leases_changed();
            self.written();
        }
        self.mind_leases();
    }

    pub(crate) fn leases_changed(&mut self) {
        let nodes = self.hosts.iter().map(|host| &host.name);
        self.referee.leases(self.now, nodes, &self.store.contents);
    }

    fn watch(&mut self, host: usize) {
        let again = !self.calm && self.random.percent(2);
        let partly = !self.calm && self.random.percent(10);
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
        let mut news = one.view.follow(&self.store, up_to);
        if again {
            let listed = one.view.relist(&self.store);
            news = News {
                doubts: news.doubts || listed.doubts,
                ..listed
            };
        }
        let behind = one.view.revision < self.store.revision;
        if behind {
            let wait = self.watch_delay();
            self.watch_after(host, wait);
        }
        self.take_news(host, news);
        if news.decided {
            self.look_after(host, 1);
        }
        if news.said || news.decided {
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
        // A fetch brings everything up to the commit.
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
            self.look_after(host, 1);
            self.lead_after(host, 5);
        }
    }

    fn send(&mut self, host: usize) {
        let connected = self.is_connected(host);
        let (lost, twice) = if self.calm {
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
            .filter(|report| daemon.told.as_ref() != Some(report))
        else {
            return;
        };
        let belongs = one.view.may_publish();
        if !connected || lost || !belongs {
            // Sent again until it is told.
            let wait = if connected { 300 } else { 1_000 };
            self.after(wait, Event::Send(host, generation));
            return;
        }
        daemon.told = Some(Arc::clone(&report));
        if self.is_cut(host, || "is about to send its report".to_owned()) {
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
        self.is_cut(host, || "has sent its report".to_owned());
    }

    fn arrive(&mut self, node: &NodeName, number: u64, report: &Arc<NodeReport>) {
        let Some(host) = self.hosts.iter().position(|host| host.name == *node) else {
            return;
        };
        if !self.is_connected(host) {
            // It was lost on the way: the daemon does not know, and its next session tells
            // everything again.
            if let Some(daemon) = &mut self.hosts[host].daemon {
                daemon.told = None;
                let generation = self.hosts[host].generation;
                self.after(1_000, Event::Send(host, generation));
            }
            return;
        }
        if self.store.report(node, number, report) {
            self.referee.report(self.now, node, &self.store.contents);
            self.written();
        }
    }

    /// Adds a commit to the repository; every host fetches it when it comes to it.
    pub(crate) fn push(&mut self, commit: Arc<Commit>) {
        let id = commit.id.clone();
        self.note(|| format!("push {id}: {}", commit.subject));
        self.pushed.push(commit);
        for host in 0..self.hosts.len() {
            let wait = match self.random.within(0, 10) {
                0 if !self.calm => self.random.within(5_000, 90_000),
                1..4 => self.random.within(500, 5_000),
                _ => self.random.within(50, 500),
            };
            self.after(wait, Event::Fetch(host, id.clone()));
        }
    }

    /// A host's daemon starts from its disk.
    pub(crate) fn start(&mut self, host: usize) {
        let one = &mut self.hosts[host];
        if !one.powered || one.daemon.is_some() || one.removed {
            return;
        }
        one.generation += 1;
        one.daemon = Some(crate::host::Daemon::default());
        let (name, generation) = (one.name.clone(), one.generation);
        let doubts = one.view.marker.is_some() && !one.view.believes();
        self.note(|| format!("{name}: the daemon starts"));
        if doubts {
            self.call_for_adoption();
        }
        self.after(10, Event::Keep(host, generation));
        self.watch_after(host, 20);
        self.look_after(host, 15);
        if let Some(newest) = self.pushed.last().map(|commit| commit.id.clone()) {
            let wait = self.random.within(100, 3_000);
            self.after(wait, Event::Fetch(host, newest));
        }
    }

    /// The daemon is gone from one moment to the next; with `halfway`, the effects of the steps
    /// under way have happened and nobody has recorded them.
    pub(crate) fn kill(&mut self, host: usize, halfway: bool) {
        let now = stamp(self.now);
        let one = &mut self.hosts[host];
        let Some(daemon) = one.daemon.take() else {
            return;
        };
        one.paused = None;
        one.view.lose_connection();
        if self.store.sabotage == Sabotage::Forgets {
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
