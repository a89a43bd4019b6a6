//! The commands that a person can send to the daemon over `admin.sock`; the control loop answers
//! each.

use reconciler::name::{CommitId, CommitPrefix, NodeName, WorkloadKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::oneshot;

/// A command, with the channel for its answer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) command: Command,
    /// The channel for the answer. The loop answers when it has accepted the command, not when the
    /// effect is complete.
    pub(crate) answer: oneshot::Sender<CommandResult>,
}

/// What was done, as a sentence for the person; or why nothing was done.
pub(crate) type CommandResult = Result<String, CommandError>;

/// Why a command was not executed. `{:#}` of [`anyhow::Error`] prints it with its causes.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    /// `retry` of a commit that is not marked as failed; the operand is as the person wrote it.
    #[error("commit {0} has not failed; see `windlass history`")]
    NotFailed(CommitPrefix),
    #[error("there is no {0} in the commit that runs; see `windlass get all -A`")]
    NoWorkload(WorkloadKey),
    /// `rollback` to a commit that is not a healthy one of the history; the operand is as the
    /// person wrote it.
    #[error("{0} names no commit that was healthy on this host: see `windlass history`")]
    NotHealthy(CommitPrefix),
    #[error("there is no earlier healthy commit to go back to")]
    NoEarlierHealthy,
    #[error("commit {} is the target already", .0.short())]
    IsTarget(CommitId),
    #[error("commit {} could not be judged", commit.short())]
    NotJudged {
        commit: CommitId,
        source: anyhow::Error,
    },
    #[error("commit {} cannot be gone back to", commit.short())]
    NotEligible {
        commit: CommitId,
        source: anyhow::Error,
    },
    #[error("this host did not go back by itself: there is nothing to resume here")]
    NoDetour,
    #[error("this host is alone: there is no other node")]
    NoOtherNode,
    #[error("there is no node {0}: see `windlass get nodes`")]
    NoNode(NodeName),
    /// The node has announced that its daemon is being restarted.
    #[error("node {0} has announced that it comes back soon: wait until it is lost")]
    NodeComesBack(NodeName),
    #[error(
        "node {0} lives: stop its daemon first (`systemctl stop windlass`), or cordon and drain it in Git"
    )]
    NodeLives(NodeName),
    #[error("node {0} has not reported yet which installation it is: wait until it has")]
    UnknownInstallation(NodeName),
    #[error("this host is alone and does not lead")]
    NoLeader,
    #[error(
        "something else that was asked here waits for the leader's answer: try again in a moment"
    )]
    AnotherWaits,
    /// The leader was asked for a command that only the asking host itself can execute.
    #[error("only the host itself does that")]
    OnlyItself,
    #[error("no leader has answered; it may still be done: see `windlass status`")]
    NoAnswer,
    #[error("the store does not answer, and only the leader may do that")]
    StoreSilent,
    /// The leader's own message, as it came through the store.
    #[error("{0}")]
    ByLeader(String),
    /// The effect of the command could not be written.
    #[error(transparent)]
    NotWritten(#[from] anyhow::Error),
}

/// A command of a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Command {
    /// Fetches the followed branch at once.
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
