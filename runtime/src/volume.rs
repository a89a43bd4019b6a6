//! A pod's directory on the host: its etc files, its volumes, and what its containers leave behind.
//!
//! ```text
//! <pods>/<uid>/etc/{resolv.conf,hosts,hostname}
//! <pods>/<uid>/volumes/<name>/                          emptyDir, ConfigMap, Secret
//! <pods>/<uid>/containers/<name>-<attempt>/termination  what it wrote to terminationMessagePath
//! <pods>/<uid>/containers/<name>-<attempt>/subpath-<n>  bind mounts that hold a subPath still
//! <pods>/<uid>/containers/<name>-<attempt>/hostpath-<n> those of hostPaths, where the host limits them
//! ```
//!
//! All functions here block; `Runtime` calls them on threads where blocking is allowed. All are
//! idempotent, also after a crash.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use reconciler::{
    fault::{Fault, FaultKind},
    name::PodUid,
    plan::{PodFiles, VolumeFiles},
};

mod config_files;
mod host_path;
mod mounted;
mod shared_file;
mod source;

pub(crate) use host_path::HostPathRules;
pub(crate) use source::{container_files, remove_container_files, termination_message};

/// The size limit of a tmpfs for the files of a ConfigMap or Secret: two generations of at most 1
/// MiB each, and a reserve.
const CONFIG_TMPFS_BYTES: u64 = 8 << 20;

/// The limit of one attempt to remove the files of a pod or a container. The step fails then, and
/// the next attempt continues; meanwhile other pods are not held up.
const REMOVAL: Duration = Duration::from_secs(60);
/// The limit of the removal of all pods, for which a person waits.
const REMOVAL_OF_ALL: Duration = Duration::from_secs(3600);

/// Creates a pod's directory and everything in it that its containers mount.
pub(crate) fn prepare(pods: &Path, files: &PodFiles, rules: &HostPathRules) -> Result<(), Fault> {
    let pod = pod_dir(pods, &files.pod)?;
    let etc = pod.join("etc");
    make_dir(&pod, 0o750)?;
    make_dir(&etc, 0o755)?;

    for (name, content) in [
        ("resolv.conf", &files.resolv_conf),
        ("hosts", &files.hosts),
        ("hostname", &files.hostname),
    ] {
        let path = etc.join(name);
        shared_file::write_in_place(&path, content.as_bytes())
            .map_err(|error| io_fault("write", &path, &error))?;
    }

    let volumes = pod.join("volumes");
    make_dir(&volumes, 0o750)?;
    for volume in &files.volumes {
        prepare_volume(&volumes, volume, rules)?;
    }
    Ok(())
}

/// Removes a pod's directory with its content, after everything mounted in it has been unmounted.
/// What one attempt does not finish, the next one continues.
pub(crate) fn remove(pods: &Path, pod: &PodUid) -> Result<(), Fault> {
    let path = pod_dir(pods, pod)?;
    mounted::remove_tree(&path, REMOVAL).map_err(|error| io_fault("remove", &path, &error))
}

/// Removes the directories of all pods.
pub(crate) fn remove_all(pods: &Path) -> Result<(), Fault> {
    mounted::remove_tree(pods, REMOVAL_OF_ALL).map_err(|error| io_fault("remove", pods, &error))
}

/// The pods that have a directory.
pub(crate) fn pods(pods: &Path) -> Result<Vec<PodUid>, Fault> {
    let entries = match fs::read_dir(pods) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_fault("list", pods, &error)),
    };

    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| io_fault("list", pods, &error))?;
        let file_name = entry.file_name();
        let uid = file_name.to_string_lossy();
        // `make_dir` was interrupted by a crash: the directory is no pod's yet.
        if !uid.starts_with('.') {
            found.push(PodUid::new(uid));
        }
    }
    Ok(found)
}

fn prepare_volume(
    volumes: &Path,
    volume: &VolumeFiles,
    rules: &HostPathRules,
) -> Result<(), Fault> {
    match volume {
        VolumeFiles::EmptyDir {
            name,
            memory,
            size_limit,
            group,
        } => {
            let path = child(volumes, name)?;
            // What is made in a directory with this bit belongs to its group too.
            let mode = if group.is_some() { 0o2777 } else { 0o777 };
            make_dir_of(&path, mode, *group)?;
            if *memory {
                mounted::tmpfs(&path, *size_limit, mode, *group)
                    .map_err(|error| io_fault("mount a tmpfs on", &path, &error))?;
            }
            Ok(())
        }
        VolumeFiles::Files {
            name,
            memory,
            files,
            group,
        } => {
            let path = child(volumes, name)?;
            make_dir(&path, 0o755)?;
            if *memory {
                mounted::tmpfs(&path, Some(CONFIG_TMPFS_BYTES), 0o755, None)
                    .map_err(|error| io_fault("mount a tmpfs on", &path, &error))?;
            }
            config_files::swap(&path, files, *group)
        }
        VolumeFiles::HostPath { path, kind } => {
            let path = Path::new(path);
            host_path::refuse(path, rules)?;
            host_path::prepare(path, *kind, rules)
        }
    }
}

fn pod_dir(pods: &Path, pod: &PodUid) -> Result<PathBuf, Fault> {
    child(pods, pod.as_str())
}

/// The path of an entry directly inside `parent`; an error for any other path.
fn child(parent: &Path, name: &str) -> Result<PathBuf, Fault> {
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None) if only == name => Ok(parent.join(name)),
        _ => Err(Fault::new(
            FaultKind::Rejected,
            format!("{name:?} cannot be the name of a directory"),
        )),
    }
}

/// Creates a directory with this mode, or leaves an existing one unchanged: a container may have
/// changed its mode.
fn make_dir(path: &Path, mode: u32) -> Result<(), Fault> {
    make_dir_of(path, mode, None)
}

/// As [`make_dir`], with a group that owns the directory.
fn make_dir_of(path: &Path, mode: u32, group: Option<u32>) -> Result<(), Fault> {
    if path.is_dir() {
        return Ok(());
    }
    let made = || {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        fs::create_dir_all(parent)?;
        // It is created under another name first, so that a crash leaves no directory with a wrong
        // mode.
        let mut other_name = std::ffi::OsString::from(".new-");
        other_name.push(name);
        let unfinished = parent.join(other_name);
        match fs::create_dir(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Before the mode: a change of the owner takes bits away.
        std::os::unix::fs::chown(&unfinished, None, group)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(mode))?;
        fs::rename(&unfinished, path)
    };
    made().map_err(|error| io_fault("make", path, &error))
}

fn io_fault(doing: &str, path: &Path, error: &io::Error) -> Fault {
    let kind = disks_fault(error).unwrap_or(FaultKind::Other);
    Fault::new(kind, format!("cannot {doing} {}: {error}", path.display()))
}

/// Errors of the disk or of the file server: no other commit would avoid them.
fn disks_fault(error: &io::Error) -> Option<FaultKind> {
    // `io::ErrorKind` has no stable variant for EIO.
    let failed = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(FaultKind::DiskFull),
        io::ErrorKind::StaleNetworkFileHandle
        | io::ErrorKind::TimedOut
        | io::ErrorKind::ReadOnlyFilesystem => Some(FaultKind::Other),
        _ if failed => Some(FaultKind::Other),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
