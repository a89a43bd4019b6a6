//! The commands that a person can send to the daemon over `admin.sock`; the control loop answers
//! each.

use reconciler::name::{CommitPrefix, NodeName, WorkloadKey};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// A command, with the channel for its answer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) command: Command,
    /// The channel for the answer. The loop answers when it has accepted the command, not when the
    /// effect is complete.
    pub(crate) answer: oneshot::Sender<Result<String, String>>,
}

/// A command of a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Command {
    /// Fetch now.
    Sync,
    /// Go back to a commit within `history` and stay there until `resume` or until the head moves.
    Rollback {
        /// The commit; `None` is the healthy one before the current.
        commit: Option<CommitPrefix>,
    },
    /// Go back on this host alone, with or without the store, until `resume --local`.
    RollbackLocal {
        /// The commit; `None` is the healthy one before the current.
        commit: Option<CommitPrefix>,
    },
    /// Ends a rollback of this host alone.
    ResumeLocal,
    /// Takes no new commits.
    Suspend,
    /// Takes new commits again; also ends the pin of a rollback.
    Resume,
    /// Clears the mark of a failed commit, or of all failed commits, and tries the head again.
    Retry {
        /// The failed commit; `None` for all.
        commit: Option<CommitPrefix>,
    },
    /// Replaces the pods of a workload by its own strategy; the content stays the same.
    Restart {
        /// The workload with its kind, namespace and name.
        workload: WorkloadKey,
    },
    /// Removes a node for good: its pods are made again on other nodes.
    RemoveNode {
        /// The name of the node.
        node: NodeName,
    },
    /// Makes this host's copy the content of the store, and that store the one that all hosts
    /// trust.
    AdoptStore,
}

impl Command {
    /// Whether only the leader can execute the command.
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
