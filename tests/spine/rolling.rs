//! A rolling update costs no request and keeps to its bounds.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Instant;

use crate::manifest::{APP, APP_2, deployment_with, service};
use crate::site::{SOON, Site, is};
use crate::support::eventually;

/// Asks the node port from another host again and again, and writes down every status code.
struct Client {
    process: Child,
    answers: PathBuf,
}

impl Client {
    fn start(site: &Site, name: &str) -> Client {
        let answers = site.host.dir().join(name);
        fs::write(&answers, "").unwrap();
        let script = format!(
            "while :; do curl -s -o /dev/null -w '%{{http_code}}\\n' --max-time 5 {} >> {}; done",
            site.url(),
            answers.display()
        );
        let process = site.host.network.command().args(["sh", "-c", &script]).spawn().unwrap();
        Client { process, answers }
    }

    fn answers(&self) -> Vec<String> {
        fs::read_to_string(&self.answers).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Pods of the Deployment that are ready, and those that are not stopping.
fn count(site: &Site) -> (usize, usize) {
    let pods = site.pods();
    let active: Vec<_> = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect();
    let ready = |pod: &&&serde_json::Value| {
        pod["status"]["conditions"].as_array().is_some_and(|conditions| {
            conditions.iter().any(|one| is(&one["type"], "Ready") && is(&one["status"], "True"))
        })
    };
    (active.iter().filter(ready).count(), active.len())
}

#[test]
fn a_rolling_update_fails_no_request_and_keeps_to_its_bounds() {
    let mut site = Site::start();
    let bounds = "strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}";
    site.deploy(&[("web.yaml", &deployment_with("web", 4, APP, bounds)), ("service.yaml", &service("web"))]);
    assert_eq!(count(&site), (4, 4));
    let clients = [Client::start(&site, "answers-1"), Client::start(&site, "answers-2")];

    let next = site.push(&[("web.yaml", &deployment_with("web", 4, APP_2, bounds))], "the next");
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
    let asked = clients[0].answers().len();
    eventually(SOON, "the clients go on", || clients[0].answers().len() > asked + 10);
    assert!(least_ready >= 3, "only {least_ready} of 4 were ready");
    assert!(most <= 5, "{most} ran, with a surge of one");
    for client in &clients {
        let answers = client.answers();
        let failed = answers.iter().filter(|code| *code != "200").count();
        assert_eq!(failed, 0, "{failed} of {} requests failed", answers.len());
    }
    site.wait_answer("app 2 web-");
}

#[test]
fn a_recreated_deployment_never_runs_old_and_new_side_by_side() {
    let mut site = Site::start();
    let recreate = "strategy: {type: Recreate}";
    site.deploy(&[("web.yaml", &deployment_with("web", 2, APP, recreate))]);
    let next = site.push(&[("web.yaml", &deployment_with("web", 2, APP_2, recreate))], "the next");
    let begin = Instant::now();
    loop {
        let images = site.host.docker(&["ps", "--format", "{{.Image}}"]);
        let has = |image: &str| images.lines().any(|line| line.contains(image));
        let ids = [site.host.inspect("windlass-test/app:1"), site.host.inspect("windlass-test/app:2")];
        let [old, new] =
            ids.map(|image| image["Id"].as_str().unwrap().trim_start_matches("sha256:")[..12].to_owned());
        let runs = |id: &str, name: &str| has(id) || has(name);
        assert!(
            !(runs(&old, "windlass-test/app:1") && runs(&new, "windlass-test/app:2")),
            "both run: {images}"
        );
        if is(&site.status()["healthy"]["id"], &next) {
            break;
        }
        assert!(begin.elapsed() < SOON, "the roll-out does not end");
    }
}
