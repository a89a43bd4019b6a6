//! Leaves leading to others while the control loop hangs, as on a disk that does not answer: the lease of a leader that
//! cannot decide is kept alive by threads of its own.

use std::{
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use crate::{follow::lock, store::Etcd};

/// A look that takes longer hangs. The longest that one does on purpose is to wait for a slow store.
const HANGS: Duration = Duration::from_secs(10);
const PACE: Duration = Duration::from_secs(1);

/// When the look under way began.
#[derive(Debug, Default)]
pub(crate) struct Watchdog(Arc<Mutex<Option<Instant>>>);

impl Watchdog {
    /// Watches over the loop on behalf of the others. A thread, since nothing else runs for sure by then; it ends with
    /// the watchdog.
    pub(crate) fn start(etcd: Option<Etcd>) -> std::io::Result<Self> {
        let watchdog = Self::default();
        if let Some(etcd) = etcd {
            let began = Arc::downgrade(&watchdog.0);
            std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || watch(&etcd, &began))?;
        }
        Ok(watchdog)
    }

    /// A look begins.
    pub(crate) fn looking(&self) {
        *lock(&self.0) = Some(Instant::now());
    }

    /// It is over.
    pub(crate) fn waiting(&self) {
        *lock(&self.0) = None;
    }
}

fn watch(etcd: &Etcd, began: &Weak<Mutex<Option<Instant>>>) {
    let mut told = false;
    while let Some(began) = began.upgrade() {
        let hangs = lock(&began).is_some_and(|began| began.elapsed() >= HANGS);
        drop(began);
        if hangs {
            // The loop stands again by itself once it goes on.
            etcd.set_candidate(false);
            if !told {
                tracing::error!(
                    "a look at this host hangs: other hosts may lead meanwhile; is its disk well?"
                );
            }
        }
        told = hangs;
        std::thread::sleep(PACE);
    }
}
