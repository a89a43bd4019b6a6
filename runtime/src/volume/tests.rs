#![expect(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::{PermissionsExt, symlink};

use reconciler::{
    name::{ImageId, ImageReference, ObjectKey, TemplateHash},
    object::{ContainerSecurity, HostPathKind, MountPropagation, Resources, Sensitive},
    plan::{ContainerSpec, Mount, MountSource, PodIdentity, Role, VolumeFile},
};

use super::*;
use crate::ids::commit_id;

/// Rules that allow every hostPath.
const ANY: HostPathRules = HostPathRules {
    forbidden: vec![],
    allowed: None,
};
const UID: &str = "0b5e8f4c-6c1e-4f7e-9a53-1f6a3d1f0001";

fn files(volumes: Vec<VolumeFiles>) -> PodFiles {
    PodFiles {
        pod: PodUid::new(UID),
        resolv_conf: "nameserver 10.96.0.10\n".to_owned(),
        hosts: "127.0.0.1 localhost\n".to_owned(),
        hostname: "web\n".to_owned(),
        volumes,
    }
}

fn config(files: &[(&str, &str, u32)], memory: bool) -> VolumeFiles {
    let files = files
        .iter()
        .map(|(path, content, mode)| VolumeFile {
            path: (*path).to_owned(),
            content: Sensitive::new(content.as_bytes().to_vec()),
            mode: *mode,
        })
        .collect();
    VolumeFiles::Files {
        name: "config".to_owned(),
        memory,
        files,
        group: None,
    }
}

fn spec(mounts: Vec<Mount>) -> ContainerSpec {
    ContainerSpec {
        identity: PodIdentity {
            uid: PodUid::new(UID),
            pod: ObjectKey::new("default", "web"),
            owner: "Pod/default/web".parse().unwrap(),
            commit: commit_id("0123"),
            template: TemplateHash::new("1-0123"),
        },
        role: Role::Main,
        name: "app".to_owned(),
        attempt: 0,
        image: ImageId::new("sha256:1234"),
        image_name: ImageReference::new("app"),
        command: vec![],
        args: vec![],
        working_dir: None,
        env: vec![],
        mounts,
        resources: Resources::default(),
        host_pid: false,
        stdin: false,
        tty: false,
        security: ContainerSecurity::default(),
        stop_signal: None,
        termination_message_path: "/dev/termination-log".to_owned(),
        message_from_logs: false,
    }
}

fn sub_path(volume: &str, path: &str) -> Mount {
    mount(MountSource::Volume {
        volume: volume.to_owned(),
        sub_path: Some(path.to_owned()),
    })
}

fn on_host(path: &Path, sub_path: Option<&str>) -> Mount {
    let path = path.to_str().unwrap().to_owned();
    mount(MountSource::HostPath {
        path,
        sub_path: sub_path.map(str::to_owned),
    })
}

