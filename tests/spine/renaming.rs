//! Workloads that are replaced under another name, and a Pod that is replaced under its own:
//! clients lose no request that need not be lost.

use std::time::{Duration, Instant};

use crate::manifest::{APP, APP_2, deployment, deployment_with, pod, service, shell, shell_with};
use crate::support::{MAY_DELETE, Poller, SOON, Site, assert_all_answered, eventually, is};

/// The Service `web` for the pods of another app.
fn web_for(app: &str) -> String {
    service("web").replace("{app: web}", &format!("{{app: {app}}}"))
}

/// Pushes a workload in place of the one before, with the Service for its pods.
fn push(site: &Site, workload: &str, app: &str) -> String {
    let files = [("web.yaml", workload), ("service.yaml", &web_for(app))];
    site.push(&files, &format!("rename the workload to {app}{MAY_DELETE}"))
}

/// Waits until a commit is rolled back to another, for as long as three restarts take with their
/// back-offs.
fn wait_rolled_back_after_restarts(site: &mut Site, from: &str, to: &str) {
    let begin = Instant::now();
    while !is(&site.status()["rollback"]["from"], from) {
        assert!(
            begin.elapsed() < SOON * 3,
            "{from} is not rolled back: {:#}",
            site.status()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    site.wait_rolled_back(from, to);
}

#[test]
fn renamed_workloads_and_changed_selectors_lose_no_request_even_if_their_commit_fails() {
    let mut site = Site::started("");
    site.deploy(&[
        ("web.yaml", &deployment("web", 2, APP)),
        ("service.yaml", &web_for("web")),
    ]);
    let client = Poller::start(site.host.network.namespace(), &site.node_url("/"));

    // The workload gets another name and other labels.
    let renamed = push(&site, &deployment("site", 2, APP_2), "site");
    site.wait_healthy(&renamed);
    site.wait_answer("/", "app 2 site-");
    eventually(SOON, "the pods of the old workload are gone", || {
        site.running_of("web-").is_empty()
    });
    assert_all_answered(&client.answers());

    // The Service selects a new workload, and the workload of before stays.
    let green = deployment("green", 1, APP);
    let files = [
        ("green.yaml", green.as_str()),
        ("service.yaml", &web_for("green")),
    ];
    let selected = site.deploy(&files);
    site.wait_answer("/", "app 1 green-");
    assert_all_answered(&client.answers());

    // One renamed workload is never ready, and one crashes.
    let never_ready = shell_with(
        "sleep 1000",
        "readinessProbe: {exec: {command: [\"false\"]}, periodSeconds: 1}",
    );
    let unready = deployment_with("unready", 1, &never_ready, "progressDeadlineSeconds: 8");
    let crashing = deployment("crashing", 1, &shell("exit 1"));
    for (app, broken) in [("unready", &unready), ("crashing", &crashing)] {
        let files = [
            ("green.yaml", broken.as_str()),
            ("service.yaml", &web_for(app)),
        ];
        let commit = site.push(&files, &format!("break the workload{MAY_DELETE}"));
        wait_rolled_back_after_restarts(&mut site, &commit, &selected);
        site.wait_answer("/", "app 1 green-");
        eventually(SOON, "the pods of the failed commit are gone", || {
            site.running_of(app).is_empty()
        });
        assert_all_answered(&client.answers());
    }
    assert_all_answered(&client.finish());
}

#[test]
fn a_pod_that_is_replaced_serves_while_it_drains() {
    const DRAIN: Duration = Duration::from_secs(10);
    let mut site = Site::started("[network]\ndrain-delay = '10s'");
    let long_grace = |container| pod("web", container).replace("Seconds: 2", "Seconds: 40");
    site.deploy(&[
        ("web.yaml", &long_grace(APP)),
        ("service.yaml", &service("web")),
    ]);
    let client = Poller::start(site.host.network.namespace(), &site.node_url("/"));
    let next = site.push(&[("web.yaml", &long_grace(APP_2))], "the next");
    site.wait_healthy(&next);
    site.wait_answer("/", "app 2 web");
    let answers = client.finish();
    assert!(
        answers.longest_gap < DRAIN / 2,
        "no request was answered for {:?}",
        answers.longest_gap
    );
}
