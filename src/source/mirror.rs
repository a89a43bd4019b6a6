//! The local repository: bare, with history, one remote branch, and refs of this daemon that pin
//! every commit in use.
//!
//! ```text
//! <data>/mirror.git             the repository
//! <data>/mirror.git.lock        held by whoever writes
//! <data>/mirror.git.quarantine  the work directory of the child process
//! <data>/mirror.git.received    the download taken from there, until its head is accepted
//! <data>/mirror.git.compacted   the compacted mirror taken from there
//! <data>/mirror.git.new         a replacement being built
//! <data>/mirror.git.old         what a replacement is about to take the place of
//! ```

mod check;
mod refs;
mod share;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use git2::{Odb, Oid, Repository, RepositoryInitOptions};
use reconciler::name::CommitId;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(super) use self::refs::{accepted_refs, follow, pin, ref_target, refs, tracking};
use super::commit::{CommitError, id_of};

/// Every fetch that downloads objects adds a pack; more packs than this are combined into one.
const MAX_PACKS: usize = 50;
/// Deleting millions of files takes less. A process that makes files meanwhile cannot make the
/// removal last longer.
const REMOVAL: Duration = Duration::from_secs(60);

/// Why the local repository could not be used.
#[derive(Debug, Error)]
pub(crate) enum MirrorError {
    /// A file operation on the mirror failed.
    #[error("{step} {}", path.display())]
    Io {
        step: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The directory cannot be opened as a repository.
    #[error("open mirror {}", path.display())]
    Open { path: PathBuf, source: git2::Error },
    /// A ref of the mirror could not be read or written.
    #[error("{step} in mirror {}", path.display())]
    Refs {
        step: &'static str,
        path: PathBuf,
        source: git2::Error,
    },
    /// A commit that must be in the mirror is missing or incomplete.
    #[error("mirror {} does not hold commit {} whole", path.display(), commit.short())]
    Incomplete {
        path: PathBuf,
        commit: CommitId,
        /// The error when the commit was read.
        source: CommitError,
    },
}

/// How thoroughly the mirror is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Check {
    /// The refs, and the commits and root trees that they name.
    Quick,
    /// Every object of those commits, and the commits of all their history. For use after a failed
    /// read.
    Thorough,
}

/// Exclusive use of the mirror's files, until the value is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct MirrorLock(
    #[expect(dead_code, reason = "it is the open file that holds the lock")] File,
);

/// The path of the local repository.
#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    path: PathBuf,
}

impl Mirror {
    /// A mirror at this path, which need not exist yet.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The directory of the mirror.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the mirror for reading. A fetch may put another repository in its place, so it must be
    /// opened again for every cycle.
    pub(crate) fn open(&self) -> Result<Repository, MirrorError> {
        Repository::open_bare(&self.path).map_err(|source| MirrorError::Open {
            path: self.path.clone(),
            source,
        })
    }

    /// Pins exactly these commits against garbage collection, and releases all others; commits that
    /// the mirror lacks are skipped. False, without any change, while a fetch is under way: waiting
    /// could take as long as the fetch's deadline.
    pub(crate) fn pin(&self, commits: &BTreeSet<CommitId>) -> Result<bool, MirrorError> {
        let Some(_lock) = self.lock_by(FlockOperation::NonBlockingLockExclusive)? else {
            return Ok(false);
        };
        let repo = self.open()?;
        let here = |id: &&CommitId| {
            Oid::from_str(id.as_str()).is_ok_and(|id| repo.find_commit(id).is_ok())
        };
        let commits = commits.iter().filter(here).cloned().collect();

        pin(&repo, &commits).map_err(|source| self.refs_error("pin commits", source))?;
        Ok(true)
    }

    /// Waits for exclusive use. The wait is bounded by the deadline of a fetch.
    pub(super) fn lock(&self) -> Result<MirrorLock, MirrorError> {
        let lock = self.lock_by(FlockOperation::LockExclusive)?;
        lock.ok_or_else(|| MirrorError::Io {
            step: "lock",
            path: self.beside("lock"),
            source: io::ErrorKind::WouldBlock.into(),
        })
    }

