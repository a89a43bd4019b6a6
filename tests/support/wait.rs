//! Waiting for a condition with a deadline, instead of sleeping and hoping.

use std::thread;
use std::time::{Duration, Instant};

/// The pauses between two looks at a condition.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

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
        let look = Instant::now();
        if let Some(found) = condition() {
            return found;
        }
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        pause_after(look);
    }
}

/// Sleeps before a condition is checked again, for longer where a check takes long: the beds
/// beside this one need the processors, and most looks start a program or two.
pub(crate) fn pause_after(look: Instant) {
    thread::sleep((look.elapsed() * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
}
