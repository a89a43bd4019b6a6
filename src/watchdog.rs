//! Leaves leading and new pods to others while the control loop hangs, as on a disk that does not
//! answer: the leases of a host that cannot decide or act are kept alive by threads of their own.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::store::Presence;

/// A look that takes longer hangs. The longest that one does on purpose is to wait for a slow
/// store.
const HANGS: Duration = Duration::from_secs(10);
const PACE: Duration = Duration::from_secs(1);

/// When the look under way began.
#[derive(Debug, Default)]
pub(crate) struct Watchdog(Arc<Mutex<Option<Instant>>>);

impl Watchdog {
    /// Watches over the loop on behalf of the others. A thread, since nothing else runs for sure by
    /// then; it ends with the watchdog.
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

    /// A look begins.
    pub(crate) fn cycle_begins(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// It is over.
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
