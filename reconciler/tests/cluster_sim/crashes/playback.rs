//! Runs a scenario, from its beginning or from a snapshot.

use jiff::SignedDuration;

use super::scenario::Scenario;
use crate::{
    clock::{Clock, Time},
    store::Sabotage,
    world::World,
};

/// Longer than any act takes, also with a crash.
const ACT_LIMIT: Time = 600_000;
/// How often the condition of an act is checked.
const CHECK_INTERVAL: Time = 250;

/// A scenario that runs. A clone is a snapshot.
#[derive(Clone)]
pub(super) struct Playback {
    pub(super) world: World,
    /// The index of the current act.
    act: usize,
    /// When the current act began.
    since: Time,
}

impl Playback {
    /// Starts a scenario with three hosts.
    pub(super) fn new(scenario: &Scenario, sabotage: Sabotage, verbose: bool) -> Self {
        let mut world = World::new(7, sabotage);
        world.transcript.verbose = verbose;
        world.changes_per_write = Some(1);
        for _ in 0..3 {
            let host = world.add_host();
            world.hosts[host].clock = Clock::new(SignedDuration::ZERO);
            world.start(host);
        }
        (scenario.acts[0].happens)(&mut world);
        Self {
            world,
            act: 0,
            since: 0,
        }
    }

    /// Runs the scenario a little further. Returns false when the last act has ended.
    pub(super) fn advance(&mut self, scenario: &Scenario) -> bool {
        let world = &mut self.world;
        if world.violation.is_some() {
            return false;
        }
        let Some(act) = scenario.acts.get(self.act) else {
            return false;
        };
        if (act.until)(world) {
            self.act += 1;
            self.since = world.now;
            let Some(act) = scenario.acts.get(self.act) else {
                return false;
            };
            world.crash_points.counted = true;
            (act.happens)(world);
        }
        let (act, waits) = (self.act, world.now - self.since);
        world.require(waits < ACT_LIMIT, || format!("act {act} never ends"));
        world.run_until(world.now + CHECK_INTERVAL);
        true
    }

    /// Runs the rest of the scenario, and checks the state at its end.
    pub(super) fn finish(mut self, scenario: &Scenario) -> World {
        while self.advance(scenario) {}
        let mut world = self.world;
        world.crash_points.counted = false;
        world.end_faults_and_wait();
        if let Some(wanted) = world
            .pushed
            .iter()
            .rev()
            .nth(scenario.commits_after_last_healthy)
            .map(|commit| commit.id.clone())
        {
            world.expect_settled_on(&wanted);
        }
        world
    }
}
