//! Mounts below a pod's directory: mounted once, found again in `/proc/self/mountinfo`, unmounted
//! before anything is deleted.

use std::{
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};

use crate::tree;

/// Mounts a tmpfs at a path, unless one is mounted there already.
pub(super) fn tmpfs(
    path: &Path,
    size_bytes: Option<u64>,
    mode: u32,
    group: Option<u32>,
) -> io::Result<()> {
    if is_mount_point(path)? {
        return Ok(());
    }

    // Without a size the kernel gives a tmpfs half of the memory.
    let size = match size_bytes {
        Some(bytes) => format!(",size={bytes}"),
        None => String::new(),
    };
    let group = group.map_or(String::new(), |group| format!(",gid={group}"));
    let options = CString::new(format!("mode={mode:o}{group}{size}"))?;
    mount(
        "tmpfs",
        path,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(options.as_c_str()),
    )?;
    Ok(())
}

/// Unmounts everything at or below a path, then removes the path, for at most this long: see
/// [`tree::remove_tree`].
///
/// Nothing is removed while anything is still mounted there: a volume may be the bind mount of a
/// directory that does not belong to the pod.
pub(super) fn remove_tree(path: &Path, patience: Duration) -> io::Result<()> {
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };

    let mounts = at_or_below(&path)?;
    // A subPath of a hostPath is bound with the mounts below it. As long as the copy and the host's
    // own mount are peers, unmounting the copy unmounts the original.
    for mounted in &mounts {
        mount_change(mounted, MountPropagationFlags::PRIVATE)?;
    }
    for mounted in mounts {
        unmount(&mounted, UnmountFlags::DETACH)?;
    }
    if let Some(left) = at_or_below(&path)?.first() {
        return Err(io::Error::other(format!(
            "{} is still mounted",
            left.display()
        )));
    }

    tree::remove_tree(&path, patience)
}

/// Whether another file system than that of the parent is mounted at a path. A bind mount of the
/// same file system is not found, and none is made where this is asked.
fn is_mount_point(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    Ok(fs::symlink_metadata(path)?.dev() != fs::symlink_metadata(parent)?.dev())
}

/// Mount points at or below a path, the most recent mount first.
fn at_or_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    // The fifth field is the mount point (proc(5)); the file is in the order of mounting.
    let mut found: Vec<_> = fs::read_to_string("/proc/self/mountinfo")?
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|mounted| mounted.starts_with(path))
        .collect();
    found.reverse();
    Ok(found)
}

/// The kernel writes space, tab, line break and backslash in octal: `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_escapes_are_undone() {
        assert_eq!(unescape("/a\\040b\\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescape("/plain\\9"), PathBuf::from("/plain\\9"));
    }
}
