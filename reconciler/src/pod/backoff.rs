//! Restart back-off: the first restart at once, then after 10 s, doubled each time up to 300 s;
//! reset after 10 minutes of running.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::time::backoff;

/// The delay before the second restart.
const FIRST: Duration = Duration::from_secs(10);
/// The limit of the delay, as in the kubelet.
const LONGEST: Duration = Duration::from_secs(300);
/// After a run of this time the next restart counts as the first, as in the kubelet.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// The back-off of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Number of consecutive exits that came too early.
    pub level: u32,
    /// The last attempt whose exit was counted, plus one; 0 before the first.
    pub counted: u32,
}

impl Backoff {
    /// Counts the exit of an attempt. An exit is counted once, and not after the exit of a later
    /// attempt was counted.
    #[must_use]
    pub fn count(self, attempt: u32, started: Timestamp, finished: Timestamp) -> Self {
        if self.counted > attempt {
            return self;
        }
        let ran = Duration::try_from(finished.duration_since(started)).unwrap_or_default();
        let level = if ran >= FORGIVEN_AFTER {
            1
        } else {
            self.level.saturating_add(1)
        };
        Self {
            level,
            counted: attempt + 1,
        }
    }

    /// Time between the container's exit and its next start.
    pub fn delay(self) -> Duration {
        match self.level {
            0 | 1 => Duration::ZERO,
            level => backoff(FIRST, level - 2, LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(seconds)
    }

    #[test]
    fn doubles_from_ten_seconds_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut delays = Vec::new();
        for attempt in 0..8 {
            backoff = backoff.count(attempt, at(0), at(1));
            delays.push(backoff.delay().as_secs());
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn counts_an_end_once_and_forgives_a_long_run() {
        let backoff = Backoff::default()
            .count(0, at(0), at(1))
            .count(0, at(0), at(1))
            .count(1, at(0), at(1));
        assert_eq!(backoff.level, 2);
        assert_eq!(backoff.count(2, at(0), at(600)).delay(), Duration::ZERO);
    }
}
