//! hostPath volumes: the path is what the manifest says it is, or the commit is wrong for this host.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use reconciler::{
    fault::{Fault, FaultKind},
    object::HostPathKind,
};

use super::disks_fault;

/// Refuses a path that is, contains or lies in a forbidden one, whatever links lead there.
pub(super) fn refuse_forbidden(path: &Path, forbidden: &[PathBuf]) -> Result<(), Fault> {
    let meant = without_links(path);
    let clash = forbidden
        .iter()
        .map(|one| without_links(one))
        .find(|one| meant.starts_with(one) || one.starts_with(&meant));
    match clash {
        None => Ok(()),
        Some(clash) => Err(Fault::new(
            FaultKind::HostPath,
            format!(
                "hostPath {}: it leads to {}, which is the daemon's own and no pod's: mount another path",
                path.display(),
                clash.display()
            ),
        )),
    }
}

/// The path with the links of all that exists of it followed.
fn without_links(path: &Path) -> PathBuf {
    for existing in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (existing.canonicalize(), path.strip_prefix(existing)) {
            return real.join(rest);
        }
    }
    path.to_owned()
}

/// Checks a path against its type, or makes it where the type says so.
pub(super) fn prepare(path: &Path, kind: HostPathKind) -> Result<(), Fault> {
    let found = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make(path, kind),
        Err(error) => return Err(failed(path, kind, "looked at", &error)),
    };
    let file_type = found.file_type();
    let right = match kind {
        HostPathKind::Any => true,
        HostPathKind::DirectoryOrCreate | HostPathKind::Directory => file_type.is_dir(),
        HostPathKind::FileOrCreate | HostPathKind::File => file_type.is_file(),
        HostPathKind::Socket => file_type.is_socket(),
        HostPathKind::CharDevice => file_type.is_char_device(),
        HostPathKind::BlockDevice => file_type.is_block_device(),
    };
    if right { Ok(()) } else { Err(wrong(path, kind, &format!("is {}", name_of(file_type)))) }
}

fn make(path: &Path, kind: HostPathKind) -> Result<(), Fault> {
    let made = match kind {
        // As Docker's `-v` does.
        HostPathKind::Any | HostPathKind::DirectoryOrCreate => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
        }
        HostPathKind::FileOrCreate => {
            fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path).map(drop)
        }
        HostPathKind::Directory
        | HostPathKind::File
        | HostPathKind::Socket
        | HostPathKind::CharDevice
        | HostPathKind::BlockDevice => return Err(wrong(path, kind, "does not exist")),
    };
    made.map_err(|error| failed(path, kind, "made", &error))
}

/// A disk that is full or broken says nothing about the manifest.
fn failed(path: &Path, kind: HostPathKind, doing: &str, error: &io::Error) -> Fault {
    let Fault { kind, message } = wrong(path, kind, &format!("cannot be {doing}: {error}"));
    Fault::new(disks_fault(error).unwrap_or(kind), message)
}

fn wrong(path: &Path, kind: HostPathKind, what: &str) -> Fault {
    let wanted = match kind {
        HostPathKind::Any => "any type",
        HostPathKind::DirectoryOrCreate => "DirectoryOrCreate",
        HostPathKind::Directory => "Directory",
        HostPathKind::FileOrCreate => "FileOrCreate",
        HostPathKind::File => "File",
        HostPathKind::Socket => "Socket",
        HostPathKind::CharDevice => "CharDevice",
        HostPathKind::BlockDevice => "BlockDevice",
    };
    Fault::new(FaultKind::HostPath, format!("hostPath {} ({wanted}) {what} on this host", path.display()))
}

fn name_of(file_type: fs::FileType) -> &'static str {
    if file_type.is_dir() {
        "a directory"
    } else if file_type.is_file() {
        "a file"
    } else if file_type.is_socket() {
        "a socket"
    } else if file_type.is_char_device() {
        "a character device"
    } else if file_type.is_block_device() {
        "a block device"
    } else {
        "of another type"
    }
}
