//! Updates of a Deployment: a rolling update loses no request and respects its bounds, and Recreate
//! never runs two versions.

use std::time::Instant;

use crate::manifest::{APP, APP_2, deployment_with, service};
use crate::support::{Poller, SOON, Site, assert_all_answered, is, is_ready};

/// The number of ready pods, and of all pods, among the pods that are not stopping.
fn count(site: &Site) -> (usize, usize) {
    let pods = site.pods();
    let active: Vec<_> = pods
        .values()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .collect();
    let ready = active.iter().filter(|pod| is_ready(pod)).count();
    (ready, active.len())
}

#[test]
fn a_rolling_update_loses_no_request_and_respects_its_bounds() {
    let mut site = Site::started("");
    let bounds = "strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}";
    site.deploy(&[
        ("web.yaml", &deployment_with("web", 4, APP, bounds)),
        ("service.yaml", &service("web")),
    ]);
    assert_eq!(count(&site), (4, 4));
    let clients =
        [(), ()].map(|()| Poller::start(site.host.network.namespace(), &site.node_url("/")));

    let next = site.push(
        &[("web.yaml", &deployment_with("web", 4, APP_2, bounds))],
        "the next",
    );
    let begin = Instant::now();
    let (mut least_ready, mut most) = (4, 0);
    loop {
        let (ready, active) = count(&site);
        least_ready = least_ready.min(ready);
        most = most.max(active);
        let status = site.status();
        if is(&status["healthy"]["id"], &next) {
            break;
        }
        assert!(begin.elapsed() < SOON, "{status:#}");
    }
    assert!(least_ready >= 3, "only {least_ready} of 4 pods were ready");
    assert!(most <= 5, "{most} pods existed with maxSurge 1");
    for client in clients {
        assert_all_answered(&client.finish());
    }
    site.wait_answer("/", "app 2 web-");
}

#[test]
fn a_recreated_deployment_never_runs_old_and_new_pods_at_the_same_time() {
    let mut site = Site::started("");
    let recreate = "strategy: {type: Recreate}";
    site.deploy(&[("web.yaml", &deployment_with("web", 2, APP, recreate))]);
    let next = site.push(
        &[("web.yaml", &deployment_with("web", 2, APP_2, recreate))],
        "the next",
    );
    let begin = Instant::now();
    loop {
        let images = site.host.docker(&["ps", "--format", "{{.Image}}"]);
        let has = |image: &str| images.lines().any(|line| line.contains(image));
        let ids = [
            site.host.inspect("windlass-test/app:1"),
            site.host.inspect("windlass-test/app:2"),
        ];
        let [old, new] = ids.map(|image| {
            image["Id"].as_str().unwrap().trim_start_matches("sha256:")[..12].to_owned()
        });
        let runs = |id: &str, name: &str| has(id) || has(name);
        assert!(
            !(runs(&old, "windlass-test/app:1") && runs(&new, "windlass-test/app:2")),
            "old and new pods run at the same time: {images}"
        );
        if is(&site.status()["healthy"]["id"], &next) {
            break;
        }
        assert!(begin.elapsed() < SOON, "the commit is not healthy in time");
    }
}
