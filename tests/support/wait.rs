//! Waiting for a condition with a dead line, instead of sleeping and hoping.

use std::thread;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(50);

/// Returns as soon as `condition` holds; panics, naming `what`, when it does not within `deadline`.
#[track_caller]
pub(crate) fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(deadline, what, || condition().then_some(()));
}

/// Like [`eventually`], for a condition that yields what was waited for.
#[track_caller]
pub(crate) fn eventually_some<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        thread::sleep(PAUSE);
    }
}
