//! Faults, and actions of people.

use jiff::SignedDuration;
use reconciler::name::{ContainerId, Installation, NodeName};

use crate::{
    clock::{Time, stamp},
    host::Host,
    view::View,
    world::{Event, World},
};

/// A fault, or an action of a person. Times are durations.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A commit is pushed; its content is drawn at that time.
    Push { good: bool },
    /// A daemon is killed; with `halfway` its running steps have their effects, and are not
    /// recorded.
    Kill {
        host: FaultTarget,
        halfway: bool,
        down: Time,
    },
    /// A daemon shuts down, and publishes when it will be back.
    Restart { host: FaultTarget, down: Time },
    /// The daemon of a host starts.
    Start(usize),
    /// A daemon is stopped by a signal.
    Pause { host: FaultTarget, long: Time },
    /// A stopped daemon continues.
    Resume(usize),
    /// The wall clock of a host is set.
    Jump { host: FaultTarget, seconds: i64 },
    /// A host cannot reach the store, the other hosts, or both.
    Cut {
        host: FaultTarget,
        store: bool,
        peers: bool,
        long: Time,
    },
    /// A host that was cut off reaches the store and the other hosts again.
    Join(usize),
    /// The store loses its quorum.
    StoreDown(Time),
    /// The store has a quorum again.
    StoreUp,
    /// The store drops its history of transactions.
    Compact,
    /// A person deletes all keys under the prefix.
    Wipe,
    /// A person makes a backup of the store.
    Backup,
    /// A person stops the store and puts a backup in its place.
    Restore(Time),
    /// A person starts the restored store; `long` if it was down so long that the leader noticed.
    Restored { long: bool },
    /// A person adopts the store with the copy of a host.
    Adopt,
    /// The engine of a host does not answer.
    EngineDown { host: FaultTarget, long: Time },
    /// The engine answers again.
    EngineUp(usize),
    /// A host loses power; with `lost` its containers are lost too.
    PowerOff {
        host: FaultTarget,
        lost: bool,
        long: Time,
    },
    /// A host has power again.
    PowerOn(usize),
    /// A person kills a container.
    KillContainer { host: FaultTarget },
    /// The registry does not answer one host.
    Registry { host: FaultTarget, long: Time },
    /// The registry answers the host again.
    RegistryUp(usize),
    /// The forge does not answer one host.
    Forge { host: FaultTarget, long: Time },
    /// The forge answers the host again.
    ForgeUp(usize),
    /// A new node joins.
    NewNode,
    /// A node fails for ever and a person removes it; with `again` the host is installed anew after
    /// this time.
    GiveUp {
        host: FaultTarget,
        again: Option<Time>,
    },
    /// A removed host is installed anew, under its old name.
    Reinstall(usize),
}

/// Which host a fault hits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FaultTarget {
    Number(usize),
    /// The leader at that time, or the first host if there is none.
    Leader,
}

impl World {
    fn target_index(&self, target: FaultTarget) -> usize {
        match (target, self.store.contents.leader) {
            (FaultTarget::Leader, Some((leader, _))) => leader,
            (FaultTarget::Leader, None) => 0,
            (FaultTarget::Number(number), _) => number % self.hosts.len(),
        }
    }

    fn name(&self, host: usize) -> NodeName {
        self.hosts[host].name.clone()
    }

    pub(crate) fn apply_fault(&mut self, fault: Fault) {
        if self.faults_over {
            return;
        }
        self.note(|| format!("--- {fault:?}"));
        match fault {
            Fault::Push { good } => self.push_random_commit(good),
            Fault::Kill {
                host,
                halfway,
                down,
            } => {
                let host = self.target_index(host);
                self.kill(host, halfway);
                self.after(down, Event::Fault(Fault::Start(host)));
            }
            Fault::Restart { host, down } => {
                let host = self.target_index(host);
                self.leave(host, down * 2);
                self.kill(host, false);
                self.after(down, Event::Fault(Fault::Start(host)));
            }
            Fault::Start(host) => self.start(host),
            Fault::Pause { host, long } => {
                let host = self.target_index(host);
                if self.hosts[host].is_awake() {
                    self.hosts[host].paused = Some(Vec::new());
                    self.after(long, Event::Fault(Fault::Resume(host)));
                }
            }
            Fault::Resume(host) => self.resume(host),
            Fault::Jump { host, seconds } => {
                let (host, now) = (self.target_index(host), stamp(self.now));
                self.hosts[host]
                    .clock
                    .jump(now, SignedDuration::from_secs(seconds));
                // The daemon detects the jump by its monotonic clock.
                if let Some(leading) = self.hosts[host]
                    .daemon
                    .as_mut()
                    .and_then(|daemon| daemon.leading.as_mut())
                {
                    leading.excused = false;
                }
            }
            Fault::Cut {
                host,
                store,
                peers,
                long,
            } => {
                let host = self.target_index(host);
                let target = &mut self.hosts[host];
                target.reaches_store &= !store;
                target.reaches_peers &= !peers;
                self.after(long, Event::Fault(Fault::Join(host)));
            }
            Fault::Join(host) => self.join(host),
            Fault::StoreDown(long) => {
                self.store.up = false;
                self.after(long, Event::Fault(Fault::StoreUp));
            }
            Fault::StoreUp if self.restoring => {}
            Fault::StoreUp => self.store_up(),
            Fault::Compact => self.store.compact(),
            Fault::Wipe => self.wipe(),
            Fault::Backup => self.store.back_up(),
            Fault::Restore(down) => self.restore(down),
            Fault::Restored { long } => self.restored(long),
            Fault::Adopt => self.adopt(),
            Fault::EngineDown { host, long } => {
                let host = self.target_index(host);
                self.hosts[host].engine.engine_down = true;
                self.after(long, Event::Fault(Fault::EngineUp(host)));
            }
            Fault::EngineUp(host) => self.engine_up(host),
            Fault::PowerOff { host, lost, long } => {
                let host = self.target_index(host);
                self.power_off(host, lost);
                self.after(long, Event::Fault(Fault::PowerOn(host)));
            }
            Fault::PowerOn(host) => {
                self.hosts[host].powered = !self.hosts[host].removed;
                self.start(host);
            }
            Fault::KillContainer { host } => self.kill_container(host),
            Fault::Registry { host, long } => {
                let host = self.target_index(host);
                self.hosts[host].registry.reachable = false;
                self.after(long, Event::Fault(Fault::RegistryUp(host)));
            }
            Fault::Forge { host, long } => {
                let host = self.target_index(host);
                self.hosts[host].reaches_forge = false;
                self.after(long, Event::Fault(Fault::ForgeUp(host)));
            }
            Fault::ForgeUp(host) => self.forge_up(host),
            Fault::RegistryUp(host) => self.hosts[host].registry.reachable = true,
            Fault::NewNode => {
                let host = self.add_host();
                self.hosts[host].view = View::new();
                self.start(host);
            }
            Fault::Reinstall(host) => self.reinstall(host),
            Fault::GiveUp { host, again } => {
                let host = self.target_index(host);
                let left = self.hosts.iter().filter(|host| !host.removed).count();
                if left > 3 && !self.hosts[host].removed {
                    self.power_off(host, true);
                    self.hosts[host].removed = true;
                    let name = self.name(host);
                    self.removed_nodes.push(name);
                    if let Some(again) = again {
                        self.after(again, Event::Fault(Fault::Reinstall(host)));
                    }
                    for host in 0..self.hosts.len() {
                        self.lead_after(host, 100);
                    }
                }
            }
        }
    }

