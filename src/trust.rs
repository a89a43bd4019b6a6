//! What this host believes, on its own disk: `trust/pointers.json`, `trust/images.json` and `trust/accepted.json`.
//!
//! The pointers never live in the store: a stolen store must not be able to move `verified` back. The image pins
//! make a rollback bring back the very image a commit ran with, also where its tag has moved since.

mod accepted;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use reconciler::{manifest::ReadAs, name::CommitId, node::Pins, plan::ImagePin};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::accepted::AcceptedHeads;
use crate::source::verify::VerifiedCommit;
use crate::state_file::{self, StateFileError};

const SCHEMA: u32 = 1;

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pointers {
    /// The newest accepted commit: history may only go forward from here.
    pub(crate) verified: Option<VerifiedCommit>,
    /// The commit this host is being hauled to.
    pub(crate) target: Option<VerifiedCommit>,
    /// The last commit that became healthy: where a rollback goes.
    pub(crate) healthy: Option<VerifiedCommit>,
    /// Every other commit that something here still runs from, or that could be gone back to.
    #[serde(default)]
    pub(crate) in_use: Vec<VerifiedCommit>,
}

impl Pointers {
    /// Everything the pointers name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &VerifiedCommit> {
        [&self.verified, &self.target, &self.healthy].into_iter().flatten().chain(&self.in_use)
    }

    /// Every commit a pointer names, each once: what a repository must hold to be worth keeping.
    pub(crate) fn commits(&self) -> BTreeSet<CommitId> {
        [&self.verified, &self.target, &self.healthy]
            .into_iter()
            .flatten()
            .map(|commit| commit.id().clone())
            .collect()
    }
}

/// The trust directory, read once and written through.
#[derive(Debug)]
pub(crate) struct TrustStore {
    pointers_path: PathBuf,
    images_path: PathBuf,
    pointers: Pointers,
    images: ImagePins,
    accepted: AcceptedHeads,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct ImagePins {
    commits: Pins,
}

impl TrustStore {
    /// Opens `directory`, creating it with mode 0700 where it is missing.
    pub(crate) fn open(directory: &Path) -> Result<Self, TrustError> {
        create_private(directory)
            .map_err(|source| TrustError::Directory { path: directory.to_owned(), source })?;
        let pointers_path = directory.join("pointers.json");
        let images_path = directory.join("images.json");
        let pointers: Pointers = state_file::read(&pointers_path, SCHEMA)?.unwrap_or_default();
        let accepted = AcceptedHeads::open(directory, pointers.all().map(|commit| commit.id().clone()))?;
        Ok(Self {
            pointers,
            accepted,
            images: state_file::read(&images_path, SCHEMA)?.unwrap_or_default(),
            pointers_path,
            images_path,
        })
    }

    /// The pointers as they are on disk.
    pub(crate) fn pointers(&self) -> &Pointers {
        &self.pointers
    }

    /// Puts new pointers on disk, and believes them only once they are there.
    pub(crate) fn set_pointers(&mut self, pointers: Pointers) -> Result<(), StateFileError> {
        if pointers == self.pointers {
            return Ok(());
        }
        self.accepted.keep()?;
        state_file::write(&self.pointers_path, SCHEMA, &pointers)?;
        self.pointers = pointers;
        Ok(())
    }

    /// For what the manifests of a commit are read. A commit that is in use was accepted: by this host as a head, or by
    /// the leader that decided to run it. That a head is `verified` says only that its signatures are good.
    pub(crate) fn read_as(&self, commit: &CommitId) -> ReadAs {
        let Pointers { verified: _, target, healthy, in_use } = &self.pointers;
        let in_use = [target, healthy].into_iter().flatten().chain(in_use).any(|one| one.id() == commit);
        if in_use || self.accepted.contains(commit) { ReadAs::Accepted } else { ReadAs::NewHead }
    }

    /// Records that the manifests of a head were accepted.
    pub(crate) fn accept(&mut self, head: &CommitId) -> Result<(), StateFileError> {
        self.accepted.add(head)
    }

    /// What every image reference of every commit means on this host.
    pub(crate) fn pins(&self) -> &Pins {
        &self.images.commits
    }

