//! Gives up leadership and takes no new pods while the control loop hangs, for example on a disk
//! that does not answer: the leases of such a host are still renewed, by threads of their own.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::store::Presence;

/// A cycle that takes longer counts as hanging. The longest intended wait in a cycle is for a slow
/// store.
const HANGS: Duration = Duration::from_secs(10);
const PACE: Duration = Duration::from_secs(1);

/// When the cycle under way began.
#[derive(Debug, Default)]
pub(crate) struct Watchdog(Arc<Mutex<Option<Instant>>>);

impl Watchdog {
    /// Starts to watch the loop, on a thread of its own, since the runtime may hang too; the thread
    /// ends with the watchdog.
    pub(crate) fn start(presence: Option<Presence>) -> std::io::Result<Self> {
        let watchdog = Self::default();
        if let Some(presence) = presence {
            let began = Arc::downgrade(&watchdog.0);
            std::thread::Builder::new()
                .name("watchdog".to_owned())
                .spawn(move || watch(&presence, &began))?;
        }
        Ok(watchdog)
    }

    /// A cycle begins.
    pub(crate) fn cycle_begins(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// The cycle has ended.
    pub(crate) fn waiting(&self) {
        *self.0.lock() = None;
    }
}

fn watch(presence: &Presence, began: &Weak<Mutex<Option<Instant>>>) {
    let mut told = false;
    while let Some(began) = began.upgrade() {
        let hangs = began.lock().is_some_and(|began| began.elapsed() >= HANGS);
        drop(began);
        if hangs && !told {
            tracing::error!(
                "a look at this host hangs: others lead and take new pods meanwhile; is its disk well?"
            );
        }
        if hangs || told {
            presence.hangs(hangs);
        }
        told = hangs;
        std::thread::sleep(PACE);
    }
}
