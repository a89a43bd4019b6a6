//! Lets the child process read the mirror's objects, by a group.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use super::MirrorError;

/// What the group of a shared file may do.
const PASS: u32 = 0o010;
const READ: u32 = 0o040;
const READ_AND_PASS: u32 = PASS | READ;

/// Lets a group pass through the mirror, and read what is below its directory of objects.
pub(super) fn share(mirror: &Path, objects: &Path, gid: u32) -> Result<(), MirrorError> {
    share_one(mirror, gid, PASS)?;
    let mut pending: Vec<PathBuf> = vec![objects.to_owned()];
    while let Some(path) = pending.pop() {
        let failed = |source| MirrorError::Io {
            step: "read",
            path: path.clone(),
            source,
        };
        share_one(&path, gid, READ_AND_PASS)?;
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                pending.push(entry.path());
            } else {
                share_one(&entry.path(), gid, READ)?;
            }
        }
    }
    Ok(())
}

/// Gives a file to a group, which may do this with it, and no other user.
fn share_one(path: &Path, gid: u32, group_may: u32) -> Result<(), MirrorError> {
    let failed = |step| {
        let path = path.to_owned();
        move |source| MirrorError::Io { step, path, source }
    };
    let metadata = fs::symlink_metadata(path).map_err(failed("read"))?;
    if metadata.gid() != gid {
        lchown(path, None, Some(gid)).map_err(failed("change the group of"))?;
    }
    let mode = metadata.mode() & 0o7700 | group_may;
    if !metadata.is_symlink() && metadata.mode() & 0o7777 != mode {
        let permissions = Permissions::from_mode(mode);
        fs::set_permissions(path, permissions).map_err(failed("change the mode of"))?;
    }
    Ok(())
}
