//! Restarts of the daemon, of the engine and of the host.

use std::collections::BTreeSet;
use std::fs;

use crate::sample::{application, service};
use crate::support::{
    Container, MAY_DELETE, Poller, SOON, Site, assert_all_answered, eventually, is, text,
};

/// Two pods of one Deployment with a readiness probe, behind the sample's node port.
fn two_probed() -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web, tier: front}}}}
    spec:
      containers:
      - name: app
        image: windlass-test/app:1
        env: [{{name: APP, value: web}}]
        readinessProbe: {{httpGet: {{path: /health, port: 8080}}, periodSeconds: 1}}
---
{}",
        service()
    )
}

/// A site with the two pods running, and their commit.
fn running() -> (Site, String) {
    let mut site = Site::new("");
    let commit = site.push(&[("web.yaml", &two_probed())], "two pods");
    site.launch(&[]);
    site.wait_settled(&commit);
    site.wait_answer_inside("/", "web");
    (site, commit)
}

/// All containers, and the pods with their addresses.
fn running_state(site: &Site) -> (BTreeSet<Container>, Vec<(String, String)>) {
    (site.containers(), site.addresses().into_iter().collect())
}

/// The lines of the service table, sorted, because nft lists chains in the order in which they were
/// made.
fn table(site: &Site) -> Vec<String> {
    let listed = site
        .host
        .exec(&["nft", "list", "table", "ip", "windlass"])
        .ok();
    let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_restart_or_crash_of_the_daemon_changes_nothing_on_the_host() {
    let (mut site, commit) = running();
    let before = running_state(&site);
    let poller = Poller::start(site.host.namespace(), &site.node_url("/"));
    let table = table(&site);
    for killed in [false, true, false, true] {
        let daemon = site.take_daemon();
        if killed {
            daemon.kill9();
        } else {
            assert!(
                daemon.stop().success(),
                "the daemon must end with status 0 after TERM"
            );
        }
        site.launch(&[]);
        site.wait_settled(&commit);
        assert_eq!(running_state(&site), before, "killed: {killed}");
    }
    assert_eq!(self::table(&site), table);
    assert_all_answered(&poller.finish());
    site.assert_exactly(2, 4);
}

#[test]
fn after_a_restart_of_the_engine_the_pods_run_again_with_their_addresses() {
    let (mut site, commit) = running();
    let (_, addresses) = running_state(&site);
    let uids = uids(&site);

    site.host.restart_docker();
    // The status may still be that from before the restart, so the containers are observed first.
    eventually(SOON, "the containers of both pods run", || {
        let containers = site.containers();
        containers.len() == 4 && containers.iter().all(Container::is_running)
    });
    site.wait_settled(&commit);
    site.wait_answer_inside("/", "web");

    site.assert_exactly(2, 4);
    assert_eq!(running_state(&site).1, addresses);
    assert_eq!(self::uids(&site), uids, "the pods have other uids");
}

#[test]
fn pods_run_again_after_a_crash_of_the_engine() {
    let (mut site, commit) = running();
    site.host.kill_docker();
    site.wait_status("a trouble with the engine is published", |status| {
        status["troubles"].to_string().contains("engine")
    });
    site.host.start_docker();
    site.wait_settled(&commit);
    site.wait_answer_inside("/", "web");
    site.assert_exactly(2, 4);
}

fn uids(site: &Site) -> Vec<String> {
    site.pods()
        .values()
        .map(|pod| text(&pod["metadata"]["uid"]))
        .collect()
}

#[test]
fn a_rebooted_host_without_its_repository_runs_the_commit_on_its_own_disk() {
    let (mut site, commit) = running();
    let (_, addresses) = running_state(&site);
    let (here, away) = (site.repo.path(), site.repo.path().with_extension("away"));
    fs::rename(&here, &away).unwrap();
    site.take_daemon().kill9();

    site.host.reboot();
    assert_eq!(
        site.links().len() + site.routes().len(),
        0,
        "the test bed's reboot must remove links and routes"
    );
    site.launch(&[]);
    site.wait_status("the commit is healthy with two ready pods", |status| {
        is(&status["target"]["id"], &commit)
            && is(&status["phase"], "Healthy")
            && status["ready_pods"] == 2
    });
    site.wait_converged();
    site.wait_answer_inside("/", "web");
    site.assert_exactly(2, 4);
    assert_eq!(running_state(&site).1, addresses);
    let status = site.status();
    assert!(
        status["source"]["error"].is_string(),
        "the status does not contain the failed fetch: {status}"
    );

    fs::rename(&away, &here).unwrap();
    let next = site.push(
        &[("web.yaml", &application("next", "next", "next"))],
        &format!("next{MAY_DELETE}"),
    );
    site.wait_settled(&next);
    site.wait_answer_inside("/", "next");
}
