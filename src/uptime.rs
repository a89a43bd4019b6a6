//! Time since the host booted, which orders moments: setting the clock does not change it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment in nanoseconds of `CLOCK_BOOTTIME`: the daemon and the commands on one host share this
/// clock, which continues while the host sleeps and never goes back. A moment has no meaning on
/// another host or after a reboot, so it is never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Uptime(u64);

impl Uptime {
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        // Neither part is negative, and the sum fits for five hundred years.
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// The time since this moment.
    pub(crate) fn elapsed(self) -> Duration {
        Duration::from_nanos(Self::now().0.saturating_sub(self.0))
    }

    /// The moment that lies this time before `self`.
    #[cfg(test)]
    pub(crate) fn before(self, time: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_in_order_and_are_read_back() {
        let first = Uptime::now();
        let second = Uptime::now();
        assert!(first <= second && first.before(Duration::from_nanos(1)) < second);
        let text = serde_json::to_string(&second).unwrap_or_default();
        assert_eq!(serde_json::from_str::<Uptime>(&text).ok(), Some(second));
        assert!(first.before(Duration::from_secs(5)).elapsed() >= Duration::from_secs(5));
    }
}
