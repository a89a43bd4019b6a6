//! Checks the host's network for changes that somebody else made, and repairs them: in a cycle that
//! comes long enough after the last check, and at every resync.

use std::time::Duration;

use netfilter::{Exposure, OutsideSource};
use tokio::time::Instant;

use super::Host;
use crate::{
    dns::Callers,
    metrics::DriftCause,
    view::{HostNote, HostTrouble, Part},
};

/// The shortest time from one check to the next: a flood of link events must not become a flood of
/// checks.
const INTERVAL: Duration = Duration::from_secs(5);

/// When the host's network was last checked, and whether the result still holds.
#[derive(Debug)]
pub(super) struct NetworkCheck {
    checked: Instant,
    /// Whether a link or route, or nftables, has changed since the last check.
    is_stale: bool,
    /// The senders from outside, where everything is open to them.
    outside_sources: Vec<OutsideSource>,
}

impl NetworkCheck {
    /// The state right after the network was prepared at the start.
    pub(super) fn new() -> Self {
        Self {
            checked: Instant::now(),
            is_stale: false,
            outside_sources: Vec::new(),
        }
    }

    fn begin(&mut self) {
        self.checked = Instant::now();
        self.is_stale = false;
    }

    fn until_due(&self) -> Duration {
        INTERVAL.saturating_sub(self.checked.elapsed())
    }

    /// The time until the next check, if a change came too soon after the last one.
    pub(super) fn next(&self) -> Option<Duration> {
        self.is_stale.then(|| self.until_due())
    }
}

impl Host {
    /// Notes that a link, a route or a rule of this host may have been removed.
    pub(crate) fn network_changed(&mut self) {
        self.network_check.is_stale = true;
    }

    pub(super) async fn check_network_if_due(&mut self) {
        if self.network_check.until_due().is_zero() {
            self.check_network().await;
        }
    }

    /// Repairs what somebody else has changed. If nothing was changed, a check costs few requests
    /// to the kernel.
    pub(super) async fn check_network(&mut self) {
        self.network_check.begin();
        match self.parts.network.resync().await {
            Ok(drift) => {
                self.troubles.clear(Part::Network);
                self.admit_dns_callers().await;
                for one in drift {
                    tracing::warn!("repaired: {one}");
                    self.parts.metrics.repair(cause(one));
                }
            }
            Err(error) => {
                self.troubles.set(Part::Network, HostTrouble::failed(error));
            }
        }
    }

    /// Has the DNS server answer those whose packets the network's table lets through.
    pub(super) async fn admit_dns_callers(&self) {
        let callers = self.parts.network.dns_callers().await;
        self.parts.dns.admit(Callers::of(callers));
    }

    /// Reads who uses what an older version left open, for people. A failure leaves the last
    /// numbers.
    pub(super) async fn count_outside_sources(&mut self) {
        if self.fixed.exposure != Exposure::Unset {
            return;
        }
        match self.parts.network.outside_sources().await {
            Ok(sources) => self.network_check.outside_sources = sources,
            Err(error) => tracing::debug!(%error, "the senders from outside were not counted"),
        }
    }

    /// The note about what an older version left open.
    pub(super) fn exposure_note(&self) -> Option<HostNote> {
        (self.fixed.exposure == Exposure::Unset).then(|| HostNote::NetworkOpen {
            sources: self.network_check.outside_sources.clone(),
        })
    }
}

fn cause(drift: netfilter::Drift) -> DriftCause {
    match drift {
        netfilter::Drift::Table => DriftCause::ServiceTable,
        netfilter::Drift::Forwarding
        | netfilter::Drift::ServiceDevice
        | netfilter::Drift::ServiceRoute
        | netfilter::Drift::OverlayDevice
        | netfilter::Drift::PeerEntries
        | netfilter::Drift::PeerRoutes
        | netfilter::Drift::AcceptRules => DriftCause::Other,
    }
}
