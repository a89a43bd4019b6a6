//! Changes of a rollout: the driving commit, the phase and the clock change together.

use jiff::Timestamp;

use crate::{
    name::CommitId,
    state::{
        Activity, CommitReason, CommitState, Failure, FailureReason, Phase, Rollback, Rollout,
        Stored,
    },
};

/// Removes the `bad` mark of one commit or of all of them, and returns how many had one. A degraded
/// target is prepared again here, since it is the target already and no new head would start it.
pub fn retry(rollout: &mut Rollout, commit: Option<&CommitId>, now: Timestamp) -> usize {
    let before = rollout.bad.len();
    rollout
        .bad
        .retain(|bad, _| commit.is_some_and(|commit| commit != bad));
    let cleared = before - rollout.bad.len();
    let asked = commit.is_none() || rollout.target.as_ref() == commit;
    if let (Phase::Degraded { .. }, true, Some(target)) =
        (&rollout.phase, asked, rollout.target.clone())
    {
        rollout.began = Some(now);
        rollout.reopen(&target, now);
        rollout.enter(Phase::preparing(), now);
    }
    cleared
}

/// Maximum number of earlier commits that are remembered because their pods may still exist.
const LEFT: usize = 8;

impl Rollout {
    /// The commit with which the target is compared to decide which workloads are judged.
    pub fn base(&self) -> Option<CommitId> {
        match &self.rollback {
            Some(rollback) => Some(rollback.from.clone()),
            None => self.healthy.clone(),
        }
    }

    /// The commits that ran before the driving one, newest first: pods of them may still exist.
    pub fn before(&self) -> Vec<&CommitId> {
        let from = self.rollback.as_ref().map(|rollback| &rollback.from);
        let mut before: Vec<&CommitId> = Vec::new();
        for id in self.left.iter().rev().chain(from).chain(&self.healthy) {
            if self.driving.as_ref() != Some(id) && !before.contains(&id) {
                before.push(id);
            }
        }
        before
    }

    /// Whether the driving commit is still replacing earlier commits: it is not healthy, and has
    /// not failed without a commit to roll back to. While a newer commit is prepared, the rollout
    /// of the driving commit continues.
    pub fn is_under_way(&self) -> bool {
        match self.phase {
            Phase::Empty | Phase::Healthy | Phase::Degraded { .. } => false,
            Phase::Progressing { .. } | Phase::Soaking => true,
            Phase::Preparing { .. } => {
                let last = self
                    .history
                    .iter()
                    .rev()
                    .find(|entry| Some(&entry.commit) == self.driving.as_ref());
                last.is_none_or(|entry| entry.state != CommitState::Degraded)
            }
        }
    }

    /// Whether the driving commit is neither healthy nor the target any more. It is still judged
    /// until the target replaces it, which can take as long as a registry is unreachable.
    pub fn judges_superseded(&self) -> bool {
        matches!(self.phase, Phase::Preparing { .. })
            && self.healthy.is_some()
            && self.driving.is_some()
            && self.driving != self.target
            && self.driving != self.healthy
    }

    /// Records that the driving commit failed while the target is being prepared: the healthy
    /// commit runs until the target is prepared.
    pub(super) fn give_up_superseded(&mut self, failure: &Failure, now: Timestamp) {
        let (Some(driving), Some(healthy)) = (self.driving.clone(), self.healthy.clone()) else {
            return;
        };
        if self.end(&driving, CommitState::RolledBack, failure, now) {
            self.bad.insert(driving, failure.reason.clone().into());
        }
        let is_target = self.target.as_ref() == Some(&healthy);
        self.drive(healthy);
        self.start_clock(now);
        // The healthy commit's images are pinned: nothing has to be prepared.
        if is_target {
            self.enter(Phase::progressing(Activity::RollingBack), now);
        }
    }

    /// Makes an earlier commit the target. Its images are pinned, so nothing has to be prepared.
    pub fn go_back_to(&mut self, commit: CommitId, rollback: Rollback, now: Timestamp) {
        self.close_target(
            CommitState::RolledBack,
            failed(&rollback.reason),
            Some(rollback.class),
            now,
        );
        self.target = Some(commit.clone());
        self.drive(commit);
        self.rollback = Some(rollback);
        self.began = Some(now);
        self.start_clock(now);
        self.enter(Phase::progressing(Activity::RollingBack), now);
    }

    /// Makes the controllers follow a commit, and remembers the one that they followed before.
    pub(super) fn drive(&mut self, commit: CommitId) {
        self.left.retain(|left| *left != commit);
        if let Some(before) = self.driving.replace(commit)
            && self.driving.as_ref() != Some(&before)
        {
            // Faulty nodes and canaries are decided anew for each commit.
            self.faulty.clear();
            self.wave = None;
            self.left.retain(|left| *left != before);
            self.left.push(before);
            let surplus = self.left.len().saturating_sub(LEFT);
            self.left.drain(..surplus);
        }
    }

    /// Limits all stored times to the present: a clock that was set back since, or a previous
    /// leader's clock that was ahead, must not extend a deadline.
    pub(super) fn limit_times_to(&mut self, now: Timestamp) {
        let mut times = vec![&mut self.since, &mut self.clock, &mut self.failing];
        times.extend(self.wave.as_mut().map(|wave| &mut wave.settled));
        for share in self
            .shares
            .iter_mut()
            .flat_map(|shares| shares.nodes.values_mut())
        {
            share.since = share.since.min(now);
            times.push(&mut share.behind);
        }
        for time in times {
            *time = time.map(|time| time.min(now));
        }
    }

    /// The rollout after a time without a leader, or after a change of leader with another clock:
    /// the time before does not count towards any deadline. `None` where no deadline is running.
    #[must_use]
    pub fn after_gap(&self, now: Timestamp) -> Option<Self> {
        let has_deadlines = matches!(
            self.phase,
            Phase::Preparing { .. } | Phase::Progressing { .. } | Phase::Soaking
        );
        let mut after = self.clone();
        after.since = Some(now);
        after.clock = after.clock.map(|_| now);
        after.failing = after.failing.map(|_| now);
        if let Some(wave) = &mut after.wave {
            wave.settled = wave.settled.map(|_| now);
        }
        for share in after
            .shares
            .iter_mut()
            .flat_map(|shares| shares.nodes.values_mut())
        {
            share.since = now;
            share.behind = share.behind.map(|_| now);
        }
        has_deadlines.then_some(after)
    }

    /// Restarts the clock, so that the time before does not count towards any deadline.
    pub(super) fn start_clock(&mut self, now: Timestamp) {
        self.clock = Some(now);
        self.waiting = false;
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Timestamp) {
        self.failing = None;
        self.phase = phase;
        self.since = Some(now);
    }

    /// Updates the message of a phase; a phase that continues keeps its `since`.
    pub(super) fn update(&mut self, phase: Phase) {
        self.phase = phase;
    }
}

/// The reason of a failure, as the reason of the failed commit's entry in the history.
fn failed(reason: &Stored<FailureReason>) -> Stored<CommitReason> {
    match reason {
        Stored::Decided(reason) => CommitReason::Failed(reason.clone()).into(),
        Stored::Read(sentence) => Stored::Read(sentence.clone()),
    }
}

#[cfg(test)]
mod tests;
