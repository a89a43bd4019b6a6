//! Who a container runs as, what it may read and write, and what its pod sets.

use std::{fs, time::Duration};

use reconciler::{
    fault::FaultKind,
    object::{ContainerSecurity, Sensitive},
    observed::ContainerState,
    plan::{ContainerSpec, Mount, MountSource, SandboxSpec, VolumeFile, VolumeFiles},
};

use crate::{
    bed::{Bed, stop, volume_mount},
    pods::output,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_volumes_lets_another_user_than_root_write_and_read_them() {
    let bed = Bed::new().await;
    let token = VolumeFile {
        path: "token".to_owned(),
        content: Sensitive::new(b"s3cret".to_vec()),
        mode: 0o440,
    };
    let empty = |name: &str, memory| VolumeFiles::EmptyDir {
        name: name.to_owned(),
        memory,
        size_limit: None,
        group: Some(2000),
    };
    let volumes = vec![
        empty("disk", false),
        empty("memory", true),
        VolumeFiles::Files {
            name: "keys".to_owned(),
            memory: true,
            files: vec![token],
            group: Some(2000),
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
    let below = Mount {
        source: MountSource::Volume {
            volume: "disk".to_owned(),
            sub_path: Some("deep/er".to_owned()),
        },
        ..volume_mount("", "/below")
    };
    let security = ContainerSecurity {
        run_as_user: Some(1000),
        groups: vec![2000, 3000],
        ..ContainerSecurity::default()
    };
    let spec = ContainerSpec {
        mounts: vec![
            volume_mount("disk", "/disk"),
            volume_mount("memory", "/memory"),
            volume_mount("keys", "/keys"),
            below,
        ],
        security: security.clone(),
        ..bed.container("web", "app", "exec sleep 1000")
    };
    bed.runtime.start_container(&spec).await.unwrap();
    let id = bed.id_of("web", "app").await;
    assert_eq!(output(&bed, &id, "id -G").await, "0 2000 3000");
    for directory in ["/disk", "/memory", "/below"] {
        let script = format!("echo x >{directory}/x && stat -c '%u %g' {directory}/x");
        assert_eq!(output(&bed, &id, &script).await, "1000 2000", "{directory}");
    }
    assert_eq!(
        output(&bed, &id, "cat /keys/token; stat -Lc ' %g %a' /keys/token").await,
        "s3cret 2000 440"
    );
    let stranger = ContainerSpec {
        security: ContainerSecurity {
            groups: Vec::new(),
            ..security
        },
        name: "stranger".to_owned(),
        ..spec.clone()
    };
    bed.runtime.start_container(&stranger).await.unwrap();
    let id = bed.id_of("web", "stranger").await;
    let denied = "cat /keys/token 2>/dev/null || echo denied";
    // Without runAsGroup the group of the user is root's.
    assert_eq!(output(&bed, &id, denied).await, "denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_its_own_kernel_settings_and_its_container_its_own_signal() {
    let bed = Bed::new().await;
    let setting = "net.ipv4.ip_unprivileged_port_start";
    bed.runtime
        .prepare_files(&bed.files("web", vec![]))
        .await
        .unwrap();
    let sandbox = SandboxSpec {
        sysctls: [(setting.to_owned(), "80".to_owned())].into(),
        hostname: "web.shop.default.svc.cluster.local".to_owned(),
        ..bed.sandbox("web")
    };
    bed.runtime.start_sandbox(&sandbox).await.unwrap();
    let script = "trap 'exit 7' USR1; while :; do sleep 0.1; done";
    let spec = ContainerSpec {
        stop_signal: Some("SIGUSR1".to_owned()),
        ..bed.container("web", "app", script)
    };
    bed.runtime.start_container(&spec).await.unwrap();
    let id = bed.id_of("web", "app").await;
    let path = format!("/proc/sys/{}", setting.replace('.', "/"));
    assert_eq!(output(&bed, &id, &format!("cat {path}")).await, "80");
    assert_eq!(output(&bed, &id, "hostname").await, sandbox.hostname);
    assert_ne!(fs::read_to_string(&path).unwrap().trim(), "80");

    bed.runtime
        .stop(&[stop(&id, Duration::from_secs(20))])
        .await
        .unwrap();
    match bed.state(&id).await {
        ContainerState::Exited { code: 7, .. } => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_root_is_refused_where_root_must_not_run() {
    let bed = Bed::new().await;
    let non_root = ContainerSecurity {
        run_as_non_root: true,
        ..ContainerSecurity::default()
    };
    bed.runtime
        .prepare_files(&bed.files("web", vec![]))
        .await
        .unwrap();
    bed.runtime
        .start_sandbox(&bed.sandbox("web"))
        .await
        .unwrap();
    for (name, user, refused) in [
        ("root", None, Some("the image runs as root")),
        ("zero", Some("0:1000"), Some("the image runs as root")),
        (
            "name",
            Some("nobody"),
            Some("the image's user is the name \"nobody\""),
        ),
        ("number", Some("65534"), None),
    ] {
        let image = match user {
            None => bed.image_id.clone(),
            Some(user) => bed.image_with_user(name, user),
        };
        let spec = ContainerSpec {
            image,
            security: non_root.clone(),
            ..bed.container("web", name, "exec sleep 1000")
        };
        let started = bed.runtime.start_container(&spec).await;
        match (started, refused) {
            (Ok(_), None) => {}
            (Err(fault), Some(why)) => {
                assert_eq!(fault.kind, FaultKind::Rejected, "{fault}");
                assert!(fault.message.contains(why), "{fault}");
            }
            (started, _) => panic!("{name}: {started:?}"),
        }
    }
}
