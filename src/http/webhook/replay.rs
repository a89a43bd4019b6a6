//! Recently received bodies, by their digest.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use ring::digest::{SHA256, digest};

/// The most digests that are stored.
const KEPT: usize = 1024;
/// For how long a digest is stored.
const MEMORY: Duration = Duration::from_secs(3600);

/// The digests. Only those of bodies with a valid signature are stored, so that an unauthenticated
/// client cannot displace any.
#[derive(Default)]
pub(super) struct Seen {
    digests: BTreeSet<[u8; 32]>,
    order: VecDeque<(Instant, [u8; 32])>,
}

impl Seen {
    /// Whether this body was received before; its digest is stored from now on.
    pub(super) fn again(&mut self, body: &[u8], now: Instant) -> bool {
        while let Some((at, oldest)) = self.order.front() {
            if self.order.len() < KEPT && now.saturating_duration_since(*at) < MEMORY {
                break;
            }
            self.digests.remove(oldest);
            self.order.pop_front();
        }
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, body).as_ref());
        if !self.digests.insert(key) {
            return true;
        }
        self.order.push_back((now, key));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_counts_once_an_hour() {
        let start = Instant::now();
        let mut seen = Seen::default();
        assert!(!seen.again(b"a", start));
        assert!(seen.again(b"a", start));
        assert!(!seen.again(b"b", start));
        assert!(!seen.again(b"a", start + MEMORY));
    }

    #[test]
    fn the_memory_is_bounded() {
        let start = Instant::now();
        let mut seen = Seen::default();
        for number in 0..5000_u32 {
            assert!(!seen.again(&number.to_le_bytes(), start));
        }
        assert_eq!((seen.order.len(), seen.digests.len()), (KEPT, KEPT));
        assert!(seen.again(&4999_u32.to_le_bytes(), start));
        assert!(!seen.again(&0_u32.to_le_bytes(), start));
    }
}
