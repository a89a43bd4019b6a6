//! Removes a directory whose content a stranger may have chosen.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Deleting millions of files takes less. A process that makes files meanwhile cannot make the
/// removal last longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Removes a directory with all below, or a file; nothing if the path does not exist.
///
/// `std::fs::remove_dir_all` keeps a descriptor and a stack frame for each level: a tree of 20,000
/// levels ends the process. Here every directory is moved up to the top before it is read, so that
/// two descriptors are enough, whatever the depth is. No link is followed.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    let top = match open_directory(CWD, path) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(unlinkat(CWD, path, AtFlags::empty())?),
        Err(error) => return Err(error.into()),
    };

    let mut moved = 0_u64;
    while let Some(entry) = first_entry(&top)? {
        if Instant::now() > end {
            let message = "it is still not empty: a process of another user makes files in it";
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        let below = match open_directory(top.as_fd(), entry.as_c_str()) {
            Ok(below) => below,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                ignore_missing(unlinkat(&top, &entry, AtFlags::empty()))?;
                continue;
            }
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        empty(&below, &top, &mut moved)?;
        match unlinkat(&top, &entry, AtFlags::REMOVEDIR) {
            // Somebody has put something into it meanwhile: the next round.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes the files of a directory, and moves its directories to the top.
fn empty(directory: &OwnedFd, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_itself(name) {
            continue;
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // unlink(2) of a directory: EISDIR on Linux, EPERM by POSIX.
            Err(Errno::ISDIR | Errno::PERM) => loop {
                *moved += 1;
                match renameat(directory, name, top, format!(".removed-{moved}")) {
                    Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                    result => break ignore_missing(result)?,
                }
            },
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn first_entry(directory: &OwnedFd) -> io::Result<Option<std::ffi::CString>> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !is_itself(entry.file_name()) {
            return Ok(Some(entry.file_name().to_owned()));
        }
    }
    Ok(None)
}

fn is_itself(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn open_directory<P: rustix::path::Arg>(at: BorrowedFd<'_>, name: P) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn ignore_missing(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_tree_is_removed_and_what_its_links_name_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, kept) = (directory.path().join("tree"), directory.path().join("kept"));
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir_all(tree.join(".removed-1/x")).unwrap();
        fs::create_dir_all(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        symlink(&kept, tree.join("a/link")).unwrap();
        symlink(&kept, tree.join("link")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && kept.join("file").exists());

        remove_tree(&tree).unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "x").unwrap();
        remove_tree(&file).unwrap();
        symlink(&kept, &file).unwrap();
        remove_tree(&file).unwrap();
        assert!(kept.join("file").exists() && !file.exists());
    }

    #[test]
    fn a_tree_of_five_thousand_levels_takes_neither_stack_nor_descriptors() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = open_directory(CWD, &tree).unwrap();
        for _ in 0..5_000 {
            mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
            at = open_directory(at.as_fd(), "d").unwrap();
        }
        let small = std::thread::Builder::new().stack_size(64 * 1024);
        let removal = small.spawn(move || remove_tree(&tree).map(|()| tree));
        let tree = removal.unwrap().join().unwrap().unwrap();
        assert!(!tree.exists());
    }
}
