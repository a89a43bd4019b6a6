//! Runs work that parses a stranger's bytes in a child process of the daemon's own binary.
//!
//! libgit2 parses data of an untrusted remote and has calls that cannot be interrupted. A child
//! process can be killed at the deadline, a crash or excessive memory ends the child and not the
//! daemon, and what a stranger makes of the child stays in its [`super::sandbox`]. Request and
//! answer are one JSON document each, on standard input and as the last line of standard output;
//! secrets never appear in arguments, in files or in the environment.

mod disk;
mod process;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use reconciler::foreign::ForeignText;
use reconciler::name::CommitId;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use self::disk::DiskBound;
pub(crate) use self::process::child_main;
#[cfg(test)]
pub(crate) use self::process::enter;
use super::fetch::{FetchError, FetchLimits, RemoteHead, RemoteTask, RemoteUrl, out_of_memory};
use super::mirror::Mirror;
use super::sandbox::UserIds;

/// A request holds paths, ids, one secret, and the certificates and keys of servers.
const MAX_REQUEST_BYTES: u64 = 16 * 1024 * 1024;
/// An answer holds a few ids or one message.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;
/// The size limit of each text in an answer.
const TEXT_BYTES: usize = 1024;
/// The length limit of each list in an answer.
const ITEMS: usize = 20;
/// A task ends by itself at its deadline; the child is killed after this additional time for calls
/// that do not.
const GRACE: Duration = Duration::from_secs(2);

/// The home directory of the child, in its work directory.
const HOME: &str = "home";
/// The file of the only certificate authorities, in the home directory.
const AUTHORITIES: &str = "authorities.pem";
/// The directory of trusted certificates if only the configured authorities count. It must exist:
/// git2 replaces a missing directory by the system's.
const NO_CERTIFICATES: &str = "no-certificates";

/// How to start the child: the daemon's own binary and its hidden subcommand.
#[derive(Clone, Debug)]
pub(crate) struct ChildProgram {
    pub(crate) program: PathBuf,
    /// The arguments that make the binary call [`child_main`].
    pub(crate) arguments: Vec<OsString>,
    /// The user that the child becomes, unless it reads a repository on this host; without one it
    /// stays root, without capabilities.
    pub(crate) fetch_user: Option<UserIds>,
}

/// The work of a child, with all that it cannot read by itself.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ChildTask {
    /// Downloads what the branch adds.
    Fetch(Box<RemoteTask>),
    /// Copies what these commits reach into one pack.
    Compact { tips: BTreeSet<CommitId> },
    /// Reads every object of these commits and of their history.
    Check { commits: BTreeSet<CommitId> },
}

impl ChildTask {
    fn url(&self) -> Option<RemoteUrl> {
        match self {
            Self::Fetch(task) => task.url.parse().ok(),
            Self::Compact { .. } | Self::Check { .. } => None,
        }
    }

    /// Whether the child reads a repository on this host.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.url(), Some(RemoteUrl::Local(_)))
    }
}

/// A task with the bounds in which it is done. It may hold a secret, so it has no Debug.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ChildRequest {
    pub(crate) task: ChildTask,
    pub(crate) mirror: PathBuf,
    pub(crate) limits: FetchLimits,
    /// The user that the child becomes.
    pub(crate) user: Option<UserIds>,
}

impl ChildRequest {
    /// The work directory of the child.
    fn quarantine(&self) -> PathBuf {
        Mirror::new(&self.mirror).quarantine()
    }

    /// The place of the work, for messages.
    fn place(&self) -> String {
        match self.task.url() {
            Some(url) => url.to_string(),
            None => self.mirror.display().to_string(),
        }
    }
}

/// The answer of a child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ChildAnswer {
    Fetched(RemoteHead),
    Compacted,
    /// The damage that was found.
    Checked(Option<String>),
}

impl ChildProgram {
    /// The user that does a task: the owner of a repository on this host reads that repository.
    pub(crate) fn user_for(&self, task: &ChildTask) -> Result<Option<UserIds>, FetchError> {
        // Only root can become another user.
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let Some(RemoteUrl::Local(local)) = task.url() else {
            return Ok(self.fetch_user);
        };
        let owner = UserIds::owner_of_repository(local.path()).map_err(|error| {
            FetchError::NoRepository {
                url: local.path().display().to_string(),
                detail: error.to_string(),
            }
        })?;
        Ok((!owner.is_root()).then_some(owner))
    }