fn mount(source: MountSource) -> Mount {
    Mount {
        source,
        target: "/data".to_owned(),
        read_only: false,
        propagation: MountPropagation::None,
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn preparing_and_removing_a_pods_directory_twice_is_harmless() {
    let pods = tempfile::tempdir().unwrap();
    let empty = VolumeFiles::EmptyDir {
        name: "cache".to_owned(),
        memory: false,
        size_limit: None,
        group: None,
    };
    let wanted = files(vec![empty]);
    prepare(pods.path(), &wanted, &ANY).unwrap();
    let cache = pods.path().join(UID).join("volumes/cache");
    assert_eq!(mode(&cache), 0o777);
    fs::write(cache.join("kept"), "x").unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
    prepare(pods.path(), &wanted, &ANY).unwrap();
    assert!(cache.join("kept").exists());
    assert_eq!(
        mode(&cache),
        0o700,
        "changes of a container to its volume are kept"
    );
    assert_eq!(super::pods(pods.path()).unwrap(), [PodUid::new(UID)]);
    remove(pods.path(), &PodUid::new(UID)).unwrap();
    remove(pods.path(), &PodUid::new(UID)).unwrap();
    assert_eq!(super::pods(pods.path()).unwrap(), []);
}

/// A daemon whose stack a pod's directories overflow ends again after each start.
#[test]
fn a_pod_that_nested_directories_without_end_is_removed() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    let pods = tempfile::tempdir().unwrap();
    let empty = VolumeFiles::EmptyDir {
        name: "cache".to_owned(),
        memory: false,
        size_limit: None,
        group: None,
    };
    prepare(pods.path(), &files(vec![empty]), &ANY).unwrap();
    let cache = pods.path().join(UID).join("volumes/cache");
    let outside = pods.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "x").unwrap();

    let mut at = openat(CWD, &cache, OFlags::PATH, Mode::empty()).unwrap();
    for level in 0..30_000 {
        mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = openat(&at, "d", OFlags::PATH, Mode::empty()).unwrap();
        if level % 10_000 == 0 {
            rustix::fs::symlinkat(&outside, &at, "link").unwrap();
        }
    }
    for one in 0..1_000 {
        fs::create_dir_all(cache.join(format!("{one}/below"))).unwrap();
    }

    // The stack of the threads that block.
    let worker = std::thread::Builder::new().stack_size(2 << 20);
    let path = pods.path().to_owned();
    let removal = worker.spawn(move || remove(&path, &PodUid::new(UID)));
    removal.unwrap().join().unwrap().unwrap();
    assert!(!pods.path().join(UID).exists());
    assert!(outside.join("file").exists(), "a link was followed");
}

#[test]
fn etc_files_keep_their_inode_when_they_change() {
    let pods = tempfile::tempdir().unwrap();
    prepare(pods.path(), &files(vec![]), &ANY).unwrap();
    let hosts = pods.path().join(UID).join("etc/hosts");
    let held = fs::File::open(&hosts).unwrap();
    prepare(
        pods.path(),
        &PodFiles {
            hosts: "127.0.0.1 other\n".to_owned(),
            ..files(vec![])
        },
        &ANY,
    )
    .unwrap();
    assert_eq!(io::read_to_string(held).unwrap(), "127.0.0.1 other\n");
}

