//! Why a fetch brought nothing, sorted by what its reader can do about it.

use std::path::Path;

use git2::{ErrorClass, ErrorCode};
use reconciler::name::CommitId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::request::{Budget, Exceeded, FetchLimits};
use super::url::RemoteUrl;
use crate::source::mirror::MirrorError;

/// Why nothing was fetched. What was fetched before is as it was. URLs in it carry no passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FetchError {
    /// The URL cannot be used as configured.
    #[error("repository URL {url}: {why}")]
    BadUrl {
        /// The URL.
        url: String,
        /// What is wrong with it, and what to write.
        why: String,
    },
    /// No connection, or it broke. Tried again at the next poll.
    #[error("cannot reach {url}: {detail}; check the name, the network and the server")]
    Unreachable {
        /// The remote.
        url: String,
        /// What the network said.
        detail: String,
    },
    /// The place is there and holds no repository.
    #[error("no Git repository at {url}: {detail}; check the path, and that this host may read it")]
    NoRepository {
        /// The remote.
        url: String,
        /// What was found instead.
        detail: String,
    },
    /// The remote wants other credentials, or some.
    #[error("{url} refused the credentials: {detail}; check the configured token, password or key")]
    AuthFailed {
        /// The remote.
        url: String,
        /// What the server said.
        detail: String,
    },
    /// The server could not prove who it is.
    #[error(
        "the identity of {url} is not proven: {detail}; configure its CA file or its known_hosts line"
    )]
    Certificate {
        /// The remote.
        url: String,
        /// What was wrong with the certificate or host key.
        detail: String,
    },
    /// The repository has no commit yet.
    #[error("{url} is empty; push a first commit")]
    Empty {
        /// The remote.
        url: String,
    },
    /// The repository has other branches only.
    #[error(
        "{url} has no branch {branch:?}{}; push it, or configure another",
        listed(has)
    )]
    NoSuchBranch {
        /// The remote.
        url: String,
        /// The configured branch.
        branch: String,
        /// Some branches it does have.
        has: Vec<String>,
    },
    /// The repository lacks its own history.
    #[error("{url} is a shallow clone without its history; run git fetch --unshallow there")]
    Shallow {
        /// The remote.
        url: String,
    },
    /// The branch is larger than this host accepts.
    #[error(
        "{url} sends more than {limit} {what}; raise the limit, or make the repository smaller"
    )]
    Limit {
        /// The remote.
        url: String,
        /// Bytes or objects.
        what: String,
        /// How many are accepted.
        limit: u64,
    },
    /// What was downloaded is not read any further: an object is larger than this host accepts, or
    /// it is no sound pack.
    #[error("{url}: {what}")]
    PackRefused {
        /// The remote.
        url: String,
        /// The head it was downloaded for, where that is known.
        head: Option<CommitId>,
        /// Which object, its size and the limit; or what else is wrong.
        what: String,
    },
    /// The deadline passed. Tried again at the next poll.
    #[error("fetching {url} took longer than {seconds} s and was stopped")]
    Timeout {
        /// The remote.
        url: String,
        /// The deadline.
        seconds: u64,
    },
    /// The mirror is damaged and a new clone could not take its place.
    #[error(
        "the local repository {mirror} is damaged ({damage}) and was not replaced: {why_kept}; what runs keeps \
         running; when the remote holds those commits again it is repaired by itself"
    )]
    Corrupt {
        /// The mirror.
        mirror: String,
        /// What was found.
        damage: String,
        /// Why the new clone was not taken.
        why_kept: String,
    },
    /// The mirror's disk is full, read-only or failing.
    #[error(
        "cannot write the local repository {mirror}: {detail}; check free space and permissions"
    )]
    Disk {
        /// The mirror.
        mirror: String,
        /// What the system said.
        detail: String,
    },
    /// The child process could not be run, or ended without an answer.
    #[error("the fetch process failed: {detail}")]
    Child {
        /// How it ended.
        detail: String,
    },
    /// Anything else libgit2 reports.
    #[error("fetch from {url}: {detail}")]
    Other {
        /// The remote.
        url: String,
        /// What libgit2 said.
        detail: String,
    },
}

impl FetchError {
    /// The mirror or its quarantine cannot be used.
    pub(crate) fn disk(mirror: &Path, error: &MirrorError) -> Self {
        Self::Disk {
            mirror: mirror.display().to_string(),
            detail: super::chain(error),
        }
    }

    /// A word for metrics and JSON, of a fixed set.
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
            Self::Other { .. } => "other",
        }
    }
}

/// What is said of a pack whose deltas could not be resolved in the memory that a fetch may use.
pub(crate) fn out_of_memory(limits: &FetchLimits) -> String {
    format!(
        "the pack holds objects too large to be read with {} MiB of memory; take them out of the history, or raise \
         source.max-object-bytes",
        limits.memory_bytes() / (1024 * 1024)
    )
}

fn listed(branches: &[String]) -> String {
    if branches.is_empty() {
        String::new()
    } else {
        format!(" (it has {})", branches.join(", "))
    }
}

/// A failure inside a fetch, before it is clear whose it is.
#[derive(Debug)]
pub(super) enum FetchFailure {
    /// Already classified where it happened.
    Known(FetchError),
    /// libgit2's word.
    Git(git2::Error),
}

impl From<git2::Error> for FetchFailure {
    fn from(error: git2::Error) -> Self {
        Self::Git(error)
    }
}

impl FetchFailure {
    /// Classifies it; limits first, because libgit2 reports the callback that stopped it as any
    /// user's error.
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
            (
                _,
                ErrorClass::Net
                | ErrorClass::Ssl
                | ErrorClass::Http
                | ErrorClass::Ssh
                | ErrorClass::Os,
            ) => FetchError::Unreachable { url, detail },
            _ => FetchError::Other { url, detail },
        }
    }

    /// Its words as a libgit2 error, for work that involves no remote.
    pub(super) fn into_git(self) -> git2::Error {
        match self {
            Self::Known(error) => git2::Error::from_str(&error.to_string()),
            Self::Git(error) => error,
        }
    }
}
