//! Why a fetch failed, classified by what a person can do about it.

use std::path::Path;

use git2::{ErrorClass, ErrorCode};
use reconciler::name::CommitId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::request::{Budget, Exceeded, FetchLimits};
use super::url::RemoteUrl;
use crate::source::mirror::MirrorError;

/// Why a fetch failed. What was fetched before is unchanged. URLs in an error carry no passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FetchError {
    /// The URL cannot be used as configured.
    #[error("repository URL {url}: {why}")]
    BadUrl {
        /// The URL, without a password.
        url: String,
        /// What is wrong with the URL, and what to write.
        why: String,
    },
    /// There is no connection, or it broke. The fetch is repeated at the next poll.
    #[error("cannot reach {url}: {detail}; check the name, the network and the server")]
    Unreachable {
        /// The remote's URL, without a password.
        url: String,
        /// The reason that the network reported.
        detail: String,
    },
    /// The path exists and holds no repository.
    #[error("no Git repository at {url}: {detail}; check the path, and that this host may read it")]
    NoRepository {
        /// The remote's URL, without a password.
        url: String,
        /// What the remote answered instead.
        detail: String,
    },
    /// The remote requires other credentials, or some.
    #[error("{url} refused the credentials: {detail}; check the configured token, password or key")]
    AuthFailed {
        /// The remote's URL, without a password.
        url: String,
        /// The reason that the server reported.
        detail: String,
    },
    /// The server could not prove its identity.
    #[error(
        "the identity of {url} is not proven: {detail}; configure its CA file or its known_hosts line"
    )]
    Certificate {
        /// The remote's URL, without a password.
        url: String,
        /// The problem of the certificate or host key.
        detail: String,
    },
    /// The repository has no commit yet.
    #[error("{url} is empty; push a first commit")]
    Empty {
        /// The remote's URL, without a password.
        url: String,
    },
    /// The repository has only other branches.
    #[error(
        "{url} has no branch {branch:?}{}; push it, or configure another",
        listed(has)
    )]
    NoSuchBranch {
        /// The remote's URL, without a password.
        url: String,
        branch: String,
        /// Some branches of the remote.
        has: Vec<String>,
    },
    /// The repository lacks its own history.
    #[error("{url} is a shallow clone without its history; run git fetch --unshallow there")]
    Shallow {
        /// The remote's URL, without a password.
        url: String,
    },
    /// The branch is larger than this host accepts.
    #[error(
        "{url} sends more than {limit} {what}; raise the limit, or make the repository smaller"
    )]
    Limit {
        /// The remote's URL, without a password.
        url: String,
        /// The unit of the limit: bytes or objects.
        what: String,
        /// The largest accepted number.
        limit: u64,
    },
    /// The download is not read any further: an object is larger than this host accepts, or the
    /// pack is invalid.
    #[error("{url}: {what}")]
    PackRefused {
        /// The remote's URL, without a password.
        url: String,
        /// The head of the download, if it is known.
        head: Option<CommitId>,
        /// The object with its size and the limit, or another problem.
        what: String,
    },
    /// The deadline has passed. The fetch is repeated at the next poll.
    #[error("fetching {url} took longer than {seconds} s and was stopped")]
    Timeout {
        /// The remote's URL, without a password.
        url: String,
        /// The time limit of the fetch.
        seconds: u64,
    },
    /// The mirror is damaged and a new clone could not take its place.
    #[error(
        "the local repository {mirror} is damaged ({damage}) and was not replaced: {why_kept}; what runs keeps \
         running; when the remote holds those commits again it is repaired by itself"
    )]
    Corrupt {
        mirror: String,
        /// The damage in the mirror.
        damage: String,
        /// Why the new clone did not replace the mirror.
        why_kept: String,
    },
    /// The mirror's disk is full, read-only or failing.
    #[error(
        "cannot write the local repository {mirror}: {detail}; check free space and permissions"
    )]
    Disk { mirror: String, detail: String },
    /// The child process could not be started, or ended without an answer.
    #[error("the fetch process failed: {detail}")]
    Child {
        /// How the process ended.
        detail: String,
    },
    /// The child process could not be restricted, and has read nothing of the remote.
    #[error("the sandbox of a fetch could not be made: {detail}; run windlass doctor")]
    Sandbox { detail: String },
    /// Any other error of libgit2.
    #[error("fetch from {url}: {detail}")]
    Other {
        /// The remote's URL, without a password.
        url: String,
        detail: String,
    },
}

impl FetchError {
    /// The error for a mirror or quarantine that cannot be used.
    pub(crate) fn disk(mirror: &Path, error: &MirrorError) -> Self {
        Self::Disk {
            mirror: mirror.display().to_string(),
            detail: super::chain(error),
        }
    }

