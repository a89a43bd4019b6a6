//! One host of the cluster, by its own keys.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use reconciler::state::NotReady;

use crate::store::layout::{AliveDoc, AskDoc, AwayDoc, FactsDoc, ReportDoc};

/// A larger clock difference than this is reported.
const SKEW: SignedDuration = SignedDuration::from_secs(30);

/// A node, by its own keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    /// The facts that the node published at its start; `None` if the store has none.
    pub(crate) facts: Option<FactsDoc>,
    /// The node's alive key, while its lease holds.
    pub(crate) alive: Option<AliveDoc>,
    /// Since when this host has seen no lease of the node; `None` while there is one.
    pub(crate) silent: Option<Instant>,
    /// The node's last report; the pods are taken from their own keys.
    pub(crate) report: ReportDoc,
    /// Whether the store has a report of the node.
    pub(crate) reported: bool,
    /// The announcement that the node will be back soon.
    pub(crate) away: Option<AwayDoc>,
    /// The open request of the node to the leader.
    pub(crate) ask: Option<AskDoc>,
    /// The node's clock when this host last received it, with the time of that by this host's
    /// monotonic clock.
    pub(crate) clock: Option<(Timestamp, Instant)>,
}

impl Member {
    /// Why the node takes no pods; `None` if it takes them or does not live.
    pub(crate) fn unready(&self) -> Option<NotReady> {
        if let Some(reason) = &self.report.unready {
            return Some(NotReady::Reported(reason.clone()));
        }
        let hangs = self.alive.as_ref().is_some_and(|alive| alive.hangs);
        hangs.then_some(NotReady::DaemonHangs)
    }

    /// By how much the node's clock is ahead of this host's, if the difference is to be reported:
    /// compared with the present clock, also if this host's clock was set since.
    pub(crate) fn skew(&self) -> Option<SignedDuration> {
        let (published, received) = self.clock?;
        let ahead = skew(published, received);
        (ahead.abs() > SKEW).then_some(ahead)
    }
}

/// By how much a clock is ahead of this host's present clock; `published` is the time that clock
/// had at the instant `received`.
pub(crate) fn skew(published: Timestamp, received: Instant) -> SignedDuration {
    let since = SignedDuration::try_from(received.elapsed()).unwrap_or(SignedDuration::MAX);
    published
        .duration_since(Timestamp::now())
        .saturating_add(since)
}
