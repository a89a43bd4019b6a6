#![expect(clippy::unwrap_used, reason = "a test")]

use reconciler::{
    name::{ImageReference, ObjectKey, TemplateHash},
    object::{ContainerSecurity, Resources},
    plan::PodIdentity,
};

use super::*;
use crate::ids::commit_id;

fn identity() -> PodIdentity {
    PodIdentity {
        uid: PodUid::new("uid-1"),
        pod: ObjectKey::new("default", "web"),
        owner: "Pod/default/web".parse().unwrap(),
        commit: commit_id("0123"),
        template: TemplateHash::new("1-0123"),
    }
}

fn container(attempt: u32, image: &ImageId) -> ContainerSpec {
    ContainerSpec {
        identity: identity(),
        role: Role::Main,
        name: "app".to_owned(),
        attempt,
        image: image.clone(),
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

#[tokio::test]
async fn the_fake_keeps_the_rules_of_the_real_runtime() {
    let directory = tempfile::tempdir().unwrap();
    let host = FakeRuntime::new(|| Timestamp::UNIX_EPOCH, directory.path());
    let image = ImageId::new("sha256:1");
    let kind = |result: Result<(), Fault>| result.unwrap_err().kind;
    assert_eq!(
        kind(host.start_container(&container(0, &image)).await),
        FaultKind::Gone,
        "there is no sandbox yet"
    );
    let sandbox = SandboxSpec {
        identity: identity(),
        attempt: 0,
        hostname: "web".to_owned(),
        host_network: false,
        host_ipc: false,
        sysctls: Default::default(),
    };
    host.start_sandbox(&sandbox).await.unwrap();
    host.start_sandbox(&sandbox).await.unwrap();
    assert_eq!(
        kind(host.start_container(&container(0, &image)).await),
        FaultKind::Gone,
        "there is no image yet"
    );
    assert_eq!(
        host.pull("httpd:2", PullMode::Always)
            .await
            .unwrap_err()
            .kind,
        FaultKind::ImageMissing
    );
    host.publish("httpd:2", image.clone());
    let pin = host.pull("httpd:2", PullMode::IfNotPresent).await.unwrap();
    assert_eq!(
        host.pull(&pin.digest.clone().unwrap(), PullMode::Never)
            .await
            .unwrap(),
        pin
    );
    host.start_container(&container(0, &image)).await.unwrap();
    host.start_container(&container(0, &image)).await.unwrap();
    let observed = host.observe().await.unwrap().containers;
    assert_eq!(observed.len(), 2);
    let id = observed
        .into_iter()
        .find(|(_, container)| container.name == "app")
        .unwrap()
        .0;
    host.exit(&id, 1);
    assert_eq!(
        kind(host.start_container(&container(0, &image)).await),
        FaultKind::Gone,
        "the container has already run"
    );
    host.fail_next("start_container", Fault::new(FaultKind::DiskFull, "full"));
    assert_eq!(
        kind(host.start_container(&container(1, &image)).await),
        FaultKind::DiskFull
    );
    host.start_container(&container(1, &image)).await.unwrap();
    assert_eq!(host.observe().await.unwrap().containers.len(), 3);
}
