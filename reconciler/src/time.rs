//! Addition to a time without overflow, waiting with a clock that may jump, and back-off.

use std::time::Duration;

use jiff::Timestamp;

/// The time after a duration, or the latest representable time: a number in a manifest or a wrong
/// clock must not stop the daemon.
pub(crate) fn later(time: Timestamp, duration: Duration) -> Timestamp {
    time.saturating_add(duration).unwrap_or(Timestamp::MAX)
}

/// The time after a duration, if it is still in the future. A start in the future was recorded
/// before the clock was set back, so nothing waits for it.
pub(crate) fn still_to_come(
    happened: Timestamp,
    wait: Duration,
    now: Timestamp,
) -> Option<Timestamp> {
    Some(later(happened, wait)).filter(|due| *due > now && happened <= now)
}

/// The delay of a back-off: `first`, doubled so many times, and at most `longest`. It is the one
/// formula for whatever is tried again: containers, lanes, connections and questions to the engine.
pub fn backoff(first: Duration, doublings: u32, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_time_is_reached_and_not_passed() {
        let second = Duration::from_secs(1);
        assert_eq!(later(Timestamp::UNIX_EPOCH, second).as_second(), 1);
        assert_eq!(later(Timestamp::MAX, second), Timestamp::MAX);
        assert_eq!(later(Timestamp::UNIX_EPOCH, Duration::MAX), Timestamp::MAX);
    }

    #[test]
    fn a_delay_doubles_until_it_is_the_longest_however_often_it_was_doubled() {
        let delay = |doublings| {
            backoff(
                Duration::from_millis(100),
                doublings,
                Duration::from_secs(1),
            )
            .as_millis()
        };
        let doublings = [0, 1, 2, 3, 4, 31, 32, u32::MAX];
        assert_eq!(
            doublings.map(delay),
            [100, 200, 400, 800, 1000, 1000, 1000, 1000]
        );
    }

    #[test]
    fn nothing_waits_for_a_clock_that_was_set_back() {
        let at = |seconds| later(Timestamp::UNIX_EPOCH, Duration::from_secs(seconds));
        let wait = Duration::from_secs(10);
        assert_eq!(still_to_come(at(100), wait, at(105)), Some(at(110)));
        assert_eq!(still_to_come(at(100), wait, at(110)), None);
        assert_eq!(still_to_come(at(3700), wait, at(100)), None);
    }
}