    /// Records what references mean for `commit`. A tag is resolved once a commit; it is asked for again, and its
    /// meaning replaced, only where the image has gone from the disk and cannot be had by its digest.
    pub(crate) fn pin_images(
        &mut self,
        commit: &CommitId,
        pins: impl IntoIterator<Item = (String, ImagePin)>,
    ) -> Result<(), StateFileError> {
        let known = self.images.commits.entry(commit.clone()).or_default();
        let before = known.clone();
        known.extend(pins);
        if *known == before {
            return Ok(());
        }
        state_file::write(&self.images_path, SCHEMA, &self.images)
    }

    /// Forgets the images of all commits but these.
    pub(crate) fn retain_images(&mut self, commits: &BTreeSet<CommitId>) -> Result<(), StateFileError> {
        let before = self.images.commits.len();
        self.images.commits.retain(|commit, _| commits.contains(commit));
        if self.images.commits.len() == before {
            return Ok(());
        }
        state_file::write(&self.images_path, SCHEMA, &self.images)
    }
}

fn create_private(directory: &Path) -> io::Result<()> {
    if fs::metadata(directory).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn pin(id: &str) -> ImagePin {
        ImagePin { id: reconciler::name::ImageId::new(id), digest: None, warning: None }
    }

    #[test]
    fn pins_and_pointers_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("trust");
        let commit = CommitId::new("a".repeat(40));
        let mut trust = TrustStore::open(&at).unwrap();
        trust.pin_images(&commit, [("httpd:latest".to_owned(), pin("sha256:1"))]).unwrap();
        trust.pin_images(&commit, [("httpd:latest".to_owned(), pin("sha256:2"))]).unwrap();
        let record = r#"{"schema":1,"verified":{"id":"HASH","grounds":"mode-off"}}"#;
        fs::write(at.join("pointers.json"), record.replace("HASH", commit.as_str())).unwrap();

        let mut trust = TrustStore::open(&at).unwrap();
        assert_eq!(trust.pins()[&commit]["httpd:latest"], pin("sha256:2"));
        assert_eq!(trust.pointers().commits(), BTreeSet::from([commit.clone()]));

        trust.retain_images(&BTreeSet::new()).unwrap();
        assert!(TrustStore::open(&at).unwrap().pins().is_empty());
    }

    #[test]
    fn what_an_older_version_had_verified_is_accepted_and_what_came_after_only_once_it_was_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let id = |letter: &str| CommitId::new(letter.repeat(40));
        let pointers = |verified: &str, target: &str| {
            let record = |letter: &str| format!(r#"{{"id":"{}","grounds":"mode-off"}}"#, letter.repeat(40));
            let text =
                format!(r#"{{"schema":1,"verified":{},"target":{}}}"#, record(verified), record(target));
            fs::write(at.join("pointers.json"), text).unwrap();
        };
        pointers("b", "a");
        let mut trust = TrustStore::open(at).unwrap();
        let read_as = |trust: &TrustStore, letters: [&str; 3]| letters.map(|one| trust.read_as(&id(one)));
        use ReadAs::{Accepted, NewHead};
        assert_eq!(read_as(&trust, ["a", "b", "c"]), [Accepted, Accepted, NewHead]);

        // The signatures of c are good, and the daemon ends before its manifests are read.
        let verified = |pointers: &Pointers| pointers.verified.as_ref().map(|commit| commit.id().clone());
        let before = trust.pointers().clone();
        trust.set_pointers(Pointers { target: None, ..before }).unwrap();
        assert_eq!(verified(trust.pointers()), Some(id("b")));
        pointers("c", "b");
        let mut trust = TrustStore::open(at).unwrap();
        assert_eq!(read_as(&trust, ["a", "b", "c"]), [Accepted, Accepted, NewHead]);
        trust.accept(&id("c")).unwrap();
        assert_eq!(TrustStore::open(at).unwrap().read_as(&id("c")), Accepted);

        // The leader, of an older version, took d.
        pointers("d", "d");
        assert_eq!(TrustStore::open(at).unwrap().read_as(&id("d")), Accepted);
    }

    #[test]
    fn the_record_of_accepted_heads_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let mut trust = TrustStore::open(directory.path()).unwrap();
        let id = |number: u32| CommitId::new(format!("{number:040x}"));
        for number in 0..150 {
            trust.accept(&id(number)).unwrap();
        }
        assert_eq!(trust.read_as(&id(49)), ReadAs::NewHead);
        assert_eq!(trust.read_as(&id(50)), ReadAs::Accepted);
    }
}
