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

use super::io_fault;

const CURRENT: &str = "..data";
const NEXT: &str = "..data_next";

/// Changes the volume to exactly these files.
pub(super) fn swap(volume: &Path, files: &[VolumeFile]) -> Result<(), Fault> {
    if let Some(file) = files.iter().find(|file| !is_inside(&file.path)) {
        let message = format!("{:?} is not a path inside a volume", file.path);
        return Err(Fault::new(FaultKind::Rejected, message));
    }
    let swapped = if holds(volume, files) {
        Ok(())
    } else {
        write_generation(volume, files)
    };
    swapped
        .and_then(|()| tidy(volume, files))
        .map_err(|error| io_fault("write files in", volume, &error))
}

fn is_inside(path: &str) -> bool {
    let mut components = Path::new(path).components().peekable();
    components.peek().is_some()
        && components.all(|part| matches!(part, Component::Normal(_)))
        && !path.starts_with("..")
}

/// Whether the current generation has these contents and modes; extra files do no harm, as no name
/// links to them.
fn holds(volume: &Path, files: &[VolumeFile]) -> bool {
    let current = volume.join(CURRENT);
    current.is_dir()
        && files.iter().all(|file| {
            let path = current.join(&file.path);
            fs::metadata(&path)
                .is_ok_and(|meta| meta.permissions().mode() & 0o7777 == file.mode & 0o7777)
                && fs::read(&path).is_ok_and(|content| content == *file.content.expose())
        })
        && count(&current).is_ok_and(|found| found == files.len())
}

fn count(directory: &Path) -> io::Result<usize> {
    fs::read_dir(directory)?.try_fold(0, |sum, entry| {
        let entry = entry?;
        Ok(sum
            + if entry.file_type()?.is_dir() {
                count(&entry.path())?
            } else {
                1
            })
    })
}

fn write_generation(volume: &Path, files: &[VolumeFile]) -> io::Result<()> {
    let stamp = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let generation = format!("..{stamp}");
    let directory = volume.join(&generation);
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
    for file in files {
        let path = directory.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, file.content.expose())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode & 0o7777))?;
    }
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
    let current = fs::read_link(volume.join(CURRENT))?;
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == CURRENT || name == *current.as_os_str() || names.contains(&name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
