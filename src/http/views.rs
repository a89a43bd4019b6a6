//! The last views that a client has read, with numbers, so that a watch can continue where a list
//! ended.

use std::{collections::VecDeque, sync::Arc};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::view::View;

/// The number of views that are kept. A client lists and then watches within moments, so a few are
/// enough; a later client must list again.
const KEPT: usize = 8;

/// A view with its number, which is the `resourceVersion` of all its objects.
#[derive(Clone)]
pub(crate) struct Numbered {
    /// Increases with every view, also over a restart of the daemon.
    pub number: u64,
    pub view: Arc<View>,
}

/// Access to the views.
pub(crate) struct Views {
    receiver: watch::Receiver<Arc<View>>,
    kept: Mutex<VecDeque<Numbered>>,
}

impl Views {
    /// Reads from the control loop's channel.
    pub(crate) fn new(receiver: watch::Receiver<Arc<View>>) -> Self {
        Self {
            receiver,
            kept: Mutex::new(VecDeque::new()),
        }
    }

    /// The newest view, which is kept from now on.
    pub(crate) fn current(&self) -> Numbered {
        let view = self.receiver.borrow().clone();
        let mut kept = self.kept.lock();
        if let Some(last) = kept.back()
            && Arc::ptr_eq(&last.view, &view)
        {
            return last.clone();
        }

        // Numbers begin at the clock's time, so that they increase over restarts, and the number of
        // an old client is never used again.
        let clock = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let number = kept.back().map_or(clock, |last| clock.max(last.number + 1));
        let numbered = Numbered { number, view };

        kept.push_back(numbered.clone());
        if kept.len() > KEPT {
            kept.pop_front();
        }
        numbered
    }

    /// The view with this number; `None` if it is not kept any more.
    pub(crate) fn get(&self, number: u64) -> Option<Numbered> {
        let kept = self.kept.lock();
        kept.iter()
            .find(|numbered| numbered.number == number)
            .cloned()
    }

    /// A receiver that waits for the next view.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.receiver.clone()
    }
}