    fn reinstall(&mut self, host: usize) {
        let name = self.name(host);
        if !self.store.contents.state.removed.contains_key(&name) {
            self.after(5_000, Event::Fault(Fault::Reinstall(host)));
            return;
        }
        self.removed_nodes
            .retain(|removed_nodes| *removed_nodes != name);
        let old = &mut self.hosts[host];
        let mut new = Host::new(host, SignedDuration::ZERO);
        new.facts.installation = Installation::new(format!("{}-again", old.facts.installation));
        new.registry = std::mem::take(&mut old.registry);
        (new.generation, new.reports) = (old.generation, old.reports);
        new.view = View::new();
        *old = new;
        self.was_reinstalled(host);
        self.start(host);
    }

    fn leave(&mut self, host: usize, within: Time) {
        if !self.hosts[host].is_awake() || !self.is_connected(host) {
            return;
        }
        let name = self.name(host);
        self.resign(host);
        let within = self.hosts[host].view.may_publish().then_some(within);
        self.store.leave(&name, within);
        self.leases_changed();
        self.after_write();
    }

    fn resume(&mut self, host: usize) {
        let waiting = self.hosts[host].paused.take().unwrap_or_default();
        for event in waiting {
            self.after(0, event);
        }
    }

    fn join(&mut self, host: usize) {
        let target = &mut self.hosts[host];
        target.reaches_store = true;
        target.reaches_peers = true;
        self.watch_after(host, 10);
    }

    fn store_up(&mut self) {
        if !self.store.up {
            self.store.come_back(self.now);
            self.store_answers();
        }
    }

    /// The hosts reach the store again one after another.
    pub(crate) fn store_answers(&mut self) {
        for host in 0..self.hosts.len() {
            let wait = self.random.within(1, 1_000);
            self.watch_after(host, wait);
        }
        self.schedule_expiry();
    }

    fn engine_up(&mut self, host: usize) {
        self.hosts[host].engine.engine_down = false;
        self.cycle_after(host, 100);
    }

    fn power_off(&mut self, host: usize, lost: bool) {
        self.kill(host, false);
        let now = stamp(self.now);
        let target = &mut self.hosts[host];
        target.powered = false;
        target.engine.tick(now);
        target.engine.end_all(now);
        if lost {
            let all: Vec<ContainerId> = target.engine.containers.keys().cloned().collect();
            for container in all {
                target.engine.remove(&container);
            }
        }
    }

    fn kill_container(&mut self, host: FaultTarget) {
        let host = self.target_index(host);
        let index = self.random.index(64);
        let now = stamp(self.now);
        let target = &mut self.hosts[host];
        let alive: Vec<ContainerId> = target
            .engine
            .containers
            .iter()
            .filter(|(_, container)| container.state.is_alive())
            .map(|(id, _)| id.clone())
            .collect();
        if let Some(id) = alive.get(index % alive.len().max(1)) {
            target.engine.end(id, 137, now);
            self.cycle_after(host, 5);
        }
    }

    fn forge_up(&mut self, host: usize) {
        self.hosts[host].reaches_forge = true;
        if let Some(newest) = self.pushed.last().map(|commit| commit.id.clone()) {
            self.after(500, Event::Fetch(host, newest));
        }
    }

    /// Ends all faults; all hosts that were not removed run again.
    pub(crate) fn end_faults(&mut self) {
        self.note(|| "--- all faults end".to_owned());
        self.restoring = false;
        self.store_up();
        for host in 0..self.hosts.len() {
            self.join(host);
            self.engine_up(host);
            self.hosts[host].registry.reachable = true;
            self.hosts[host].reaches_forge = true;
            self.resume(host);
            self.hosts[host].powered = !self.hosts[host].removed;
            self.start(host);
        }
        if let Some(newest) = self.pushed.last().map(|commit| commit.id.clone()) {
            for host in 0..self.hosts.len() {
                self.after(500, Event::Fetch(host, newest.clone()));
            }
        }
    }
}
