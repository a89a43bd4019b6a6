//! A lease of etcd, and the time until which it certainly holds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};

use super::{
    failure::CallFailure,
    link::{CALL_TIMEOUT, EtcdConnection, Link},
};

/// Clocks run at slightly different speeds, and a write takes time on its way.
const MARGIN: Duration = Duration::from_millis(500);

/// A point on the monotonic clock that other tasks read. Its first value lies in the past.
#[derive(Debug, Clone)]
pub(super) struct Deadline {
    base: Instant,
    millis: Arc<AtomicU64>,
}

impl Deadline {
    pub(super) fn new() -> Self {
        Self {
            base: Instant::now(),
            millis: Arc::default(),
        }
    }

    pub(super) fn set(&self, instant: Instant) {
        let millis = instant.saturating_duration_since(self.base).as_millis();
        self.millis
            .store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Sets the deadline to a time in the past.
    pub(super) fn pass(&self) {
        self.millis.store(0, Ordering::Release);
    }

    pub(super) fn at(&self) -> Instant {
        self.base + Duration::from_millis(self.millis.load(Ordering::Acquire))
    }

    pub(super) fn passed(&self) -> bool {
        self.passed_at(Instant::now())
    }

    pub(super) fn passed_at(&self, now: Instant) -> bool {
        now >= self.at()
    }
}

/// A lease of this host.
pub(super) struct Lease {
    pub(super) id: i64,
    /// Until this time the lease cannot have run out.
    pub(super) holds: Deadline,
    ttl: Duration,
    sent: Instant,
    stream: Option<(EtcdConnection, LeaseKeeper, LeaseKeepAliveStream)>,
}

impl Lease {
    pub(super) async fn grant(link: &Link, ttl: Duration) -> Result<Self, CallFailure> {
        let connection = link.connection().await?;
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let sent = Instant::now();
        let mut client = connection.client.clone();
        let granted = link
            .call(
                &connection,
                CALL_TIMEOUT,
                Box::pin(client.lease_grant(seconds, None)),
            )
            .await?;
        let mut lease = Self {
            id: granted.id(),
            holds: Deadline::new(),
            ttl,
            sent,
            stream: None,
        };
        lease.renewed(sent, granted.ttl());
        Ok(lease)
    }

    /// When the next renewal is due: after a third of the time to live.
    pub(super) fn due(&self) -> Instant {
        self.sent + self.ttl / 3
    }

    /// Renews the lease. The lease holds from the time of sending, whenever the answer comes.
    pub(super) async fn renew(&mut self, link: &Link, within: Duration) -> Result<(), CallFailure> {
        let sent = Instant::now();
        let ttl = match self.stream.take() {
            Some((connection, mut keeper, mut stream)) => {
                let answer = Box::pin(async {
                    keeper.keep_alive().await?;
                    stream.message().await
                });
                match link.call(&connection, within, answer).await? {
                    Some(answer) if answer.ttl() <= 0 => return Err(CallFailure::LeaseGone),
                    Some(answer) => {
                        self.stream = Some((connection, keeper, stream));
                        answer.ttl()
                    }
                    // The stream ended without an error: the answer to a new stream shows the
                    // reason.
                    None => return self.open(link, within, sent).await,
                }
            }
            None => return self.open(link, within, sent).await,
        };
        self.renewed(sent, ttl);
        Ok(())
    }

    async fn open(
        &mut self,
        link: &Link,
        within: Duration,
        sent: Instant,
    ) -> Result<(), CallFailure> {
        let connection = link.connection_within(within).await?;
        let mut client = connection.client.clone();
        let left = within.saturating_sub(sent.elapsed());
        let (keeper, stream) = link
            .call(
                &connection,
                left,
                Box::pin(client.lease_keep_alive(self.id)),
            )
            .await?;
        self.stream = Some((connection, keeper, stream));
        self.renewed(sent, i64::MAX);
        Ok(())
    }

    fn renewed(&mut self, sent: Instant, seconds: i64) {
        self.sent = sent;
        let granted = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        self.holds
            .set(sent + granted.min(self.ttl).saturating_sub(MARGIN));
    }
}

/// Revokes a lease, which deletes the keys under it.
pub(super) async fn revoke(link: &Link, id: i64) -> Result<(), CallFailure> {
    let connection = link.connection().await?;
    let mut client = connection.client.clone();
    match link
        .call(&connection, CALL_TIMEOUT, Box::pin(client.lease_revoke(id)))
        .await
    {
        Ok(_) | Err(CallFailure::LeaseGone) => Ok(()),
        Err(failure) => Err(failure),
    }
}
