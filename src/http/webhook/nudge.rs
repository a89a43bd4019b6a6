//! Bursts of hooks become one nudge at once and at most one a second after it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// The least time between two nudges.
const APART: Duration = Duration::from_secs(1);

/// Tells the control loop to look again.
pub(super) struct Nudger {
    notify: Arc<Notify>,
    /// When the last nudge was given, or will be given.
    last: Mutex<Option<Instant>>,
}

impl Nudger {
    /// Nudges through this.
    pub(super) fn new(notify: Arc<Notify>) -> Self {
        Self {
            notify,
            last: Mutex::new(None),
        }
    }

    /// Nudges now, or as soon as the last nudge is a second old. No push is lost: whatever came in
    /// the meantime is covered by the later nudge.
    pub(super) fn nudge(&self) {
        let now = Instant::now();
        let mut last = self.last.lock();
        match *last {
            Some(at) if at > now => {}
            Some(at) if at + APART > now => {
                let then = at + APART;
                *last = Some(then);
                let notify = self.notify.clone();
                tokio::spawn(async move {
                    tokio::time::sleep_until(then).await;
                    notify.notify_one();
                });
            }
            _ => {
                *last = Some(now);
                self.notify.notify_one();
            }
        }
    }
}