    /// Takes the lock; `None` if the operation does not wait and another process holds the lock.
    fn lock_by(&self, operation: FlockOperation) -> Result<Option<MirrorLock>, MirrorError> {
        let path = self.beside("lock");
        let error = |step| {
            let path = path.clone();
            move |source| MirrorError::Io { step, path, source }
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(error("create the directory of"))?;
        }

        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(error("open"))?;
        // flock(2): the kernel releases the lock when the process ends, however it ends.
        match rustix::fs::flock(&file, operation) {
            Ok(()) => Ok(Some(MirrorLock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(error("lock")(errno.into())),
        }
    }

    /// Repairs what a killed fetch left: an unfinished replacement, lock files, incomplete packs.
    pub(super) fn recover(&self, _lock: &MirrorLock) -> Result<(), MirrorError> {
        let (old, fresh) = (self.beside("old"), self.beside("new"));
        // `replace` was interrupted between its two renames.
        if old.exists() && !self.path.exists() {
            rename(&old, &self.path)?;
        }

        // Older versions kept the child's home directory.
        let home = self.beside("home");
        let taken = [self.quarantine(), self.received(), self.compacted()];
        for leftover in [old, fresh, home].into_iter().chain(taken) {
            remove_all(&leftover)?;
        }
        for directory in ["refs", "objects/pack"] {
            remove_leftovers(&self.path.join(directory), true);
        }
        remove_leftovers(&self.path, false);
        Ok(())
    }

    /// Makes an empty mirror if there is none.
    pub(super) fn create_if_missing(&self) -> Result<(), MirrorError> {
        if self.path.exists() {
            Ok(())
        } else {
            create(&self.path).map(drop)
        }
    }

    /// The directory that a fetch downloads into.
    pub(super) fn quarantine(&self) -> PathBuf {
        self.beside("quarantine")
    }

    /// The directory of the download that the daemon has taken from the quarantine.
    pub(super) fn received(&self) -> PathBuf {
        self.beside("received")
    }

    /// The directory of the pack that a child has made of this mirror.
    pub(super) fn compacted(&self) -> PathBuf {
        self.beside("compacted")
    }

    /// The directory of the mirror's objects.
    pub(super) fn objects(&self) -> PathBuf {
        self.path.join("objects")
    }

    /// The mirror's objects without its refs and its configuration, for the child process.
    pub(super) fn objects_only(&self) -> Result<Repository, MirrorError> {
        objects_only(&self.objects()).map_err(|source| MirrorError::Open {
            path: self.path.clone(),
            source,
        })
    }

    /// Lets a group read the objects, and nothing else: the child process has this group.
    pub(super) fn share_objects(&self, gid: u32) -> Result<(), MirrorError> {
        share::share(&self.path, &self.objects(), gid)
    }

    /// The replacement that is being built.
    pub(super) fn replacement(&self) -> Result<Repository, MirrorError> {
        Self::new(self.beside("new")).open()
    }

    /// The size in bytes of the mirror's objects.
    pub(super) fn bytes(&self) -> u64 {
        directory_bytes(&self.path.join("objects"))
    }

    /// The commits that the refs name and those in `keep`.
    pub(super) fn wanted(
        &self,
        repo: &Repository,
        keep: &BTreeSet<CommitId>,
    ) -> Result<BTreeSet<CommitId>, MirrorError> {
        let mut wanted = keep.clone();
        let refs = |source| self.refs_error("read the refs", source);
        for reference in repo.references().map_err(refs)? {
            wanted.extend(reference.map_err(refs)?.target().map(id_of));
        }
        Ok(wanted)
    }

    /// Checks that all refs, the commits they name and the commits in `keep` can be read.
    pub(super) fn check(
        &self,
        repo: &Repository,
        keep: &BTreeSet<CommitId>,
        check: Check,
    ) -> Result<(), MirrorError> {
        self.check_commits(repo, &self.wanted(repo, keep)?, check)
    }

    /// Checks that these commits can be read.
    pub(super) fn check_commits(
        &self,
        repo: &Repository,
        commits: &BTreeSet<CommitId>,
        check: Check,
    ) -> Result<(), MirrorError> {
        let mut checked = BTreeSet::new();
        for commit in commits {
            check::check_commit(repo, commit, check, &mut checked).map_err(|source| {
                MirrorError::Incomplete {
                    path: self.path.clone(),
                    commit: commit.clone(),
                    source,
                }
            })?;
        }
        Ok(())
    }

    /// Makes an empty repository beside this one, to be filled and then put in its place.
    pub(super) fn begin_replacement(&self, _lock: &MirrorLock) -> Result<Repository, MirrorError> {
        let fresh = self.beside("new");
        remove_all(&fresh)?;
        create(&fresh)
    }

    /// Puts the replacement in the mirror's place. [`Self::recover`] repairs the state after a
    /// crash in between.
    pub(super) fn replace(&self, _lock: &MirrorLock) -> Result<(), MirrorError> {
        let (old, fresh) = (self.beside("old"), self.beside("new"));
        remove_all(&old)?;
        if self.path.exists() {
            rename(&self.path, &old)?;
        }
        rename(&fresh, &self.path)?;
        remove_all(&old)
    }

    /// Whether there are so many packs that reading slows down.
    pub(super) fn is_scattered(&self) -> bool {
        let Ok(files) = fs::read_dir(self.path.join("objects/pack")) else {
            return false;
        };
        let is_pack = |file: &fs::DirEntry| file.path().extension() == Some(OsStr::new("pack"));
        files.flatten().filter(is_pack).count() > MAX_PACKS
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".");
        path.push(ending);
        path.into()
    }

    pub(super) fn refs_error(&self, step: &'static str, source: git2::Error) -> MirrorError {
        MirrorError::Refs {
            step,
            path: self.path.clone(),
            source,
        }
    }
}

/// Objects as a repository without refs and configuration.
pub(super) fn objects_only(objects: &Path) -> Result<Repository, git2::Error> {
    let path = objects
        .to_str()
        .ok_or_else(|| git2::Error::from_str("the data directory's path is not UTF-8"))?;
    let database = Odb::new()?;
    database.add_disk_alternate(path)?;
    Repository::from_odb(database)
}

fn directory_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

pub(super) fn create(path: &Path) -> Result<Repository, MirrorError> {
    // A repository may hold Secrets: only root may read what is fetched.
    match DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(MirrorError::Io {
                step: "create",
                path: path.to_owned(),
                source,
            });
        }
        _ => {}
    }

    // A template of the host could add hooks.
    let mut options = RepositoryInitOptions::new();
    options.bare(true).no_reinit(true).external_template(false);
    Repository::init_opts(path, &options).map_err(|source| MirrorError::Open {
        path: path.to_owned(),
        source,
    })
}

/// Removes lock files, and from the pack directory all files that are not finished packs. A file
/// that cannot be removed makes the step fail that needs its place, and that step reports it.
fn remove_leftovers(directory: &Path, recurse: bool) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if recurse {
                remove_leftovers(&path, recurse);
            }
            continue;
        }
        // libgit2 writes a pack under another name and renames it at the end.
        let half_written = directory.ends_with("objects/pack")
            && !entry.file_name().as_encoded_bytes().starts_with(b"pack-");
        if half_written || path.extension() == Some(OsStr::new("lock")) {
            let _ = fs::remove_file(&path);
        }
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), MirrorError> {
    fs::rename(from, to).map_err(|source| MirrorError::Io {
        step: "rename",
        path: from.to_owned(),
        source,
    })
}

/// Removes a directory with all below. A child may have chosen what is there.
pub(super) fn remove_all(path: &Path) -> Result<(), MirrorError> {
    runtime::remove_tree(path, REMOVAL).map_err(|source| MirrorError::Io {
        step: "remove",
        path: path.to_owned(),
        source,
    })
}
