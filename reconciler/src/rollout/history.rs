//! What became of each commit, in a list that does not grow.

use jiff::Timestamp;

use super::{CommitState, HistoryEntry, Rollout};

/// How many entries of history are kept.
const HISTORY: usize = 50;

impl Rollout {
    pub(super) fn record(&mut self, entry: HistoryEntry) {
        self.history.retain(|old| old.commit != entry.commit || old.ended.is_some());
        self.history.push(entry);
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
    }

    /// Ends the open entry of the target, if it has one.
    pub(super) fn close_target(&mut self, state: CommitState, reason: &str, now: Timestamp) {
        let Some(target) = &self.target else { return };
        let open = |entry: &&mut HistoryEntry| entry.commit == *target && entry.ended.is_none();
        if let Some(entry) = self.history.iter_mut().rev().find(open) {
            entry.state = state;
            entry.reason = reason.to_owned();
            entry.ended = Some(now);
        }
    }
}
