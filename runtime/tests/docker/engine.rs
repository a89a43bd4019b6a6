//! The engine itself: away, back again, hanging; and leaving nothing behind on it.

use std::time::{Duration, Instant};

use reconciler::{fault::FaultKind, observed::ContainerState};

use crate::{
    bed::{Bed, docker, stop, within},
    proxy::Proxy,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_is_an_error_and_is_found_when_it_comes() {
    let sockets = tempfile::tempdir().unwrap();
    let socket = sockets.path().join("docker.sock");
    let bed = Bed::with(|config| config.socket = socket.clone()).await;
    let fault = bed.runtime.observe().await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::EngineUnreachable, "{fault}");

    let mut changed = bed.runtime.changed();
    changed.mark_unchanged();
    let proxy = Proxy::start(&socket);
    within("the engine to be found", changed.changed())
        .await
        .unwrap();
    let id = bed.pod("web", "exec sleep 1000").await;

    drop(proxy);
    let lost = within("the loss to be noticed", async {
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
    within("what was missed to be seen", async {
        loop {
            if let Ok(found) = bed.runtime.observe().await {
                assert!(matches!(
                    found.containers[&id].state,
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
    let well = bed
        .pod("well", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
        .await;
    proxy.swallow(stuck.as_str());

    // A daemon that starts now has never seen it, and must not take it for gone.
    let next_daemon = bed.reopened().await;
    for limit in [5.0, 0.5] {
        let begun = Instant::now();
        let found = next_daemon.observe().await.unwrap();
        assert!(
            begun.elapsed().as_secs_f32() < limit,
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(found.containers.len(), 4);
        assert!(found.containers[&stuck].state.is_alive());
        next_daemon.resync();
    }

    let grace = Duration::from_secs(3);
    let (one, other) = (stop(&stuck, grace), stop(&well, grace));
    let (one, other) = ([one], [other]);
    let (stuck_stopped, well_stopped) = tokio::join!(bed.runtime.stop(&one), async {
        let begun = Instant::now();
        bed.runtime.stop(&other).await.unwrap();
        begun.elapsed()
    });
    assert_eq!(
        stuck_stopped.unwrap_err().kind,
        FaultKind::EngineUnreachable
    );
    assert!(well_stopped < Duration::from_secs(3), "{well_stopped:?}");

    docker(&["kill", stuck.as_str()]);
    proxy.swallow("nothing");
    bed.until(&stuck, |found| found.is_some_and(|it| !it.state.is_alive()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_says_what_it_is() {
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
async fn uninstall_leaves_nothing() {
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
