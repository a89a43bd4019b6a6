//! Copies a pack from the directory of a child that a stranger may have controlled.
//!
//! Names and types of all files there are the stranger's choice: no link is followed, nothing is
//! opened that is not a regular file, and no more is copied than a fetch may bring.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};

use super::{InspectError, PACKS};
use crate::source::pack::PackError;

/// The most names that are read: two are expected.
const MAX_NAMES: usize = 4;
/// The digits of a pack's name.
const DIGITS: usize = 40;

/// Copies the only pack and index of `repository` in `quarantine` into the directory `to`.
pub(super) fn copy_pack(
    quarantine: &Path,
    repository: &str,
    to: &Path,
    max_bytes: u64,
) -> Result<(), InspectError> {
    let place = quarantine.join(repository).join("objects").join(PACKS);
    let failed = |source: io::Error| PackError::Io {
        path: place.display().to_string(),
        source,
    };

    let mut directory = open_directory(CWD, quarantine).map_err(failed)?;
    for name in [repository, "objects", PACKS] {
        directory = open_directory(directory.as_fd(), Path::new(name)).map_err(failed)?;
    }
    let names = names(&directory).map_err(failed)?;
    let Some(name) = the_name(&names) else {
        return Err(InspectError::Layout {
            path: place.display().to_string(),
            content: format!("other files ({})", names.join(", ")),
        });
    };

    // git reads a pack only with its index.
    for ending in ["pack", "idx"] {
        let file = format!("{name}.{ending}");
        copy(&directory, &file, &to.join(&file), max_bytes).map_err(failed)?;
    }
    // After a crash the mirror must not name a pack whose content never reached the disk.
    File::open(to)
        .and_then(|to| to.sync_all())
        .map_err(failed)?;
    Ok(())
}

fn open_directory(at: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

/// The first names in a directory, bounded.
fn names(directory: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if name != "." && name != ".." {
            names.push(name.escape_debug().to_string());
        }
        if names.len() == MAX_NAMES {
            break;
        }
    }
    names.sort();
    Ok(names)
}

/// The name of the pack without its ending, if the directory holds one pack, its index, and nothing
/// else.
fn the_name(names: &[String]) -> Option<&str> {
    let [index, pack] = names else {
        return None;
    };
    let name = index.strip_suffix(".idx")?;
    let digits = name.strip_prefix("pack-")?;
    let is_id = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && pack.strip_suffix(".pack") == Some(name)).then_some(name)
}

fn copy(directory: &OwnedFd, name: &str, to: &Path, max_bytes: u64) -> io::Result<()> {
    // A FIFO is not waited for, and a device is not opened as a terminal.
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let from = File::from(openat(directory, name, flags, Mode::empty())?);
    let metadata = from.metadata()?;
    // Another name of a file may be a file of root's, which the child could link to but not read.
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(io::Error::other(format!(
            "{name} is no regular file of its own"
        )));
    }
    let too_large = || {
        io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{name} has over {max_bytes} bytes"),
        )
    };
    if metadata.len() > max_bytes {
        return Err(too_large());
    }

    let mut copy = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(to)?;
    let copied = io::copy(&mut from.take(max_bytes.saturating_add(1)), &mut copy)?;
    if copied > max_bytes {
        return Err(too_large());
    }
    // After a crash the mirror must not name a pack whose content never reached the disk.
    copy.sync_all()
}

#[cfg(test)]
mod tests;
