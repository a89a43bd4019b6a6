//! What a new head of the followed branch does to the rollout: it becomes the target, is refused, or
//! is held for its deletions.

use jiff::Timestamp;

use super::input::{Head, StepInput};
use crate::{
    commit::Commit,
    foreign::ForeignText,
    name::WorkloadKey,
    settings::RolloutSettings,
    state::{CommitReason, CommitState, HistoryEntry, Phase, Rollout},
};

pub(super) fn take_up_head(input: &StepInput<'_>, rollout: &mut Rollout) {
    match input.head {
        Head::Unknown => {}
        Head::Refused {
            commit,
            subject,
            signer,
            reason,
        } => {
            let reason = CommitReason::Refused(ForeignText::sentence(reason)).into();
            let known = rollout.history.iter().any(|entry| {
                entry.commit == *commit
                    && entry.state == CommitState::Refused
                    && entry.reason == reason
            });
            if !known {
                rollout.record(HistoryEntry {
                    commit: commit.clone(),
                    subject: subject.clone(),
                    signer: signer.clone(),
                    state: CommitState::Refused,
                    reason,
                    class: None,
                    began: input.now,
                    ended: Some(input.now),
                });
            }
        }
        Head::Accepted(id) => {
            // A head that is in the history (held, or bad) was the head before the rollback
            // already: the head has not moved on.
            let seen = rollout.history.iter().any(|entry| entry.commit == *id);
            if !seen
                && rollout
                    .pinned_against
                    .as_ref()
                    .is_some_and(|left| left != id)
            {
                rollout.pinned_against = None;
            }

            let is_wanted = !rollout.suspended
                && rollout.pinned_against.is_none()
                && rollout.target.as_ref() != Some(id)
                && !rollout.bad.contains_key(id);
            if is_wanted && let Some(head) = input.commits.get(id) {
                consider(input, rollout, head);
            }
        }
    }
}

/// Makes the head the target, unless it deletes too much. If the commit that runs cannot be read,
/// the deletions are unknown, so the head waits.
fn consider(input: &StepInput<'_>, rollout: &mut Rollout, head: &Commit) {
    let over_budget = match &rollout.driving {
        None => None,
        Some(id) => {
            let Some(before) = input.commits.get(id).or_else(|| input.kept.get(id)) else {
                return;
            };
            over_budget(input.settings, before, head)
        }
    };
    if let Some(reason) = over_budget {
        let known = rollout
            .history
            .iter()
            .any(|entry| entry.commit == head.id && entry.state == CommitState::Held);
        if !known {
            rollout.record(entry(head, CommitState::Held, reason, input.now));
        }
        return;
    }

    rollout.close_target(
        CommitState::Superseded,
        CommitReason::Superseded.into(),
        None,
        input.now,
    );
    rollout.target = Some(head.id.clone());
    rollout.rollback = None;
    rollout.began = Some(input.now);
    rollout.enter(Phase::preparing(), input.now);
    rollout.record(entry(
        head,
        CommitState::Progressing,
        CommitReason::None,
        input.now,
    ));
}

fn entry(
    commit: &Commit,
    state: CommitState,
    reason: CommitReason,
    now: Timestamp,
) -> HistoryEntry {
    HistoryEntry {
        commit: commit.id.clone(),
        subject: commit.subject.clone(),
        signer: commit.signer.clone(),
        state,
        reason: reason.into(),
        class: None,
        began: now,
        ended: None,
    }
}

/// Why a commit must wait for a person's approval, if it deletes more than the budget.
pub(super) fn over_budget(
    settings: &RolloutSettings,
    before: &Commit,
    head: &Commit,
) -> Option<CommitReason> {
    if head.allow_deletions {
        return None;
    }
    let workloads = before.objects.workloads.len();
    let deleted: Vec<WorkloadKey> = before
        .objects
        .workloads
        .keys()
        .filter(|key| !head.objects.workloads.contains_key(*key))
        .cloned()
        .collect();
    let allowed = settings.deletion_budget(workloads);
    (deleted.len() > allowed).then_some(CommitReason::OverBudget {
        deleted,
        of: workloads,
        allowed,
    })
}
