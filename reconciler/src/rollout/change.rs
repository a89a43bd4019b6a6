//! How a roll-out changes: what is driven, the phase and the clock go together.

use jiff::Timestamp;

use super::{CommitState, Phase, Rollback, Rollout};
use crate::name::CommitId;

/// How many commits are remembered whose pods may still be there.
const LEFT: usize = 8;

impl Rollout {
    /// The commit that the target is compared with to find what must be judged.
    pub fn base(&self) -> Option<CommitId> {
        match &self.rollback {
            Some(rollback) => Some(rollback.from.clone()),
            None => self.healthy.clone(),
        }
    }

    /// Makes an earlier commit the target. Its images are pinned, so that there is nothing to prepare.
    pub fn go_back_to(&mut self, commit: CommitId, rollback: Rollback, now: Timestamp) {
        self.close_target(CommitState::RolledBack, &rollback.reason, now);
        self.target = Some(commit.clone());
        self.drive(commit);
        self.rollback = Some(rollback);
        self.began = Some(now);
        self.start_clock(now);
        self.enter(Phase::Progressing { message: "rolling back".to_owned() }, now);
    }

    /// Lets the controllers follow a commit, and remembers what they followed before.
    pub(super) fn drive(&mut self, commit: CommitId) {
        self.left.retain(|left| *left != commit);
        if let Some(before) = self.driving.replace(commit)
            && self.driving.as_ref() != Some(&before)
        {
            self.left.retain(|left| *left != before);
            self.left.push(before);
            let surplus = self.left.len().saturating_sub(LEFT);
            self.left.drain(..surplus);
        }
    }

    /// What was waited for so far counts for no deadline.
    pub(super) fn start_clock(&mut self, now: Timestamp) {
        self.clock = Some(now);
        self.waiting = false;
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Timestamp) {
        self.phase = phase;
        self.since = Some(now);
    }

    /// The same phase with another message: its beginning stays.
    pub(super) fn update(&mut self, phase: Phase) {
        self.phase = phase;
    }
}
