//! What this host trusts, on its own disk: `trust/pointers.json`, `trust/trusted.json`,
//! `trust/accepted.json` and `trust/images.json`.
//!
//! Nothing of it is in the store: a stolen store must not be able to move `verified` back, nor to
//! make a commit eligible that this host did not judge. With the image pins a rollback starts the
//! same images that the commit ran with, also if a tag has moved since.

mod accepted;
mod set;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use reconciler::{
    manifest::ReadAs,
    name::{CommitId, ImageReference},
    node::Pins,
    plan::ImagePin,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::accepted::AcceptedHeads;
pub(crate) use self::set::{TrustedCommit, TrustedSet};
use crate::source::verify::{Accepted, Grounds, VerifiedCommit};
use crate::state_file::{self, StateFileError};

const SCHEMA: u32 = 1;
/// The most commits that are remembered of a long line that is accepted at once, as after a distant
/// anchor: the newest ones.
const MOST_REMEMBERED: usize = 1000;

/// Why the trust directory could not be used.
#[derive(Debug, Error)]
pub(crate) enum TrustError {
    /// The directory is missing and cannot be made.
    #[error("create trust directory {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    /// A file of the directory cannot be read or written.
    #[error(transparent)]
    File(#[from] StateFileError),
}

/// The three commits that the life of a commit moves through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Pointers {
    /// The newest accepted commit: history may only go forward from here.
    pub(crate) verified: Option<VerifiedCommit>,
    /// The commit that this host must run.
    pub(crate) target: Option<VerifiedCommit>,
    /// The last commit that became healthy: where a rollback goes.
    pub(crate) healthy: Option<VerifiedCommit>,
    /// Commits in use here that are not eligible any more, or only by an older version's rules:
    /// their running pods are kept up in place.
    pub(crate) kept: BTreeSet<CommitId>,
}

impl Pointers {
    /// Every commit that a pointer names, each once: a mirror must hold all of them.
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
    /// Written by versions without a trusted set.
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
    /// An older version took every ancestor of a verified commit for verified. This version judges
    /// such commits again.
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
    /// Every commit that the file names.
    fn commits(&self) -> impl Iterator<Item = &CommitId> {
        let pointers = [&self.verified, &self.target, &self.healthy]
            .into_iter()
            .flatten();
        pointers
            .chain(&self.in_use)
            .map(|commit| &commit.id)
            .chain(&self.kept)
    }

    /// The pointers, and the commits whose own signature an older version had judged good.
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

/// The trust directory: its files are read once, and written at every change.
#[derive(Debug)]
pub(crate) struct TrustStore {
    pointers_path: PathBuf,
    trusted_path: PathBuf,
    images_path: PathBuf,
    pointers: Pointers,
    trusted: TrustedSet,
    /// Whether the trusted set on the disk equals this one.
    trusted_is_saved: bool,
    images: ImagePins,
    accepted: AcceptedHeads,
    /// Whether the file of the images lacks a pin.
    images_are_unsaved: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct ImagePins {
    commits: Pins,
}

impl TrustStore {
    /// Opens `directory`; creates it with mode 0700 if it is missing.
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
        // A version without a trusted set has judged these commits; they are rewritten at the next
        // change.
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

    /// The commits whose own signature this host judged good.
    pub(crate) fn trusted(&self) -> &TrustedSet {
        &self.trusted
    }

    /// Records an accepted head: first the commits that were judged good on the way, then the head
    /// as the commit that history goes forward from.
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

    /// Adds commits that were judged good to the trusted set.
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

    /// The pointers as they are on the disk.
    pub(crate) fn pointers(&self) -> &Pointers {
        &self.pointers
    }

    /// Writes new pointers to the disk; they take effect only once they are written.
    pub(crate) fn set_pointers(&mut self, pointers: Pointers) -> Result<(), StateFileError> {
        if pointers == self.pointers {
            return Ok(());
        }

        self.accepted.keep()?;
        // The facts about commits in use that only an older version's pointers hold are written
        // first, since they are lost with those pointers.
        self.set_trusted(self.trusted.clone())?;
        state_file::write(&self.pointers_path, SCHEMA, &pointers)?;
        self.pointers = pointers;
        Ok(())
    }

    /// Whether the manifests of a commit are read as new or as accepted. A commit that is in use
    /// was accepted: by this host as a head, or by the leader that decided to run it. The pointer
    /// `verified` shows only that the signatures of a head are good.
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

    /// The image that every image reference stands for, for each commit on this host.
    pub(crate) fn pins(&self) -> &Pins {
        &self.images.commits
    }

    /// Records the images that references stand for, in one write. A tag is resolved once for each
    /// commit; it is resolved again, and its image replaced, only if the image is gone from the
    /// disk and cannot be pulled by its digest.
    pub(crate) fn pin_images(
        &mut self,
        pins: impl IntoIterator<Item = (CommitId, ImageReference, ImagePin)>,
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

    /// Writes the file if it lacks a pin, also one that an earlier write failed to store.
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
    if fs::metadata(directory).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

#[cfg(test)]
mod tests;
