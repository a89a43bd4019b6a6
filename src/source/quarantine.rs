//! The quarantine: the place of a download until this host has checked it and accepted the head.
//!
//! ```text
//! child:  download ─► one pack in <data>/mirror.git.quarantine/      (it writes nowhere else)
//! daemon: a copy of it in <data>/mirror.git.received/
//!         headers of all objects ─► signatures ─► accepted: the pack moves into the mirror
//!                                             └─► refused: the copy is deleted
//! ```
//!
//! The quarantine belongs to the user of the child. When the child has ended, the daemon copies the
//! pack and its index from there, and nothing else: not the configuration, refs or alternates of the
//! repository that the child made for itself. Content is read only after [`Quarantine::inspect`].

mod take;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, Repository};
use reconciler::name::CommitId;
use thiserror::Error;

use super::commit::id_of;
use super::fetch::{Brought, FetchLimits};
use super::mirror::{self, Check, Mirror, MirrorError, MirrorLock};
use super::pack::{self, ObjectHeader, PackError};
use super::sandbox::UserIds;

/// No person writes a longer message; a signature has a few kilobytes.
const MAX_COMMIT_BYTES: u64 = 1024 * 1024;
/// About 100,000 names in one directory.
pub(crate) const MAX_TREE_BYTES: u64 = 4 * 1024 * 1024;

/// Why the content of a download is not read.
#[derive(Debug, Error)]
pub(crate) enum InspectError {
    /// An object of the download is over its limit.
    #[error(transparent)]
    TooLarge(#[from] Oversized),
    /// The headers of the download's objects cannot be read.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The directory holds other files than one pack with its index.
    #[error("{path} holds {content}, where one pack with its index is expected")]
    Layout {
        path: String,
        /// The files in the quarantine.
        content: String,
    },
}

/// An object over its limit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "object {id} is a {kind}{} of {bytes} bytes, and a {kind} may have {limit}; take it out of the history{}",
    if *is_delta { ", stored as a delta" } else { "" },
    if *kind == "blob" { ", or raise source.max-object-bytes" } else { "" }
)]
pub(crate) struct Oversized {
    id: Oid,
    kind: &'static str,
    bytes: u64,
    limit: u64,
    is_delta: bool,
}

/// The quarantine of one fetch, which is deleted when the value is dropped.
#[derive(Debug)]
pub(crate) struct Quarantine {
    mirror: Mirror,
    lock: MirrorLock,
    /// The work directory of the child.
    path: PathBuf,
    /// The directory of the download that was taken from the child.
    received: PathBuf,
    /// The directory of the pack that a child has made of the mirror.
    compacted: PathBuf,
}

impl Quarantine {
    /// Locks the mirror for a fetch: waits for the lock, and repairs what a killed fetch left.
    pub(crate) fn begin(mirror: &Mirror) -> Result<Self, MirrorError> {
        let lock = mirror.lock()?;
        mirror.recover(&lock)?;
        mirror.create_if_missing()?;
        Ok(Self {
            mirror: mirror.clone(),
            lock,
            path: mirror.quarantine(),
            received: mirror.received(),
            compacted: mirror.compacted(),
        })
    }

    /// Makes an empty work directory for a child, which becomes this user and may read the mirror's
    /// objects.
    pub(crate) fn prepare(&self, user: Option<UserIds>) -> Result<(), MirrorError> {
        make_empty(&self.path)?;
        let Some(user) = user else {
            return Ok(());
        };
        let given = lchown(&self.path, Some(user.uid), Some(user.gid));
        given.map_err(|source| MirrorError::Io {
            step: "change the owner of",
            path: self.path.clone(),
            source,
        })
    }

    /// Lets the group of a child read the mirror's objects.
    pub(crate) fn share_objects(&self, gid: u32) -> Result<(), MirrorError> {
        self.mirror.share_objects(gid)
    }

