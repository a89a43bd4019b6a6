//! The files of a repository on this host, before libgit2 opens them.
//!
//! The owner of the repository chooses what lies at these paths. libgit2 waits for ever at a FIFO,
//! follows links, and reads what a configuration or an alternate names.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use thiserror::Error;

/// `.git` of a linked work tree, `HEAD` and a ref hold one path or one id.
const MAX_LINE_BYTES: u64 = 8 * 1024;
/// git writes a few lines for each branch and each remote.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;
/// About a million refs.
const MAX_PACKED_REFS_BYTES: u64 = 64 * 1024 * 1024;
/// The sections `[include]` and `[includeIf ...]`.
const INCLUDE: &[u8] = b"include";
/// More loose refs than this are packed by `git gc`.
const MAX_LOOSE_REFS: usize = 100_000;

/// Why a repository on this host is not opened.
#[derive(Debug, Error)]
pub(crate) enum Unsafe {
    /// A file that is not what git makes there.
    #[error("{} is {what}, where git has {expected}; replace it, or clone the repository anew", path.display())]
    Kind {
        path: PathBuf,
        what: &'static str,
        expected: &'static str,
    },
    /// A file that is larger than any that git makes there.
    #[error("{} has over {limit} bytes; clone the repository anew", path.display())]
    Large { path: PathBuf, limit: u64 },
    /// The configuration or the object directory refers to other files.
    #[error("{} refers to {what}, which is not followed; {advice}", path.display())]
    Refers {
        path: PathBuf,
        what: &'static str,
        advice: &'static str,
    },
    /// The refs are too many to look at.
    #[error("{} has over {MAX_LOOSE_REFS} files; run git pack-refs --all there", path.display())]
    ManyRefs { path: PathBuf },
    /// A file cannot be read.
    #[error("read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The directory of a repository's refs and objects: a work tree keeps them in `.git`, a linked one
/// in another place.
pub(crate) fn git_directory(path: &Path) -> Result<PathBuf, Unsafe> {
    let inner = path.join(".git");
    match kind(&inner)? {
        FileKind::Missing => Ok(path.to_owned()),
        FileKind::Directory => Ok(inner),
        FileKind::File => {
            // gitrepository-layout(5): in a linked work tree `.git` is a file that names its
            // directory, whose file `commondir` names the repository with the refs.
            let link = read(&inner, MAX_LINE_BYTES)?;
            let link = link.strip_prefix("gitdir:").unwrap_or_default().trim();
            let directory = path.join(link);
            let common = directory.join("commondir");
            match kind(&common)? {
                FileKind::Missing => Ok(directory),
                _ => Ok(directory.join(read(&common, MAX_LINE_BYTES)?.trim())),
            }
        }
        FileKind::Other(what) => Err(Unsafe::Kind {
            path: inner,
            what,
            expected: "a directory or a file",
        }),
    }
}

/// Checks the files that libgit2 reads when it opens the repository and looks up the branch.
pub(super) fn check(directory: &Path, branch: &str) -> Result<(), Unsafe> {
    for name in ["refs", "refs/heads", "objects", "objects/pack"] {
        expect_directory(&directory.join(name))?;
    }
    for (name, limit) in [
        ("HEAD", MAX_LINE_BYTES),
        ("config", MAX_CONFIG_BYTES),
        ("config.worktree", MAX_CONFIG_BYTES),
        ("packed-refs", MAX_PACKED_REFS_BYTES),
        ("shallow", MAX_PACKED_REFS_BYTES),
        ("commondir", MAX_LINE_BYTES),
    ] {
        expect_file(&directory.join(name), limit)?;
    }

    // The directories on the way to a branch such as `release/1`.
    let mut at = directory.to_owned();
    let mut parts = branch.split('/').peekable();
    while let Some(part) = parts.next() {
        at.push(part);
        if parts.peek().is_some() {
            expect_directory(&at)?;
        } else if !matches!(kind(&at)?, FileKind::Directory) {
            expect_file(&at, MAX_LINE_BYTES)?;
        }
    }

    for name in ["config", "config.worktree"] {
        check_configuration(&directory.join(name))?;
    }
    check_alternates(&directory.join("objects/info/alternates"))
}

/// Checks all loose branches, before they are listed.
pub(super) fn check_refs(directory: &Path) -> Result<(), Unsafe> {
    let heads = directory.join("refs/heads");
    let (mut pending, mut seen) = (vec![heads.clone()], 0);
    while let Some(next) = pending.pop() {
        let failed = |source| Unsafe::Io {
            path: next.clone(),
            source,
        };
        for entry in fs::read_dir(&next).map_err(failed)? {
            seen += 1;
            if seen > MAX_LOOSE_REFS {
                return Err(Unsafe::ManyRefs { path: heads });
            }
            let path = entry.map_err(failed)?.path();
            match kind(&path)? {
                FileKind::Directory => pending.push(path),
                _ => expect_file(&path, MAX_LINE_BYTES)?,
            }
        }
    }
    Ok(())
}

fn check_configuration(path: &Path) -> Result<(), Unsafe> {
    if matches!(kind(path)?, FileKind::Missing) {
        return Ok(());
    }
    let text = read(path, MAX_CONFIG_BYTES)?;
    // git-config(1): names of sections are not case sensitive, and a header may follow another one in
    // the same line.
    let includes = text.split('[').skip(1).any(|section| {
        let name = section.trim_start().as_bytes();
        name.get(..INCLUDE.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(INCLUDE))
    });
    if includes {
        return Err(Unsafe::Refers {
            path: path.to_owned(),
            what: "another configuration file",
            advice: "take the section [include] out",
        });
    }
    Ok(())
}

fn check_alternates(path: &Path) -> Result<(), Unsafe> {
    expect_file(path, MAX_CONFIG_BYTES)?;
    let empty =
        matches!(kind(path)?, FileKind::Missing) || read(path, MAX_CONFIG_BYTES)?.trim().is_empty();
    if empty {
        return Ok(());
    }
    Err(Unsafe::Refers {
        path: path.to_owned(),
        what: "the objects of another repository",
        advice: "run git repack -a -d there and remove the file, or clone the repository anew",
    })
}

/// The type of a file, without following a link.
enum FileKind {
    Missing,
    File,
    Directory,
    Other(&'static str),
}

fn kind(path: &Path) -> Result<FileKind, Unsafe> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(FileKind::Missing);
        }
        Err(source) => {
            return Err(Unsafe::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    let kind = metadata.file_type();
    Ok(if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_file() {
        FileKind::File
    } else if kind.is_symlink() {
        FileKind::Other("a symbolic link")
    } else {
        FileKind::Other("a device, a socket or a FIFO")
    })
}

/// The path holds a directory, or nothing.
fn expect_directory(path: &Path) -> Result<(), Unsafe> {
    let what = match kind(path)? {
        FileKind::Missing | FileKind::Directory => return Ok(()),
        FileKind::File => "a file",
        FileKind::Other(what) => what,
    };
    Err(Unsafe::Kind {
        path: path.to_owned(),
        what,
        expected: "a directory",
    })
}

/// The path holds a file of at most this size, or nothing.
fn expect_file(path: &Path, limit: u64) -> Result<(), Unsafe> {
    let what = match kind(path)? {
        FileKind::Missing => return Ok(()),
        FileKind::File => return open(path, limit).map(drop),
        FileKind::Directory => "a directory",
        FileKind::Other(what) => what,
    };
    Err(Unsafe::Kind {
        path: path.to_owned(),
        what,
        expected: "a file",
    })
}

/// Opens a file of at most this size, also if it is replaced meanwhile: a link is not followed, and
/// a FIFO is not waited for.
fn open(path: &Path, limit: u64) -> Result<File, Unsafe> {
    let failed = |source| Unsafe::Io {
        path: path.to_owned(),
        source,
    };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Unsafe::Kind {
            path: path.to_owned(),
            what: "a device, a socket or a FIFO",
            expected: "a file",
        });
    }
    if metadata.len() > limit {
        return Err(Unsafe::Large {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(file)
}

fn read(path: &Path, limit: u64) -> Result<String, Unsafe> {
    let mut bytes = Vec::new();
    open(path, limit)?
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| Unsafe::Io {
            path: path.to_owned(),
            source,
        })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
