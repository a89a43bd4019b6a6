//! What takes the place of a workload under another name, or of a Pod under its own, costs its
//! clients nothing that can be had.

use std::time::{Duration, Instant};

use crate::manifest::{APP, APP_2, deployment, deployment_with, pod, service, shell, shell_with};
use crate::support::{MAY_DELETE, Poller, SOON, Site, assert_all_answered, eventually, is};

/// The Service `web`, and which pods it is for.
fn web_for(app: &str) -> String {
    service("web").replace("{app: web}", &format!("{{app: {app}}}"))
}

/// Pushes what takes the place of all there is.
fn push(site: &Site, workload: &str, app: &str) -> String {
    let files = [("web.yaml", workload), ("service.yaml", &web_for(app))];
    site.push(&files, &format!("rename it to {app}{MAY_DELETE}"))
}

/// Waits until a commit was given up for another one, as long as three restarts take with their
/// back-offs.
fn wait_given_up(site: &mut Site, from: &str, to: &str) {
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
fn renamed_workloads_and_changed_selectors_fail_no_request_also_where_they_are_broken() {
    let mut site = Site::started("");
    site.deploy(&[
        ("web.yaml", &deployment("web", 2, APP)),
        ("service.yaml", &web_for("web")),
    ]);
    let client = Poller::start(site.host.network.namespace(), &site.node_url("/"));

    // Another name, with labels of its own.
    let renamed = push(&site, &deployment("site", 2, APP_2), "site");
    site.wait_healthy(&renamed);
    site.wait_answer("/", "app 2 site-");
    eventually(SOON, "the old one is gone", || {
        site.running_of("web-").is_empty()
    });
    assert_all_answered(&client.answers());

    // Only the Service changes what it selects; the workload of before stays.
    let green = deployment("green", 1, APP);
    let files = [
        ("green.yaml", green.as_str()),
        ("service.yaml", &web_for("green")),
    ];
    let selected = site.deploy(&files);
    site.wait_answer("/", "app 1 green-");
    assert_all_answered(&client.answers());

    // A rename that crashes, and one that is never ready.
    let silent = shell_with(
        "sleep 1000",
        "readinessProbe: {exec: {command: [\"false\"]}, periodSeconds: 1}",
    );
    let impatient = deployment_with("silent", 1, &silent, "progressDeadlineSeconds: 8");
    let crashing = deployment("crashing", 1, &shell("exit 1"));
    for (app, broken) in [("silent", &impatient), ("crashing", &crashing)] {
        let files = [
            ("green.yaml", broken.as_str()),
            ("service.yaml", &web_for(app)),
        ];
        let commit = site.push(&files, &format!("break it{MAY_DELETE}"));
        wait_given_up(&mut site, &commit, &selected);
        site.wait_answer("/", "app 1 green-");
        eventually(SOON, "nothing of it is left", || {
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
    let patient = |container| pod("web", container).replace("Seconds: 2", "Seconds: 40");
    site.deploy(&[
        ("web.yaml", &patient(APP)),
        ("service.yaml", &service("web")),
    ]);
    let client = Poller::start(site.host.network.namespace(), &site.node_url("/"));
    let next = site.push(&[("web.yaml", &patient(APP_2))], "the next");
    site.wait_healthy(&next);
    site.wait_answer("/", "app 2 web");
    let answers = client.finish();
    assert!(
        answers.longest_gap < DRAIN / 2,
        "nobody answered for {:?}",
        answers.longest_gap
    );
}
