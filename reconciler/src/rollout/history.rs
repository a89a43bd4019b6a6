//! What became of each commit, in a list of bounded length.

use jiff::Timestamp;

use crate::{
    name::CommitId,
    state::{CommitReason, CommitState, Failure, FailureClass, HistoryEntry, Rollout, Stored},
};

/// Maximum number of entries.
const HISTORY: usize = 50;
/// Number of healthy commits that are kept in any case: a rollback goes to one of them.
const HEALTHY: usize = 20;

impl Rollout {
    pub(super) fn record(&mut self, entry: HistoryEntry) {
        self.history
            .retain(|old| old.commit != entry.commit || old.ended.is_some());
        self.history.push(entry);
        while self.history.len() > HISTORY {
            let Some(index) = self.least_needed() else {
                break;
            };
            self.history.remove(index);
        }
    }

    /// Index of the entry that is removed first: the oldest of a commit that did not finish, then
    /// of a commit that failed, then of a healthy commit beyond the number that is kept for
    /// rollbacks. Commits under way, and the newest entry, stay.
    fn least_needed(&self) -> Option<usize> {
        let rest = &self.history[..self.history.len().saturating_sub(1)];
        let oldest =
            |wanted: &[CommitState]| rest.iter().position(|entry| wanted.contains(&entry.state));
        let healthy = self
            .history
            .iter()
            .filter(|entry| entry.state == CommitState::Healthy)
            .count();
        let unfinished = oldest(&[
            CommitState::Refused,
            CommitState::Held,
            CommitState::Superseded,
        ]);
        let failed = || oldest(&[CommitState::RolledBack, CommitState::Degraded]);
        let surplus = || {
            if healthy <= HEALTHY {
                return None;
            }
            oldest(&[CommitState::Healthy])
        };
        unfinished.or_else(failed).or_else(surplus)
    }

    /// Records the final state of a commit. Returns false, and changes nothing, for a commit that
    /// was healthy before.
    pub(super) fn end(
        &mut self,
        commit: &CommitId,
        state: CommitState,
        failure: &Failure,
        now: Timestamp,
    ) -> bool {
        if self
            .history
            .iter()
            .any(|entry| entry.commit == *commit && entry.state == CommitState::Healthy)
        {
            return false;
        }
        if let Some(entry) = self
            .history
            .iter_mut()
            .rev()
            .find(|entry| entry.commit == *commit)
        {
            entry.state = state;
            entry.reason = CommitReason::Failed(failure.reason.clone()).into();
            entry.class = Some(failure.class);
            entry.ended = Some(now);
        }
        true
    }

    /// Opens the entry of a degraded commit that is tried again.
    pub(super) fn reopen(&mut self, commit: &CommitId, now: Timestamp) {
        let last = self
            .history
            .iter_mut()
            .rev()
            .find(|entry| entry.commit == *commit);
        if let Some(entry) = last.filter(|entry| entry.state == CommitState::Degraded) {
            entry.state = CommitState::Progressing;
            entry.reason = CommitReason::None.into();
            entry.class = None;
            entry.began = now;
            entry.ended = None;
        }
    }

    /// Records in the open entry of the target what it waits for outside of the commit.
    pub(super) fn note_waiting(&mut self, reason: CommitReason) {
        let Some(target) = &self.target else { return };
        let open = |entry: &&mut HistoryEntry| {
            entry.commit == *target
                && entry.ended.is_none()
                && entry.state == CommitState::Progressing
        };
        if let Some(entry) = self.history.iter_mut().rev().find(open) {
            entry.reason = reason.into();
        }
    }

