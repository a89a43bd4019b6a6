//! What a fetch is asked, what it answers, and what it may use up.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use reconciler::name::CommitId;
use serde::{Deserialize, Serialize};

use crate::source::mirror::Check;

/// A text that is never printed: it has no Debug and no Display.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// Takes a secret in.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret, for the one call that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

/// How to introduce ourselves to the remote.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Credentials {
    /// A forge's access token, sent as the password of the user `git`.
    Token(Secret),
    /// User and password for https.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A private key for ssh.
    SshKey {
        /// The key's file.
        private_key: PathBuf,
        /// What it is encrypted with, if it is.
        passphrase: Option<Secret>,
    },
}

/// What one fetch may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FetchLimits {
    /// For all of it, from connecting to the last byte on disk.
    pub(crate) deadline: Duration,
    /// Bytes received.
    pub(crate) received_bytes: u64,
    /// Objects received.
    pub(crate) objects: u64,
    /// Address space of the child process; packs are mapped, so this must be a good deal more than a pack.
    pub(crate) address_space_bytes: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(120),
            received_bytes: 512 * 1024 * 1024,
            objects: 2_000_000,
            address_space_bytes: 4 * 1024 * 1024 * 1024,
        }
    }
}

/// One fetch. It holds a secret and so has no Debug.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct FetchRequest {
    /// Where from: a path, `file://`, `https://`, `http://` or `ssh://`.
    pub(crate) url: String,
    /// The branch that is followed, without `refs/heads/`.
    pub(crate) branch: String,
    /// The local repository.
    pub(crate) mirror: PathBuf,
    /// How to introduce ourselves.
    pub(crate) credentials: Option<Credentials>,
    /// The only authorities an https server is believed by; the system's where there is none.
    pub(crate) ca_file: Option<PathBuf>,
    /// The only hosts an ssh connection is made to, as OpenSSH's `known_hosts`.
    pub(crate) known_hosts: Option<PathBuf>,
    /// What it may use.
    pub(crate) limits: FetchLimits,
    /// The commits a mirror must hold: `verified`, `target`, `healthy`.
    pub(crate) keep: BTreeSet<CommitId>,
    /// How closely to look at the mirror first.
    pub(crate) check: Check,
}

/// What a fetch brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fetched {
    /// The branch's head, now in the mirror.
    pub(crate) head: CommitId,
    /// What it was at the last fetch.
    pub(crate) previous: Option<CommitId>,
    /// How much was received.
    pub(crate) received_bytes: u64,
    /// What was wrong with the mirror, where it had to be cloned again.
    pub(crate) repaired: Option<String>,
}

/// Which limit stopped a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exceeded {
    Time,
    Bytes,
    Objects,
}

/// Counts down while a fetch runs; its callbacks ask it whether to go on.
#[derive(Debug)]
pub(super) struct Budget {
    started: Instant,
    limits: FetchLimits,
    received: Cell<u64>,
    exceeded: Cell<Option<Exceeded>>,
}

impl Budget {
    pub(super) fn new(limits: &FetchLimits) -> Self {
        Self {
            started: Instant::now(),
            limits: limits.clone(),
            received: Cell::new(0),
            exceeded: Cell::new(None),
        }
    }

    /// For copying what is already ours.
    pub(super) fn unlimited() -> Self {
        Self::new(&FetchLimits {
            deadline: Duration::MAX,
            received_bytes: u64::MAX,
            objects: u64::MAX,
            address_space_bytes: u64::MAX,
        })
    }

    /// Notes what was received in all, and says whether to go on.
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