/// A container that can write a directory above a hostPath may exchange a part of the path between
/// the comparison with the rules and the creation.
#[test]
fn a_host_path_is_not_created_where_an_exchanged_link_leads() {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{CWD, RenameFlags, renameat_with};

    let host = tempfile::tempdir().unwrap();
    let host = host.path().canonicalize().unwrap();
    let (pods_own, outside) = (host.join("own"), host.join("outside"));
    fs::create_dir_all(pods_own.join("part")).unwrap();
    fs::create_dir(&outside).unwrap();
    let (part, link) = (pods_own.join("part"), pods_own.join("link"));
    symlink(&outside, &link).unwrap();

    let ends = AtomicBool::new(false);
    let made = std::thread::scope(|threads| {
        threads.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                renameat_with(CWD, &part, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let mut made = 0;
        for number in 0..3_000 {
            let kind = if number % 2 == 0 {
                HostPathKind::DirectoryOrCreate
            } else {
                HostPathKind::FileOrCreate
            };
            let rules = HostPathRules {
                forbidden: vec![outside.clone()],
                allowed: (number % 4 < 2).then(|| vec![pods_own.clone()]),
            };
            let wanted = files(vec![VolumeFiles::HostPath {
                path: part.join(format!("{number}")).to_str().unwrap().to_owned(),
                kind,
            }]);
            made += usize::from(prepare(&host.join("pods"), &wanted, &rules).is_ok());
        }
        ends.store(true, Ordering::Relaxed);
        made
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(made > 0, "the path is created where no link is in it");
}

#[test]
fn a_host_path_is_created_where_a_link_of_roots_leads_and_not_through_a_broken_one() {
    let host = tempfile::tempdir().unwrap();
    let at = |name: &str| host.path().join(name);
    fs::create_dir(at("real")).unwrap();
    symlink(at("real"), at("link")).unwrap();
    symlink(at("missing"), at("broken")).unwrap();
    let prepare = |name: &str, kind| host_path::prepare(&at(name), kind, &ANY);
    prepare("link/a/b", HostPathKind::DirectoryOrCreate).unwrap();
    prepare("link/file", HostPathKind::FileOrCreate).unwrap();
    assert!(at("real/a/b").is_dir() && at("real/file").is_file());

    for path in ["broken", "broken/a"] {
        for kind in [HostPathKind::DirectoryOrCreate, HostPathKind::FileOrCreate] {
            prepare(path, kind).unwrap_err();
        }
    }
    assert!(!at("missing").exists());
    prepare("none/file", HostPathKind::FileOrCreate).unwrap_err();
    assert!(!at("none").exists());

    let pipe = std::process::Command::new("mkfifo")
        .arg(at("pipe"))
        .status();
    assert!(pipe.unwrap().success());
    prepare("pipe", HostPathKind::FileOrCreate).unwrap_err();
}

/// A container may write its files on the host; reading a file of any size would take the daemon's
/// memory.
#[test]
fn a_file_that_a_container_made_huge_is_not_read() {
    let pods = tempfile::tempdir().unwrap();
    let wanted = files(vec![config(&[("a", "1", 0o644)], false)]);
    prepare(pods.path(), &wanted, &ANY).unwrap();
    let pod = pods.path().join(UID);
    let make_huge = |path: &Path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(1 << 40).unwrap();
    };
    for name in ["resolv.conf", "hosts", "hostname"] {
        make_huge(&pod.join("etc").join(name));
    }
    make_huge(&pod.join("volumes/config/a"));
    prepare(pods.path(), &wanted, &ANY).unwrap();
    let read = |path: &str| fs::read_to_string(pod.join(path)).unwrap();
    assert_eq!(read("etc/resolv.conf"), wanted.resolv_conf);
    assert_eq!(read("etc/hosts"), wanted.hosts);
    assert_eq!(read("etc/hostname"), wanted.hostname);
    assert_eq!(read("volumes/config/a"), "1");

    let spec = spec(vec![]);
    let bound = container_files(pods.path(), &spec, &ANY).unwrap();
    fs::write(&bound[0].source, "ended").unwrap();
    make_huge(Path::new(&bound[0].source));
    let message = termination_message(pods.path(), &crate::translate::labels_of(&spec));
    assert!(message.starts_with("ended") && message.len() < 64 * 1024);
}

#[test]
fn a_file_that_became_another_kind_is_neither_followed_nor_waited_for() {
    let pods = tempfile::tempdir().unwrap();
    let wanted = files(vec![]);
    prepare(pods.path(), &wanted, &ANY).unwrap();
    let spec = spec(vec![]);
    let labels = crate::translate::labels_of(&spec);
    let bound = container_files(pods.path(), &spec, &ANY).unwrap();
    let outside = pods.path().join("outside");
    fs::write(&outside, "x").unwrap();

    let hosts = pods.path().join(UID).join("etc/hosts");
    for path in [&hosts, Path::new(&bound[0].source)] {
        fs::remove_file(path).unwrap();
        symlink(&outside, path).unwrap();
    }
    prepare(pods.path(), &wanted, &ANY).unwrap_err();
    container_files(pods.path(), &spec, &ANY).unwrap_err();
    assert_eq!(termination_message(pods.path(), &labels), "");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "x");

    for path in [&hosts, Path::new(&bound[0].source)] {
        fs::remove_file(path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    }
    prepare(pods.path(), &wanted, &ANY).unwrap_err();
    container_files(pods.path(), &spec, &ANY).unwrap_err();
    assert_eq!(termination_message(pods.path(), &labels), "");
}

#[test]
fn config_files_are_exchanged_atomically_through_one_link() {
    let pods = tempfile::tempdir().unwrap();
    let volume = pods.path().join(UID).join("volumes/config");
    prepare(
        pods.path(),
        &files(vec![config(
            &[("a", "1", 0o644), ("dir/b", "2", 0o400)],
            false,
        )]),
        &ANY,
    )
    .unwrap();
    let first = fs::read_link(volume.join("..data")).unwrap();
    assert_eq!(
        fs::read_link(volume.join("a")).unwrap(),
        Path::new("..data/a")
    );
    assert_eq!(fs::read_to_string(volume.join("dir/b")).unwrap(), "2");
    assert_eq!(
        (mode(&volume.join("a")), mode(&volume.join("dir/b"))),
        (0o644, 0o400)
    );

    prepare(
        pods.path(),
        &files(vec![config(
            &[("a", "1", 0o644), ("dir/b", "2", 0o400)],
            false,
        )]),
        &ANY,
    )
    .unwrap();
    assert_eq!(
        fs::read_link(volume.join("..data")).unwrap(),
        first,
        "unchanged files keep their generation"
    );

    prepare(
        pods.path(),
        &files(vec![config(&[("a", "new", 0o644)], false)]),
        &ANY,
    )
    .unwrap();
    assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "new");
    assert!(!volume.join("dir").exists() && fs::symlink_metadata(volume.join("dir")).is_err());
    assert!(!volume.join(&first).exists(), "the old generation is gone");
}

#[test]
fn a_file_outside_of_its_volume_is_refused() {
    let pods = tempfile::tempdir().unwrap();
    for path in ["../a", "/a", "..data", "a/../../b", ""] {
        let fault = prepare(
            pods.path(),
            &files(vec![config(&[(path, "x", 0o644)], false)]),
            &ANY,
        )
        .unwrap_err();
        assert_eq!(fault.kind, FaultKind::Rejected, "{path}");
    }
}

#[test]
fn memory_volumes_are_mounted_once_and_unmounted() {
    let pods = tempfile::tempdir().unwrap();
    let memory = VolumeFiles::EmptyDir {
        name: "fast".to_owned(),
        memory: true,
        size_limit: Some(1 << 20),
        group: None,
    };
    let wanted = files(vec![memory, config(&[("token", "s3cret", 0o600)], true)]);
    prepare(pods.path(), &wanted, &ANY).unwrap();
    prepare(pods.path(), &wanted, &ANY).unwrap();
    let volumes = pods
        .path()
        .join(UID)
        .join("volumes")
        .canonicalize()
        .unwrap();
    let mounts = || {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table
            .lines()
            .filter(|line| line.contains(volumes.to_str().unwrap()))
            .count()
    };
    assert_eq!(mounts(), 2);
    let disk = rustix::fs::statvfs(volumes.join("fast")).unwrap();
    assert_eq!(disk.f_blocks * disk.f_frsize, 1 << 20);
    assert_eq!(
        fs::read_to_string(volumes.join("config/token")).unwrap(),
        "s3cret"
    );
    remove(pods.path(), &PodUid::new(UID)).unwrap();
    assert_eq!(mounts(), 0);
    assert!(!pods.path().join(UID).exists());
}

#[test]
fn a_host_path_has_the_type_of_the_manifest_or_is_a_fault() {
    let host = tempfile::tempdir().unwrap();
    let at = |name: &str| host.path().join(name);
    fs::write(at("file"), "x").unwrap();
    let prepare = |name: &str, kind| host_path::prepare(&at(name), kind, &ANY);
    prepare("any/deep", HostPathKind::Any).unwrap();
    prepare("made", HostPathKind::DirectoryOrCreate).unwrap();
    prepare("new", HostPathKind::FileOrCreate).unwrap();
    prepare("file", HostPathKind::File).unwrap();
    assert_eq!((mode(&at("made")), mode(&at("new"))), (0o755, 0o644));
    host_path::prepare(Path::new("/dev/null"), HostPathKind::CharDevice, &ANY).unwrap();
    for (name, kind) in [
        ("file", HostPathKind::Directory),
        ("nosuch", HostPathKind::Directory),
        ("nosuch", HostPathKind::File),
        ("made", HostPathKind::Socket),
        ("made", HostPathKind::FileOrCreate),
        ("file", HostPathKind::BlockDevice),
    ] {
        let fault = prepare(name, kind).unwrap_err();
        assert_eq!(fault.kind, FaultKind::HostPath);
        assert!(fault.message.contains(name), "{fault}");
    }
}

#[test]
fn a_full_or_broken_disk_is_not_a_fault_of_the_manifest() {
    use rustix::io::Errno;
    for (error, kind) in [
        (Errno::NOSPC, Some(FaultKind::DiskFull)),
        (Errno::DQUOT, Some(FaultKind::DiskFull)),
        (Errno::IO, Some(FaultKind::Other)),
        (Errno::STALE, Some(FaultKind::Other)),
        (Errno::TIMEDOUT, Some(FaultKind::Other)),
        (Errno::ROFS, Some(FaultKind::Other)),
        (Errno::NOTDIR, None),
        (Errno::ACCESS, None),
    ] {
        assert_eq!(disks_fault(&error.into()), kind, "{error}");
    }
    // A file system with two inodes: the root directory and one file.
    let dir = tempfile::tempdir().unwrap();
    let options = std::ffi::CString::new("nr_inodes=2").unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(
        "tmpfs",
        dir.path(),
        "tmpfs",
        flags,
        Some(options.as_c_str()),
    )
    .unwrap();
    host_path::prepare(&dir.path().join("one"), HostPathKind::FileOrCreate, &ANY).unwrap();
    let full = host_path::prepare(
        &dir.path().join("two"),
        HostPathKind::DirectoryOrCreate,
        &ANY,
    )
    .unwrap_err();
    rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(full.kind, FaultKind::DiskFull, "{full}");
}

#[test]
fn a_sub_path_cannot_leave_its_volume() {
    let pods = tempfile::tempdir().unwrap();
    let empty = VolumeFiles::EmptyDir {
        name: "shared".to_owned(),
        memory: false,
        size_limit: None,
        group: None,
    };
    prepare(pods.path(), &files(vec![empty]), &ANY).unwrap();
    let pod = pods.path().join(UID);
    symlink("/etc", pod.join("volumes/shared/trap")).unwrap();

    let bound = container_files(
        pods.path(),
        &spec(vec![sub_path("shared", "new/dir")]),
        &ANY,
    )
    .unwrap();
    assert!(pod.join("volumes/shared/new/dir").is_dir());
    fs::write(Path::new(&bound[0].source).join("here"), "x").unwrap();
    assert!(pod.join("volumes/shared/new/dir/here").exists());

    for path in ["trap", "trap/passwd", "../../etc"] {
        let fault =
            container_files(pods.path(), &spec(vec![sub_path("shared", path)]), &ANY).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Rejected, "{path}");
    }
    remove(pods.path(), &PodUid::new(UID)).unwrap();
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn a_sub_path_of_a_host_path_is_created_and_cannot_leave_it() {
    let (pods, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink("/etc", host.path().join("trap")).unwrap();
    fs::write(host.path().join("file"), "x").unwrap();
    let bind = |sub_path| {
        container_files(
            pods.path(),
            &spec(vec![on_host(host.path(), Some(sub_path))]),
            &ANY,
        )
    };

    let bound = bind("new/dir").unwrap();
    fs::write(Path::new(&bound[0].source).join("here"), "x").unwrap();
    assert!(host.path().join("new/dir/here").exists());
    for _again in 0..2 {
        let bound = bind("file").unwrap();
        assert_eq!(fs::read_to_string(&bound[0].source).unwrap(), "x");
    }
    for path in ["trap", "trap/passwd", "../etc"] {
        let fault = bind(path).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Rejected, "{path}");
    }
    remove(pods.path(), &PodUid::new(UID)).unwrap();
    assert!(
        host.path().join("new/dir/here").exists(),
        "files of the host are kept"
    );
}

#[test]
fn a_mount_in_a_host_path_stays_mounted_when_its_container_is_removed() {
    use rustix::mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
    };
    let (pods, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tmpfs = |path: &Path| mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).unwrap();
    tmpfs(host.path());
    mount_change(host.path(), MountPropagationFlags::SHARED).unwrap();
    let disk = host.path().join("data/disk");
    fs::create_dir_all(&disk).unwrap();
    tmpfs(&disk);
    fs::write(disk.join("kept"), "x").unwrap();

    let bound = container_files(
        pods.path(),
        &spec(vec![on_host(host.path(), Some("data"))]),
        &ANY,
    )
    .unwrap();
    let seen = Path::new(&bound[0].source).join("disk/kept").exists();
    remove_container_files(pods.path(), &PodUid::new(UID), "app", 0).unwrap();
    let kept = disk.join("kept").exists();
    unmount(host.path(), UnmountFlags::DETACH).unwrap();
    assert_eq!((seen, kept), (true, true));
}

