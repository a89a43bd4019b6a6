//! A burst of webhooks causes one nudge at once and at most one nudge a second after that.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// The shortest time between two nudges.
const APART: Duration = Duration::from_secs(1);

/// Nudges the follower, so that the next fetch comes at once.
pub(super) struct Nudger {
    notify: Arc<Notify>,
    /// The time of the last nudge, in the past or the future.
    last: Mutex<Option<Instant>>,
}

impl Nudger {
    pub(super) fn new(notify: Arc<Notify>) -> Self {
        Self {
            notify,
            last: Mutex::new(None),
        }
    }

    /// Nudges now, or as soon as the last nudge is a second old. No push is lost: webhooks in
    /// between are covered by the later nudge.
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
