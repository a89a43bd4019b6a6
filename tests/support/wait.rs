//! Waiting for a condition with a deadline, instead of sleeping for a fixed time.

use std::thread;
use std::time::{Duration, Instant};

/// The limits of the pause between two checks of a condition.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Returns as soon as `condition` holds; panics with `what` when the deadline passes before. `what`
/// is the condition as a sentence.
#[track_caller]
pub(crate) fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(deadline, what, || condition().then_some(()));
}

/// Like [`eventually`], for a condition that returns the value that was waited for.
#[track_caller]
pub(crate) fn eventually_some<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        let check = Instant::now();
        if let Some(observed) = condition() {
            return observed;
        }
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        pause_after(check);
    }
}

/// Sleeps before a condition is checked again, for longer where the check that began at `check`
/// took long: other test beds need the processors too, and most checks start a program or two.
pub(crate) fn pause_after(check: Instant) {
    thread::sleep((check.elapsed() * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
}
