//! Pods: namespaces, volumes, names, logs, and containers that exist when the daemon starts.

use std::{fs, os::unix::fs::MetadataExt, time::Duration};

use futures_util::StreamExt;
use reconciler::{
    fault::FaultKind,
    name::ContainerId,
    object::{HostPathKind, Sensitive},
    observed::ContainerState,
    plan::{ContainerSpec, Mount, MountSource, SandboxSpec, VolumeFile, VolumeFiles},
};
use runtime::{ExecOutcome, LogOptions};

use crate::bed::{Bed, docker, volume_mount};

const LIMIT: Duration = Duration::from_secs(10);

pub(crate) async fn output(bed: &Bed, id: &ContainerId, script: &str) -> String {
    let command = ["sh", "-c", script].map(str::to_owned);
    match bed.runtime.exec(id, &command, LIMIT).await.unwrap() {
        ExecOutcome::Exited { code: 0, output } => {
            String::from_utf8(output).unwrap().trim().to_owned()
        }
        other => panic!("{script}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_its_network_and_ipc() {
    let bed = Bed::new().await;
    let script = "echo hello > /tmp/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp";
    let server = bed.pod("web", script).await;
    bed.runtime
        .start_container(&bed.container("web", "other", "exec sleep 1000"))
        .await
        .unwrap();
    let other = bed.id_of("web", "other").await;
    let get = "until wget -qO- http://127.0.0.1:8080/index.html; do sleep 0.1; done";
    assert_eq!(output(&bed, &other, get).await, "hello");
    assert_eq!(output(&bed, &other, "hostname").await, "web");

    let network = fs::File::from(bed.runtime.netns(&bed.identity("web").uid).await.unwrap());
    let inode = |kind: &str, id: &ContainerId| {
        let pid = docker(&["inspect", "-f", "{{.State.Pid}}", id.as_str()]);
        fs::metadata(format!("/proc/{pid}/ns/{kind}"))
            .unwrap()
            .ino()
    };
    assert_eq!(network.metadata().unwrap().ino(), inode("net", &server));
    assert_eq!(inode("net", &server), inode("net", &other));
    assert_eq!(inode("ipc", &server), inode("ipc", &other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_host_network_and_host_ipc_shares_the_hosts_namespaces() {
    let bed = Bed::new().await;
    let sandbox = SandboxSpec {
        host_network: true,
        host_ipc: true,
        ..bed.sandbox("node")
    };
    bed.runtime.start_sandbox(&sandbox).await.unwrap();
    bed.runtime
        .start_container(&bed.container("node", "app", "exec sleep 1000"))
        .await
        .unwrap();
    let id = bed.id_of("node", "app").await;
    let pid = docker(&["inspect", "-f", "{{.State.Pid}}", id.as_str()]);
    for kind in ["net", "ipc"] {
        let inode = |pid: &str| {
            fs::metadata(format!("/proc/{pid}/ns/{kind}"))
                .unwrap()
                .ino()
        };
        assert_eq!(inode(&pid), inode("self"), "{kind}");
    }
    let fault = bed
        .runtime
        .netns(&bed.identity("node").uid)
        .await
        .unwrap_err();
    assert_eq!(
        fault.kind,
        FaultKind::Gone,
        "the runtime returned the host's own network namespace"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_and_etc_files_are_mounted_in_containers() {
    let bed = Bed::new().await;
    let host = bed.data.path().join("host");
    let token = VolumeFile {
        path: "token".to_owned(),
        content: Sensitive::new(b"s3cret".to_vec()),
        mode: 0o400,
    };
    let volumes = vec![
        VolumeFiles::EmptyDir {
            name: "cache".to_owned(),
            memory: false,
            size_limit: None,
            group: None,
        },
        VolumeFiles::Files {
            name: "keys".to_owned(),
            memory: true,
            files: vec![token],
            group: None,
        },
        VolumeFiles::HostPath {
            path: host.to_str().unwrap().to_owned(),
            kind: HostPathKind::DirectoryOrCreate,
        },
    ];
    bed.runtime
        .prepare_files(&bed.files("web", volumes))
        .await
        .unwrap();
    bed.runtime
        .start_sandbox(&bed.sandbox("web"))
        .await
        .unwrap();
    let source = |source, target: &str, read_only| Mount {
        source,
        read_only,
        ..volume_mount("", target)
    };
    let sub_path = MountSource::Volume {
        volume: "cache".to_owned(),
        sub_path: Some("deep/er".to_owned()),
    };
    let on_host = |sub_path: Option<&str>| MountSource::HostPath {
        path: host.to_str().unwrap().to_owned(),
        sub_path: sub_path.map(str::to_owned),
    };
    let spec = ContainerSpec {
        mounts: vec![
            volume_mount("cache", "/cache"),
            source(sub_path, "/sub", false),
            volume_mount("keys", "/keys"),
            source(on_host(None), "/host", true),
            source(on_host(Some("logs/app")), "/logs", false),
            source(MountSource::PodFile("hosts"), "/etc/hosts", false),
            source(
                MountSource::PodFile("resolv.conf"),
                "/etc/resolv.conf",
                false,
            ),
        ],
        env: vec![("GREETING".to_owned(), Sensitive::new("a = b".to_owned()))],
        ..bed.container("web", "app", "exec sleep 1000")
    };
    bed.runtime.start_container(&spec).await.unwrap();
    let id = bed.id_of("web", "app").await;
    assert_eq!(output(&bed, &id, "cat /keys/token").await, "s3cret");
    assert_eq!(output(&bed, &id, "echo $GREETING").await, "a = b");
    assert_eq!(
        output(&bed, &id, "cat /etc/resolv.conf /etc/hosts").await,
        "nameserver 127.0.0.1\n127.0.0.1 localhost"
    );
    assert_eq!(
        output(&bed, &id, "touch /sub/x; ls /cache/deep/er").await,
        "x"
    );
    assert_eq!(
        output(&bed, &id, "touch /host/x 2>/dev/null || echo read only").await,
        "read only"
    );
    assert_eq!(
        output(&bed, &id, "touch /logs/y; ls /host/logs/app").await,
        "y"
    );
    let secret = bed
        .config
        .pods_dir
        .join(bed.identity("web").uid.as_str())
        .join("volumes/keys");
    assert_eq!(file_system(&secret), "tmpfs");

    // A running container reads the new content of a changed Secret.
    let changed = VolumeFile {
        path: "token".to_owned(),
        content: Sensitive::new(b"new".to_vec()),
        mode: 0o400,
    };
    let volumes = vec![VolumeFiles::Files {
        name: "keys".to_owned(),
        memory: true,
        files: vec![changed],
        group: None,
    }];
    bed.runtime
        .prepare_files(&bed.files("web", volumes))
        .await
        .unwrap();
    assert_eq!(output(&bed, &id, "cat /keys/token").await, "new");

    assert!(bed.mounts() > 0);
    bed.runtime.remove(&[id]).await.unwrap();
    bed.runtime
        .remove_files(&bed.identity("web").uid)
        .await
        .unwrap();
    assert_eq!(bed.mounts(), 0);
    assert!(
        host.join("logs/app/y").exists(),
        "a file of a hostPath volume was removed"
    );
    assert_eq!(bed.runtime.pods_on_disk().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_nested_directories_without_end_is_removed() {
    let bed = Bed::new().await;
    let cache = VolumeFiles::EmptyDir {
        name: "cache".to_owned(),
        memory: false,
        size_limit: None,
        group: None,
    };
    bed.runtime
        .prepare_files(&bed.files("web", vec![cache]))
        .await
        .unwrap();
    bed.runtime
        .start_sandbox(&bed.sandbox("web"))
        .await
        .unwrap();
    let nest = "cd /cache; part=$(printf 'd/%.0s' $(seq 1000)); ln -s / link; \
                for _ in $(seq 21); do mkdir -p $part; cd -P $part 2>/dev/null; done; \
                echo nested >/cache/nested; exec sleep 1000";
    let container = ContainerSpec {
        mounts: vec![volume_mount("cache", "/cache")],
        ..bed.container("web", "app", nest)
    };
    bed.runtime.start_container(&container).await.unwrap();
    let id = bed.id_of("web", "app").await;
    let pod = bed.config.pods_dir.join(bed.identity("web").uid.as_str());
    let cache = pod.join("volumes/cache");
    // The shell finds its working directory anew after each step, level by level, which takes some
    // seconds, and more while other tests run.
    let nested = async {
        while !cache.join("nested").exists() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(180), nested)
        .await
        .expect("the pod nests directories in time");
    assert!(levels(&cache) > 20_000);

    bed.runtime.remove(&[id]).await.unwrap();
    bed.runtime
        .remove_files(&bed.identity("web").uid)
        .await
        .unwrap();
    assert_eq!(bed.runtime.pods_on_disk().await.unwrap(), []);
    assert!(!pod.exists());
}

/// How many directories named `d` are in each other.
fn levels(path: &std::path::Path) -> usize {
    use rustix::fs::{CWD, Mode, OFlags, openat};

    let mut at = openat(CWD, path, OFlags::PATH, Mode::empty()).unwrap();
    let mut levels = 0;
    while let Ok(below) = openat(&at, "d", OFlags::PATH, Mode::empty()) {
        at = below;
        levels += 1;
    }
    levels
}

/// The type of the file system at a path of the host.
fn file_system(path: &std::path::Path) -> String {
    let output = std::process::Command::new("stat")
        .args(["-f", "-c", "%T"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_a_container_again_changes_nothing_also_for_the_next_daemon() {
    let bed = Bed::new().await;
    let id = bed.pod("web", "exec sleep 1000").await;
    for runtime in [bed.runtime.clone(), bed.reopened().await] {
        runtime.start_sandbox(&bed.sandbox("web")).await.unwrap();
        runtime
            .start_container(&bed.container("web", "app", "exec sleep 1000"))
            .await
            .unwrap();
    }
    assert_eq!(bed.id_of("web", "app").await, id);
    assert_eq!(bed.containers().len(), 2);

    docker(&["kill", id.as_str()]);
    let again = bed
        .reopened()
        .await
        .start_container(&bed.container("web", "app", "exec sleep 1000"))
        .await;
    assert_eq!(
        again.unwrap_err().kind,
        FaultKind::Gone,
        "an attempt that has ended was started again; only the plan decides on the next attempt"
    );
    let next = ContainerSpec {
        attempt: 1,
        ..bed.container("web", "app", "exec sleep 1000")
    };
    bed.runtime.start_container(&next).await.unwrap();
    assert_ne!(bed.id_of("web", "app").await, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_start_failed_is_started_again_and_not_created_twice() {
    let bed = Bed::new().await;
    bed.runtime
        .start_sandbox(&bed.sandbox("web"))
        .await
        .unwrap();
    let broken = ContainerSpec {
        command: vec!["/nosuch".to_owned()],
        ..bed.container("web", "app", "")
    };
    for runtime in [bed.runtime.clone(), bed.reopened().await] {
        let fault = runtime.start_container(&broken).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Rejected, "{fault}");
        assert!(
            fault.message.contains("container app of pod default/web"),
            "{fault}"
        );
    }
    let id = bed.id_of("web", "app").await;
    assert_eq!(bed.state(&id).await, ContainerState::Created);
    assert_eq!(bed.containers().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_container_with_the_name_of_a_pods_container_is_not_touched() {
    let bed = Bed::new().await;
    let uid = bed.identity("web").uid;
    let name = format!("windlass_app_web_default_{}_0", &uid.as_str()[..8]);
    let foreign = docker(&["create", "--name", &name, &bed.image, "sh"]);
    let id = bed.pod("web", "exec sleep 1000").await;
    let own_name = docker(&["inspect", "-f", "{{.Name}}", id.as_str()]);
    assert_eq!(own_name, format!("/{name}_{}", &foreign[..8]));
    bed.reopened()
        .await
        .start_container(&bed.container("web", "app", "exec sleep 1000"))
        .await
        .unwrap();
    assert_eq!(
        bed.containers().len(),
        2,
        "the container was created again, although it exists under its second name"
    );
    assert_eq!(docker(&["rm", &foreign]), foreign);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_from_the_end_and_followed() {
    let bed = Bed::new().await;
    let id = bed
        .pod("web", "echo one; echo two >&2; echo three; exec sleep 1000")
        .await;
    let read = async |options: LogOptions, lines: usize| {
        let stream = bed.runtime.logs(&id, options).await.unwrap();
        let parts: Vec<_> = stream
            .take(lines)
            .map(|part| String::from_utf8(part.unwrap().to_vec()).unwrap())
            .collect()
            .await;
        parts
    };
    let followed = read(
        LogOptions {
            follow: true,
            ..LogOptions::default()
        },
        3,
    )
    .await;
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines.concat()
    };
    assert_eq!(sorted(followed), "one\nthree\ntwo\n");
    let end = read(
        LogOptions {
            tail: Some(1),
            timestamps: true,
            ..LogOptions::default()
        },
        9,
    )
    .await
    .concat();
    assert_eq!(end.lines().count(), 1);
    assert!(end.starts_with("20") && end.contains('T'), "{end}");
    assert_eq!(
        sorted(read(LogOptions::default(), 9).await),
        "one\nthree\ntwo\n"
    );
}