    /// Whether damage of the mirror can be the cause: libgit2 does not say which of the two
    /// repositories it could not read.
    pub(crate) fn may_be_the_mirrors(&self) -> bool {
        matches!(self, Self::Other { .. } | Self::Child { .. })
    }

    /// Whether the remote has answered that there is no commit on any branch.
    pub(crate) fn has_no_commit(&self) -> bool {
        matches!(self, Self::Empty { .. })
    }

    /// A word of a fixed set, for metrics and JSON.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::BadUrl { .. } => "bad-url",
            Self::Unreachable { .. } => "unreachable",
            Self::NoRepository { .. } => "no-repository",
            Self::AuthFailed { .. } => "auth-failed",
            Self::Certificate { .. } => "certificate",
            Self::Empty { .. } => "empty",
            Self::NoSuchBranch { .. } => "no-such-branch",
            Self::Shallow { .. } => "shallow",
            Self::Limit { .. } => "limit",
            Self::PackRefused { .. } => "pack-refused",
            Self::Timeout { .. } => "timeout",
            Self::Corrupt { .. } => "corrupt",
            Self::Disk { .. } => "disk",
            Self::Child { .. } => "child",
            Self::Sandbox { .. } => "sandbox",
            Self::Other { .. } => "other",
        }
    }
}

/// The message about a pack whose deltas could not be resolved within the memory limit of a fetch.
pub(crate) fn out_of_memory(limits: &FetchLimits) -> String {
    format!(
        "the pack holds objects too large to be read with {} MiB of memory; take them out of the history, or raise \
         source.max-object-bytes",
        limits.memory_bytes() / (1024 * 1024)
    )
}

/// What libgit2 says of connections that failed.
const CONNECTING: &[&str] = &[
    "failed to connect",
    "failed to resolve",
    "socket",
    "timed out",
];

fn listed(branches: &[String]) -> String {
    if branches.is_empty() {
        String::new()
    } else {
        format!(" (it has {})", branches.join(", "))
    }
}

/// A failure inside a fetch, before its cause is classified.
#[derive(Debug)]
pub(super) enum FetchFailure {
    /// Classified where it occurred.
    Known(FetchError),
    /// An error of libgit2.
    Git(git2::Error),
}

impl From<git2::Error> for FetchFailure {
    fn from(error: git2::Error) -> Self {
        Self::Git(error)
    }
}

impl FetchFailure {
    /// Classifies the failure. Limits come first, because libgit2 reports a callback that stopped
    /// the fetch as any user error.
    pub(super) fn explain(self, url: &RemoteUrl, budget: &Budget) -> FetchError {
        let error = match self {
            Self::Known(error) => return error,
            Self::Git(error) => error,
        };
        let (limits, detail, url) = (budget.limits(), url.scrub(error.message()), url.to_string());
        match budget.exceeded() {
            Some(Exceeded::Time) => {
                return FetchError::Timeout {
                    url,
                    seconds: limits.deadline.as_secs(),
                };
            }
            Some(Exceeded::Bytes) => {
                return FetchError::Limit {
                    url,
                    what: "bytes".to_owned(),
                    limit: limits.received_bytes,
                };
            }
            Some(Exceeded::Objects) => {
                return FetchError::Limit {
                    url,
                    what: "objects".to_owned(),
                    limit: limits.objects,
                };
            }
            None => {}
        }

        // libgit2 gives HTTP statuses only in its messages.
        match (error.code(), error.class()) {
            (_, ErrorClass::NoMemory) => FetchError::PackRefused {
                url,
                head: budget.announced(),
                what: out_of_memory(limits),
            },
            (ErrorCode::Auth, _) => FetchError::AuthFailed { url, detail },
            (ErrorCode::Certificate, _) => FetchError::Certificate { url, detail },
            (ErrorCode::Timeout, _) => FetchError::Timeout {
                url,
                seconds: limits.deadline.as_secs(),
            },
            (_, ErrorClass::Http) if detail.contains("404") => {
                FetchError::NoRepository { url, detail }
            }
            (_, ErrorClass::Http) if detail.contains("401") || detail.contains("403") => {
                FetchError::AuthFailed { url, detail }
            }
            (_, ErrorClass::Net | ErrorClass::Ssl | ErrorClass::Http | ErrorClass::Ssh) => {
                FetchError::Unreachable { url, detail }
            }
            // Files have errors of this class too.
            (_, ErrorClass::Os) if CONNECTING.iter().any(|words| detail.contains(words)) => {
                FetchError::Unreachable { url, detail }
            }
            _ => FetchError::Other { url, detail },
        }
    }

    /// The failure as a libgit2 error, for work without a remote.
    pub(super) fn into_git(self) -> git2::Error {
        match self {
            Self::Known(error) => git2::Error::from_str(&error.to_string()),
            Self::Git(error) => error,
        }
    }
}
