//! The sandbox of the child process: what code that parses a stranger's bytes can still do when the
//! stranger controls it.
//!
//! ```text
//! user      no longer root where another user can do the work; no capability, none to regain
//! files     landlock: the listed paths to read, the work directory to write
//! network   landlock and seccomp: the listed TCP ports, or no sockets
//! calls     seccomp: no new program, process, mount, tracing, BPF or io_uring
//! ```
//!
//! All restrictions belong to the calling thread, so the process must have no other thread.

mod calls;
mod files;
mod user;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub(crate) use self::files::landlock_version;
pub(crate) use self::user::UserIds;

/// Why the process could not be restricted. Nothing of a stranger may be read then.
#[derive(Debug, Error)]
pub(crate) enum SandboxError {
    /// The process could not become another user, or drop its capabilities.
    #[error("become user {uid} without capabilities: {source}")]
    User { uid: u32, source: io::Error },
    /// The kernel has landlock, and refused the rules.
    #[error("restrict files: {0}")]
    Files(#[from] landlock::RulesetError),
    /// The kernel refused the filter of system calls.
    #[error("restrict system calls: {0}")]
    Calls(String),
}

/// What a process may do after [`Sandbox::enter`].
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    /// The user that the process becomes; `None` if it stays the user that it is.
    pub(crate) user: Option<UserIds>,
    /// Files and directories that may be read, with all below.
    pub(crate) reads: Vec<PathBuf>,
    /// The only directory that may be written to.
    pub(crate) writes: PathBuf,
    pub(crate) network: NetworkAccess,
}

/// The connections that a process may make. It may accept none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NetworkAccess {
    /// No sockets at all.
    None,
    /// TCP to these ports (from landlock's fourth version on), and UDP, by which names are
    /// resolved.
    Remote {
        ports: Vec<u16>,
        /// Whether sockets of the host's name services may be used. They are files, which landlock
        /// does not tell apart, and root may connect to each of them, also to the engine's.
        name_services: bool,
    },
}

impl Sandbox {
    /// Becomes the user, which drops all capabilities. Signals that depend on the user, such as the
    /// one at the end of the parent, are to be set after this.
    pub(crate) fn become_user(&self) -> Result<(), SandboxError> {
        user::drop_privileges(self.user)
    }

    /// Restricts files, connections and system calls of this thread, for good.
    pub(crate) fn enter(&self) -> Result<(), SandboxError> {
        files::restrict(self)?;
        calls::restrict(&self.network)
    }
}

#[cfg(test)]
mod tests;
