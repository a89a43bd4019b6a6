//! hostPath volumes: the path is what the manifest says it is, or the commit is wrong for this
//! host.

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

/// Which paths of the host pods may have. The manifests were checked against the same by their
/// words alone; here links are followed.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostPathRules {
    /// Nothing that is, contains or lies in one of these.
    pub(crate) forbidden: Vec<PathBuf>,
    /// Only what is or lies in one of these.
    pub(crate) allowed: Option<Vec<PathBuf>>,
}

/// Refuses a path that leads where no pod may go.
pub(super) fn refuse(path: &Path, rules: &HostPathRules) -> Result<(), Fault> {
    let refusal = |why: &str| {
        Fault::new(
            FaultKind::HostPath,
            format!("hostPath {}: {why}", path.display()),
        )
    };
    let meant = without_links(path).map_err(|error| {
        let Fault { kind, message } = refusal(&format!("cannot see where it leads: {error}"));
        Fault::new(disks_fault(&error).unwrap_or(kind), message)
    })?;
    let real = |rule: &PathBuf| without_links(rule).unwrap_or_else(|_| rule.clone());
    let clash = rules
        .forbidden
        .iter()
        .map(real)
        .find(|one| meant.starts_with(one) || one.starts_with(&meant));
    if let Some(clash) = clash {
        let why = format!(
            "it leads to {}, which is the daemon's own and no pod's: mount another path",
            clash.display()
        );
        return Err(refusal(&why));
    }
    match &rules.allowed {
        Some(allowed) if !allowed.iter().map(real).any(|one| meant.starts_with(one)) => {
            let allowed: Vec<_> = allowed
                .iter()
                .map(|one| one.display().to_string())
                .collect();
            let (meant, allowed) = (meant.display(), allowed.join(", "));
            Err(refusal(&format!(
                "it leads to {meant}, which the host does not allow: choose a path in one of {allowed}"
            )))
        }
        _ => Ok(()),
    }
}

/// The path with the links of all that exists of it followed. A link to what does not exist is an
/// error: what is made through it would be made elsewhere.
fn without_links(path: &Path) -> io::Result<PathBuf> {
    for existing in path.ancestors() {
        match existing.canonicalize() {
            Ok(real) => {
                // Joining nothing would add a slash, which makes another path of a file's.
                let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
                return Ok(if rest.as_os_str().is_empty() {
                    real
                } else {
                    real.join(rest)
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !existing.is_symlink() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(path.to_owned())
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
    if right {
        Ok(())
    } else {
        Err(wrong(path, kind, &format!("is {}", name_of(file_type))))
    }
}

fn make(path: &Path, kind: HostPathKind) -> Result<(), Fault> {
    let made = match kind {
        // As Docker's `-v` does.
        HostPathKind::Any | HostPathKind::DirectoryOrCreate => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path),
        HostPathKind::FileOrCreate => fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map(drop),
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
    Fault::new(
        FaultKind::HostPath,
        format!("hostPath {} ({wanted}) {what} on this host", path.display()),
    )
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
