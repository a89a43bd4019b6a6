//! Removes trees whose content somebody else may have chosen: a pod, or a child process.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, renameat,
        unlinkat,
    },
    io::Errno,
};

/// The beginning of the names of heaps.
const HEAP: &str = ".removed-";
/// The limit of levels below each other of which none can be moved. Each level takes some memory.
const DEEPEST: usize = 1_000_000;
/// How many directories a heap takes, in all, and is used again. Making a heap for each level would
/// take most of the time; but in some file systems a directory that was large stays slow to read.
const REUSED: u64 = 1_000;

/// Removes a directory with everything below it, or a file; nothing if the path does not exist. No
/// link is followed, and a mount below the path is an error.
///
/// `std::fs::remove_dir_all` takes a descriptor and a stack frame for each level: a tree of 20,000
/// levels ends the process. Here directories are not entered but moved to a heap, a directory
/// directly below the path: however deep and wide the tree is, a few descriptors are enough, and
/// each directory is read once. A directory that cannot be moved, because the disk is full or it
/// belongs to another project or subvolume, is emptied in its place, without recursion too.
///
/// After `patience` the removal ends with [`io::ErrorKind::TimedOut`]: a process that makes files
/// meanwhile cannot make it last longer. The next call continues with what is left.
pub fn remove_tree(path: &Path, patience: Duration) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match openat(CWD, path, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return unless_missing(unlinkat(CWD, path, AtFlags::empty()));
        }
        Err(error) => return Err(error.into()),
    };
    let mut removal = Removal {
        top: &top,
        began: Instant::now(),
        patience,
        heap: None,
        spare: None,
        heaps: 0,
    };
    loop {
        removal.empty(top.try_clone()?, true)?;
        while let Some(heap) = removal.next_heap()? {
            removal.empty_heap(heap)?;
        }
        match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Somebody has put something into it meanwhile.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

struct Removal<'a> {
    top: &'a OwnedFd,
    began: Instant,
    patience: Duration,
    /// Where directories are moved now.
    heap: Option<Heap>,
    /// A heap that was emptied, to be used again.
    spare: Option<Heap>,
    /// The number of the last heap.
    heaps: u64,
}

struct Heap {
    name: CString,
    directory: OwnedFd,
    /// How many directories were moved here, which are named by this number.
    moved: u64,
}

/// A directory above the one that is emptied in its place.
struct Above {
    device_and_inode: (u64, u64),
    /// The name of the directory below that was entered.
    entered: CString,
}

