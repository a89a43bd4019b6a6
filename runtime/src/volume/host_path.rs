//! hostPath volumes: the path has the type that the manifest gives, or the commit fails on this
//! host.

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::{Path, PathBuf},
};

use reconciler::{
    fault::{Fault, FaultKind},
    object::HostPathKind,
};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat, openat2},
    io::Errno,
};

use super::disks_fault;

/// Which paths of the host pods may mount. The check of manifests uses the same rules on the
/// written paths; here symbolic links are followed.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostPathRules {
    /// Forbidden: a path that is, contains or lies in one of these.
    pub(crate) forbidden: Vec<PathBuf>,
    /// Allowed: only a path that is or lies in one of these.
    pub(crate) allowed: Option<Vec<PathBuf>>,
}

/// Refuses a path that resolves to a place where no pod may mount.
pub(super) fn refuse(path: &Path, rules: &HostPathRules) -> Result<(), Fault> {
    let meant = without_links(path).map_err(|error| unknown(path, &error))?;
    compare(path, &meant, rules)
}

/// Opens a path that pods may mount. The file that was opened is the one that was compared with the
/// rules, whatever the path leads to by now: a container that can write a directory above it may
/// exchange a part of the path for a symbolic link at any time.
pub(super) fn open_allowed(path: &Path, rules: &HostPathRules) -> Result<OwnedFd, Fault> {
    let opened = open_path(path).map_err(|error| unknown(path, &error.into()))?;
    let meant = fs::read_link(path_of(&opened)).map_err(|error| unknown(path, &error))?;
    compare(path, &meant, rules)?;
    Ok(opened)
}

/// Opens a path where its links lead, but for the magic links in /proc.
fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Err(Errno::NOSYS | Errno::PERM) => open(path, flags, Mode::empty()),
        opened => opened,
    }
}

/// The path by which this process reaches an open file, whatever its name leads to by now.
pub(super) fn path_of(opened: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", opened.as_raw_fd())
}

fn refusal(path: &Path, why: &str) -> Fault {
    Fault::new(
        FaultKind::HostPath,
        format!("hostPath {}: {why}", path.display()),
    )
}

fn unknown(path: &Path, error: &io::Error) -> Fault {
    let Fault { kind, message } = refusal(path, &format!("cannot see where it leads: {error}"));
    Fault::new(disks_fault(error).unwrap_or(kind), message)
}

