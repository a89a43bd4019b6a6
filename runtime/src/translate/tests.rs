#![expect(clippy::unwrap_used, reason = "a test")]

use reconciler::{
    name::{ImageId, ImageReference, Installation, ObjectKey, PodUid, TemplateHash},
    object::Sensitive,
    plan::PodIdentity,
};

use super::*;
use crate::ids::commit_id;

fn identity() -> PodIdentity {
    PodIdentity {
        uid: PodUid::new("0b5e8f4c-6c1e-4f7e-9a53-1f6a3d1f0001"),
        pod: ObjectKey::new("default", "web"),
        owner: "Pod/default/web".parse().unwrap(),
        commit: commit_id("0123456789abcdef"),
        template: TemplateHash::new("1-9f86d081884c7d65"),
    }
}

fn host() -> Host {
    Host {
        installation: Installation::new("here"),
        cgroup_parent: None,
        memory_bytes: 8 << 30,
        lowest_oom_score: -1000,
        logs: LogBounds::default(),
    }
}

fn spec() -> ContainerSpec {
    ContainerSpec {
        identity: identity(),
        role: Role::Main,
        name: "app".to_owned(),
        attempt: 1,
        image: ImageId::new("sha256:1234"),
        image_name: ImageReference::new("httpd:2"),
        command: vec![],
        args: vec![],
        working_dir: None,
        env: vec![],
        mounts: vec![],
        resources: Resources::default(),
        host_pid: false,
        stdin: false,
        tty: false,
        security: ContainerSecurity::default(),
        stop_signal: None,
        termination_message_path: String::new(),
        message_from_logs: false,
    }
}

/// The container without its labels, which have tests of their own; keys are sorted.
fn printed((_, body): (Labels, ContainerCreateBody)) -> String {
    let mut value = serde_json::to_value(body).unwrap();
    value.as_object_mut().unwrap().remove("Labels");
    serde_json::to_string_pretty(&value).unwrap()
}

fn translated(spec: &ContainerSpec) -> ContainerCreateBody {
    let sandbox = ContainerId::new("sandbox");
    container(spec, &sandbox, vec![], None, LogDriver::Files, &host()).1
}

