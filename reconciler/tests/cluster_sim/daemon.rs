//! What a host's daemon does: it runs cycles, and renews its leases.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reconciler::{
    foreign::ForeignText,
    node::{NodeInput, node},
    observed::LaneFailure,
    plan::{LaneKey, Next, Step},
    pod::files::DnsFacts,
    state::NotReady,
};

use crate::{
    clock::{Time, stamp},
    engine::{Engine, Record},
    host::{Leading, Running},
    store::{LEADER_LEASE, NODE_LEASE, Presence, Sabotage},
    world::{Event, World},
};

/// A duration in milliseconds, rounded up, so that nothing happens too early.
pub(crate) fn milliseconds(wait: Duration) -> Time {
    Time::try_from(wait.as_micros().div_ceil(1000))
        .unwrap_or(Time::MAX)
        .max(1)
}

impl World {
    /// One cycle: observe, plan, record, act, report.
    pub(crate) fn cycle(&mut self, index: usize) {
        let now = self.now;
        self.cycles += 1;
        let host = &mut self.hosts[index];
        let Some(daemon) = &mut host.daemon else {
            return;
        };
        if daemon.cycle_at.is_none_or(|at| at > now) {
            return;
        }
        daemon.cycle_at = None;
        if host.view.marker.is_none() {
            // A host that has not joined yet runs nothing.
            return;
        }
        self.check_trust(index);
        let host = &mut self.hosts[index];
        host.engine.tick(stamp(now));
        if host.engine.engine_down {
            // An engine that does not answer gives no information about containers: there is
            // nothing to plan from.
            self.cycle_after(index, 5_000);
            return;
        }
        let observed = host.observed(now);
        let dns = DnsFacts {
            cluster: Some(host.network.dns),
            zone: "cluster.local".to_owned(),
            ..DnsFacts::default()
        };
        let skips_verification = self.store.sabotage == Sabotage::SkipsVerification;
        let everything: BTreeMap<_, _> = if skips_verification {
            self.pushed
                .iter()
                .map(|commit| (commit.id.clone(), Arc::clone(commit)))
                .collect()
        } else {
            BTreeMap::new()
        };
        let plan = node(&NodeInput {
            now: host.wall(now),
            node: &host.name,
            facts: &host.facts,
            settings: &self.settings,
            network: &host.network,
            dns: &dns,
            drain: Duration::from_secs(2),
            state: &host.view.trusted().state,
            commits: if skips_verification {
                &everything
            } else {
                &host.verified
            },
            kept: &BTreeMap::new(),
            barred: &std::collections::BTreeSet::new(),
            observed: &observed,
            memory: &host.memory,
            pins: &host.pins,
            peers: &host.view.trusted().facts,
            reports: &host.view.trusted().reports,
        });
        host.memory = plan.memory;
        for (commit, image, pin) in plan.inherited {
            host.pins.entry(commit).or_default().insert(image, pin);
        }
        let has_lanes = !plan.lanes.is_empty();
        let tasks = host.probe_tasks(plan.probes);
        if has_lanes
            && self.crashes_here(index, || {
                "has planned and recorded, and has started no lane".to_owned()
            })
        {
            return;
        }
        let host = &mut self.hosts[index];
        let (name, generation) = (host.name.clone(), host.generation);
        let Some(daemon) = &mut host.daemon else {
            return;
        };
        daemon.prober.replace(tasks, stamp(now));
        for key in &plan.cancel {
            daemon.lanes.remove(key);
        }
        let cancelled = !plan.cancel.is_empty();
        let mut started = Vec::new();
        for lane in plan.lanes {
            started.push((
                lane.key.clone(),
                milliseconds(host.engine.duration(&lane.steps[0])),
            ));
            self.transcript.note(now, format!("{name}: {:?}", lane.why));
            daemon
                .lanes
                .insert(lane.key.clone(), Running { lane, at: 0 });
        }
        if let Some(services) = plan.services {
            daemon.services = Some(services);
        }
        let unchanged = daemon.report.as_deref() == Some(&plan.report);
        if !unchanged {
            daemon.report = Some(Arc::new(plan.report));
        }
        let probes = daemon.prober.next(&host.engine, stamp(now));
        let ends = host.engine.next_end();
        for (key, takes) in started {
            let takes = takes + self.random.within(0, takes / 2 + 2);
            // Each lane draws a random delay, so that lanes of different pods overtake each other.
            self.after(takes, Event::Step(index, generation, key));
        }
        if !unchanged {
            self.after(1, Event::Send(index, generation));
        }
        if cancelled {
            // A cycle follows the end of each lane, also of a cancelled one.
            self.cycle_after(index, 1);
        }
        if let Next::After(wait) = plan.next {
            self.cycle_after(index, milliseconds(wait));
        }
        for at in [probes, ends].into_iter().flatten() {
            let wait = Duration::try_from(at.duration_since(stamp(now))).unwrap_or_default();
            self.cycle_after(index, milliseconds(wait));
        }
    }

