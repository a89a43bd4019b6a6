//! What became of each commit, as it is stored.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{FailureClass, FailureReason, Obstacle, Stored};
use crate::{
    foreign::{self, ForeignText},
    name::{CommitId, WorkloadKey, first_few},
};

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Id of the commit.
    pub commit: CommitId,
    /// The first line of its message.
    #[serde(deserialize_with = "foreign::sentence")]
    pub subject: String,
    /// The signer of the commit; empty where verification is off.
    #[serde(deserialize_with = "foreign::sentence")]
    pub signer: String,
    /// The last state of the commit.
    pub state: CommitState,
    /// Why the commit has this state.
    pub reason: Stored<CommitReason>,
    /// The class of the failure; `None` if the commit did not fail.
    #[serde(default)]
    pub class: Option<FailureClass>,
    /// When the rollout of the commit began, or the commit was refused.
    pub began: Timestamp,
    /// When the state became final; `None` until then.
    pub ended: Option<Timestamp>,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitState {
    /// The commit is not trusted, cannot be read, or has errors: it never ran.
    Refused,
    /// The commit deletes more than the budget allows: it waits for a person's approval.
    Held,
    /// The commit is being prepared, or the controllers are updating the workloads to it.
    Progressing,
    /// The commit ran and became healthy.
    Healthy,
    /// The commit failed; the last healthy commit runs instead.
    RolledBack,
    /// The commit failed, and there was no healthy commit to roll back to.
    Degraded,
    /// A newer commit replaced this one before it became healthy.
    Superseded,
}

impl CommitState {
    /// The name of the state, as one word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "Refused",
            Self::Held => "Held",
            Self::Progressing => "Progressing",
            Self::Healthy => "Healthy",
            Self::RolledBack => "RolledBack",
            Self::Degraded => "Degraded",
            Self::Superseded => "Superseded",
        }
    }
}

/// Why a commit has its state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CommitReason {
    /// There is no reason to give; stored as an empty sentence.
    #[default]
    None,
    /// The commit is refused: the text has all problems that were found.
    Refused(ForeignText),
    /// The commit would delete more workloads than the budget allows.
    OverBudget {
        /// The workloads that the commit would delete.
        deleted: Vec<WorkloadKey>,
        /// Number of all workloads before.
        of: usize,
        /// Maximum number of workloads that the budget allows to delete.
        allowed: usize,
    },
    /// Something outside of the commit is in its way.
    Waiting(Obstacle),
    /// A newer commit became the target before this one was healthy.
    Superseded,
    /// The commit failed, for this reason.
    Failed(FailureReason),
}

impl fmt::Display for CommitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Refused(problems) => problems.fmt(f),
            Self::OverBudget {
                deleted,
                of,
                allowed,
            } => write!(
                f,
                "it would delete {} of {of} workloads ({}), the budget is {allowed}: if that is meant, push a new commit \
                 with the trailer `Windlass-Allow-Deletions: yes`",
                deleted.len(),
                first_few(deleted)
            ),
            Self::Waiting(obstacle) => write!(f, "waiting: {obstacle}"),
            Self::Superseded => f.write_str("a newer commit took its place"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{NodeName, ObjectKey, WorkloadKind};

    #[test]
    fn each_state_of_a_commit_has_its_word() {
        let words = [
            (CommitState::Refused, "Refused"),
            (CommitState::Held, "Held"),
            (CommitState::Progressing, "Progressing"),
            (CommitState::Healthy, "Healthy"),
            (CommitState::RolledBack, "RolledBack"),
            (CommitState::Degraded, "Degraded"),
            (CommitState::Superseded, "Superseded"),
        ];
        for (state, word) in words {
            assert_eq!(state.as_str(), word);
        }
    }

    #[test]
    fn a_reason_is_stored_with_the_sentence_that_other_versions_read() {
        let workload = |name| WorkloadKey {
            kind: WorkloadKind::Deployment,
            object: ObjectKey::new("default", name),
        };
        let reasons = [
            (CommitReason::None, ""),
            (
                CommitReason::Refused(ForeignText::new("not signed")),
                "not signed",
            ),
            (
                CommitReason::OverBudget {
                    deleted: vec![workload("a"), workload("b")],
                    of: 4,
                    allowed: 1,
                },
                "it would delete 2 of 4 workloads (Deployment/default/a, Deployment/default/b), the budget is 1: if that is \
                 meant, push a new commit with the trailer `Windlass-Allow-Deletions: yes`",
            ),
            (
                CommitReason::Waiting(Obstacle::NotReported(NodeName::new("a"))),
                "waiting: node a has not reported yet",
            ),
            (CommitReason::Superseded, "a newer commit took its place"),
            (
                CommitReason::Failed(FailureReason::Asked),
                "asked for by `windlass rollback`",
            ),
        ];
        for (reason, sentence) in reasons {
            let reason = Stored::Decided(reason);
            let stored = serde_json::to_value(&reason).expect("a text");
            assert_eq!(stored, sentence);
            let read: Stored<CommitReason> = serde_json::from_value(stored).expect("a text");
            assert_eq!(read, reason);
        }
    }
}
