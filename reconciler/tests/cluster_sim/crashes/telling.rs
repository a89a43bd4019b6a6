//! Telling a tale, from its beginning or from somewhere in it.

use jiff::SignedDuration;

use super::tale::Tale;
use crate::{
    clock::{Clock, Time},
    store::Sabotage,
    world::World,
};

/// Longer than anything that is waited for takes, with a crash in it.
const PATIENCE: Time = 600_000;
/// How often it is looked whether it has come.
const PACE: Time = 250;

/// A tale under way.
#[derive(Clone)]
pub(super) struct Telling {
    pub(super) world: World,
    /// The act that is on.
    act: usize,
    /// When it began.
    since: Time,
}

impl Telling {
    /// The beginning: three hosts.
    pub(super) fn new(tale: &Tale, sabotage: Sabotage, aloud: bool) -> Self {
        let mut world = World::new(7, sabotage);
        world.transcript.aloud = aloud;
        world.part = Some(1);
        for _ in 0..3 {
            let host = world.add_host();
            world.hosts[host].clock = Clock::new(SignedDuration::ZERO);
            world.start(host);
        }
        (tale.acts[0].happens)(&mut world);
        Self {
            world,
            act: 0,
            since: 0,
        }
    }

    /// A little more of it; false once the last act is over.
    pub(super) fn go_on(&mut self, tale: &Tale) -> bool {
        let world = &mut self.world;
        let Some(act) = tale.acts.get(self.act).filter(|_| world.wrong.is_none()) else {
            return false;
        };
        if (act.until)(world) {
            self.act += 1;
            self.since = world.now;
            let Some(act) = tale.acts.get(self.act) else {
                return false;
            };
            world.cuts.counted = true;
            (act.happens)(world);
        }
        let (act, waits) = (self.act, world.now - self.since);
        world.require(waits < PATIENCE, || format!("act {act} never ends"));
        world.run_until(world.now + PACE);
        true
    }

    /// The rest of it, to its end.
    pub(super) fn end(mut self, tale: &Tale) -> World {
        while self.go_on(tale) {}
        let mut world = self.world;
        world.cuts.counted = false;
        world.come_to_rest();
        if let Some(last) = world
            .pushed
            .iter()
            .rev()
            .nth(tale.last)
            .map(|commit| commit.id.clone())
        {
            world.settle_on(&last);
        }
        world
    }
}