    /// Ends the open entry of the target, if it has one.
    pub(super) fn close_target(
        &mut self,
        state: CommitState,
        reason: Stored<CommitReason>,
        class: Option<FailureClass>,
        now: Timestamp,
    ) {
        let Some(target) = &self.target else { return };
        let open = |entry: &&mut HistoryEntry| entry.commit == *target && entry.ended.is_none();
        if let Some(entry) = self.history.iter_mut().rev().find(open) {
            entry.state = state;
            entry.reason = reason;
            entry.class = class;
            entry.ended = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        foreign::ForeignText,
        ids::commit_id,
        state::{FailureReason, Obstacle},
    };

    fn record(rollout: &mut Rollout, number: i64, state: CommitState) {
        let time = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(number);
        rollout.record(HistoryEntry {
            commit: commit_id(&format!("c{number:03}")),
            subject: String::new(),
            signer: String::new(),
            state,
            reason: CommitReason::None.into(),
            class: None,
            began: time,
            ended: (state != CommitState::Progressing).then_some(time),
        });
    }

    fn count(rollout: &Rollout, state: CommitState) -> usize {
        rollout
            .history
            .iter()
            .filter(|entry| entry.state == state)
            .count()
    }

    #[test]
    fn refused_pushes_do_not_push_out_what_can_be_gone_back_to() {
        let mut rollout = Rollout::default();
        for number in 0..5 {
            record(&mut rollout, number, CommitState::Healthy);
        }
        record(&mut rollout, 5, CommitState::Progressing);
        for number in 6..200 {
            record(&mut rollout, number, CommitState::Refused);
        }
        assert_eq!(rollout.history.len(), HISTORY);
        assert_eq!(count(&rollout, CommitState::Healthy), 5);
        assert_eq!(count(&rollout, CommitState::Progressing), 1);
        assert_eq!(
            rollout.history.last().map(|entry| &entry.commit),
            Some(&commit_id("c199"))
        );
    }

    #[test]
    fn failures_go_before_healthy_ones_and_those_are_bounded_too() {
        let mut rollout = Rollout::default();
        for number in 0..100 {
            record(&mut rollout, number, CommitState::Healthy);
        }
        for number in 100..120 {
            record(&mut rollout, number, CommitState::RolledBack);
        }
        assert_eq!(rollout.history.len(), HISTORY);
        assert_eq!(count(&rollout, CommitState::Healthy), HISTORY - 1);
        assert_eq!(
            rollout.history.first().map(|entry| &entry.commit),
            Some(&commit_id("c051"))
        );
    }

    #[test]
    fn what_a_commit_waits_for_is_recorded_in_its_open_entry_only() {
        let reasons = |rollout: &Rollout| -> Vec<String> {
            let entries = rollout.history.iter();
            entries.map(|entry| entry.reason.to_string()).collect()
        };
        let mut rollout = Rollout {
            target: Some(commit_id("c001")),
            ..Rollout::default()
        };
        record(&mut rollout, 1, CommitState::RolledBack);
        record(&mut rollout, 1, CommitState::Progressing);
        record(&mut rollout, 2, CommitState::Progressing);
        let reason = CommitReason::Waiting(Obstacle::CanariesAbsent);
        rollout.note_waiting(reason.clone());
        let waiting = reason.to_string();
        assert_eq!(reasons(&rollout), ["", waiting.as_str(), ""]);

        rollout.note_waiting(CommitReason::None);
        assert_eq!(reasons(&rollout), ["", "", ""]);
        rollout.target = Some(commit_id("c003"));
        rollout.note_waiting(reason);
        assert_eq!(reasons(&rollout), ["", "", ""], "there is no such entry");
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(seconds)
    }

    fn failure() -> Failure {
        Failure {
            class: FailureClass::Image,
            reason: FailureReason::Images(ForeignText::new("none")),
        }
    }

    #[test]
    fn unfinished_commits_go_first_then_failed_ones_then_healthy_ones_beyond_twenty() {
        let fill = |healthy, others: &[CommitState]| {
            let mut rollout = Rollout::default();
            for number in 0..healthy {
                record(&mut rollout, number, CommitState::Healthy);
            }
            for (number, state) in (healthy..).zip(others) {
                record(&mut rollout, number, *state);
            }
            rollout
        };
        // The number of healthy entries, the others, and the entry that is removed first. The
        // newest entry stays.
        let cases = [
            (
                2,
                vec![CommitState::Degraded, CommitState::Held, CommitState::Held],
                Some(3),
            ),
            (2, vec![CommitState::Degraded, CommitState::Held], Some(2)),
            (
                2,
                vec![CommitState::RolledBack, CommitState::Degraded],
                Some(2),
            ),
            (2, vec![CommitState::Superseded], None),
            (20, vec![CommitState::Progressing], None),
            (21, vec![CommitState::Progressing], Some(0)),
            (21, vec![], Some(0)),
        ];
        for (healthy, others, expected) in cases {
            let removed = fill(healthy, &others).least_needed();
            assert_eq!(removed, expected, "{healthy} healthy, {others:?}");
        }
    }

    #[test]
    fn a_new_entry_replaces_the_open_one_of_its_commit_only() {
        let mut rollout = Rollout::default();
        record(&mut rollout, 1, CommitState::Held);
        record(&mut rollout, 1, CommitState::Progressing);
        record(&mut rollout, 2, CommitState::Progressing);
        record(&mut rollout, 1, CommitState::Healthy);
        let entries = rollout.history.iter();
        let states: Vec<_> = entries
            .map(|entry| (entry.commit.clone(), entry.state))
            .collect();
        let expected = [
            ("c001", CommitState::Held),
            ("c002", CommitState::Progressing),
            ("c001", CommitState::Healthy),
        ];
        assert_eq!(
            states,
            expected.map(|(name, state)| (commit_id(name), state))
        );
    }

    #[test]
    fn a_failure_ends_the_newest_entry_of_a_commit_that_was_never_healthy() {
        let mut rollout = Rollout::default();
        record(&mut rollout, 1, CommitState::Healthy);
        record(&mut rollout, 2, CommitState::Held);
        record(&mut rollout, 2, CommitState::Progressing);
        record(&mut rollout, 3, CommitState::Progressing);
        let before = rollout.history.clone();

        let healthy = commit_id("c001");
        assert!(!rollout.end(&healthy, CommitState::Degraded, &failure(), at(9)));
        assert_eq!(rollout.history, before);

        let failed = commit_id("c002");
        assert!(rollout.end(&failed, CommitState::RolledBack, &failure(), at(9)));
        let mut expected = before;
        expected[2].state = CommitState::RolledBack;
        expected[2].reason = CommitReason::Failed(failure().reason).into();
        expected[2].class = Some(FailureClass::Image);
        expected[2].ended = Some(at(9));
        assert_eq!(rollout.history, expected);
    }

    #[test]
    fn only_the_newest_entry_of_a_degraded_commit_is_opened_again() {
        let mut rollout = Rollout::default();
        record(&mut rollout, 1, CommitState::Degraded);
        record(&mut rollout, 1, CommitState::Degraded);
        record(&mut rollout, 2, CommitState::RolledBack);
        let mut expected = rollout.history.clone();
        rollout.reopen(&commit_id("c002"), at(9));
        assert_eq!(rollout.history, expected, "it is not degraded");

        rollout.reopen(&commit_id("c001"), at(9));
        expected[1].state = CommitState::Progressing;
        expected[1].began = at(9);
        expected[1].ended = None;
        assert_eq!(rollout.history, expected);
    }

    #[test]
    fn only_the_open_entry_of_the_target_is_closed() {
        let mut rollout = Rollout {
            target: Some(commit_id("c002")),
            ..Rollout::default()
        };
        record(&mut rollout, 1, CommitState::Progressing);
        record(&mut rollout, 2, CommitState::Progressing);
        record(&mut rollout, 3, CommitState::Progressing);
        let mut expected = rollout.history.clone();
        let close = |rollout: &mut Rollout| {
            let reason = CommitReason::Superseded.into();
            let class = Some(FailureClass::Manual);
            rollout.close_target(CommitState::Superseded, reason, class, at(9));
        };
        close(&mut rollout);
        expected[1].state = CommitState::Superseded;
        expected[1].reason = CommitReason::Superseded.into();
        expected[1].class = Some(FailureClass::Manual);
        expected[1].ended = Some(at(9));
        assert_eq!(rollout.history, expected);

        rollout.history[1].state = CommitState::Held;
        expected[1].state = CommitState::Held;
        close(&mut rollout);
        assert_eq!(rollout.history, expected, "it has ended");
    }
}
