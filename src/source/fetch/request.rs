//! The request and the result of a fetch, and its limits.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use git2::Oid;
use reconciler::name::CommitId;
use serde::{Deserialize, Serialize};

use crate::source::{
    commit::id_of,
    mirror::{self, Check},
};

/// A text that is never printed: it has no Debug and no Display.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SecretText(String);

impl SecretText {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret text, for the one call that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

/// The credentials for the remote.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Credentials {
    /// A forge's access token, sent as the password of the user `git`.
    Token(SecretText),
    /// User and password for https.
    Basic { user: String, password: SecretText },
    /// The text of a private key for ssh, which is not encrypted.
    SshKey(SecretText),
}

/// The limits of one fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FetchLimits {
    /// For the whole fetch, from connecting to the last byte on disk.
    pub(crate) deadline: Duration,
    /// The number of bytes received.
    pub(crate) received_bytes: u64,
    /// The number of objects received.
    pub(crate) objects: u64,
    /// The size of any one object in bytes, inflated; commits, tags and trees have lower limits of
    /// their own.
    pub(crate) object_bytes: u64,
    /// The address space of the child process, without the packs that it maps.
    pub(crate) address_space_bytes: u64,
}

impl FetchLimits {
    /// The memory that the child process may write to. libgit2 keeps about 250 bytes for each
    /// object while it indexes a pack, and resolves a delta with its base, the delta and the result
    /// in memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.object_bytes
            .saturating_mul(4)
            .saturating_add(self.objects.saturating_mul(256))
    }
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(120),
            received_bytes: 512 * 1024 * 1024,
            objects: 2_000_000,
            object_bytes: 64 * 1024 * 1024,
            address_space_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// What the follower requests. It holds a secret, so it has no Debug.
#[derive(Clone)]
pub(crate) struct FetchRequest {
    /// The URL of the repository: a path, `file://`, `https://`, `http://` or `ssh://`.
    pub(crate) url: String,
    /// The followed branch, without `refs/heads/`.
    pub(crate) branch: String,
    /// Whether the branch's head is downloaded, and not only reported.
    pub(crate) download: bool,
    /// The local repository, which a fetch only reads; the download goes to the quarantine beside
    /// it.
    pub(crate) mirror: PathBuf,
    /// The credentials for the remote, if it needs any.
    pub(crate) credentials: Option<Credentials>,
    /// The only certificate authorities that an https server is trusted by; the system's if there
    /// is none.
    pub(crate) ca_file: Option<PathBuf>,
    /// The only hosts that an ssh connection is made to, as OpenSSH's `known_hosts`.
    pub(crate) known_hosts: Option<PathBuf>,
    pub(crate) limits: FetchLimits,
    /// The commits that a mirror must hold: `verified`, `target`, `healthy`.
    pub(crate) keep: BTreeSet<CommitId>,
    /// Heads that were refused by the same keys, mode and limits as now: they are not downloaded
    /// again.
    pub(crate) refused: BTreeSet<CommitId>,
    /// How thoroughly the mirror is checked first.
    pub(crate) check: Check,
    /// Whether the mirror is checked thoroughly after an error that it may have caused. That reads
    /// the whole mirror, and a server can cause such errors as often as it likes.
    pub(crate) check_after_error: bool,
}

/// A fetch as the child process does it, with all that the child cannot read by itself.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct RemoteTask {
    pub(crate) url: String,
    pub(crate) branch: String,
    /// Whether the branch's head is downloaded, and not only reported.
    pub(crate) download: bool,
    pub(crate) credentials: Option<Credentials>,
    /// The only certificate authorities that an https server is trusted by, as PEM.
    pub(crate) authorities: Option<String>,
    /// The only hosts that an ssh connection is made to, as OpenSSH's `known_hosts`.
    pub(crate) known_hosts: Option<String>,
    /// Heads that are not downloaded.
    pub(crate) refused: BTreeSet<CommitId>,
    /// The mirror's refs and their targets, whose history is not downloaded again.
    pub(crate) known: BTreeMap<String, CommitId>,
    /// Whether the mirror is damaged, and its objects are not to be used.
    pub(crate) whole: bool,
}

impl RemoteTask {
    /// Whether this head must be downloaded.
    pub(super) fn wants(&self, head: Oid) -> bool {
        self.download && !self.refused.contains(&id_of(head))
    }

    /// The mirror's head of the branch.
    pub(super) fn previous(&self) -> Option<Oid> {
        let id = self.known.get(&mirror::tracking(&self.branch))?;
        Oid::from_str(id.as_str()).ok()
    }
}

/// The remote's head, and whether a pack was written for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) id: Oid,
    pub(super) downloaded: bool,
}

/// The answer of the child process to a fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteHead {
    pub(crate) id: CommitId,
    pub(crate) downloaded: bool,
    /// The number of bytes received.
    pub(crate) received_bytes: u64,
}

/// The content of the quarantine after a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brought {
    /// Nothing: the mirror has the head already, or the head was refused before.
    Nothing,
    /// One pack with the objects that the mirror lacks.
    Addition,
    /// One pack with the whole history, to replace a damaged mirror.
    Whole,
}

/// The result of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// The branch's head at the remote.
    pub(crate) head: CommitId,
    /// The head that was accepted last.
    pub(crate) previous: Option<CommitId>,
    /// The content of the quarantine.
    pub(crate) brought: Brought,
    /// The number of bytes received.
    pub(crate) received_bytes: u64,
    /// The damage of the mirror, if it had to be cloned again.
    pub(crate) repaired: Option<String>,
}

/// The limit that stopped a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exceeded {
    Time,
    Bytes,
    Objects,
}

/// Counts the resources of a running fetch; its callbacks ask whether to continue.
#[derive(Debug)]
pub(super) struct Budget {
    started: Instant,
    limits: FetchLimits,
    received: Cell<u64>,
    exceeded: Cell<Option<Exceeded>>,
    announced: Cell<Option<Oid>>,
}

impl Budget {
    pub(super) fn new(limits: &FetchLimits) -> Self {
        Self {
            started: Instant::now(),
            limits: limits.clone(),
            received: Cell::new(0),
            exceeded: Cell::new(None),
            announced: Cell::new(None),
        }
    }

    /// A budget without limits, for copying local objects.
    pub(super) fn unlimited() -> Self {
        Self::new(&FetchLimits {
            deadline: Duration::MAX,
            received_bytes: u64::MAX,
            objects: u64::MAX,
            object_bytes: u64::MAX,
            address_space_bytes: u64::MAX,
        })
    }

    /// Records the received totals, and returns whether to continue.
    pub(super) fn allows(&self, received_bytes: u64, objects: u64) -> bool {
        self.received.set(self.received.get().max(received_bytes));
        let exceeded = if self.started.elapsed() > self.limits.deadline {
            Some(Exceeded::Time)
        } else if received_bytes > self.limits.received_bytes {
            Some(Exceeded::Bytes)
        } else if objects > self.limits.objects {
            Some(Exceeded::Objects)
        } else {
            None
        };
        self.exceeded.set(self.exceeded.get().or(exceeded));
        exceeded.is_none()
    }

    /// Records the head of the download, so that a failure can name it.
    pub(super) fn announce(&self, head: Oid) {
        self.announced.set(Some(head));
    }

    pub(super) fn announced(&self) -> Option<CommitId> {
        self.announced.get().map(id_of)
    }

    pub(super) fn exceeded(&self) -> Option<Exceeded> {
        self.exceeded.get()
    }

    pub(super) fn limits(&self) -> &FetchLimits {
        &self.limits
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.received.get()
    }
}
