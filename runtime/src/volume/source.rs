//! The sources of a container's mounts on this host, and the files that only this container has.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use reconciler::{
    fault::{Fault, FaultKind},
    foreign::ForeignText,
    name::PodUid,
    object::MountPropagation,
    plan::{ContainerSpec, Mount, MountSource},
};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, open, openat2},
    mount::mount_bind_recursive,
};

use super::{
    HostPathRules, REMOVAL, child, disks_fault, host_path, io_fault, make_dir, mounted, pod_dir,
    shared_file,
};
use crate::{labels::Labels, translate::BoundMount};

/// The limit, in bytes, of a termination message, as in Kubernetes.
const MESSAGE_BYTES: usize = 4096;

/// Resolves the sources of a container's mounts and creates the files that only this container has.
///
/// A hostPath is resolved every time: the files of a restarted container are not prepared again,
/// and the container may have created a symbolic link since.
pub(crate) fn container_files(
    pods: &Path,
    spec: &ContainerSpec,
    rules: &HostPathRules,
) -> Result<Vec<BoundMount>, Fault> {
    let pod = pod_dir(pods, &spec.identity.uid)?;
    let own = own_dir(&pod, &spec.name, spec.attempt)?;
    let mut bound = Vec::with_capacity(spec.mounts.len() + 1);
    for (index, mount) in spec.mounts.iter().enumerate() {
        bound.push(BoundMount {
            source: text(&source_of(&pod, &own, index, mount, rules)?)?,
            target: mount.target.clone(),
            read_only: mount.read_only,
            propagation: mount.propagation,
        });
    }

    if !spec.termination_message_path.is_empty() {
        make_dir(&own, 0o755)?;
        let message = own.join("termination");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(false);
        shared_file::open(&message, &mut options)
            // Any user that the container runs as must be able to write it.
            .and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o666)))
            .map_err(|error| io_fault("make", &message, &error))?;
        bound.push(BoundMount {
            source: text(&message)?,
            target: spec.termination_message_path.clone(),
            read_only: false,
            propagation: MountPropagation::None,
        });
    }
    Ok(bound)
}

/// The termination message that a container wrote; empty when it wrote nothing or its files are
/// gone.
pub(crate) fn termination_message(pods: &Path, labels: &Labels) -> String {
    let own = pod_dir(pods, &labels.identity.uid)
        .and_then(|pod| own_dir(&pod, &labels.name, labels.attempt));
    let Ok(own) = own else {
        return String::new();
    };

    match shared_file::beginning(&own.join("termination"), MESSAGE_BYTES) {
        Ok(content) => ForeignText::from_bytes(content.trim_ascii_end(), MESSAGE_BYTES).into(),
        Err(_) => String::new(),
    }
}

/// Removes the files that only one container had.
pub(crate) fn remove_container_files(
    pods: &Path,
    uid: &PodUid,
    name: &str,
    attempt: u32,
) -> Result<(), Fault> {
    let own = own_dir(&pod_dir(pods, uid)?, name, attempt)?;
    mounted::remove_tree(&own, REMOVAL).map_err(|error| io_fault("remove", &own, &error))
}

fn own_dir(pod: &Path, name: &str, attempt: u32) -> Result<PathBuf, Fault> {
    child(&pod.join("containers"), &format!("{name}-{attempt}"))
}

fn source_of(
    pod: &Path,
    own: &Path,
    index: usize,
    mount: &Mount,
    rules: &HostPathRules,
) -> Result<PathBuf, Fault> {
    match &mount.source {
        MountSource::PodFile(name) => Ok(pod.join("etc").join(name)),
        MountSource::Volume { volume, sub_path } => {
            let volume = child(&pod.join("volumes"), volume)?;
            let Some(sub_path) = sub_path else {
                return Ok(volume);
            };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = open(&volume, flags, Mode::empty())
                .map_err(|error| refused_sub_path(sub_path, &volume, &error.into()))?;
            hold_sub_path(&root, &volume, sub_path, own, index)
        }
        MountSource::HostPath { path, sub_path } => {
            let path = Path::new(path);
            host_path::refuse(path, rules)?;
            if let Some(sub_path) = sub_path {
                let root = host_path::open_allowed(path, rules)?;
                return hold_sub_path(&root, path, sub_path, own, index);
            }
            // Without `allowed` a pod may mount anything of root's, so that there is nothing to gain
            // by an exchange of the path between here and the mount by the engine.
            if rules.allowed.is_none() {
                return Ok(path.to_owned());
            }
            let found = host_path::open_allowed(path, rules)?;
            hold(&found, own, &format!("hostpath-{index}"))
        }
    }
}

/// Resolves a subPath without leaving the volume, which is open as `root`, and holds the result: a
/// container that can write the volume could otherwise put a symbolic link to the host into the
/// path.
fn hold_sub_path(
    root: &OwnedFd,
    volume: &Path,
    sub_path: &str,
    own: &Path,
    index: usize,
) -> Result<PathBuf, Fault> {
    let found =
        open_inside(root, sub_path).map_err(|error| refused_sub_path(sub_path, volume, &error))?;
    hold(&found, own, &format!("subpath-{index}"))
}

fn refused_sub_path(sub_path: &str, volume: &Path, error: &io::Error) -> Fault {
    let message = format!(
        "subPath {sub_path:?} cannot be used in {}: {error}",
        volume.display()
    );
    Fault::new(disks_fault(error).unwrap_or(FaultKind::Rejected), message)
}

/// Binds an open file or directory to a place that no container can change: the engine resolves the
/// source of a mount by its name, later.
fn hold(found: &OwnedFd, own: &Path, name: &str) -> Result<PathBuf, Fault> {
    let held = own.join(name);
    make_dir(own, 0o755)?;
    mounted::remove_tree(&held, REMOVAL).map_err(|error| io_fault("remove", &held, &error))?;

    // A directory is bound to a directory, and anything else to a file.
    let source = host_path::path_of(found);
    let bind = || -> io::Result<()> {
        if fs::metadata(&source)?.is_dir() {
            fs::create_dir(&held)?;
        } else {
            fs::write(&held, b"")?;
        }
        Ok(mount_bind_recursive(source.as_str(), &held)?)
    };
    bind().map_err(|error| io_fault("bind a part of a volume to", &held, &error))?;
    Ok(held)
}

/// Opens a path inside an open directory, creating directories that are missing. As the kubelet
/// does, these get the mode of the volume: who may write to it may write to them.
fn open_inside(root: &OwnedFd, sub_path: &str) -> io::Result<OwnedFd> {
    // openat2(2): a link out of the directory is an error, and so is one of those in /proc.
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match openat2(root, sub_path, flags, Mode::empty(), inside) {
        Err(rustix::io::Errno::NOENT) => {}
        found => return Ok(found?),
    }

    let mode = Mode::from_raw_mode(fstat(root)?.st_mode);
    let mut at = root.try_clone()?;
    for part in Path::new(sub_path) {
        match mkdirat(&at, part, Mode::RWXU) {
            Ok(()) => {
                // The umask of the daemon does not count here.
                let directory =
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                fchmod(openat2(&at, part, directory, Mode::empty(), inside)?, mode)?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        at = openat2(&at, part, flags | OFlags::NOFOLLOW, Mode::empty(), inside)?;
    }
    Ok(at)
}

fn text(path: &Path) -> Result<String, Fault> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Fault::new(
            FaultKind::Other,
            format!(
                "the path {} is not UTF-8, which the engine needs",
                path.display()
            ),
        )
    })
}
