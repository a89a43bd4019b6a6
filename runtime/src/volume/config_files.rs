//! Files of a ConfigMap or Secret, replaced atomically: the files are in a directory for their
//! generation, `..data` is a link to that directory, and each file's name is a link through
//! `..data`. Renaming a new `..data` over the old one changes all files at once.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path},
    time::SystemTime,
};

use reconciler::{
    fault::{Fault, FaultKind},
    plan::VolumeFile,
};

use super::{REMOVAL, io_fault, shared_file};
use crate::tree::remove_tree;

const CURRENT: &str = "..data";
const NEXT: &str = "..data_next";

/// Changes the volume to exactly these files.
pub(super) fn swap(volume: &Path, files: &[VolumeFile], group: Option<u32>) -> Result<(), Fault> {
    if let Some(file) = files.iter().find(|file| !is_inside(&file.path)) {
        let message = format!("{:?} is not a path inside a volume", file.path);
        return Err(Fault::new(FaultKind::Rejected, message));
    }

    let write = || {
        if !holds(volume, files) {
            write_generation(volume, files, group)?;
        }
        tidy(volume, files)
    };
    write().map_err(|error| io_fault("write files in", volume, &error))
}

fn is_inside(path: &str) -> bool {
    let mut components = Path::new(path).components().peekable();
    let is_relative =
        components.peek().is_some() && components.all(|part| matches!(part, Component::Normal(_)));
    // A name that begins with two dots is a generation, or the link to one.
    is_relative && !path.starts_with("..")
}

/// Whether the current generation has exactly these files, with these contents and modes.
fn holds(volume: &Path, files: &[VolumeFile]) -> bool {
    let current = volume.join(CURRENT);
    if !current.is_dir() {
        return false;
    }
    let is_written = |file: &VolumeFile| {
        let Ok(found) =
            shared_file::open(&current.join(&file.path), fs::OpenOptions::new().read(true))
        else {
            return false;
        };
        let has_mode = found
            .metadata()
            .is_ok_and(|meta| meta.permissions().mode() & 0o7777 == file.mode & 0o7777);
        has_mode && shared_file::holds(&found, file.content.expose()).unwrap_or(false)
    };
    files.iter().all(is_written) && count(&current).is_ok_and(|found| found == files.len())
}

/// Number of files in a directory and in those below it.
fn count(directory: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files += count(&entry.path())?;
        } else {
            files += 1;
        }
    }
    Ok(files)
}

/// Writes the files into a directory of their own, and then lets `..data` lead to it.
fn write_generation(volume: &Path, files: &[VolumeFile], group: Option<u32>) -> io::Result<()> {
    let stamp = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let generation = format!("..{stamp}");
    let directory = volume.join(&generation);
    fs::create_dir(&directory)?;
    // The daemon's umask applies to `create_dir`.
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
    for file in files {
        let path = directory.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, file.content.expose())?;
        // Before the mode: a change of the owner takes bits away.
        std::os::unix::fs::chown(&path, None, group)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode & 0o7777))?;
    }

    // A link cannot be replaced in place: a new one is renamed over it. One that is there already was
    // left by a crash.
    let next = volume.join(NEXT);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&generation, &next)?;
    fs::rename(&next, volume.join(CURRENT))
}

/// Links every name, unlinks names that are gone, and removes generations that are not current.
fn tidy(volume: &Path, files: &[VolumeFile]) -> io::Result<()> {
    let names: BTreeSet<OsString> = files
        .iter()
        .filter_map(|file| Path::new(&file.path).components().next())
        .map(|first| first.as_os_str().to_owned())
        .collect();
    for name in &names {
        let link = volume.join(name);
        let target = Path::new(CURRENT).join(name);
        if !fs::read_link(&link).is_ok_and(|found| found == target) {
            let next = volume.join(NEXT);
            symlink(&target, &next)?;
            fs::rename(&next, &link)?;
        }
    }

    // Only now does no name lead to an old generation.
    let current = fs::read_link(volume.join(CURRENT))?;
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == CURRENT || name == *current.as_os_str() || names.contains(&name) {
            continue;
        }
        remove_tree(&entry.path(), REMOVAL)?;
    }
    Ok(())
}
