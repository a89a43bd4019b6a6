//! What goes wrong, and what people do.

use jiff::SignedDuration;
use reconciler::name::{ContainerId, Installation, NodeName};

use crate::{
    clock::{Time, stamp},
    host::Host,
    view::View,
    world::{Event, World},
};

/// Something that happens to the world. Times are for how long.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A commit is pushed; what it says is decided then.
    Push { good: bool },
    /// A daemon is killed; `halfway` its steps have happened and nobody knows.
    Kill {
        host: Whom,
        halfway: bool,
        down: Time,
    },
    /// A daemon ends in order and says when it is back.
    Restart { host: Whom, down: Time },
    /// A daemon starts.
    Start(usize),
    /// A daemon is stopped by a signal.
    Pause { host: Whom, long: Time },
    /// And goes on.
    Resume(usize),
    /// A clock is set.
    Jump { host: Whom, seconds: i64 },
    /// A host does not reach the store, the other hosts, or neither.
    Cut {
        host: Whom,
        store: bool,
        peers: bool,
        long: Time,
    },
    /// And reaches them again.
    Join(usize),
    /// The store has no quorum.
    StoreDown(Time),
    /// And has it again.
    StoreUp,
    /// The store forgets its history.
    Compact,
    /// Somebody deletes everything under the prefix.
    Wipe,
    /// Somebody makes a backup of the store.
    Backup,
    /// Somebody stops the store and puts a backup in its place.
    Restore(Time),
    /// And starts it again.
    Restored { long: bool },
    /// Somebody says that a host's copy is to be believed.
    Adopt,
    /// An engine hangs.
    EngineDown { host: Whom, long: Time },
    /// And answers again.
    EngineUp(usize),
    /// A host loses power; its containers may be lost with it.
    PowerOff { host: Whom, lost: bool, long: Time },
    /// And has it again.
    PowerOn(usize),
    /// Somebody kills a container.
    KillContainer { host: Whom },
    /// A registry does not answer for one host.
    Registry { host: Whom, long: Time },
    /// And does again.
    RegistryUp(usize),
    /// The forge does not answer one host.
    Forge { host: Whom, long: Time },
    /// And does again.
    ForgeUp(usize),
    /// A new node joins.
    NewNode,
    /// A node dies for good and somebody gives it up by hand; it may be installed anew later.
    GiveUp { host: Whom, again: Option<Time> },
    /// A host that was given up is installed anew, under its old name.
    Reinstall(usize),
}

/// Which host.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whom {
    Number(usize),
    /// Whoever leads.
    Leader,
}

impl World {
    fn whom(&self, whom: Whom) -> usize {
        match (whom, self.store.contents.leader) {
            (Whom::Leader, Some((leader, _))) => leader,
            (Whom::Leader, None) => 0,
            (Whom::Number(number), _) => number % self.hosts.len(),
        }
    }

    fn name(&self, host: usize) -> NodeName {
        self.hosts[host].name.clone()
    }

