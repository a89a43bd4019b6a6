//! The manifests of one verified commit, as bytes, straight from the object database.
//!
//! Taken are `*.yaml`, `*.yml` and `*.json` under the configured paths, in lower case; files whose
//! ending differs from these only by its case are named. A directory or file whose name begins with
//! a dot is passed over while walking (`.github/workflows/ci.yml` is no manifest) and is read where
//! a configured path names it. There is no work tree and so there are no filters or attributes:
//! what is signed is what is read.

mod path;
mod problem;
mod walk;

use git2::Repository;
use reconciler::name::CommitId;
use thiserror::Error;

pub(crate) use self::path::SourcePath;
pub(crate) use self::problem::{SnapshotProblem, SnapshotProblems};
pub(crate) use self::walk::{is_manifest, looks_like_manifest};
use super::commit::{CommitError, CommitInfo, CommitObject};
use super::verify::VerifiedCommit;

/// How much a commit may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotLimits {
    /// Manifest files.
    pub(crate) files: usize,
    /// Bytes of one file.
    pub(crate) file_bytes: usize,
    /// Bytes of all files.
    pub(crate) total_bytes: usize,
    /// Directories below each other.
    pub(crate) depth: usize,
    /// Tree entries looked at, manifests or not.
    pub(crate) entries: usize,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self {
            files: 10_000,
            file_bytes: 4 * 1024 * 1024,
            total_bytes: 32 * 1024 * 1024,
            depth: 32,
            entries: 200_000,
        }
    }
}

/// Why there is no snapshot.
#[derive(Debug, Error)]
pub(crate) enum SnapshotError {
    /// The commit holds what cannot be taken. It is refused whole; everything found is listed.
    #[error("{0}")]
    Refused(SnapshotProblems),
    /// The mirror could not be read; nothing is said about the commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A tree or blob of the commit is missing or damaged in the mirror: fetch with a thorough
    /// check.
    #[error("read {path} of commit {commit} from the mirror")]
    Read {
        /// The commit, short.
        commit: String,
        /// Where in it.
        path: String,
        /// What libgit2 said.
        source: git2::Error,
    },
}

/// One manifest file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// Its path from the repository's root, with `/`.
    pub(crate) path: String,
    /// Its content as committed.
    pub(crate) bytes: Vec<u8>,
}

/// What a snapshot can be made of, and nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Readable<'a> {
    /// A commit that may run here.
    Eligible(&'a VerifiedCommit),
    /// A commit that may not run here, of which something runs all the same: it is read to keep
    /// that up.
    Kept(&'a CommitId),
}

impl Readable<'_> {
    /// The commit.
    pub(crate) fn id(&self) -> &CommitId {
        match self {
            Self::Eligible(commit) => commit.id(),
            Self::Kept(id) => id,
        }
    }
}

/// The manifests of one commit.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    info: CommitInfo,
    files: Vec<SourceFile>,
    passed_over: Vec<String>,
}

impl Snapshot {
    /// Reads every manifest under `paths`. A path that is missing or holds no manifest is a
    /// problem, never an empty listing: nothing must be deleted because a directory was renamed.
    pub(crate) fn read(
        repo: &Repository,
        commit: &Readable<'_>,
        paths: &[SourcePath],
        limits: &SnapshotLimits,
    ) -> Result<Self, SnapshotError> {
        let object = CommitObject::read(repo, commit.id())?;
        let walk::WalkedFiles { files, passed_over } = walk::files(repo, &object, paths, limits)?;
        Ok(Self {
            info: object.info(),
            files,
            passed_over,
        })
    }

    /// Subject, times and trailer of that commit.
    pub(crate) fn info(&self) -> &CommitInfo {
        &self.info
    }

    /// Its files, sorted by path, each once.
    pub(crate) fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// Files that are not read because their ending is not in lower case: the first of them, sorted
    /// by path.
    pub(crate) fn passed_over(&self) -> &[String] {
        &self.passed_over
    }
}

#[cfg(test)]
mod tests;
