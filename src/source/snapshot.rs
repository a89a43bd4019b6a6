//! The manifests of one verified commit, as bytes, directly from the object database.
//!
//! Files that are read: `*.yaml`, `*.yml` and `*.json` under the configured paths, in lower case;
//! files whose ending differs from these only by its case are named. A directory or file whose name
//! begins with a dot is skipped (`.github/workflows/ci.yml` is no manifest), unless a configured
//! path names it. There is no work tree, so there are no filters or attributes: the bytes that are
//! read are the bytes that were signed.

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

/// The limits of a commit's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotLimits {
    /// The number of manifest files.
    pub(crate) files: usize,
    /// The size of one file, in bytes.
    pub(crate) file_bytes: usize,
    /// The size of all files, in bytes.
    pub(crate) total_bytes: usize,
    /// The depth of nested directories.
    pub(crate) depth: usize,
    /// The number of tree entries that are visited, manifests or not.
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
    /// The commit has files that cannot be accepted. It is refused as a whole; all problems are
    /// listed.
    #[error("{0}")]
    Refused(SnapshotProblems),
    /// The mirror could not be read; that is no judgement about the commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A tree or blob of the commit is missing or damaged in the mirror: fetch with a thorough
    /// check.
    #[error("read {path} of commit {commit} from the mirror")]
    Read {
        /// The commit's abbreviated id.
        commit: String,
        /// The path of the tree or blob in the commit.
        path: String,
        source: git2::Error,
    },
}

/// One manifest file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// The path from the repository's root, with `/`.
    pub(crate) path: String,
    /// The content as committed.
    pub(crate) bytes: Vec<u8>,
}

/// The commits that a snapshot can be taken of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Readable<'a> {
    /// A commit that may run here.
    Eligible(&'a VerifiedCommit),
    /// A commit that may not run here although pods of it run: it is read to keep these pods up.
    Kept(&'a CommitId),
}

impl Readable<'_> {
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
    /// problem, and never an empty list: no object may be deleted because a directory was renamed.
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

    /// The commit's subject, times and trailer.
    pub(crate) fn info(&self) -> &CommitInfo {
        &self.info
    }

    /// The commit's files, sorted by path, each once.
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