    pub(crate) fn strike(&mut self, fault: Fault) {
        if self.calm {
            return;
        }
        self.note(|| format!("--- {fault:?}"));
        match fault {
            Fault::Push { good } => self.push_something(good),
            Fault::Kill {
                host,
                halfway,
                down,
            } => {
                let host = self.whom(host);
                self.kill(host, halfway);
                self.after(down, Event::Fault(Fault::Start(host)));
            }
            Fault::Restart { host, down } => {
                let host = self.whom(host);
                self.leave(host, down * 2);
                self.kill(host, false);
                self.after(down, Event::Fault(Fault::Start(host)));
            }
            Fault::Start(host) => self.start(host),
            Fault::Pause { host, long } => {
                let host = self.whom(host);
                if self.hosts[host].is_awake() {
                    self.hosts[host].paused = Some(Vec::new());
                    self.after(long, Event::Fault(Fault::Resume(host)));
                }
            }
            Fault::Resume(host) => self.resume(host),
            Fault::Jump { host, seconds } => {
                let (host, now) = (self.whom(host), stamp(self.now));
                self.hosts[host]
                    .clock
                    .jump(now, SignedDuration::from_secs(seconds));
                // It notices by its other clock.
                if let Some(leading) = self.hosts[host]
                    .daemon
                    .as_mut()
                    .and_then(|one| one.leading.as_mut())
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
                let host = self.whom(host);
                let one = &mut self.hosts[host];
                one.reaches_store &= !store;
                one.reaches_peers &= !peers;
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
                let host = self.whom(host);
                self.hosts[host].engine.engine_down = true;
                self.after(long, Event::Fault(Fault::EngineUp(host)));
            }
            Fault::EngineUp(host) => self.engine_up(host),
            Fault::PowerOff { host, lost, long } => {
                let host = self.whom(host);
                self.power_off(host, lost);
                self.after(long, Event::Fault(Fault::PowerOn(host)));
            }
            Fault::PowerOn(host) => {
                self.hosts[host].powered = !self.hosts[host].removed;
                self.start(host);
            }
            Fault::KillContainer { host } => self.kill_container(host),
            Fault::Registry { host, long } => {
                let host = self.whom(host);
                self.hosts[host].registry.reachable = false;
                self.after(long, Event::Fault(Fault::RegistryUp(host)));
            }
            Fault::Forge { host, long } => {
                let host = self.whom(host);
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
                let host = self.whom(host);
                let left = self.hosts.iter().filter(|host| !host.removed).count();
                if left > 3 && !self.hosts[host].removed {
                    self.power_off(host, true);
                    self.hosts[host].removed = true;
                    let name = self.name(host);
                    self.given_up.push(name);
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
        self.given_up.retain(|given_up| *given_up != name);
        let old = &mut self.hosts[host];
        let mut new = Host::new(host, SignedDuration::ZERO);
        new.facts.installation = Installation::new(format!("{}-again", old.facts.installation));
        new.registry = std::mem::take(&mut old.registry);
        (new.generation, new.reports) = (old.generation, old.reports);
        new.view = View::new();
        *old = new;
        self.has_forgotten(host);
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
        self.written();
    }

    fn resume(&mut self, host: usize) {
        let waiting = self.hosts[host].paused.take().unwrap_or_default();
        for event in waiting {
            self.after(0, event);
        }
    }

    fn join(&mut self, host: usize) {
        let one = &mut self.hosts[host];
        one.reaches_store = true;
        one.reaches_peers = true;
        self.watch_after(host, 10);
    }

    fn store_up(&mut self) {
        if !self.store.up {
            self.store.come_back(self.now);
            self.store_answers();
        }
    }

    /// Hosts hear of it one after another.
    pub(crate) fn store_answers(&mut self) {
        for host in 0..self.hosts.len() {
            let wait = self.random.within(1, 1_000);
            self.watch_after(host, wait);
        }
        self.mind_leases();
    }

    fn engine_up(&mut self, host: usize) {
        self.hosts[host].engine.engine_down = false;
        self.look_after(host, 100);
    }

    fn power_off(&mut self, host: usize, lost: bool) {
        self.kill(host, false);
        let now = stamp(self.now);
        let one = &mut self.hosts[host];
        one.powered = false;
        one.engine.tick(now);
        one.engine.end_all(now);
        if lost {
            let all: Vec<ContainerId> = one.engine.containers.keys().cloned().collect();
            for container in all {
                one.engine.remove(&container);
            }
        }
    }

    fn kill_container(&mut self, host: Whom) {
        let host = self.whom(host);
        let index = self.random.index(64);
        let now = stamp(self.now);
        let one = &mut self.hosts[host];
        let alive: Vec<ContainerId> = one
            .engine
            .containers
            .iter()
            .filter(|(_, container)| container.state.is_alive())
            .map(|(id, _)| id.clone())
            .collect();
        if let Some(id) = alive.get(index % alive.len().max(1)) {
            one.engine.end(id, 137, now);
            self.look_after(host, 5);
        }
    }

    fn forge_up(&mut self, host: usize) {
        self.hosts[host].reaches_forge = true;
        if let Some(newest) = self.pushed.last().map(|commit| commit.id.clone()) {
            self.after(500, Event::Fetch(host, newest));
        }
    }

    /// Everything outside works again; who was gone comes back.
    pub(crate) fn heal(&mut self) {
        self.note(|| "--- everything is healed".to_owned());
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
