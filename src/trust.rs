//! What this host believes, on its own disk: `trust/pointers.json` and `trust/images.json`.
//!
//! The pointers never live in the store: a stolen store must not be able to move `verified` back. The image pins
//! make a rollback bring back the very image a commit ran with, also where its tag has moved since.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use reconciler::{name::CommitId, node::Pins, plan::ImagePin};
use serde::{Deserialize, Serialize};
use thiserror::Error;

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
        create_private(directory)
            .map_err(|source| TrustError::Directory { path: directory.to_owned(), source })?;
        let pointers_path = directory.join("pointers.json");
        let images_path = directory.join("images.json");
        Ok(Self {
            pointers: state_file::read(&pointers_path, SCHEMA)?.unwrap_or_default(),
            images: state_file::read(&images_path, SCHEMA)?.unwrap_or_default(),
            images_are_unsaved: false,
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
        state_file::write(&self.pointers_path, SCHEMA, &pointers)?;
        self.pointers = pointers;
        Ok(())
    }

    /// What every image reference of every commit means on this host.
    pub(crate) fn pins(&self) -> &Pins {
        &self.images.commits
    }

    /// Records what references mean for commits, by one write however many there are. A tag is resolved once a commit;
    /// it is asked for again, and its meaning replaced, only where the image has gone from the disk and cannot be had by
    /// its digest.
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
    pub(crate) fn retain_images(&mut self, commits: &BTreeSet<CommitId>) -> Result<(), StateFileError> {
        let before = self.images.commits.len();
        self.images.commits.retain(|commit, _| commits.contains(commit));
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
        trust.pin_images([(commit.clone(), "httpd:latest".to_owned(), pin("sha256:1"))]).unwrap();
        trust.pin_images([(commit.clone(), "httpd:latest".to_owned(), pin("sha256:2"))]).unwrap();
        let record = r#"{"schema":1,"verified":{"id":"HASH","grounds":"mode-off"}}"#;
        fs::write(at.join("pointers.json"), record.replace("HASH", commit.as_str())).unwrap();

        let mut trust = TrustStore::open(&at).unwrap();
        assert_eq!(trust.pins()[&commit]["httpd:latest"], pin("sha256:2"));
        assert_eq!(trust.pointers().commits(), BTreeSet::from([commit.clone()]));

        trust.retain_images(&BTreeSet::new()).unwrap();
        assert!(TrustStore::open(&at).unwrap().pins().is_empty());
    }
    /// Pins of a commit with so many images.
    fn many(commit: &CommitId, count: usize) -> Vec<(CommitId, String, ImagePin)> {
        (0..count)
            .map(|n| (commit.clone(), format!("registry.example/app-{n}:1"), pin(&format!("sha256:{n}"))))
            .collect()
    }

    #[test]
    fn a_thousand_pins_are_one_write_and_none_where_nothing_is_new() {
        let directory = tempfile::tempdir().unwrap();
        let mut trust = TrustStore::open(&directory.path().join("trust")).unwrap();
        let (old, new) = (CommitId::new("a".repeat(40)), CommitId::new("b".repeat(40)));
        let writes = |act: &mut dyn FnMut()| {
            let before = state_file::writes_of_this_thread();
            act();
            state_file::writes_of_this_thread() - before
        };
        assert_eq!(writes(&mut || trust.pin_images(many(&old, 1_000)).unwrap()), 1);
        assert_eq!(writes(&mut || trust.pin_images(many(&new, 1_000)).unwrap()), 1);
        let both = [many(&old, 1_000), many(&new, 1_000)].concat();
        assert_eq!(writes(&mut || trust.pin_images(both.clone()).unwrap()), 0);
        assert_eq!(writes(&mut || trust.retain_images(&BTreeSet::from([new.clone()])).unwrap()), 1);
        let pins = TrustStore::open(&directory.path().join("trust")).unwrap();
        assert_eq!(pins.pins()[&new].len(), 1_000);
    }

    #[test]
    fn a_pin_that_a_full_disk_kept_away_is_written_by_the_next_try() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("trust");
        let commit = CommitId::new("a".repeat(40));
        let mut trust = TrustStore::open(&at).unwrap();
        // A directory in the place of the neighbour makes the write fail as a full disk would.
        fs::create_dir(at.join("images.json.new")).unwrap();
        assert!(trust.pin_images(many(&commit, 1)).is_err());
        fs::remove_dir(at.join("images.json.new")).unwrap();
        trust.pin_images([]).unwrap();
        assert_eq!(TrustStore::open(&at).unwrap().pins()[&commit].len(), 1);
    }
}