    /// Copies the downloaded pack of a child that has ended.
    pub(crate) fn take_download(&self, limits: &FetchLimits) -> Result<(), InspectError> {
        self.take(INCOMING, &self.received, limits)
    }

    /// Copies the pack that a child has made of the mirror.
    pub(crate) fn take_compacted(&self, limits: &FetchLimits) -> Result<(), InspectError> {
        self.take(COMPACTED, &self.compacted, limits)
    }

    fn take(&self, repository: &str, to: &Path, limits: &FetchLimits) -> Result<(), InspectError> {
        let failed = |path: &Path, error: MirrorError| PackError::Io {
            path: path.display().to_string(),
            source: io::Error::other(error),
        };
        let packs = to.join(PACKS);
        make_empty(to)
            .and_then(|()| make_empty(&packs))
            .map_err(|error| failed(to, error))?;
        // The bases of a thin pack are added to what is received.
        let max_bytes = limits.received_bytes.saturating_mul(2);
        take::copy_pack(&self.path, repository, &packs, max_bytes)?;

        // The disk holds the pack once, and nothing reads the child's directory any more.
        mirror::remove_all(&self.path).map_err(|error| failed(&self.path, error))?;
        Ok(())
    }

    /// The refs of the mirror and their targets.
    pub(crate) fn known(&self) -> Result<BTreeMap<String, CommitId>, MirrorError> {
        let refs = |source| self.mirror.refs_error("read the refs", source);
        let known = mirror::refs(&self.mirror.open()?).map_err(refs)?;
        Ok(known
            .into_iter()
            .map(|(name, target)| (name, id_of(target)))
            .collect())
    }

    /// The commits of which a check reads every object.
    pub(crate) fn wanted(
        &self,
        keep: &BTreeSet<CommitId>,
    ) -> Result<BTreeSet<CommitId>, MirrorError> {
        self.mirror.wanted(&self.mirror.open()?, keep)
    }

    /// Checks that the mirror can be read, by its commits and root trees.
    pub(crate) fn check_quickly(&self, keep: &BTreeSet<CommitId>) -> Result<(), MirrorError> {
        self.mirror.check(&self.mirror.open()?, keep, Check::Quick)
    }

    /// Checks that a new clone holds every object of these commits. To be called after
    /// [`Self::inspect`].
    pub(crate) fn check_clone(&self, keep: &BTreeSet<CommitId>) -> Result<(), MirrorError> {
        let clone = mirror::objects_only(&self.received);
        let clone = clone.map_err(|source| self.mirror.refs_error("open a new clone", source))?;
        self.mirror.check_commits(&clone, keep, Check::Thorough)
    }

    /// The commits that a compaction keeps.
    pub(crate) fn tips(
        &self,
        keep: &BTreeSet<CommitId>,
    ) -> Result<BTreeSet<CommitId>, MirrorError> {
        let tips = mirror::accepted_refs(&self.mirror.open()?, keep);
        let tips = tips.map_err(|source| self.mirror.refs_error("repack", source))?;
        Ok(tips.into_iter().map(|(_, target)| id_of(target)).collect())
    }

    /// Whether the mirror holds a head that was never accepted: older versions moved refused heads
    /// into the mirror. Such a mirror must be compacted before the refused objects are read.
    pub(crate) fn holds_refused(&self, branch: &str, keep: &BTreeSet<CommitId>) -> bool {
        let Ok(repo) = self.mirror.open() else {
            return false;
        };
        let target = mirror::ref_target(&repo, &mirror::tracking(branch))
            .ok()
            .flatten();
        target.is_some_and(|head| !keep.contains(&id_of(head)))
    }

    /// Reads the headers of all downloaded objects, and refuses objects over a limit.
    pub(crate) fn inspect(&self, limits: &FetchLimits) -> Result<(), InspectError> {
        inspect(&self.received, limits)
    }

