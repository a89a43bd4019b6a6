//! The points at which a daemon can crash: between an effect and the daemon's record of the effect.
//! The points of a scenario are counted, and a daemon is killed at the chosen point.

use crate::{
    clock::Time,
    faults::Fault,
    world::{Event, World},
};

/// The crash points of a scenario.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrashPoints {
    /// Whether crash points are counted now.
    pub(crate) counted: bool,
    /// How many crash points were passed so far.
    pub(crate) passed: u64,
    /// The number of the point at which a daemon is killed, and how long the daemon is down.
    pub(crate) at: Option<(u64, Time)>,
    /// What the daemon was doing when it was killed.
    pub(crate) reached: Option<String>,
}

impl World {
    /// Counts a crash point of a host's daemon. Returns true if the daemon is killed here: the
    /// caller must then do nothing more for this daemon.
    pub(crate) fn crashes_here(&mut self, host: usize, activity: impl FnOnce() -> String) -> bool {
        if !self.crash_points.counted || self.faults_over || self.hosts[host].daemon.is_none() {
            return false;
        }
        self.crash_points.passed += 1;
        let Some((_, down)) = self
            .crash_points
            .at
            .filter(|(at, _)| *at == self.crash_points.passed)
        else {
            return false;
        };
        let crashed = format!("{} {}", self.hosts[host].name, activity());
        self.note(|| format!("--- crash: {crashed}"));
        self.crash_points.reached = Some(crashed);
        self.kill(host, false);
        self.after(down, Event::Fault(Fault::Start(host)));
        true
    }
}