    /// A step of a lane has taken its time, and has its effect now.
    pub(crate) fn step(&mut self, index: usize, key: &LaneKey) {
        let now = stamp(self.now);
        self.hosts[index].engine.tick(now);
        let Some(running) = self.hosts[index]
            .daemon
            .as_mut()
            .and_then(|daemon| daemon.lanes.remove(key))
        else {
            return;
        };
        let Running { lane, mut at } = running;
        let step = lane.steps[at].clone();
        if self.crashes_here(index, || format!("is about to {}", describe_step(&step))) {
            return;
        }
        self.before_effect(index, &lane, &step);
        if Engine::has_middle(&step)
            && self.crashes_here(index, || {
                format!("is in the middle of {}", describe_step(&step))
            })
        {
            return self.hosts[index].engine.begin(&step, now);
        }
        let host = &mut self.hosts[index];
        let result = host.engine.apply(&step, &host.registry, now);
        self.after_effect(index, &step);
        if self.crashes_here(index, || {
            format!("has result and not recorded {}", describe_step(&step))
        }) {
            return;
        }
        let host = &mut self.hosts[index];
        let (wall, generation, name) = (host.wall(self.now), host.generation, host.name.clone());
        let Some(daemon) = &mut host.daemon else {
            return;
        };
        match result {
            Ok(record) => {
                match record {
                    Record::Nothing => {}
                    Record::Pin(commit, image, pin) => {
                        host.pins.entry(commit).or_default().insert(image, pin);
                    }
                    Record::Hooked(container) => {
                        host.hooked.insert(container);
                    }
                }
                at += 1;
                if let Some(next) = lane.steps.get(at) {
                    let takes = milliseconds(host.engine.duration(next));
                    daemon.lanes.insert(key.clone(), Running { lane, at });
                    self.after(takes, Event::Step(index, generation, key.clone()));
                    return;
                }
                daemon.failures.remove(key);
            }
            Err(fault) => {
                self.transcript
                    .note(self.now, format!("{name}: failed {key:?}: {fault}"));
                let before = daemon.failures.get(key);
                let count = before.map_or(0, |failure| failure.count) + 1;
                let since = before.map_or(wall, |failure| failure.since);
                let container = match &step {
                    Step::StartContainer(spec) => Some(spec.name.clone()),
                    _ => None,
                };
                let removes = lane.why.is_removal();
                daemon.failures.insert(
                    key.clone(),
                    LaneFailure {
                        fault,
                        container,
                        since,
                        at: wall,
                        count,
                        removes,
                    },
                );
            }
        }
        self.cycle_after(index, 1);
    }

