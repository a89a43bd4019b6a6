//! The engine: unreachable, reachable again, hanging on one container; its facts; and uninstall.

use std::time::{Duration, Instant};

use reconciler::{fault::FaultKind, observed::ContainerState};

use crate::{
    bed::{Bed, docker, stop, within},
    proxy::Proxy,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_engine_is_a_fault_and_is_observed_again_when_it_answers() {
    let sockets = tempfile::tempdir().unwrap();
    let socket = sockets.path().join("docker.sock");
    let bed = Bed::with(|config| config.socket = socket.clone()).await;
    let fault = bed.runtime.observe().await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::EngineUnreachable, "{fault}");

    let mut changed = bed.runtime.changed();
    changed.mark_unchanged();
    let proxy = Proxy::start(&socket);
    within("the connection to the engine", changed.changed())
        .await
        .unwrap();
    let id = bed.pod("web", "exec sleep 1000").await;

    drop(proxy);
    let lost = within("a fault after the loss of the engine", async {
        loop {
            if let Err(fault) = bed.runtime.observe().await {
                return fault;
            }
            changed.changed().await.unwrap();
        }
    })
    .await;
    assert_eq!(lost.kind, FaultKind::EngineUnreachable);
    docker(&["kill", id.as_str()]);
    let _proxy = Proxy::start(&socket);
    within("the engine to answer again", async {
        loop {
            if let Ok(observed) = bed.runtime.observe().await {
                // The container ended while no event could be received.
                assert!(matches!(
                    observed.containers[&id].state,
                    ContainerState::Exited { code: 137, .. }
                ));
                return;
            }
            changed.changed().await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_on_one_container_does_not_block_the_others() {
    let sockets = tempfile::tempdir().unwrap();
    let socket = sockets.path().join("docker.sock");
    let proxy = Proxy::start(&socket);
    let bed = Bed::with(|config| {
        config.socket = socket.clone();
        config.call_timeout = Duration::from_secs(1);
        config.start_timeout = Duration::from_secs(2);
    })
    .await;
    let stuck = bed.pod("stuck", "exec sleep 1000").await;
    let responsive = bed
        .pod(
            "responsive",
            "trap 'exit 0' TERM; while :; do sleep 0.1; done",
        )
        .await;
    proxy.ignore(stuck.as_str());

    // A daemon that starts now has never inspected the stuck container, and must still observe it.
    // The first observation waits for the call's time-out, and the next must not.
    let next_daemon = bed.reopened().await;
    for limit in [5.0, 0.5] {
        let begun = Instant::now();
        let observed = next_daemon.observe().await.unwrap();
        assert!(
            begun.elapsed().as_secs_f32() < limit,
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(observed.containers.len(), 4);
        assert!(observed.containers[&stuck].state.is_alive());
        next_daemon.resync();
    }

    let grace = Duration::from_secs(3);
    let stop_stuck = [stop(&stuck, grace)];
    let stop_responsive = [stop(&responsive, grace)];
    let (stuck_stopped, responsive_took) = tokio::join!(bed.runtime.stop(&stop_stuck), async {
        let begun = Instant::now();
        bed.runtime.stop(&stop_responsive).await.unwrap();
        begun.elapsed()
    });
    assert_eq!(
        stuck_stopped.unwrap_err().kind,
        FaultKind::EngineUnreachable
    );
    assert!(
        responsive_took < Duration::from_secs(3),
        "{responsive_took:?}"
    );

    docker(&["kill", stuck.as_str()]);
    proxy.ignore("nothing");
    bed.until(&stuck, |container| {
        container.is_some_and(|container| !container.state.is_alive())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn engine_info_is_that_of_the_docker_client() {
    let bed = Bed::new().await;
    let info = bed.runtime.engine_info().await.unwrap();
    assert_eq!(
        info.version,
        docker(&["version", "-f", "{{.Server.Version}}"])
    );
    assert_eq!(info.storage_driver, docker(&["info", "-f", "{{.Driver}}"]));
    assert!(info.api_version.starts_with("1."), "{}", info.api_version);
    assert!(info.disk_used_percent.is_some_and(|percent| percent <= 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_removes_containers_mounts_and_files() {
    let bed = Bed::new().await;
    bed.pod("one", "exec sleep 1000").await;
    bed.pod("two", "exit 1").await;
    assert_eq!(bed.runtime.uninstall().await.unwrap(), 4);
    assert!(bed.containers().is_empty());
    assert!(!bed.config.pods_dir.exists());
    assert_eq!(bed.mounts(), 0);
    assert!(bed.runtime.observe().await.unwrap().containers.is_empty());
    assert_eq!(bed.runtime.uninstall().await.unwrap(), 0);
}
