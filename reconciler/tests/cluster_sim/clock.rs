//! Clocks. The world's time never jumps; each host's own wall clock does.

use jiff::{SignedDuration, Timestamp};

/// Milliseconds since the world began: what a monotonic clock shows.
pub(crate) type Time = u64;

/// The world's time as engines and probers of the simulation take it.
pub(crate) fn stamp(at: Time) -> Timestamp {
    Timestamp::UNIX_EPOCH
        + SignedDuration::from_secs(1_000_000)
        + SignedDuration::from_millis(at as i64)
}

/// A wall clock: by how much it is off, and since when.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    jumps: Vec<(Timestamp, SignedDuration)>,
}

impl Clock {
    pub(crate) fn new(off_by: SignedDuration) -> Self {
        Self {
            jumps: vec![(Timestamp::UNIX_EPOCH, off_by)],
        }
    }

    /// What this clock showed then.
    pub(crate) fn wall(&self, at: Timestamp) -> Timestamp {
        let off = self
            .jumps
            .iter()
            .rfind(|(since, _)| *since <= at)
            .map(|(_, off)| *off);
        at + off.unwrap_or_default()
    }

    pub(crate) fn jump(&mut self, now: Timestamp, by: SignedDuration) {
        let off = self.jumps.last().map(|(_, off)| *off).unwrap_or_default();
        self.jumps.push((now, off + by));
    }
}