impl Removal<'_> {
    /// Removes everything in a directory, or moves it to the heap.
    fn empty(&mut self, directory: OwnedFd, is_top: bool) -> io::Result<()> {
        let mut above: Vec<Above> = Vec::new();
        let mut here = directory;
        loop {
            if let Some(entered) = self.empty_one(&here, is_top && above.is_empty())? {
                if above.len() == DEEPEST {
                    let message =
                        format!("more than {DEEPEST} levels of directories that cannot be moved");
                    return Err(io::Error::other(message));
                }
                if let Some(below) = open_below(&here, &entered)? {
                    above.push(Above {
                        device_and_inode: device_and_inode(&here)?,
                        entered,
                    });
                    here = below;
                }
                continue;
            }

            let Some(parent) = above.pop() else {
                return Ok(());
            };
            // Somebody may have moved the directory out of the tree meanwhile.
            let up = open_directory(&here, c"..", ResolveFlags::empty())?;
            if device_and_inode(&up)? != parent.device_and_inode {
                return Ok(());
            }
            remove_directory(&up, &parent.entered)?;
            here = up;
        }
    }

    /// Removes the files of a directory, and moves its directories to the heap. Returns the first
    /// directory that cannot be moved.
    fn empty_one(&mut self, here: &OwnedFd, is_top: bool) -> io::Result<Option<CString>> {
        self.is_in_time()?;
        for name in names(here)? {
            let name = name?;
            self.is_in_time()?;
            match unlinkat(here, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                // unlink(2) of a directory: EISDIR on Linux, EPERM by POSIX.
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
            let is_heap = is_top && name.to_bytes().starts_with(HEAP.as_bytes());
            if !is_heap && !self.move_to_heap(here, &name) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Whether a directory could be moved to the heap, or is gone.
    fn move_to_heap(&mut self, from: &OwnedFd, name: &CStr) -> bool {
        if self.heap.is_none() {
            self.heap = self.spare.take().or_else(|| self.new_heap());
        }
        let Some(heap) = &mut self.heap else {
            return false;
        };
        heap.moved += 1;
        let new_name = heap.moved.to_string();
        matches!(
            renameat(from, name, &heap.directory, new_name),
            Ok(()) | Err(Errno::NOENT)
        )
    }

    /// A new heap; nothing if none can be made, for example because the disk is full.
    fn new_heap(&mut self) -> Option<Heap> {
        let name = loop {
            self.heaps += 1;
            let name = CString::new(format!("{HEAP}{}", self.heaps)).ok()?;
            match mkdirat(self.top, &name, Mode::RWXU) {
                Ok(()) => break name,
                // An earlier removal that did not come to its end has left it.
                Err(Errno::EXIST) if self.is_in_time().is_ok() => {}
                Err(_) => return None,
            }
        };
        let directory = open_directory(self.top, &name, ResolveFlags::NO_XDEV).ok()?;
        Some(Heap {
            name,
            directory,
            moved: 0,
        })
    }

    /// A heap that is to be emptied: one of this removal, or one that an earlier removal has left.
    fn next_heap(&mut self) -> io::Result<Option<Heap>> {
        if let Some(heap) = self.heap.take() {
            return Ok(Some(heap));
        }
        self.spare = None;
        for name in names(self.top)? {
            let name = name?;
            self.is_in_time()?;
            if name.to_bytes().starts_with(HEAP.as_bytes())
                && let Some(directory) = open_below(self.top, &name)?
            {
                let moved = REUSED;
                return Ok(Some(Heap {
                    name,
                    directory,
                    moved,
                }));
            }
        }
        Ok(None)
    }

    /// Empties a heap; the directories in its directories are moved to another heap.
    fn empty_heap(&mut self, heap: Heap) -> io::Result<()> {
        self.is_in_time()?;
        for name in names(&heap.directory)? {
            let name = name?;
            self.is_in_time()?;
            if let Some(below) = open_below(&heap.directory, &name)? {
                self.empty(below, false)?;
                remove_directory(&heap.directory, &name)?;
            }
        }
        if heap.moved < REUSED && self.spare.is_none() {
            self.spare = Some(heap);
            return Ok(());
        }
        remove_directory(self.top, &heap.name)
    }

    fn is_in_time(&self) -> io::Result<()> {
        if self.began.elapsed() <= self.patience {
            return Ok(());
        }
        let message = format!(
            "there is still something in it after {} s; the next attempt continues",
            self.patience.as_secs()
        );
        Err(io::Error::new(io::ErrorKind::TimedOut, message))
    }
}

/// Opens a directory inside another one. Anything else of that name is removed.
fn open_below(directory: &OwnedFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
    match open_directory(directory, name, ResolveFlags::NO_XDEV) {
        Ok(below) => Ok(Some(below)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            unless_missing(unlinkat(directory, name, AtFlags::empty()))?;
            Ok(None)
        }
        // A file system is mounted there: what is in it does not belong to the tree.
        Err(Errno::XDEV) => Err(Errno::BUSY.into()),
        Err(error) => Err(error.into()),
    }
}

fn open_directory(at: &OwnedFd, name: &CStr, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(at, name, flags, Mode::empty(), resolve) {
        // openat2 is new in Linux 5.6, and a filter of system calls may refuse it. A mount cannot
        // be moved to a heap, and so is an error also without it.
        Err(Errno::NOSYS | Errno::PERM) => openat(at, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// Removes an empty directory; a directory that is not empty is left for the next round.
fn remove_directory(at: &OwnedFd, name: &CStr) -> io::Result<()> {
    match unlinkat(at, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The names in a directory; none if it was removed meanwhile.
fn names(directory: &OwnedFd) -> io::Result<impl Iterator<Item = io::Result<CString>>> {
    let entries = match Dir::read_from(directory.as_fd()) {
        Ok(entries) => Some(entries),
        Err(Errno::NOENT) => None,
        Err(error) => return Err(error.into()),
    };
    let names = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => None,
            Ok(entry) => Some(Ok(entry.file_name().to_owned())),
            Err(Errno::NOENT) => None,
            Err(error) => Some(Err(error.into())),
        });
    Ok(names)
}

fn device_and_inode(directory: &OwnedFd) -> io::Result<(u64, u64)> {
    let found = fstat(directory)?;
    Ok((found.st_dev, found.st_ino))
}

fn unless_missing(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
