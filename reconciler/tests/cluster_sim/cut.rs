//! Where a daemon can be cut in half: between what it does and what it knows of it. Each such point
//! of a tale is counted, and a daemon that is told to is killed at one of them.

use crate::{
    clock::Time,
    faults::Fault,
    world::{Event, World},
};

/// The points of a tale.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cuts {
    /// Whether they are counted now.
    pub(crate) counted: bool,
    /// How many there were so far.
    pub(crate) passed: u64,
    /// At which of them a daemon is killed, and for how long it is down.
    pub(crate) at: Option<(u64, Time)>,
    /// What was cut there.
    pub(crate) done: Option<String>,
}

impl World {
    /// A point; true if the daemon is killed here, and then the rest of what it was at is not done.
    pub(crate) fn is_cut(&mut self, host: usize, what: impl FnOnce() -> String) -> bool {
        if !self.cuts.counted || self.calm || self.hosts[host].daemon.is_none() {
            return false;
        }
        self.cuts.passed += 1;
        let Some((_, down)) = self.cuts.at.filter(|(at, _)| *at == self.cuts.passed) else {
            return false;
        };
        let what = format!("{} {}", self.hosts[host].name, what());
        self.note(|| format!("--- cut: {what}"));
        self.cuts.done = Some(what);
        self.kill(host, false);
        self.after(down, Event::Fault(Fault::Start(host)));
        true
    }
}