/// Compares the path that a hostPath leads to with the rules.
fn compare(path: &Path, meant: &Path, rules: &HostPathRules) -> Result<(), Fault> {
    // A rule that leads nowhere is compared as it is written.
    let real = |rule: &PathBuf| without_links(rule).unwrap_or_else(|_| rule.clone());
    let clash = rules
        .forbidden
        .iter()
        .map(real)
        .find(|one| meant.starts_with(one) || one.starts_with(meant));
    if let Some(clash) = clash {
        let why = format!(
            "it leads to {}, which is the daemon's own and no pod's: mount another path",
            clash.display()
        );
        return Err(refusal(path, &why));
    }

    match &rules.allowed {
        Some(allowed) if !allowed.iter().map(real).any(|one| meant.starts_with(one)) => {
            let allowed: Vec<_> = allowed
                .iter()
                .map(|one| one.display().to_string())
                .collect();
            let (meant, allowed) = (meant.display(), allowed.join(", "));
            Err(refusal(
                path,
                &format!(
                    "it leads to {meant}, which the host does not allow: choose a path in one of {allowed}"
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// The path with all symbolic links in its existing part followed. A link to a path that does not
/// exist is an error: what is created through it would be created elsewhere.
fn without_links(path: &Path) -> io::Result<PathBuf> {
    for existing in path.ancestors() {
        match existing.canonicalize() {
            Ok(_) if follows_magic_link(existing)? => {
                return Err(io::Error::other(
                    "it leads through a link in /proc to the files of a process",
                ));
            }
            Ok(real) => {
                // Joining an empty path would add a slash, which makes a different path of a
                // file's.
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

/// Whether an existing path leads through a magic link (symlink(7)), such as `/proc/1/root`: the
/// kernel follows it to a file that the link's text need not name.
fn follows_magic_link(path: &Path) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Ok(_) => Ok(false),
        Err(Errno::LOOP) => Ok(true),
        // openat2 is new in Linux 5.6, and a filter of system calls may refuse it. The check of
        // manifests has refused such a link in the written path.
        Err(Errno::NOSYS | Errno::PERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Checks a path against its type, or creates it where the type requests that.
///
/// What exists of the path is opened once, as links that root made lead, and compared with the
/// rules; what is missing is created below the open directory, and no link is followed there. A
/// container that can write a directory above the path may exchange a part of it at any time.
pub(super) fn prepare(path: &Path, kind: HostPathKind, rules: &HostPathRules) -> Result<(), Fault> {
    let Existing { opened, rest } =
        existing(path).map_err(|error| failed(path, kind, "looked at", &error))?;
    let above = fs::read_link(path_of(&opened)).map_err(|error| unknown(path, &error))?;
    let meant = rest.iter().fold(above, |above, part| above.join(part));
    compare(path, &meant, rules)?;

    let found = if let Some((name, missing)) = rest.split_last() {
        make(opened, missing, name, kind)
            .map_err(|error| failed(path, kind, "made", &error))?
            .ok_or_else(|| wrong(path, kind, "does not exist"))?
    } else {
        opened
    };
    let file_type = fs::File::from(found)
        .metadata()
        .map_err(|error| failed(path, kind, "looked at", &error))?
        .file_type();
    let is_right = match kind {
        HostPathKind::Any => true,
        HostPathKind::DirectoryOrCreate | HostPathKind::Directory => file_type.is_dir(),
        HostPathKind::FileOrCreate | HostPathKind::File => file_type.is_file(),
        HostPathKind::Socket => file_type.is_socket(),
        HostPathKind::CharDevice => file_type.is_char_device(),
        HostPathKind::BlockDevice => file_type.is_block_device(),
    };
    if is_right {
        Ok(())
    } else {
        Err(wrong(path, kind, &format!("is {}", name_of(file_type))))
    }
}

/// What exists of a path, and what is missing of it.
struct Existing<'a> {
    opened: OwnedFd,
    rest: Vec<&'a OsStr>,
}

/// Opens what exists of a path.
fn existing(path: &Path) -> io::Result<Existing<'_>> {
    let mut rest = Vec::new();
    for above in path.ancestors() {
        match open_path(above) {
            Ok(opened) => {
                rest.reverse();
                return Ok(Existing { opened, rest });
            }
            Err(Errno::NOENT) => rest.extend(above.file_name()),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound))
}

/// Creates a file or directory, and the directories above it that are missing; nothing if its type
/// does not request that. Somebody else may create some of them meanwhile.
fn make(
    above: OwnedFd,
    missing: &[&OsStr],
    name: &OsStr,
    kind: HostPathKind,
) -> io::Result<Option<OwnedFd>> {
    let is_directory = match kind {
        // Docker's `-v` creates a missing directory too.
        HostPathKind::Any | HostPathKind::DirectoryOrCreate => true,
        HostPathKind::FileOrCreate => false,
        HostPathKind::Directory
        | HostPathKind::File
        | HostPathKind::Socket
        | HostPathKind::CharDevice
        | HostPathKind::BlockDevice => return Ok(None),
    };
    let mut at = above;
    // The directories above a file are not created for it.
    for part in missing.iter().filter(|_| is_directory) {
        at = make_directory(&at, part)?;
    }
    if is_directory {
        return make_directory(&at, name).map(Some);
    }
    if !missing.is_empty() {
        return Err(Errno::NOENT.into());
    }

    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    match openat(&at, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(made) => Ok(Some(made)),
        Err(Errno::EXIST) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(Some(openat(&at, name, flags, Mode::empty())?))
        }
        Err(error) => Err(error.into()),
    }
}

fn make_directory(at: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    match mkdirat(at, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

/// Classifies an error of the disk: a full or broken disk is no evidence about the manifest.
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
