//! Clocks of the simulation. Virtual time only moves forward; the wall clock of a host can be wrong
//! and can jump.

use jiff::{SignedDuration, Timestamp};

/// Milliseconds since the simulation began, as a monotonic clock shows them.
pub(crate) type Time = u64;

/// Virtual time as a timestamp, for the simulated engines and probers.
pub(crate) fn stamp(at: Time) -> Timestamp {
    Timestamp::UNIX_EPOCH
        + SignedDuration::from_secs(1_000_000)
        + SignedDuration::from_millis(at as i64)
}

/// A wall clock: by how much the clock is wrong, and since when.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    jumps: Vec<(Timestamp, SignedDuration)>,
}

impl Clock {
    pub(crate) fn new(offset: SignedDuration) -> Self {
        Self {
            jumps: vec![(Timestamp::UNIX_EPOCH, offset)],
        }
    }

    /// The time that this clock showed at a point of virtual time.
    pub(crate) fn wall(&self, at: Timestamp) -> Timestamp {
        let offset = self
            .jumps
            .iter()
            .rfind(|(since, _)| *since <= at)
            .map(|(_, offset)| *offset);
        at + offset.unwrap_or_default()
    }

    pub(crate) fn jump(&mut self, now: Timestamp, by: SignedDuration) {
        let offset = self
            .jumps
            .last()
            .map(|(_, offset)| *offset)
            .unwrap_or_default();
        self.jumps.push((now, offset + by));
    }
}
