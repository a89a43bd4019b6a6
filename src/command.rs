//! What a person may ask of the daemon over `admin.sock`; the control loop answers each.

use reconciler::name::{CommitId, NodeName, WorkloadKey};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// A command, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Request {
    /// What is asked.
    pub(crate) command: Command,
    /// Where the answer goes. The loop answers when it has taken the command in, not when its
    /// effect is complete.
    pub(crate) answer: oneshot::Sender<Result<String, String>>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Command {
    /// Fetch now.
    Sync,
    /// Go back to a commit within `history` and stay there until `resume` or until the head moves.
    Rollback {
        /// Which; `None` is the healthy one before the current.
        commit: Option<CommitId>,
    },
    /// Go back on this host alone, with or without the store, until `resume --local`.
    RollbackLocal {
        /// Which; `None` is the healthy one before the current.
        commit: Option<CommitId>,
    },
    /// End that.
    ResumeLocal,
    /// Take no new commit.
    Suspend,
    /// Take new commits again; also ends the pin of a rollback.
    Resume,
    /// Clear the mark of a failed commit, of all where none is named, and try the head afresh.
    Retry {
        /// Which.
        commit: Option<CommitId>,
    },
    /// Replace the pods of a workload by its own strategy; adds no content.
    Restart {
        /// Which.
        workload: WorkloadKey,
    },
    /// Give a node up for good: its pods are made anew elsewhere.
    RemoveNode {
        /// Which.
        node: NodeName,
    },
    /// Make this host's copy the content of the store, and that store the one that all hosts
    /// believe.
    AdoptStore,
}

impl Command {
    /// Whether only the leader can do it.
    pub(crate) fn needs_leader(&self) -> bool {
        match self {
            Self::Sync | Self::AdoptStore | Self::RollbackLocal { .. } | Self::ResumeLocal => false,
            Self::Rollback { .. }
            | Self::Suspend
            | Self::Resume
            | Self::Retry { .. }
            | Self::Restart { .. }
            | Self::RemoveNode { .. } => true,
        }
    }
}