    /// Runs one task in a child, in the work directory that the caller has prepared. When this
    /// future is dropped, the child is killed.
    ///
    /// To be awaited on a worker thread of the runtime: the child dies with the thread that started
    /// it.
    pub(crate) async fn run(&self, request: &ChildRequest) -> Result<ChildAnswer, FetchError> {
        let failed = |detail: String| FetchError::Child { detail };
        let document = serde_json::to_vec(request)
            .map_err(|error| failed(format!("encode the request: {error}")))?;

        let disk = DiskBound::new(&request.quarantine(), &request.limits);
        let mut process = command(self, request)
            .spawn()
            .map_err(|error| failed(format!("start {}: {error}", self.program.display())))?;
        let (Some(mut input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(failed("it has no pipes".to_owned()));
        };

        let exchange = async {
            // A child that dies early closes its end of the pipe; its exit status explains more than
            // the broken pipe.
            let _ = input.write_all(&document).await;
            drop(input);
            let mut answer = Vec::new();
            output
                .take(MAX_ANSWER_BYTES)
                .read_to_end(&mut answer)
                .await?;
            Ok::<_, io::Error>((answer, process.wait().await?))
        };

        let limit = request.limits.deadline + GRACE;
        // On each return below, the process is dropped, which kills it.
        let exchanged = tokio::select! {
            exchanged = tokio::time::timeout(limit, exchange) => exchanged,
            detail = disk.exceeded() => {
                let mirror = request.mirror.display().to_string();
                return Err(FetchError::Disk { mirror, detail });
            }
        };
        match exchanged {
            Ok(Ok((answer, status))) => read_answer(&answer, status, request),
            Ok(Err(error)) => Err(failed(format!("exchange with it: {error}"))),
            Err(_) => Err(FetchError::Timeout {
                url: request.place(),
                seconds: request.limits.deadline.as_secs(),
            }),
        }
    }
}

fn command(child: &ChildProgram, request: &ChildRequest) -> Command {
    let mut command = Command::new(&child.program);
    let home = home(&request.quarantine());
    command
        .args(&child.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // libgit2 reads its configuration and known_hosts from the home directory, which must not
        // be that of the user who started the daemon.
        .env("HOME", &home)
        .env("XDG_CONFIG_HOME", &home)
        .env_remove("SSH_AUTH_SOCK")
        .kill_on_drop(true);

    // OpenSSL reads its certificate authorities from these two variables; the directory is empty.
    // Reading the system's authorities at the start takes longer than a local fetch, and is useless
    // without https.
    let has_authorities = match &request.task {
        ChildTask::Fetch(task) => task.authorities.is_some(),
        ChildTask::Compact { .. } | ChildTask::Check { .. } => false,
    };
    if has_authorities {
        command
            .env("SSL_CERT_FILE", home.join(AUTHORITIES))
            .env("SSL_CERT_DIR", home.join(NO_CERTIFICATES));
    } else if request.task.url().is_some_and(|url| url.is_https()) {
        command
            .env_remove("SSL_CERT_FILE")
            .env_remove("SSL_CERT_DIR");
    } else {
        command
            .env("SSL_CERT_FILE", "/dev/null")
            .env("SSL_CERT_DIR", home.join(NO_CERTIFICATES));
    }
    command
}

fn home(quarantine: &Path) -> PathBuf {
    quarantine.join(HOME)
}

fn read_answer(
    output: &[u8],
    status: ExitStatus,
    request: &ChildRequest,
) -> Result<ChildAnswer, FetchError> {
    let last_line = output
        .split(|byte| *byte == b'\n')
        .rfind(|line| !line.is_empty())
        .unwrap_or_default();
    if let Ok(mut document) = serde_json::from_slice(last_line) {
        bound(&mut document);
        if let Ok(answer) = serde_json::from_value(document) {
            return answer;
        }
    }

    // Without an answer the signal tells which limit of `limit_self` ended the child: the kernel
    // sends SIGXFSZ for RLIMIT_FSIZE and SIGXCPU for RLIMIT_CPU (setrlimit(2)).
    let url = request.place();
    match status.signal().and_then(Signal::from_named_raw) {
        Some(Signal::XFSZ) => Err(FetchError::Limit {
            url,
            what: "bytes".to_owned(),
            limit: request.limits.received_bytes,
        }),
        Some(Signal::XCPU) => Err(FetchError::Timeout {
            url,
            seconds: request.limits.deadline.as_secs(),
        }),
        // Code outside of libgit2 aborts when memory runs out.
        Some(Signal::ABORT) => Err(FetchError::PackRefused {
            url,
            head: None,
            what: out_of_memory(&request.limits),
        }),
        _ => Err(FetchError::Child {
            detail: format!("it ended without an answer ({status})"),
        }),
    }
}

/// Truncates long texts and lists. A child that a malicious pack controls can answer anything, and
/// messages are stored, printed and sent to other hosts.
fn bound(value: &mut Value) {
    match value {
        Value::String(text) => *text = ForeignText::bounded(text, TEXT_BYTES).into(),
        Value::Array(items) => {
            items.truncate(ITEMS);
            items.iter_mut().for_each(bound);
        }
        Value::Object(fields) => fields.values_mut().for_each(bound),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