    /// Renews the node's lease and the leader's; where there is no leader, the host is a candidate.
    pub(crate) fn keep(&mut self, index: usize) {
        let now = self.now;
        let connected = self.is_connected(index);
        if connected {
            self.become_member(index);
        }
        let before = self.store.revision;
        if connected {
            self.publish_presence(index);
        }
        let host = &mut self.hosts[index];
        let (name, generation) = (host.name.clone(), host.generation);
        if connected {
            // No host leads by a store that it, or another live host, does not trust.
            let may_lead =
                host.view.trusts() && !host.view.contents.is_distrusted() && !host.removed;
            let Some(daemon) = &mut host.daemon else {
                return;
            };
            let (mut campaigns, mut elected) = (false, false);
            match &mut daemon.leading {
                Some(leading) if self.store.keep_leader(index, leading.epoch, now) => {
                    leading.valid_until = now + LEADER_LEASE - 300;
                }
                Some(_) => {
                    daemon.leading = None;
                    self.transcript
                        .note(now, format!("{name} is not the leader any more"));
                }
                None => campaigns = may_lead,
            }
            if campaigns && let Some(epoch) = self.store.campaign(index, now) {
                daemon.leading = Some(Leading {
                    epoch,
                    since: now,
                    valid_until: now + LEADER_LEASE - 300,
                    answered_since: now,
                    must_relist: true,
                    silent: BTreeMap::new(),
                    lost: BTreeMap::new(),
                    pending: std::collections::VecDeque::new(),
                    excused: false,
                    decided_on: None,
                });
                self.transcript
                    .note(now, format!("{name} leads, epoch {epoch}"));
                self.lead_after(index, 5);
                elected = true;
            }
            if self.store.revision != before {
                self.leases_changed();
                self.after_write();
            }
            self.schedule_expiry();
            self.watch_after(index, 5);
            if elected && self.crashes_here(index, || "is elected".to_owned()) {
                return;
            }
        } else if let Some(daemon) = &mut host.daemon {
            daemon.connected_since = None;
            if let Some(leading) = &mut daemon.leading {
                leading.answered_since = now;
                if now >= leading.valid_until {
                    self.lead_after(index, 1);
                }
            }
        }
        let settled = self.faults_over
            && self.store.contents.leader.is_some()
            && self.hosts.iter().all(|host| {
                let present = self.store.contents.present.get(&host.name);
                let has_joined = host.view.marker.is_some();
                host.daemon.is_none() || has_joined && present == Some(&Presence::default())
            });
        if !settled {
            let wait = 900 + self.random.within(0, 200);
            self.after(wait, Event::Keep(index, generation));
        }
    }
}

impl World {
    /// Publishes that a host is alive, its facts, and whether it trusts the store.
    pub(crate) fn publish_presence(&mut self, index: usize) {
        let host = &self.hosts[index];
        let view = &host.view;
        let joined = view.marker.is_some();
        if joined && view.may_publish() && view.contents.facts.get(&host.name) != Some(&host.facts)
        {
            self.store.facts(&host.facts);
        }
        let distrusts = joined && !view.trusts();
        let unready = match (host.engine.engine_down, distrusts) {
            (true, _) => Some("its engine does not answer"),
            (false, true) => Some("it does not trust the store"),
            (false, false) => None,
        };
        let unready = unready.map(|why| NotReady::Reported(ForeignText::new(why)));
        self.store
            .keep_node(&host.name, Presence { unready, distrusts }, self.now);
    }

    /// A host that was never a member joins when it has reached the store for a while and no other
    /// host distrusts the store.
    fn become_member(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        let Some(daemon) = &mut host.daemon else {
            return;
        };
        let stable = now - *daemon.connected_since.get_or_insert(now) >= NODE_LEASE;
        let view = &mut host.view;
        let good = view.reads(&self.store)
            && view.contents.identity.is_some()
            && !view.contents.is_distrusted();
        if view.marker.is_none() && stable && good {
            view.join(&self.store);
            let name = host.name.clone();
            self.note(|| format!("{name} joins"));
            self.cycle_after(index, 1);
        }
    }
}

/// A short description of a step.
fn describe_step(step: &Step) -> String {
    let text = format!("{step:?}");
    let word = text
        .split(|letter: char| !letter.is_alphanumeric())
        .next()
        .unwrap_or_default();
    match step {
        Step::StartSandbox(spec) => format!("{word} of {}", spec.identity.pod),
        Step::StartContainer(spec) => format!("{word} of {}", spec.identity.pod),
        Step::PullImage { image, .. } => format!("{word} {image}"),
        _ => word.to_owned(),
    }
}
