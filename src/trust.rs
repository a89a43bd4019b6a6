//! What this host trusts, on its own disk: `trust/pointers.json`, `trust/trusted.json`,
//! `trust/accepted.json` and `trust/images.json`.
//!
//! None of it lives in the store: a stolen store must not be able to move `verified` back, nor to
//! make a commit eligible that this host did not judge. The image pins make a rollback bring back
//! the very image a commit ran with, also where its tag has moved since.

mod accepted;
mod set;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use reconciler::{manifest::ReadAs, name::CommitId, node::Pins, plan::ImagePin};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::accepted::AcceptedHeads;
pub(crate) use self::set::{TrustedCommit, TrustedSet};
use crate::source::verify::{Accepted, Grounds, VerifiedCommit};
use crate::state_file::{self, StateFileError};

const SCHEMA: u32 = 1;
/// Of a long line that is accepted at once, as behind a far anchor, so many of the newest commits
/// are remembered.
const MOST_REMEMBERED: usize = 1000;

/// Why the trust directory could not be used.
#[derive(Debug, Error)]
pub(crate) enum TrustError {
    /// The directory is missing and cannot be made.
    #[error("create trust directory {}", path.display())]
    Directory {
        /// The trust directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// One of its files.
    #[error(transparent)]
    File(#[from] StateFileError),
}

/// The three commits the life of a commit turns on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Pointers {
    /// The newest accepted commit: history may only go forward from here.
    pub(crate) verified: Option<VerifiedCommit>,
    /// The commit this host is being brought to.
    pub(crate) target: Option<VerifiedCommit>,
    /// The last commit that became healthy: where a rollback goes.
    pub(crate) healthy: Option<VerifiedCommit>,
    /// Commits in use here that are not eligible any more, or by an older version's rules only:
    /// what runs of them is kept up in place.
    pub(crate) kept: BTreeSet<CommitId>,
}

impl Pointers {
    /// Every commit a pointer names, each once: what a repository must hold to be worth keeping.
    pub(crate) fn commits(&self) -> BTreeSet<CommitId> {
        [&self.verified, &self.target, &self.healthy]
            .into_iter()
            .flatten()
            .map(|commit| commit.id().clone())
            .collect()
    }
}

/// `pointers.json` as this version or an older one wrote it.
#[derive(Deserialize)]
struct StoredPointers {
    verified: Option<StoredCommit>,
    target: Option<StoredCommit>,
    healthy: Option<StoredCommit>,
    /// Written by versions that had no trusted set.
    #[serde(default)]
    in_use: Vec<StoredCommit>,
    #[serde(default)]
    kept: BTreeSet<CommitId>,
}

#[derive(Deserialize)]
struct StoredCommit {
    id: CommitId,
    grounds: StoredGrounds,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StoredGrounds {
    /// An older version took every commit before a verified one for verified. That is judged again.
    AncestorOf(#[expect(dead_code, reason = "read past")] CommitId),
    #[serde(untagged)]
    Judged(Grounds),
}

impl StoredCommit {
    fn judged(self) -> Option<VerifiedCommit> {
        match self.grounds {
            StoredGrounds::Judged(grounds) => Some(VerifiedCommit::new(self.id, grounds)),
            StoredGrounds::AncestorOf(_) => None,
        }
    }
}

impl StoredPointers {
    /// Every commit that is named.
    fn commits(&self) -> impl Iterator<Item = &CommitId> {
        let pointers = [&self.verified, &self.target, &self.healthy]
            .into_iter()
            .flatten();
        pointers
            .chain(&self.in_use)
            .map(|commit| &commit.id)
            .chain(&self.kept)
    }

    /// The pointers, and what an older version had judged good by itself.
    fn read(self) -> (Pointers, Vec<VerifiedCommit>) {
        let named = [&self.target, &self.healthy]
            .into_iter()
            .flatten()
            .chain(&self.in_use);
        let inherited =
            named.filter(|commit| matches!(commit.grounds, StoredGrounds::AncestorOf(_)));
        let kept = inherited
            .map(|commit| commit.id.clone())
            .chain(self.kept)
            .collect();
        let judged: Vec<VerifiedCommit> = self
            .in_use
            .into_iter()
            .filter_map(StoredCommit::judged)
            .collect();
        let [verified, target, healthy] = [self.verified, self.target, self.healthy]
            .map(|commit| commit.and_then(StoredCommit::judged));
        (
            Pointers {
                verified,
                target,
                healthy,
                kept,
            },
            judged,
        )
    }
}

/// The trust directory, read once and written through.
#[derive(Debug)]
pub(crate) struct TrustStore {
    pointers_path: PathBuf,
    trusted_path: PathBuf,
    images_path: PathBuf,
    pointers: Pointers,
    trusted: TrustedSet,
    /// Whether the trusted set is on disk as it is here.
    trusted_is_saved: bool,
    images: ImagePins,
    accepted: AcceptedHeads,
    /// Whether the file of the images lacks something.
    images_are_unsaved: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct ImagePins {
    commits: Pins,
}

impl TrustStore {
    /// Opens `directory`, creating it with mode 0700 where it is missing.
    pub(crate) fn open(directory: &Path) -> Result<Self, TrustError> {
        create_private(directory).map_err(|source| TrustError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let pointers_path = directory.join("pointers.json");
        let trusted_path = directory.join("trusted.json");
        let images_path = directory.join("images.json");
        let stored: Option<StoredPointers> = state_file::read(&pointers_path, SCHEMA)?;
        let in_use: Vec<CommitId> = stored
            .iter()
            .flat_map(StoredPointers::commits)
            .cloned()
            .collect();
        let accepted = AcceptedHeads::open(directory, in_use.into_iter())?;
        let (pointers, judged_before) = stored.map(StoredPointers::read).unwrap_or_default();
        let stored: Option<TrustedSet> = state_file::read(&trusted_path, SCHEMA)?;
        let mut trusted = stored.clone().unwrap_or_default();
        let heads = [&pointers.healthy, &pointers.target, &pointers.verified]
            .into_iter()
            .flatten();
        for commit in judged_before.iter().chain(heads) {
            trusted.add_undated(commit);
        }
        Ok(Self {
            pointers,
            trusted_is_saved: stored.as_ref() == Some(&trusted),
            trusted,
            accepted,
            images: state_file::read(&images_path, SCHEMA)?.unwrap_or_default(),
            images_are_unsaved: false,
            pointers_path,
            trusted_path,
            images_path,
        })
    }

    /// The commits that this host judged good.
    pub(crate) fn trusted(&self) -> &TrustedSet {
        &self.trusted
    }

    /// Remembers an accepted head: first the commits that were judged good on the way, then that
    /// history may only go forward from it.
    pub(crate) fn advance(
        &mut self,
        accepted: &Accepted,
        now: Timestamp,
    ) -> Result<(), StateFileError> {
        let newest = accepted.line.len().saturating_sub(MOST_REMEMBERED);
        self.remember(&accepted.line[newest..], now)?;
        let verified = Some(accepted.head.clone());
        self.set_pointers(Pointers {
            verified,
            ..self.pointers.clone()
        })
    }

    /// Puts commits that were judged good into the trusted set.
    pub(crate) fn remember(
        &mut self,
        commits: &[VerifiedCommit],
        now: Timestamp,
    ) -> Result<(), StateFileError> {
        let mut trusted = self.trusted.clone();
        for commit in commits {
            trusted.add(commit, now);
        }
        self.set_trusted(trusted)
    }

    /// Keeps the newest `history` commits of the trusted set, and those in use.
    pub(crate) fn retain_trusted(
        &mut self,
        history: usize,
        in_use: &BTreeSet<CommitId>,
    ) -> Result<(), StateFileError> {
        let mut trusted = self.trusted.clone();
        trusted.retain(history, in_use);
        self.set_trusted(trusted)
    }

    fn set_trusted(&mut self, trusted: TrustedSet) -> Result<(), StateFileError> {
        if self.trusted_is_saved && trusted == self.trusted {
            return Ok(());
        }
        state_file::write(&self.trusted_path, SCHEMA, &trusted)?;
        (self.trusted, self.trusted_is_saved) = (trusted, true);
        Ok(())
    }

    /// The pointers as they are on disk.
    pub(crate) fn pointers(&self) -> &Pointers {
        &self.pointers
    }

    /// Puts new pointers on disk, and goes by them only once they are there.
    pub(crate) fn set_pointers(&mut self, pointers: Pointers) -> Result<(), StateFileError> {
        if pointers == self.pointers {
            return Ok(());
        }
        self.accepted.keep()?;
        // What an older version's pointers say of commits in use goes with them.
        self.set_trusted(self.trusted.clone())?;
        state_file::write(&self.pointers_path, SCHEMA, &pointers)?;
        self.pointers = pointers;
        Ok(())
    }

    /// For what the manifests of a commit are read. A commit that is in use was accepted: by this
    /// host as a head, or by the leader that decided to run it. That a head is `verified` says only
    /// that its signatures are good.
    pub(crate) fn read_as(&self, commit: &CommitId) -> ReadAs {
        let Pointers {
            verified: _,
            target,
            healthy,
            kept,
        } = &self.pointers;
        let in_use = [target, healthy]
            .into_iter()
            .flatten()
            .any(|one| one.id() == commit);
        if in_use || kept.contains(commit) || self.accepted.contains(commit) {
            ReadAs::Accepted
        } else {
            ReadAs::NewHead
        }
    }

    /// Records that the manifests of a head were accepted.
    pub(crate) fn accept(&mut self, head: &CommitId) -> Result<(), StateFileError> {
        self.accepted.add(head)
    }

    /// What every image reference of every commit means on this host.
    pub(crate) fn pins(&self) -> &Pins {
        &self.images.commits
    }

    /// Records what references mean for commits, by one write however many there are. A tag is
    /// resolved once a commit; it is asked for again, and its meaning replaced, only where the
    /// image has gone from the disk and cannot be had by its digest.
    pub(crate) fn pin_images(
        &mut self,
        pins: impl IntoIterator<Item = (CommitId, String, ImagePin)>,
    ) -> Result<(), StateFileError> {
        for (commit, image, pin) in pins {
            let known = self.images.commits.entry(commit).or_default();
            let is_new = known.get(&image) != Some(&pin);
            known.insert(image, pin);
            self.images_are_unsaved |= is_new;
        }
        self.save_images()
    }

    /// Forgets the images of all commits but these.
    pub(crate) fn retain_images(
        &mut self,
        commits: &BTreeSet<CommitId>,
    ) -> Result<(), StateFileError> {
        let before = self.images.commits.len();
        self.images
            .commits
            .retain(|commit, _| commits.contains(commit));
        self.images_are_unsaved |= self.images.commits.len() != before;
        self.save_images()
    }

    /// Writes the file if it lacks something, also what an earlier write could not put there.
    fn save_images(&mut self) -> Result<(), StateFileError> {
        if !self.images_are_unsaved {
            return Ok(());
        }
        state_file::write(&self.images_path, SCHEMA, &self.images)?;
        self.images_are_unsaved = false;
        Ok(())
    }
}

fn create_private(directory: &Path) -> io::Result<()> {
    if fs::metadata(directory).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

#[cfg(test)]
mod tests;
