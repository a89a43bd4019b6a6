//! Gives up leadership and takes no new pods while the control loop hangs, for example on a disk
//! that does not answer: the leases of such a host are still renewed, by threads of their own. And
//! reports to systemd that the loop runs.

mod keepalive;

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

pub(crate) use self::keepalive::Keepalive;
use crate::store::Presence;

/// A cycle that takes longer counts as hanging. The longest intended wait in a cycle is for a slow
/// store.
const HANGS: Duration = Duration::from_secs(10);
/// The interval of the checks.
const PACE: Duration = Duration::from_secs(1);

/// Observes the control loop, which calls it.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    /// When the cycle under way began.
    began: Arc<Mutex<Option<Instant>>>,
    /// The reports to systemd; `None` where it waits for none.
    keepalive: Option<Keepalive>,
}

impl Watchdog {
    /// Starts to watch the loop, on a thread of its own, since the runtime may hang too; the thread
    /// ends with the watchdog.
    pub(crate) fn start(presence: Option<Presence>) -> std::io::Result<Self> {
        let watchdog = Self::reporting(Keepalive::requested());
        if let Some(presence) = presence {
            let began = Arc::downgrade(&watchdog.began);
            std::thread::Builder::new()
                .name("watchdog".to_owned())
                .spawn(move || watch(&presence, &began))?;
        }
        Ok(watchdog)
    }

    /// Only reports.
    pub(crate) fn reporting(keepalive: Option<Keepalive>) -> Self {
        Self {
            began: Arc::default(),
            keepalive,
        }
    }

    /// Records that a cycle begins.
    pub(crate) fn cycle_begins(&self) {
        *self.began.lock() = Some(Instant::now());
    }

    /// Records that the cycle has ended, and that the loop waits for an event.
    pub(crate) fn waiting(&mut self) {
        *self.began.lock() = None;
        self.report();
    }

    /// When the loop must report next, also without an event; `None` if it need not.
    pub(crate) fn report_due(&self) -> Option<tokio::time::Instant> {
        self.keepalive.as_ref().map(Keepalive::due)
    }

    /// Reports to systemd that the loop runs, if a report is due.
    pub(crate) fn report(&mut self) {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.report();
        }
    }
}

fn watch(presence: &Presence, began: &Weak<Mutex<Option<Instant>>>) {
    let mut reported = false;
    while let Some(began) = began.upgrade() {
        let hangs = began.lock().is_some_and(|began| began.elapsed() >= HANGS);
        drop(began);
        if hangs && !reported {
            tracing::error!(
                "a cycle takes longer than {} s: other hosts lead and take new pods meanwhile; check this host's disk",
                HANGS.as_secs()
            );
        }
        if hangs || reported {
            presence.hangs(hangs);
        }
        reported = hangs;
        std::thread::sleep(PACE);
    }
}