#[test]
fn a_termination_message_is_read_and_its_length_is_limited() {
    let pods = tempfile::tempdir().unwrap();
    let spec = spec(vec![]);
    let bound = container_files(pods.path(), &spec, &ANY).unwrap();
    assert_eq!(bound[0].target, "/dev/termination-log");
    fs::write(&bound[0].source, "x".repeat(5000)).unwrap();
    container_files(pods.path(), &spec, &ANY).unwrap();
    let labels = crate::translate::labels_of(&spec);
    assert_eq!(
        termination_message(pods.path(), &labels).len(),
        4096,
        "preparing the container again keeps the message"
    );
    remove_container_files(pods.path(), &labels.identity.uid, "app", 0).unwrap();
    assert_eq!(termination_message(pods.path(), &labels), "");
}

#[test]
fn a_link_to_a_forbidden_path_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (dir.path().join("own"), dir.path().join("other"));
    fs::create_dir_all(own.join("trust")).unwrap();
    fs::create_dir(&other).unwrap();
    symlink(&own, dir.path().join("link")).unwrap();
    symlink(own.join("new"), other.join("dangling")).unwrap();
    let rules = HostPathRules {
        forbidden: vec![own.clone()],
        allowed: None,
    };
    for bad in [
        own.clone(),
        dir.path().join("link"),
        dir.path().join("link/trust/new"),
        dir.path().to_owned(),
        other.join("dangling"),
    ] {
        let path = bad.display().to_string();
        let volume = VolumeFiles::HostPath {
            path,
            kind: HostPathKind::FileOrCreate,
        };
        let fault = prepare(&dir.path().join("pods"), &files(vec![volume]), &rules).unwrap_err();
        assert_eq!(fault.kind, FaultKind::HostPath, "{}", bad.display());
    }
    assert!(!own.join("new").exists() && !own.join("trust/new").exists());
    host_path::refuse(&other, &rules).unwrap();
    host_path::refuse(&other.join("new/deep"), &rules).unwrap();
}

