//! The exit codes of a command, and the errors that lead to them.

use std::{io, path::PathBuf, process::ExitCode};

use thiserror::Error;

/// The exit codes. They are part of the interface: scripts branch on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: the command was executed.
    Done,
    /// 1: the command failed, or a check found errors.
    Failed,
    /// 2: the command line is wrong.
    Usage,
    /// 3: the commit was refused, held or rolled back.
    Refused,
    /// 4: the timeout has expired.
    TimedOut,
    /// 5: the daemon cannot be reached.
    Unreachable,
    /// 6: the daemon's configuration cannot be right: a new start fails in the same way.
    Misconfigured,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::TimedOut => 4,
            Exit::Unreachable => 5,
            // As in the Linux Standard Base, where 6 is "program is not configured".
            Exit::Misconfigured => 6,
        })
    }
}

/// Why a command could not be carried out.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    /// No daemon listens at the socket.
    #[error("cannot reach the daemon at {socket}: is `windlass run` running? ({why})")]
    Unreachable {
        /// The path of the socket.
        socket: PathBuf,
        /// The error of connecting.
        why: String,
    },
    /// This user may not open the socket.
    #[error("permission denied at {0}: become root, or a member of the socket's group")]
    Forbidden(PathBuf),
    /// The configuration that the daemon was started with cannot be right.
    #[error("{0}")]
    Configuration(String),
    /// The daemon refused the request, or failed; the text is its message.
    #[error("{0}")]
    Answer(String),
    /// The connection ended early, or the answer is not of the expected form.
    #[error("the daemon's answer cannot be used: {0}")]
    Broken(String),
    /// The arguments contradict each other, or name what does not exist.
    #[error("{0}")]
    Usage(String),
    /// Standard output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    /// The exit code for the error.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } | Self::Forbidden(_) => Exit::Unreachable,
            Self::Answer(_) | Self::Broken(_) | Self::Output(_) => Exit::Failed,
            Self::Usage(_) => Exit::Usage,
            Self::Configuration(_) => Exit::Misconfigured,
        }
    }
}
