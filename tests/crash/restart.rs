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

/// A site with the two pods running.
fn running() -> (Site, String) {
    let mut site = Site::new("");
    let commit = site.push(&[("web.yaml", &two_probed())], "two pods");
    site.launch(&[]);
    site.wait_settled(&commit);
    site.wait_answer_inside("/", "web");
    (site, commit)
}

/// Pods with their addresses and containers.
fn running_state(site: &Site) -> (BTreeSet<Container>, Vec<(String, String)>) {
    (site.containers(), site.addresses().into_iter().collect())
}

/// The lines of the service table; chains come in the order in which they were made.
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
fn a_daemon_that_is_stopped_or_killed_and_started_again_disturbs_nothing() {
    let (mut site, commit) = running();
    let before = running_state(&site);
    let poller = Poller::start(site.host.namespace(), &site.node_url("/"));
    let table = table(&site);
    for killed in [false, true, false, true] {
        let daemon = site.take_daemon();
        if killed {
            daemon.kill9();
        } else {
            assert!(daemon.stop().success(), "TERM is no failure");
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
fn an_engine_that_restarts_gets_its_pods_back_at_their_addresses() {
    let (mut site, commit) = running();
    let (_, addresses) = running_state(&site);
    let uids = uids(&site);

    site.host.restart_docker();
    // The daemon may not have noticed yet: the pods' containers are all new when it has done its
    // work.
    eventually(SOON, "the pods are made again", || {
        let all = site.containers();
        all.len() == 4 && all.iter().all(|one| one.state == "running")
    });
    site.wait_settled(&commit);
    site.wait_answer_inside("/", "web");

    site.assert_exactly(2, 4);
    assert_eq!(running_state(&site).1, addresses);
    assert_eq!(self::uids(&site), uids, "the pods are others");
}

#[test]
fn an_engine_that_is_killed_and_comes_back_keeps_its_containers() {
    let (mut site, commit) = running();
    site.host.kill_docker();
    site.wait_status("the engine is missed", |status| {
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
fn a_host_that_reboots_without_its_repository_comes_back_from_its_own_disk() {
    let (mut site, commit) = running();
    let (_, addresses) = running_state(&site);
    let (here, away) = (site.repo.path(), site.repo.path().with_extension("away"));
    fs::rename(&here, &away).unwrap();
    site.take_daemon().kill9();

    site.host.reboot();
    assert_eq!(
        site.links().len() + site.routes().len(),
        0,
        "a reboot that leaves the network is none"
    );
    site.launch(&[]);
    site.wait_status("the commit is back", |status| {
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
        "nobody is told that the repository is gone: {status}"
    );

    fs::rename(&away, &here).unwrap();
    let next = site.push(
        &[("web.yaml", &application("next", "next", "next"))],
        &format!("next{MAY_DELETE}"),
    );
    site.wait_settled(&next);
    site.wait_answer_inside("/", "next");
}
