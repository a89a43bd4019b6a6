//! One host of the cluster, by what it wrote.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use crate::store::layout::{AliveDoc, AskDoc, AwayDoc, FactsDoc, ReportDoc};

/// Clocks that differ by more than this are worth a word.
const SKEW: SignedDuration = SignedDuration::from_secs(30);

/// A node, by what it wrote.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    /// What it said when it started.
    pub(crate) facts: Option<FactsDoc>,
    /// Its lease, while it lives.
    pub(crate) alive: Option<AliveDoc>,
    /// Since when its lease is gone, for this host.
    pub(crate) silent: Option<Instant>,
    /// What it says; the pods are filled in from their own keys.
    pub(crate) report: ReportDoc,
    /// Whether it has said anything at all.
    pub(crate) reported: bool,
    /// It comes back soon.
    pub(crate) away: Option<AwayDoc>,
    /// What it wants of the leader.
    pub(crate) ask: Option<AskDoc>,
    /// What its clock said when this host heard it last, and when that was by the clock that never
    /// jumps.
    pub(crate) clock: Option<(Timestamp, Instant)>,
}

impl Member {
    /// Why it takes no pods, if it lives and says so.
    pub(crate) fn unready(&self) -> Option<String> {
        let hangs = self.alive.as_ref().is_some_and(|alive| alive.hangs);
        let hangs = || hangs.then(|| "its daemon hangs: is its disk well?".to_owned());
        self.report.unready.clone().or_else(hangs)
    }

    /// By how much its clock is ahead of this host's, if that is worth a word: as both go now, also
    /// when this host's was set since.
    pub(crate) fn skew(&self) -> Option<SignedDuration> {
        let (told, heard) = self.clock?;
        let ahead = skew(told, heard);
        (ahead.abs() > SKEW).then_some(ahead)
    }
}

/// By how much a clock is ahead of this host's that said this then.
pub(crate) fn skew(told: Timestamp, heard: Instant) -> SignedDuration {
    let since = SignedDuration::try_from(heard.elapsed()).unwrap_or(SignedDuration::MAX);
    told.duration_since(Timestamp::now()).saturating_add(since)
}