    /// As [`Self::inspect`], of the pack that a child has made of the mirror.
    pub(crate) fn inspect_compacted(&self, limits: &FetchLimits) -> Result<(), InspectError> {
        inspect(&self.compacted, limits)
    }

    /// Opens the repository as it would be with the download. To be called after [`Self::inspect`].
    pub(crate) fn open(&self, brought: Brought) -> Result<Repository, MirrorError> {
        match brought {
            Brought::Nothing => self.mirror.open(),
            Brought::Addition => {
                let repo = self.mirror.open()?;
                let added = repo
                    .odb()
                    .and_then(|database| database.add_disk_alternate(text(&self.received)?));
                added.map_err(|source| self.mirror.refs_error("add the quarantine", source))?;
                Ok(repo)
            }
            Brought::Whole => {
                let fresh = self.mirror.begin_replacement(&self.lock)?;
                move_pack(&self.received, &fresh.path().join("objects/pack"))?;
                Ok(fresh)
            }
        }
    }

    /// Moves the download into the mirror, and sets the branch to the accepted head.
    pub(crate) fn accept(
        &self,
        brought: Brought,
        branch: &str,
        head: &CommitId,
        keep: &BTreeSet<CommitId>,
    ) -> Result<(), MirrorError> {
        if brought == Brought::Addition {
            move_pack(&self.received, &self.mirror.objects().join(PACKS))?;
        }

        let repo = match brought {
            Brought::Whole => self.mirror.replacement()?,
            Brought::Nothing | Brought::Addition => self.mirror.open()?,
        };
        mirror::follow(&repo, branch, head)
            .map_err(|source| self.mirror.refs_error("set the branch", source))?;

        if brought == Brought::Whole {
            self.replace(&repo, keep)?;
        }
        crate::crash::point("fetch-accepted");
        Ok(())
    }

    /// The size of the mirror with the download, if that is over the limit.
    pub(crate) fn would_exceed(&self, limit: u64) -> Option<u64> {
        let received = the_pack(&self.received).ok()?;
        let size = |path: &Path| fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
        let bytes = self.mirror.bytes() + size(&received.0) + size(&received.1);
        (bytes > limit).then_some(bytes)
    }

    /// Whether there are so many packs that reading the mirror slows down.
    pub(crate) fn is_scattered(&self) -> bool {
        self.mirror.is_scattered()
    }

    /// Replaces the mirror by the pack that [`super::fetch::compact`] made of it.
    pub(crate) fn accept_compacted(&self, keep: &BTreeSet<CommitId>) -> Result<(), MirrorError> {
        let failed = |source| self.mirror.refs_error("repack", source);
        let tips = mirror::accepted_refs(&self.mirror.open()?, keep).map_err(failed)?;

        let fresh = self.mirror.begin_replacement(&self.lock)?;
        if !tips.is_empty() {
            move_pack(&self.compacted, &fresh.path().join("objects/pack"))?;
        }
        for (name, target) in tips {
            fresh
                .reference(&name, target, true, "repack")
                .map_err(failed)?;
        }

        // The child chose what is in the pack.
        self.mirror.check(&fresh, keep, Check::Thorough)?;
        self.mirror.replace(&self.lock)
    }

    /// Keeps of a new clone only the commits that this host runs: its head was refused, and the
    /// mirror is damaged.
    pub(crate) fn repair(&self, keep: &BTreeSet<CommitId>) -> Result<(), MirrorError> {
        let repo = self.mirror.replacement()?;
        self.replace(&repo, keep)
    }

    /// Puts the replacement in the mirror's place, if it holds all commits that are needed.
    fn replace(&self, repo: &Repository, keep: &BTreeSet<CommitId>) -> Result<(), MirrorError> {
        self.mirror.check(repo, keep, Check::Thorough)?;
        mirror::pin(repo, keep).map_err(|source| self.mirror.refs_error("pin commits", source))?;
        self.mirror.replace(&self.lock)
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        // What cannot be deleted now is deleted before the next fetch, which reports what prevents
        // that.
        let _ = mirror::remove_all(&self.path);
        let _ = mirror::remove_all(&self.received);
        let _ = mirror::remove_all(&self.compacted);
    }
}

