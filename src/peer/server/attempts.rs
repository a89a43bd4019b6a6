//! Attempts to join: how many are let through in a minute, and how many lines the refused ones
//! write to the log. Everybody who reaches the listener can attempt to join.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::connections::Source;

/// The most attempts to join in one minute, from one source.
const ATTEMPTS_OF_SOURCE: u32 = 10;
/// The most attempts to join in one minute, from all sources.
const ATTEMPTS_IN_ALL: u32 = 100;
const MINUTE: Duration = Duration::from_secs(60);

/// The attempts in the current minute, and the refused ones that the log does not show yet.
#[derive(Debug)]
pub(in crate::peer) struct Attempts {
    window: Mutex<AttemptWindow>,
    refused: Mutex<RefusedAttempts>,
}

#[derive(Debug)]
struct AttemptWindow {
    since: Instant,
    all: u32,
    by_source: BTreeMap<Source, u32>,
}

#[derive(Debug, Default)]
struct RefusedAttempts {
    logged: Option<Instant>,
    not_logged: u64,
}

impl Attempts {
    pub(in crate::peer) fn new(now: Instant) -> Self {
        Self {
            window: Mutex::new(AttemptWindow {
                since: now,
                all: 0,
                by_source: BTreeMap::new(),
            }),
            refused: Mutex::default(),
        }
    }

    /// Counts an attempt, and returns whether it may continue. No more sources are stored than
    /// attempts are allowed.
    pub(super) fn may(&self, source: Source, now: Instant) -> bool {
        let mut window = self.window.lock();
        if now.duration_since(window.since) >= MINUTE {
            *window = AttemptWindow {
                since: now,
                all: 0,
                by_source: BTreeMap::new(),
            };
        }

        if window.all >= ATTEMPTS_IN_ALL {
            return false;
        }
        let own = window.by_source.entry(source).or_default();
        if *own >= ATTEMPTS_OF_SOURCE {
            return false;
        }
        *own += 1;
        window.all += 1;
        true
    }

    /// Counts a refused attempt. Returns the number of attempts that were refused since the last
    /// line of the log, including this one, if the log may have another line.
    pub(super) fn refused(&self, now: Instant) -> Option<u64> {
        let mut refused = self.refused.lock();
        refused.not_logged += 1;
        if refused
            .logged
            .is_some_and(|logged| now.duration_since(logged) < MINUTE)
        {
            return None;
        }
        refused.logged = Some(now);
        Some(std::mem::take(&mut refused.not_logged))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddr};

    use super::*;

    #[test]
    fn attempts_are_limited_for_each_source_and_in_all_until_the_minute_ends() {
        let start = Instant::now();
        let attempts = Attempts::new(start);
        let address = |last: u8| Source::from(SocketAddr::from(([192, 0, 2, last], 1)));
        assert_eq!(
            (0..50).filter(|_| attempts.may(address(1), start)).count(),
            10
        );
        assert!(
            attempts.may(address(2), start),
            "another address has its own"
        );
        let others = (3..60)
            .flat_map(|last| [last; 10])
            .filter(|last| attempts.may(address(*last), start));
        assert_eq!(others.count(), 89);
        assert!(attempts.may(address(1), start + MINUTE));

        // One host has all addresses of its IPv6 network.
        let attempts = Attempts::new(start);
        let of_network = (0..50).filter(|last| {
            let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, *last);
            attempts.may(Source::from(SocketAddr::from((ip, 1))), start)
        });
        assert_eq!(of_network.count(), 10);
    }

    #[test]
    fn refused_attempts_have_one_line_a_minute_that_counts_them() {
        let start = Instant::now();
        let attempts = Attempts::new(start);
        assert_eq!(
            attempts.refused(start),
            Some(1),
            "the first is shown at once"
        );
        for millis in 0..5_000 {
            assert_eq!(
                attempts.refused(start + Duration::from_millis(millis)),
                None
            );
        }
        assert_eq!(attempts.refused(start + MINUTE), Some(5_001));
        assert_eq!(attempts.refused(start + MINUTE), None);
        assert_eq!(attempts.refused(start + 2 * MINUTE), Some(2));
    }
}
