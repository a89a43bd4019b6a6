//! Adding to a time without an end.

use std::time::Duration;

use jiff::Timestamp;

/// So much later, or as late as can be said: a number in a manifest or a clock gone astray must not end the daemon.
pub(crate) fn later(time: Timestamp, duration: Duration) -> Timestamp {
    time.saturating_add(duration).unwrap_or(Timestamp::MAX)
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
}
