//! The file of the keys that a host trusts: OpenSSH's `allowed_signers`, as ssh-keygen(1) describes
//! it.
//!
//! ```text
//! deployer@example.com,*@ops.example.com namespaces="git",valid-before="20270101Z" ssh-ed25519 AAAA... comment
//! ```
//!
//! As with `git verify-commit`, a key vouches for a commit if one of its lines allows the namespace
//! `git` at the given time; the principal names the signer and is not compared with the committer.
//! ssh-keygen skips lines that it cannot read; here one bad line makes the whole file an error: a
//! host must not run on half a policy. Times without a trailing `Z` are taken as UTC, not as the
//! host's zone, so that every host judges alike.

mod error;
mod line;
mod pattern;
mod time;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use ssh_key::HashAlg;

pub(crate) use self::error::{AllowedSignersError, LineProblem};
use self::line::{Line, SignerEntry};
use super::ssh_signature::{NAMESPACE, VerifyingKey};

/// A larger file is not a list of signers.
const MAX_BYTES: usize = 1024 * 1024;

/// The signer: recorded with the commit, printed by `history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signer {
    /// The first principal of the line that vouched.
    pub(crate) principal: String,
    /// The fingerprint of the key, as `SHA256:...`.
    pub(crate) fingerprint: String,
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.principal, self.fingerprint)
    }
}

/// The time at which a key was not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The time that the commit claims; its signer chose it.
    CommitTime,
    /// The time when this host first observed the commit.
    FirstSight,
}

/// Why a known key does not vouch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotAllowed {
    /// All lines of the key have `namespaces=` without `git`.
    Namespace {
        /// The allowed namespaces.
        allowed: String,
    },
    /// The line of the key begins later.
    NotYetValid {
        /// The principal of the line.
        principal: String,
        /// The line's `valid-after`.
        since: Timestamp,
        /// The moment that lies before `since`.
        at: Moment,
    },
    /// The line of the key has ended.
    Expired {
        /// The principal of the line.
        principal: String,
        /// The line's `valid-before`.
        until: Timestamp,
        /// The moment that lies after `until`.
        at: Moment,
    },
    /// The key is listed as `cert-authority` only, and such a key signs certificates, not commits.
    OnlyAuthority,
    /// The principals are all negated, or negate themselves.
    NoPrincipal,
}

/// A key of the file: parsed once, looked up by its wire form.
#[derive(Debug)]
pub(crate) struct AllowedKey {
    /// The key as the verifier takes it.
    pub(crate) verifying: VerifyingKey,
    /// Of the form `SHA256:...`.
    pub(crate) fingerprint: String,
    lines: Vec<Line>,
}

impl AllowedKey {
    /// Whether one of the key's lines vouches in `namespace` at both moments; otherwise why the
    /// first line does not.
    pub(crate) fn allows(
        &self,
        namespace: &str,
        committed: Timestamp,
        now: Timestamp,
    ) -> Result<Signer, NotAllowed> {
        let mut refused = None;
        for line in &self.lines {
            match line.allows(namespace, committed, now) {
                Ok(principal) => {
                    return Ok(Signer {
                        principal: principal.to_owned(),
                        fingerprint: self.fingerprint.clone(),
                    });
                }
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        Err(refused.unwrap_or(NotAllowed::NoPrincipal))
    }
}

/// The keys that a host trusts.
#[derive(Debug, Default)]
pub(crate) struct AllowedSigners {
    keys: BTreeMap<Vec<u8>, AllowedKey>,
}

impl AllowedSigners {
    /// Reads the text of an `allowed_signers` file.
    pub(crate) fn parse(text: &str) -> Result<Self, AllowedSignersError> {
        if text.len() > MAX_BYTES {
            return Err(AllowedSignersError::TooLarge { bytes: text.len() });
        }

        let mut signers = Self::default();
        let mut problems = Vec::new();
        for (index, text) in text.lines().enumerate() {
            match line::parse(text) {
                Ok(Some(entry)) => signers.add(entry),
                Ok(None) => {}
                Err(error) => problems.push(LineProblem {
                    line: index + 1,
                    error,
                }),
            }
        }

        if problems.is_empty() {
            Ok(signers)
        } else {
            Err(AllowedSignersError::BadLines(problems))
        }
    }

    /// The number of trusted keys.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key with this wire form, if it is trusted.
    pub(crate) fn key(&self, blob: &[u8]) -> Option<&AllowedKey> {
        self.keys.get(blob)
    }

    /// Why a key that signed a commit would not vouch for a new commit at this time; `None` if it
    /// would.
    pub(crate) fn doubt(&self, signer: &Signer, now: Timestamp) -> Option<String> {
        let key = self
            .keys
            .values()
            .find(|key| key.fingerprint == signer.fingerprint);
        let Some(key) = key else {
            return Some("its key was withdrawn since: it is not in the signers file".to_owned());
        };
        match key.allows(NAMESPACE, now, now) {
            Ok(_) => None,
            Err(NotAllowed::Expired { until, .. }) => {
                Some(format!("its key has expired since, at {until}"))
            }
            Err(_) => Some(
                "its key vouches for no commit any more: its lines have changed since".to_owned(),
            ),
        }
    }

    fn add(&mut self, entry: SignerEntry) {
        let SignerEntry { line, key, blob } = entry;
        self.keys
            .entry(blob)
            .or_insert_with(|| AllowedKey {
                verifying: VerifyingKey::new(key.key_data()),
                fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
                lines: Vec::new(),
            })
            .lines
            .push(line);
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
