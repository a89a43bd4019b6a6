//! The walk over a commit's trees that collects its manifests.

use std::collections::{BTreeMap, BTreeSet};

use git2::{Odb, Oid, Repository};

use super::{
    SnapshotError, SnapshotLimits, SnapshotProblem, SnapshotProblems, SourceFile, SourcePath,
};
use crate::source::commit::CommitObject;

/// The beginning of a pointer file, by Git LFS's specification.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
const MANIFEST_ENDINGS: [&str; 3] = [".yaml", ".yml", ".json"];
/// The most problems of a commit that are collected; more would not help a reader.
const MAX_PROBLEMS: usize = 100;
/// The most files with a manifest's ending in another case that are named.
const MAX_PASSED_OVER: usize = 20;

/// The type of a tree entry by its mode (git-fast-import(1) lists the modes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Symlink,
    Submodule,
}

impl Kind {
    fn of(mode: i32) -> Self {
        match mode & 0o170_000 {
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o160_000 => Self::Submodule,
            _ => Self::File,
        }
    }
}

/// The result of a walk.
pub(super) struct WalkedFiles {
    /// The manifests, sorted by path, each once.
    pub(super) files: Vec<SourceFile>,
    /// Files that are not read only because of the case of their ending, sorted by path.
    pub(super) passed_over: Vec<String>,
}

/// Collects the manifests under `paths`.
pub(super) fn files(
    repo: &Repository,
    commit: &CommitObject,
    paths: &[SourcePath],
    limits: &SnapshotLimits,
) -> Result<WalkedFiles, SnapshotError> {
    let read = |source| SnapshotError::Read {
        commit: commit.id.short().to_owned(),
        path: ".".to_owned(),
        source,
    };
    let mut walk = Walk {
        repo,
        database: repo.odb().map_err(read)?,
        commit: commit.id.short(),
        limits,
        files: BTreeMap::new(),
        passed_over: BTreeSet::new(),
        problems: Vec::new(),
        entries: 0,
        total_bytes: 0,
    };

    let root = [SourcePath::root()];
    for path in if paths.is_empty() { &root } else { paths } {
        walk.configured_path(commit.tree, path)?;
    }

    if walk.problems.is_empty() {
        let files = walk
            .files
            .into_iter()
            .map(|(path, bytes)| SourceFile { path, bytes })
            .collect();
        Ok(WalkedFiles {
            files,
            passed_over: walk.passed_over.into_iter().collect(),
        })
    } else {
        Err(SnapshotError::Refused(SnapshotProblems(walk.problems)))
    }
}

struct Walk<'a> {
    repo: &'a Repository,
    database: Odb<'a>,
    commit: &'a str,
    limits: &'a SnapshotLimits,
    files: BTreeMap<String, Vec<u8>>,
    passed_over: BTreeSet<String>,
    problems: Vec<SnapshotProblem>,
    entries: usize,
    total_bytes: usize,
}

