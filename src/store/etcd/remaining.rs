//! The remaining time of other hosts' leases.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use reconciler::name::NodeName;

use super::{Etcd, failure::CallFailure, link::CALL_TIMEOUT, session::alive_key};

/// How often etcd is asked about a lease whose renewal is not expected.
const PACE: Duration = Duration::from_millis(100);

/// How the wait for a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseFate {
    /// The time of the lease is over. Etcd does not renew it any more, and removes it within half a
    /// second.
    RanOut,
    /// The lease was renewed.
    Renewed,
    /// The key has no lease, or does not exist.
    Gone,
    /// Etcd did not answer.
    Unknown,
}

/// The end of a lease, computed from etcd's answers in whole seconds. Etcd rounds down, so the
/// instant at which the answer changes gives the exact end.
#[derive(Debug, Default)]
struct Countdown {
    left: Option<u64>,
    ends: Option<Instant>,
}

impl Countdown {
    /// Takes in an answer of etcd: between `sent` and `received` the lease had `left` whole seconds.
    /// False if the lease was renewed since the answer before.
    fn observe(&mut self, left: u64, sent: Instant, received: Instant) -> bool {
        let seconds = Duration::from_secs(left);
        // Etcd also answers 0 for a lease that has run out and is not removed yet.
        let renewed = left > 0 && self.ends.is_some_and(|ends| sent + seconds > ends);
        self.left = Some(left);
        let latest = received + seconds + Duration::from_secs(1);
        self.ends = Some(self.ends.map_or(latest, |ends| ends.min(latest)));
        !renewed
    }

    fn is_over(&self, now: Instant) -> bool {
        self.left == Some(0) && self.ends.is_some_and(|ends| now >= ends)
    }
}

impl Etcd {
    /// Those of these keys whose leases do not surely last for this time. A key that is gone is
    /// among them: this host's watch may not have received its end yet. So is a key about which
    /// etcd does not answer.
    pub(crate) async fn late(&self, keys: Vec<String>, least: Duration) -> BTreeSet<String> {
        let asked = keys.into_iter().map(|key| async move {
            let remaining = self.remaining_of(&key).await;
            let lasts = remaining
                .inspect_err(|failure| tracing::debug!("the lease of {key}: {failure}"))
                .is_ok_and(|left| left.is_some_and(|left| left >= least));
            (!lasts).then_some(key)
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Waits until the lease of a node has run out or was renewed. Etcd itself checks for leases
    /// that have run out only twice a second.
    pub(crate) async fn outlast(&self, node: &NodeName) -> LeaseFate {
        let followed = self.follow_lease(&alive_key(node)).await;
        followed.unwrap_or_else(|failure| {
            tracing::debug!("the lease of {node}: {failure}");
            LeaseFate::Unknown
        })
    }

    async fn follow_lease(&self, key: &str) -> Result<LeaseFate, CallFailure> {
        let Some(lease) = self.lease_of(key).await? else {
            return Ok(LeaseFate::Gone);
        };
        let mut countdown = Countdown::default();
        loop {
            let sent = Instant::now();
            let Some(left) = self.left(lease).await? else {
                return Ok(LeaseFate::Gone);
            };
            let received = Instant::now();
            if !countdown.observe(left, sent, received) {
                return Ok(LeaseFate::Renewed);
            }
            if countdown.is_over(received) {
                return Ok(match self.lease_of(key).await? {
                    Some(same) if same == lease => LeaseFate::RanOut,
                    // A restarted daemon has a new lease.
                    Some(_) => LeaseFate::Renewed,
                    None => LeaseFate::Gone,
                });
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// The remaining time of this key's lease, in whole seconds, rounded down; `None` if the key
    /// does not exist or has no lease.
    async fn remaining_of(&self, key: &str) -> Result<Option<Duration>, CallFailure> {
        let Some(lease) = self.lease_of(key).await? else {
            return Ok(None);
        };
        Ok(Some(Duration::from_secs(
            self.left(lease).await?.unwrap_or(0),
        )))
    }

    async fn lease_of(&self, key: &str) -> Result<Option<i64>, CallFailure> {
        let link = &self.inner.link;
        let connection = link.connection().await?;
        let mut client = connection.client.clone();
        let full = format!("{}{key}", self.inner.prefix);
        let get = Box::pin(async move { client.get(full, None).await });
        let lease = link
            .call(&connection, CALL_TIMEOUT, get)
            .await?
            .kvs()
            .first()
            .map(|kv| kv.lease());
        Ok(lease.filter(|lease| *lease != 0))
    }

    /// Whole seconds; `None` if the lease does not exist.
    async fn left(&self, lease: i64) -> Result<Option<u64>, CallFailure> {
        let link = &self.inner.link;
        let connection = link.connection().await?;
        let mut client = connection.client.clone();
        let ask = Box::pin(async move { client.lease_time_to_live(lease, None).await });
        Ok(u64::try_from(link.call(&connection, CALL_TIMEOUT, ask).await?.ttl()).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn whole_seconds_tell_the_end_to_a_tenth_of_one() {
        let start = Instant::now();
        // What is left of 4.25 s, asked each tenth of a second.
        let mut countdown = Countdown::default();
        let over = (0..60).map(|asked| asked * 100).find(|passed| {
            let left = 4250_u64.saturating_sub(*passed) / 1000;
            let now = start + millis(*passed);
            assert!(countdown.observe(left, now, now), "nobody renews it");
            countdown.is_over(now)
        });
        assert_eq!(over, Some(4300));
    }

    #[test]
    fn answers_that_come_late_end_nothing_early() {
        let start = Instant::now();
        let mut countdown = Countdown::default();
        for passed in (0..4000).step_by(100) {
            // Each answer was half a second on its way.
            let (sent, now) = (start + millis(passed), start + millis(passed + 500));
            assert!(countdown.observe((4000 - passed) / 1000, sent, now));
            assert!(
                !countdown.is_over(now) || passed >= 4000,
                "over after {passed} ms of 4000"
            );
        }
    }

    #[test]
    fn a_renewal_is_seen() {
        let start = Instant::now();
        let mut countdown = Countdown::default();
        let mut hear = |left, passed| {
            let now = start + millis(passed);
            countdown.observe(left, now, now)
        };
        assert!(hear(4, 0));
        assert!(hear(3, 800));
        assert!(!hear(4, 1600));
        // Also where the whole seconds are the same: so long it cannot have been 3 s.
        let mut countdown = Countdown::default();
        assert!(countdown.observe(3, start, start));
        assert!(!countdown.observe(3, start + millis(1100), start + millis(1100)));
    }
}