/// The repository that the child downloads into.
pub(super) const INCOMING: &str = "incoming.git";
/// The repository that the child makes from the mirror without garbage.
pub(super) const COMPACTED: &str = "compacted.git";

/// The directory of packs in an objects directory.
const PACKS: &str = "pack";

/// Makes an empty directory that only root may enter, in place of what is there.
fn make_empty(path: &Path) -> Result<(), MirrorError> {
    mirror::remove_all(path)?;
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|source| MirrorError::Io {
        step: "create",
        path: path.to_owned(),
        source,
    })
}

/// Reads the headers of all objects of the one pack in an objects directory.
fn inspect(objects: &Path, limits: &FetchLimits) -> Result<(), InspectError> {
    let (pack, index) = the_pack(objects)?;
    // The bases of a thin pack are added to the received objects: at most one for each delta.
    for header in pack::headers(&pack, &index, limits.objects.saturating_mul(2))? {
        check_size(&header, limits)?;
    }
    Ok(())
}

fn check_size(header: &ObjectHeader, limits: &FetchLimits) -> Result<(), Oversized> {
    let (id, kind) = (header.id, header.kind.str());
    let limit = match header.kind {
        ObjectType::Commit | ObjectType::Tag => MAX_COMMIT_BYTES,
        ObjectType::Tree => MAX_TREE_BYTES,
        _ => limits.object_bytes,
    };
    if header.bytes > limit {
        return Err(Oversized {
            id,
            kind,
            bytes: header.bytes,
            limit,
            is_delta: false,
        });
    }

    // A delta is inflated too, and may be larger than its result.
    let limit = limits.object_bytes.max(MAX_TREE_BYTES);
    if header.delta_bytes > limit {
        return Err(Oversized {
            id,
            kind,
            bytes: header.delta_bytes,
            limit,
            is_delta: true,
        });
    }
    Ok(())
}

/// The pack and the index in an objects directory that the daemon has made.
fn the_pack(objects: &Path) -> Result<(PathBuf, PathBuf), InspectError> {
    let directory = objects.join(PACKS);
    let failed = |source| PackError::Io {
        path: directory.display().to_string(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(&directory).map_err(failed)? {
        files.push(entry.map_err(failed)?.path());
    }
    files.sort();
    match files.as_slice() {
        [index, pack]
            if index.extension() == Some(OsStr::new("idx"))
                && index.with_extension("pack") == *pack =>
        {
            Ok((pack.clone(), index.clone()))
        }
        files => Err(InspectError::Layout {
            path: directory.display().to_string(),
            content: format!("{} files", files.len()),
        }),
    }
}

/// Moves the one pack to another directory of packs: first the pack, then the index, since git
/// reads a pack only with its index.
fn move_pack(objects: &Path, to: &Path) -> Result<(), MirrorError> {
    let (pack, index) = the_pack(objects).map_err(|error| MirrorError::Io {
        step: "find the pack in",
        path: objects.to_owned(),
        source: io::Error::other(error),
    })?;
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| MirrorError::Io { step, path, source }
    };

    // A pack is named after its content, and a pack in use must not be overwritten.
    if to.join(index.file_name().unwrap_or_default()).exists() {
        return Ok(());
    }
    for file in [&pack, &index] {
        let target = to.join(file.file_name().unwrap_or_default());
        fs::rename(file, target).map_err(failed("move", file))?;
        crate::crash::point("fetch-move");
    }
    File::open(to)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("flush", to))
}

fn text(path: &Path) -> Result<&str, git2::Error> {
    path.to_str()
        .ok_or_else(|| git2::Error::from_str("the data directory's path is not UTF-8"))
}

#[cfg(test)]
mod tests;