impl Walk<'_> {
    /// Goes down to a configured path and reads the file or directory there.
    fn configured_path(&mut self, root: Oid, path: &SourcePath) -> Result<(), SnapshotError> {
        let mut at = (Kind::Directory, root);
        let mut reached = String::new();
        for name in path.names() {
            let missing = SnapshotProblem::MissingPath {
                path: path.to_string(),
            };
            match at.0 {
                Kind::Directory => {}
                Kind::Symlink => return self.problem(SnapshotProblem::Symlink { path: reached }),
                Kind::Submodule => {
                    return self.problem(SnapshotProblem::Submodule { path: reached });
                }
                Kind::File => return self.problem(missing),
            }

            let tree = self
                .repo
                .find_tree(at.1)
                .map_err(|source| self.unreadable(&reached, source))?;
            let Some(entry) = tree.get_name(name) else {
                return self.problem(missing);
            };
            reached = join(&reached, name);
            at = (Kind::of(entry.filemode_raw()), entry.id());
        }

        let (files, problems) = (self.files.len(), self.problems.len());
        match at.0 {
            Kind::File if !is_manifest(&reached) => {
                return self.problem(SnapshotProblem::NotAManifest { path: reached });
            }
            Kind::Directory => self.directory(at.1, &reached, 1)?,
            kind => self.entry(kind, at.1, reached.clone(), 1)?,
        }

        let prefix = if reached.is_empty() {
            String::new()
        } else {
            format!("{reached}/")
        };
        // A path inside an earlier one adds no new files, and still does not count as empty.
        let holds_some = self.files.len() > files
            || self
                .files
                .keys()
                .any(|file| *file == reached || file.starts_with(&prefix));
        if !holds_some && self.problems.len() == problems {
            return self.problem(SnapshotProblem::EmptyPath {
                path: path.to_string(),
            });
        }
        Ok(())
    }

    fn directory(&mut self, id: Oid, path: &str, depth: usize) -> Result<(), SnapshotError> {
        if depth > self.limits.depth {
            let limit = self.limits.depth;
            return self.problem(SnapshotProblem::TooDeep {
                path: path.to_owned(),
                limit,
            });
        }

        let tree = self
            .repo
            .find_tree(id)
            .map_err(|source| self.unreadable(path, source))?;
        for entry in &tree {
            self.entries += 1;
            if self.entries > self.limits.entries {
                return self.fatal(SnapshotProblem::TooManyEntries {
                    limit: self.limits.entries,
                });
            }

            let name = entry.name_bytes();
            if name.starts_with(b".") {
                continue;
            }
            match std::str::from_utf8(name) {
                Ok(name) => self.entry(
                    Kind::of(entry.filemode_raw()),
                    entry.id(),
                    join(path, name),
                    depth,
                )?,
                Err(_) => {
                    let path = join(path, &String::from_utf8_lossy(name));
                    self.problem(SnapshotProblem::BadName { path })?;
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        kind: Kind,
        id: Oid,
        path: String,
        depth: usize,
    ) -> Result<(), SnapshotError> {
        match kind {
            Kind::Directory => self.directory(id, &path, depth + 1),
            Kind::Symlink => self.problem(SnapshotProblem::Symlink { path }),
            Kind::Submodule => self.problem(SnapshotProblem::Submodule { path }),
            Kind::File if is_manifest(&path) => self.file(id, path),
            Kind::File => {
                if looks_like_manifest(&path) && self.passed_over.len() < MAX_PASSED_OVER {
                    self.passed_over.insert(path);
                }
                Ok(())
            }
        }
    }

    fn file(&mut self, id: Oid, path: String) -> Result<(), SnapshotError> {
        if self.files.contains_key(&path) {
            return Ok(());
        }

        // The size comes first: a file over the limit is never read into memory.
        let (bytes, _) = self
            .database
            .read_header(id)
            .map_err(|source| self.unreadable(&path, source))?;
        let limit = self.limits.file_bytes;
        if bytes > limit {
            return self.problem(SnapshotProblem::FileTooLarge { path, bytes, limit });
        }
        if self.files.len() == self.limits.files {
            return self.fatal(SnapshotProblem::TooManyFiles {
                limit: self.limits.files,
            });
        }
        self.total_bytes += bytes;
        if self.total_bytes > self.limits.total_bytes {
            return self.fatal(SnapshotProblem::TotalTooLarge {
                path,
                limit: self.limits.total_bytes,
            });
        }

        let content = match self.database.read(id) {
            Ok(object) => object.data().to_vec(),
            Err(source) => return Err(self.unreadable(&path, source)),
        };
        if content.starts_with(LFS_POINTER) {
            return self.problem(SnapshotProblem::LfsPointer { path });
        }
        self.files.insert(path, content);
        Ok(())
    }

    /// Records a problem and continues, so that all problems are reported at once.
    fn problem(&mut self, problem: SnapshotProblem) -> Result<(), SnapshotError> {
        if self.problems.len() + 1 == MAX_PROBLEMS {
            return self.fatal(problem);
        }
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
        Ok(())
    }

    /// Records a problem after which the walk ends, since continuing would only cost time.
    fn fatal(&mut self, problem: SnapshotProblem) -> Result<(), SnapshotError> {
        self.problems.push(problem);
        Err(SnapshotError::Refused(SnapshotProblems(std::mem::take(
            &mut self.problems,
        ))))
    }

    fn unreadable(&self, path: &str, source: git2::Error) -> SnapshotError {
        let path = if path.is_empty() { "." } else { path };
        SnapshotError::Read {
            commit: self.commit.to_owned(),
            path: path.to_owned(),
            source,
        }
    }
}

/// Whether a file is read.
pub(crate) fn is_manifest(path: &str) -> bool {
    MANIFEST_ENDINGS.iter().any(|ending| path.ends_with(ending))
}

/// Whether a file would be read if the case of its ending did not matter.
pub(crate) fn looks_like_manifest(path: &str) -> bool {
    is_manifest(&path.to_ascii_lowercase())
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        name.to_owned()
    } else {
        format!("{directory}/{name}")
    }
}