#[test]
fn a_sandbox_has_an_empty_network_and_is_stopped_by_sigkill() {
    let spec = SandboxSpec {
        identity: identity(),
        attempt: 0,
        hostname: "web".to_owned(),
        host_network: false,
        host_ipc: false,
        sysctls: [(
            "net.ipv4.ip_unprivileged_port_start".to_owned(),
            "0".to_owned(),
        )]
        .into(),
    };
    insta::assert_snapshot!(printed(sandbox(&spec, "windlass-pause:1", &host())), @r#"
    {
      "Entrypoint": [
        "/pause"
      ],
      "Healthcheck": {
        "Test": [
          "NONE"
        ]
      },
      "HostConfig": {
        "CapDrop": [
          "ALL"
        ],
        "CpuShares": 2,
        "IpcMode": "shareable",
        "LogConfig": {
          "Type": "none"
        },
        "MaskedPaths": [],
        "Memory": 33554432,
        "MemorySwap": 33554432,
        "NetworkMode": "none",
        "OomScoreAdj": -998,
        "ReadonlyPaths": [],
        "ReadonlyRootfs": true,
        "RestartPolicy": {
          "Name": "no"
        },
        "SecurityOpt": [
          "no-new-privileges",
          "seccomp=unconfined"
        ],
        "Sysctls": {
          "net.ipv4.ip_unprivileged_port_start": "0"
        }
      },
      "Hostname": "web",
      "Image": "windlass-pause:1",
      "NetworkDisabled": true,
      "StopSignal": "SIGKILL"
    }
    "#);
}

#[test]
fn a_container_joins_the_sandbox_and_has_all_requested_settings() {
    let mut spec = ContainerSpec {
        command: vec!["/bin/app".to_owned()],
        args: vec!["-v".to_owned()],
        working_dir: Some("/srv".to_owned()),
        env: vec![("A".to_owned(), Sensitive::new("b=c".to_owned()))],
        host_pid: true,
        stdin: true,
        tty: true,
        stop_signal: Some("SIGINT".to_owned()),
        ..spec()
    };
    spec.resources = Resources {
        cpu_request_milli: Some(250),
        cpu_limit_milli: Some(500),
        memory_request_bytes: Some(1 << 30),
        memory_limit_bytes: Some(2 << 30),
    };
    spec.security = ContainerSecurity {
        privileged: false,
        run_as_user: Some(1000),
        run_as_group: Some(2000),
        run_as_non_root: false,
        groups: vec![3000, 4000],
        read_only_root: true,
        no_new_privileges: true,
        add_capabilities: vec!["NET_ADMIN".to_owned()],
        drop_capabilities: vec!["ALL".to_owned()],
    };
    let mounts = vec![
        BoundMount {
            source: "/data/pods/x/volumes/a".to_owned(),
            target: "/a".to_owned(),
            read_only: true,
            propagation: MountPropagation::None,
        },
        BoundMount {
            source: "/mnt:odd".to_owned(),
            target: "/mnt".to_owned(),
            read_only: false,
            propagation: MountPropagation::Bidirectional,
        },
    ];
    let sandbox = ContainerId::new("sandbox");
    let container = container(&spec, &sandbox, mounts, None, LogDriver::Files, &host());
    insta::assert_snapshot!(printed(container), @r#"
    {
      "Cmd": [
        "-v"
      ],
      "Entrypoint": [
        "/bin/app"
      ],
      "Env": [
        "A=b=c"
      ],
      "Healthcheck": {
        "Test": [
          "NONE"
        ]
      },
      "HostConfig": {
        "CapAdd": [
          "NET_ADMIN"
        ],
        "CapDrop": [
          "ALL"
        ],
        "CpuShares": 256,
        "GroupAdd": [
          "3000",
          "4000"
        ],
        "IpcMode": "container:sandbox",
        "LogConfig": {
          "Config": {
            "max-file": "3",
            "max-size": "10485760"
          },
          "Type": "json-file"
        },
        "Memory": 2147483648,
        "MemorySwap": 2147483648,
        "Mounts": [
          {
            "BindOptions": {
              "Propagation": "rprivate",
              "ReadOnlyNonRecursive": true
            },
            "ReadOnly": true,
            "Source": "/data/pods/x/volumes/a",
            "Target": "/a",
            "Type": "bind"
          },
          {
            "BindOptions": {
              "Propagation": "rshared"
            },
            "ReadOnly": false,
            "Source": "/mnt:odd",
            "Target": "/mnt",
            "Type": "bind"
          }
        ],
        "NanoCpus": 500000000,
        "NetworkMode": "container:sandbox",
        "OomScoreAdj": 875,
        "PidMode": "host",
        "ReadonlyRootfs": true,
        "RestartPolicy": {
          "Name": "no"
        },
        "SecurityOpt": [
          "no-new-privileges"
        ]
      },
      "Image": "sha256:1234",
      "OpenStdin": true,
      "StopSignal": "SIGINT",
      "Tty": true,
      "User": "1000:2000",
      "WorkingDir": "/srv"
    }
    "#);
}

#[test]
fn unset_fields_are_left_to_the_image() {
    let body = translated(&spec());
    assert_eq!(
        (body.entrypoint, body.cmd, body.user, body.working_dir),
        (None, None, None, None)
    );
}

#[test]
fn a_command_without_args_clears_the_images_arguments() {
    let body = translated(&ContainerSpec {
        command: vec!["/x".to_owned()],
        ..spec()
    });
    assert_eq!(body.entrypoint, Some(vec!["/x".to_owned()]));
    assert_eq!(
        body.cmd, None,
        "the engine keeps the image's command only without an entry point of ours"
    );
}

#[test]
fn shares_and_oom_scores_follow_the_quality_of_service() {
    let resources = |cpu_request, cpu_limit, memory_request, memory_limit| Resources {
        cpu_request_milli: cpu_request,
        cpu_limit_milli: cpu_limit,
        memory_request_bytes: memory_request,
        memory_limit_bytes: memory_limit,
    };
    let host = 8 << 30;
    assert_eq!(oom_score(&resources(None, None, None, None), host), 1000);
    assert_eq!(
        oom_score(&resources(None, Some(100), None, Some(1 << 20)), host),
        -997
    );
    assert_eq!(
        oom_score(&resources(Some(100), None, Some(2 << 30), None), host),
        750
    );
    assert_eq!(
        oom_score(&resources(None, None, Some(9 << 30), None), host),
        3
    );
    assert_eq!(cpu_shares(None), 2);
    assert_eq!(cpu_shares(Some(1500)), 1536);
}

#[test]
fn a_logging_driver_that_somebody_has_chosen_is_kept() {
    let sandbox = ContainerId::new("sandbox");
    let (_, body) = container(&spec(), &sandbox, vec![], None, LogDriver::Chosen, &host());
    assert_eq!(body.host_config.unwrap().log_config, None);
}