#[test]
fn a_link_out_of_an_allowed_path_is_refused() {
    let (pods, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let allowed = dir.path().join("allowed");
    fs::create_dir_all(allowed.join("app/data")).unwrap();
    fs::write(allowed.join("file"), "x").unwrap();
    symlink(&allowed, dir.path().join("alias")).unwrap();
    let rules = HostPathRules {
        forbidden: vec![],
        allowed: Some(vec![dir.path().join("alias")]),
    };
    let start =
        |path: &Path| container_files(pods.path(), &spec(vec![on_host(path, None)]), &rules);
    for good in ["allowed", "allowed/app/data", "allowed/file", "alias/app"] {
        start(&dir.path().join(good)).unwrap();
    }
    host_path::refuse(&allowed.join("app/new/deep"), &rules).unwrap();
    for bad in ["", "allowed/../other", "allowedly"] {
        assert_eq!(
            start(&dir.path().join(bad)).unwrap_err().kind,
            FaultKind::HostPath,
            "{bad}"
        );
    }
    // A container that can write "app" could do this, so that its next start mounts another path.
    fs::remove_dir(allowed.join("app/data")).unwrap();
    symlink("/etc", allowed.join("app/data")).unwrap();
    let fault = start(&allowed.join("app/data")).unwrap_err();
    assert_eq!(fault.kind, FaultKind::HostPath);
    assert!(fault.message.contains("leads to /etc"), "{fault}");
    remove(pods.path(), &PodUid::new(UID)).unwrap();
}

#[test]
fn what_is_mounted_of_a_limited_host_path_is_what_was_compared() {
    let (pods, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("here"), "ours").unwrap();
    fs::write(dir.path().join("file"), "ours").unwrap();
    let rules = HostPathRules {
        forbidden: vec![],
        allowed: Some(vec![dir.path().to_owned()]),
    };
    let mounts = vec![
        on_host(&data, None),
        on_host(&dir.path().join("file"), None),
    ];
    let bound = container_files(pods.path(), &spec(mounts), &rules).unwrap();

    // Another container exchanges both before the engine resolves the sources.
    fs::rename(&data, dir.path().join("aside")).unwrap();
    symlink("/etc", &data).unwrap();
    fs::remove_file(dir.path().join("file")).unwrap();
    symlink("/etc/passwd", dir.path().join("file")).unwrap();
    let source = |index: usize| Path::new(&bound[index].source);
    assert_eq!(fs::read_to_string(source(0).join("here")).unwrap(), "ours");
    assert_eq!(fs::read_to_string(source(1)).unwrap(), "ours");
    // What the container writes is in the directory of the host.
    fs::write(source(0).join("written"), "x").unwrap();
    assert!(dir.path().join("aside/written").exists());

    remove_container_files(pods.path(), &PodUid::new(UID), "app", 0).unwrap();
    assert!(!source(0).exists() && dir.path().join("aside/here").exists());
    remove(pods.path(), &PodUid::new(UID)).unwrap();
}

#[test]
fn a_path_through_a_magic_link_of_proc_is_refused() {
    let (pods, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink("/proc/self/root/srv", dir.path().join("root")).unwrap();
    symlink("/proc/self/cwd", dir.path().join("cwd")).unwrap();
    symlink("/proc/self", dir.path().join("self")).unwrap();
    let through_root = format!("/proc/thread-self/root{}", dir.path().display());
    let limited = HostPathRules {
        forbidden: vec![],
        allowed: Some(vec![dir.path().to_owned(), "/proc".into(), "/srv".into()]),
    };
    for rules in [&ANY, &limited] {
        let start =
            |path: &Path| container_files(pods.path(), &spec(vec![on_host(path, None)]), rules);
        for bad in [
            dir.path().join("root"),
            dir.path().join("cwd"),
            dir.path().join("self/exe"),
            PathBuf::from("/proc/self/root/srv"),
            PathBuf::from(&through_root),
        ] {
            let fault = start(&bad).unwrap_err();
            assert_eq!(fault.kind, FaultKind::HostPath, "{}", bad.display());
            assert!(fault.message.contains("a link in /proc"), "{fault}");
        }
        start(&dir.path().join("self/net")).unwrap();
    }
    remove(pods.path(), &PodUid::new(UID)).unwrap();
}
