//! The life cycle of containers: signals, hooks, observed states and termination messages.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use reconciler::{
    fault::FaultKind,
    foreign::ForeignText,
    object::Handler,
    observed::{ContainerState, ObservedContainer},
    plan::{ContainerSpec, StopSpec, VolumeFiles},
};

use runtime::{LastOutputs, Runtime};

use crate::bed::{Bed, docker, stop, volume_mount, within};

fn exec(script: &str) -> Handler {
    Handler::Exec {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_stop_at_the_same_time_and_are_killed_if_they_ignore_the_signal() {
    let bed = Bed::new().await;
    let ignoring = bed
        .pod("ignoring", "trap '' TERM; while :; do sleep 0.1; done")
        .await;
    let exiting = bed
        .pod("exiting", "trap 'exit 7' TERM; while :; do sleep 0.1; done")
        .await;
    let begun = Instant::now();
    let grace = Duration::from_secs(2);
    bed.runtime
        .stop(&[stop(&ignoring, grace), stop(&exiting, grace)])
        .await
        .unwrap();
    assert!(
        (2.0..6.0).contains(&begun.elapsed().as_secs_f32()),
        "{:?}",
        begun.elapsed()
    );
    let observed = bed.runtime.observe().await.unwrap();
    let code = |id| match &observed.containers[id].state {
        ContainerState::Exited { code, .. } => *code,
        other => panic!("{other:?}"),
    };
    assert_eq!((code(&ignoring), code(&exiting)), (137, 7));
    // Stop and remove are idempotent, also for a container that is gone.
    bed.runtime.stop(&[stop(&ignoring, grace)]).await.unwrap();
    bed.runtime
        .remove(&[ignoring.clone(), exiting])
        .await
        .unwrap();
    bed.runtime
        .remove(std::slice::from_ref(&ignoring))
        .await
        .unwrap();
    bed.runtime.stop(&[stop(&ignoring, grace)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_a_grace_period_is_killed_at_once() {
    let bed = Bed::new().await;
    let id = bed
        .pod("ignoring", "trap '' TERM; while :; do sleep 0.1; done")
        .await;
    let begun = Instant::now();
    bed.runtime
        .stop(&[stop(&id, Duration::ZERO)])
        .await
        .unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pre_stop_hook_runs_before_the_signal_and_inside_the_grace_period() {
    let bed = Bed::new().await;
    let volume = VolumeFiles::EmptyDir {
        name: "notes".to_owned(),
        memory: false,
        size_limit: None,
        group: None,
    };
    bed.runtime
        .prepare_files(&bed.files("web", vec![volume]))
        .await
        .unwrap();
    bed.runtime
        .start_sandbox(&bed.sandbox("web"))
        .await
        .unwrap();
    let script = "trap 'echo term >> /notes/order; exit 0' TERM; touch /notes/up; while :; do sleep 0.1; done";
    for name in ["quick", "endless"] {
        let spec = ContainerSpec {
            mounts: vec![volume_mount("notes", "/notes")],
            ..bed.container("web", name, script)
        };
        bed.runtime.start_container(&spec).await.unwrap();
    }
    let notes = bed
        .config
        .pods_dir
        .join(bed.identity("web").uid.as_str())
        .join("volumes/notes");
    crate::bed::within("the trap to be set", async {
        while !notes.join("up").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let spec = |id, hook, seconds| StopSpec {
        container: id,
        pre_stop: Some(exec(hook)),
        address: Ipv4Addr::LOCALHOST,
        grace: Duration::from_secs(seconds),
    };
    let quick = bed.id_of("web", "quick").await;
    bed.runtime
        .stop(&[spec(quick, "echo hook >> /notes/order", 20)])
        .await
        .unwrap();
    assert_eq!(
        std::fs::read_to_string(notes.join("order")).unwrap(),
        "hook\nterm\n"
    );

    let endless = bed.id_of("web", "endless").await;
    let begun = Instant::now();
    bed.runtime
        .stop(&[spec(endless.clone(), "sleep 1000", 1)])
        .await
        .unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
    let state = bed.state(&endless).await;
    assert!(
        matches!(state, ContainerState::Exited { code: 0, .. }),
        "the container did not get the signal after its hook: {state:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_start_hook_that_fails_kills_its_container() {
    let bed = Bed::new().await;
    let id = bed.pod("web", "exec sleep 1000").await;
    bed.runtime
        .post_start(&id, &exec("true"), Ipv4Addr::LOCALHOST)
        .await
        .unwrap();
    let fault = bed
        .runtime
        .post_start(&id, &exec("echo no; exit 3"), Ipv4Addr::LOCALHOST)
        .await
        .unwrap_err();
    assert_eq!(fault.kind, FaultKind::HookFailed);
    assert!(fault.message.contains("exit code 3: no"), "{fault}");
    assert!(matches!(
        bed.state(&id).await,
        ContainerState::Exited { .. }
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_container_are_observed_by_events_alone() {
    let bed = Bed::new().await;
    let id = bed.pod("web", "exec sleep 1000").await;
    let state = |condition: fn(&ContainerState) -> bool| {
        move |container: Option<&reconciler::observed::ObservedContainer>| {
            container.is_some_and(|container| condition(&container.state))
        }
    };
    bed.until(
        &id,
        state(|state| matches!(state, ContainerState::Running { .. })),
    )
    .await;
    docker(&["pause", id.as_str()]);
    bed.until(
        &id,
        state(|state| matches!(state, ContainerState::Paused { .. })),
    )
    .await;
    bed.runtime.unpause(&id).await.unwrap();
    bed.runtime.unpause(&id).await.unwrap();
    bed.until(
        &id,
        state(|state| matches!(state, ContainerState::Running { .. })),
    )
    .await;
    docker(&["kill", id.as_str()]);
    bed.until(
        &id,
        state(|state| {
            matches!(
                state,
                ContainerState::Exited {
                    code: 137,
                    oom: false,
                    ..
                }
            )
        }),
    )
    .await;
    docker(&["rm", id.as_str()]);
    bed.until(&id, |container| container.is_none()).await;
    bed.runtime.resync();
    let observed = bed.runtime.observe().await.unwrap();
    assert_eq!(observed.containers.len(), 1, "only the sandbox remains");
    assert!(observed.images.contains(&bed.image_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_of_an_ended_container_comes_from_its_file_or_its_log() {
    let bed = Bed::new().await;
    bed.runtime
        .start_sandbox(&bed.sandbox("web"))
        .await
        .unwrap();
    let file = bed.container(
        "web",
        "file",
        "echo from file > /dev/termination-log; exit 2",
    );
    let logs = ContainerSpec {
        message_from_logs: true,
        ..bed.container("web", "logs", "echo from log; exit 3")
    };
    let succeeded = ContainerSpec {
        message_from_logs: true,
        ..bed.container("web", "succeeded", "echo from log; exit 0")
    };
    for (spec, expected) in [
        (file, (2, "from file")),
        (logs, (3, "from log")),
        (succeeded, (0, "")),
    ] {
        bed.runtime.start_container(&spec).await.unwrap();
        let id = bed.id_of("web", &spec.name).await;
        let ended = |container: Option<&reconciler::observed::ObservedContainer>| {
            container.is_some_and(|container| !container.state.is_alive())
        };
        let ContainerState::Exited { code, message, .. } =
            bed.until(&id, ended).await.unwrap().state
        else {
            panic!("{} has not ended", spec.name)
        };
        assert_eq!((code, message.as_str()), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_exceeds_its_memory_limit_is_observed_as_oom_killed() {
    let bed = Bed::new().await;
    bed.runtime
        .start_sandbox(&bed.sandbox("web"))
        .await
        .unwrap();
    let mut spec = bed.container("web", "app", "exec busybox tail /dev/zero");
    spec.resources.memory_limit_bytes = Some(16 << 20);
    bed.runtime.start_container(&spec).await.unwrap();
    let id = bed.id_of("web", "app").await;
    let ended = |container: Option<&reconciler::observed::ObservedContainer>| {
        container.is_some_and(|container| !container.state.is_alive())
    };
    let state = bed.until(&id, ended).await.unwrap().state;
    assert!(
        matches!(
            state,
            ContainerState::Exited {
                code: 137,
                oom: true,
                ..
            }
        ),
        "{state:?}"
    );
}

/// Waits until the outputs of these pods are known, newest first.
async fn outputs_of(runtime: &Runtime, pods: &[&str]) -> LastOutputs {
    let mut outputs = runtime.last_outputs();
    let are_all = |outputs: &LastOutputs| outputs.iter().map(|one| &one.pod.name).eq(pods);
    within("outputs", outputs.wait_for(are_all))
        .await
        .unwrap()
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_lines_of_a_failed_container_are_kept_also_if_it_is_removed_at_once() {
    let bed = Bed::new().await;
    let _subscribed = bed.runtime.last_outputs();
    let ended = |container: Option<&ObservedContainer>| {
        container.is_some_and(|found| matches!(found.state, ContainerState::Exited { .. }))
    };
    for (pod, script) in [
        ("good", "echo all is well"),
        ("stopped", "echo stopped; exit 143"),
        // The engine reads the two outputs of a container in any order.
        (
            "bad",
            "exec >&2; echo reading; echo fatal: no key; echo; exit 3",
        ),
        ("worse", "exit 4"),
    ] {
        let id = bed.pod(pod, script).await;
        bed.until(&id, ended).await;
        bed.runtime.remove(&[id]).await.unwrap();
    }
    let outputs = outputs_of(&bed.runtime, &["worse", "bad"]).await;
    assert_eq!((outputs[0].code, outputs[1].code), (4, 3));
    assert!(outputs[0].lines.is_empty(), "{outputs:?}");
    let lines = outputs[1].lines.iter().map(ForeignText::as_str);
    assert_eq!(lines.collect::<Vec<_>>(), ["reading", "fatal: no key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_containers_printed_is_read_again_by_the_next_daemon() {
    let bed = Bed::new().await;
    let id = bed.pod("bad", "echo fatal: no key; exit 3").await;
    let ended = |container: Option<&ObservedContainer>| {
        container.is_some_and(|found| matches!(found.state, ContainerState::Exited { .. }))
    };
    bed.until(&id, ended).await;

    let reopened = bed.reopened().await;
    let _subscribed = reopened.last_outputs();
    reopened.observe().await.unwrap();
    reopened.outputs_are_read().await;
    let outputs = outputs_of(&reopened, &["bad"]).await;
    assert_eq!(outputs[0].lines[0].as_str(), "fatal: no key");

    // A removed container leaves nothing to read, and what was kept is restored.
    bed.runtime.remove(&[id]).await.unwrap();
    let restored = bed.reopened().await;
    let _subscribed = restored.last_outputs();
    restored.restore_outputs(outputs.to_vec());
    restored.observe().await.unwrap();
    assert_eq!(outputs_of(&restored, &["bad"]).await, outputs);
}
