//! The sources of a container's mounts on this host, and the files that only this container has.

use std::{
    fs, io,
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
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
    fs::{Mode, OFlags, ResolveFlags, mkdirat, open, openat2},
    mount::mount_bind_recursive,
};

use super::{HostPathRules, child, disks_fault, host_path, io_fault, make_dir, mounted, pod_dir};
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
        if let MountSource::HostPath { path, .. } = &mount.source {
            host_path::refuse(Path::new(path), rules)?;
        }
        bound.push(BoundMount {
            source: text(&source_of(&pod, &own, index, mount)?)?,
            target: mount.target.clone(),
            read_only: mount.read_only,
            propagation: mount.propagation,
        });
    }

    if !spec.termination_message_path.is_empty() {
        make_dir(&own, 0o755)?;
        let message = own.join("termination");
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&message)
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

    let mut content = Vec::new();
    let read = fs::File::open(own.join("termination"))
        .and_then(|file| file.take(MESSAGE_BYTES as u64).read_to_end(&mut content));
    match read {
        Ok(_) => ForeignText::from_bytes(content.trim_ascii_end(), MESSAGE_BYTES).into(),
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
    mounted::remove_tree(&own).map_err(|error| io_fault("remove", &own, &error))
}

fn own_dir(pod: &Path, name: &str, attempt: u32) -> Result<PathBuf, Fault> {
    child(&pod.join("containers"), &format!("{name}-{attempt}"))
}

fn source_of(pod: &Path, own: &Path, index: usize, mount: &Mount) -> Result<PathBuf, Fault> {
    let (volume, sub_path) = match &mount.source {
        MountSource::PodFile(name) => return Ok(pod.join("etc").join(name)),
        MountSource::HostPath { path, sub_path } => (PathBuf::from(path), sub_path),
        MountSource::Volume { volume, sub_path } => {
            (child(&pod.join("volumes"), volume)?, sub_path)
        }
    };
    let Some(sub_path) = sub_path else {
        return Ok(volume);
    };

    let held = own.join(format!("subpath-{index}"));
    make_dir(own, 0o755)?;
    hold_sub_path(&volume, sub_path, &held)?;
    Ok(held)
}

/// Resolves a subPath without leaving the volume, and binds the result to a place that no container
/// can change: a container that can write the volume could otherwise put a symbolic link to the
/// host into the path.
fn hold_sub_path(volume: &Path, sub_path: &str, held: &Path) -> Result<(), Fault> {
    let refuse = |error: io::Error| {
        let message = format!(
            "subPath {sub_path:?} cannot be used in {}: {error}",
            volume.display()
        );
        Fault::new(disks_fault(&error).unwrap_or(FaultKind::Rejected), message)
    };
    mounted::remove_tree(held).map_err(|error| io_fault("remove", held, &error))?;

    // The path of an open file leads to that file, whatever its name leads to by now.
    let found = open_inside(volume, sub_path).map_err(refuse)?;
    let found_path = format!("/proc/self/fd/{}", found.as_raw_fd());
    let is_dir = fs::metadata(&found_path).map_err(refuse)?.is_dir();

    // A directory is bound to a directory, and a file to a file.
    let bind = || -> io::Result<()> {
        if is_dir {
            fs::create_dir(held)?;
        } else {
            fs::write(held, b"")?;
        }
        Ok(mount_bind_recursive(found_path.as_str(), held)?)
    };
    bind().map_err(|error| io_fault("bind a subPath to", held, &error))
}

/// Opens a path inside a directory, creating directories that are missing.
fn open_inside(volume: &Path, sub_path: &str) -> io::Result<OwnedFd> {
    let root = open(
        volume,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // openat2(2): a link out of the directory is an error, and so is one of those in /proc.
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match openat2(&root, sub_path, flags, Mode::empty(), inside) {
        Err(rustix::io::Errno::NOENT) => {}
        found => return Ok(found?),
    }

    let mut at = root;
    for part in Path::new(sub_path) {
        match mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
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
