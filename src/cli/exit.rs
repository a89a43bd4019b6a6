//! How a command ends.

use std::{io, path::PathBuf, process::ExitCode};

use thiserror::Error;

/// The exit codes. They are part of the interface: scripts branch on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Done,
    /// 1: it could not be done, or found something wrong.
    Failed,
    /// 2: the command line is wrong.
    Usage,
    /// 3: the commit was refused, held or rolled back.
    Refused,
    /// 4: the time is up.
    TimedOut,
    /// 5: the daemon cannot be reached.
    Unreachable,
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
        })
    }
}

/// Why a command could not be carried out.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    /// Nobody answers at the socket.
    #[error("cannot reach the daemon at {socket}: is `windlass run` running? ({why})")]
    Unreachable {
        /// Which socket.
        socket: PathBuf,
        /// What connecting said.
        why: String,
    },
    /// The socket may not be opened.
    #[error("may not speak to the daemon at {0}: become root, or a member of the socket's group")]
    Forbidden(PathBuf),
    /// The daemon says no.
    #[error("{0}")]
    Answer(String),
    /// The connection broke, or brought something that is no answer.
    #[error("the daemon's answer cannot be used: {0}")]
    Broken(String),
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Standard output.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    /// The code to end with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } | Self::Forbidden(_) => Exit::Unreachable,
            Self::Answer(_) | Self::Broken(_) | Self::Output(_) => Exit::Failed,
            Self::Usage(_) => Exit::Usage,
        }
    }
}
