//! What became of each commit, in a list that does not grow.

use jiff::Timestamp;

use super::{CommitState, HistoryEntry, Rollout};
use crate::name::CommitId;

/// How many entries of history are kept.
const HISTORY: usize = 50;

impl Rollout {
    pub(super) fn record(&mut self, entry: HistoryEntry) {
        self.history.retain(|old| old.commit != entry.commit || old.ended.is_some());
        self.history.push(entry);
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
    }

    /// Says what became of a commit in the end; false for one that was healthy once, of which that is not said.
    pub(super) fn end(
        &mut self,
        commit: &CommitId,
        state: CommitState,
        reason: &str,
        now: Timestamp,
    ) -> bool {
        if self.history.iter().any(|entry| entry.commit == *commit && entry.state == CommitState::Healthy) {
            return false;
        }
        if let Some(entry) = self.history.iter_mut().rev().find(|entry| entry.commit == *commit) {
            entry.state = state;
            entry.reason = reason.to_owned();
            entry.ended = Some(now);
        }
        true
    }

    /// A commit that was given up as degraded is tried again.
    pub(super) fn reopen(&mut self, commit: &CommitId, now: Timestamp) {
        let last = self.history.iter_mut().rev().find(|entry| entry.commit == *commit);
        if let Some(entry) = last.filter(|entry| entry.state == CommitState::Degraded) {
            entry.state = CommitState::Progressing;
            entry.reason.clear();
            entry.began = now;
            entry.ended = None;
        }
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
