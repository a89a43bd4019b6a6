//! The reports that systemd's watchdog (`WatchdogSec=`) waits for. The control loop itself sends
//! them: a timer beside the loop would report a daemon that does nothing any more.

use std::time::Duration;

use tokio::time::Instant;

/// Reports to systemd that the control loop runs.
#[derive(Clone, Debug)]
pub(crate) struct Keepalive {
    pace: Duration,
    due: Instant,
    report: fn(),
}

impl Keepalive {
    /// Reports at this pace, first when a cycle has ended.
    pub(crate) fn new(pace: Duration, report: fn()) -> Self {
        Self {
            pace,
            due: Instant::now(),
            report,
        }
    }

    /// What systemd has requested of this process; `None` without a watchdog.
    pub(super) fn requested() -> Option<Self> {
        // Half of the limit, as sd_watchdog_enabled(3) advises.
        let pace = sd_notify::watchdog_enabled()? / 2;
        let report = || {
            // systemd may have gone: a daemon does not end for that.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        };
        Some(Self::new(pace, report))
    }

    /// When the next report is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Sends the report if it is due.
    pub(super) fn report(&mut self) {
        let now = Instant::now();
        if now >= self.due {
            self.due = now + self.pace;
            (self.report)();
        }
    }
}
