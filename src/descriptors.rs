//! The number of descriptors that this process may open, and each listener's share of them: the
//! daemon's own work always keeps some.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::connections::{Bounds, Times};

/// Descriptors that no listener gets: for the engine, the store, git, files, netlink, and the
/// listeners themselves.
const RESERVED: u64 = 128;
/// The sum of the shares below. systemd's default of `LimitNOFILE=` is 1024.
const WHOLE: u64 = 1024 - RESERVED;
/// With fewer descriptors the daemon does not start.
const FEWEST: u64 = 256;

/// A client that does not send a request's head in this time is disconnected.
const HEAD: Duration = Duration::from_secs(10);
/// The time limit of a watch or a followed log.
const LONG: Duration = Duration::from_secs(2 * 3600);

/// The users of descriptors: listeners, and connections that the daemon opens for their clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taker {
    /// The listener for DNS over TCP.
    Dns,
    /// Queries to the host's own name servers; each has up to two sockets.
    DnsUpstream,
    /// The read API over TLS. A followed log has a connection to the engine, or to another host.
    Api,
    /// The listener for metrics and health checks.
    Metrics,
    /// Webhooks with a listener of their own.
    Webhook,
    /// The read API on `windlass.sock`; as for [`Self::Api`].
    ReadSocket,
    /// Commands of people on `admin.sock`.
    AdminSocket,
    /// The listener for other hosts.
    Peers,
}

impl Taker {
    #[cfg(test)]
    const ALL: [Self; 8] = [
        Self::Dns,
        Self::DnsUpstream,
        Self::Api,
        Self::Metrics,
        Self::Webhook,
        Self::ReadSocket,
        Self::AdminSocket,
        Self::Peers,
    ];

    /// Descriptors for each connection, the number of connections if there are `WHOLE` descriptors,
    /// and the largest number.
    fn share(self) -> (u64, u64, u64) {
        match self {
            Self::Dns => (1, 128, 512),
            Self::DnsUpstream => (2, 96, 256),
            Self::Api => (2, 72, 256),
            Self::Metrics | Self::Webhook => (1, 96, 192),
            Self::ReadSocket => (2, 48, 128),
            Self::AdminSocket => (1, 16, 32),
            Self::Peers => (2, 64, 256),
        }
    }

    fn total(self, limit: u64) -> usize {
        let (_, share, most) = self.share();
        let scaled = limit.saturating_sub(RESERVED).saturating_mul(share) / WHOLE;
        // The largest share is 512, which fits any `usize`.
        usize::try_from(scaled.min(most)).unwrap_or(usize::MAX)
    }

    /// The largest number of connections at the same time in this process.
    fn most(self) -> usize {
        self.total(limit())
    }

    /// The limits of the listener in this process.
    pub(crate) fn bounds(self) -> Bounds {
        let total = self.most();
        let seconds = Duration::from_secs;
        let times = |unproven, idle, request| Times {
            head: HEAD,
            unproven,
            idle,
            request,
        };
        let (part, times) = match self {
            // The usual values for DNS over TCP; a query is answered within 4 s.
            Self::Dns | Self::DnsUpstream => (
                4,
                Times {
                    head: seconds(5),
                    ..times(seconds(5), seconds(5), seconds(10))
                },
            ),
            Self::Api => (4, times(seconds(10), seconds(120), LONG)),
            // A slower scrape or webhook is disconnected; most scrapers send a request every minute
            // over one connection. A proxy in front of the webhooks is one source, and forges send
            // dozens of requests at once.
            Self::Metrics | Self::Webhook => (2, times(seconds(30), seconds(150), seconds(60))),
            // Two users of the group cannot shut out the others, and root is the usual user.
            Self::ReadSocket => (2, times(seconds(10), seconds(60), LONG)),
            // Only root can open the socket.
            Self::AdminSocket => (1, times(seconds(10), seconds(10), seconds(120))),
            // A host without a certificate sends one request, to join.
            Self::Peers => (4, times(seconds(15), seconds(120), LONG)),
        };
        Bounds {
            total,
            per_source: (total / part).max(1),
            times,
        }
    }
}

/// Raises the limit to the maximum for this process. Child processes inherit the limit: none of
/// them uses `select`, which does not support descriptors above 1023.
pub(crate) fn raise() -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )
        .context("raise the limit of open files (RLIMIT_NOFILE) to the hard limit")?;
    }

    let limit = limit();
    ensure!(
        limit >= FEWEST,
        "this process may have {limit} open files, and the daemon needs {FEWEST}: raise LimitNOFILE= of its unit, or \
         `ulimit -Hn`"
    );
    tracing::debug!(limit, "open files");
    Ok(())
}

/// The number of descriptors that this process may open.
fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_listeners_together_leave_descriptors_for_the_daemon() {
        for limit in (FEWEST..5000).chain([65_536, 524_288, 1 << 30, u64::MAX]) {
            let taken: u64 = Taker::ALL
                .into_iter()
                .map(|taker| taker.share().0 * u64::try_from(taker.total(limit)).expect("small"))
                .sum();
            assert!(taken <= limit - RESERVED, "{taken} of {limit}");
            for taker in Taker::ALL {
                assert!(taker.total(limit) >= 2, "{taker:?} has nothing of {limit}");
            }
        }
    }

    #[test]
    fn a_usual_host_gives_each_listener_its_largest_share() {
        assert_eq!(Taker::Dns.total(524_288), 512);
        assert_eq!(Taker::Api.total(524_288), 256);
        assert_eq!(Taker::Api.total(1024), 72);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        raise().expect("raised");
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
