//! The commands of the command line, their effects and their output.

use crate::manifest::{APP, APP_2, deployment, pod, service};
use crate::support::{Container, SOON, Site, eventually, eventually_some, is, is_ready, text};

/// A Deployment `web` with version 1 or 2 of the test application.
fn web(version: u32) -> String {
    deployment("web", 2, if version == 1 { APP } else { APP_2 })
}

#[test]
fn a_manual_rollback_stays_in_effect_until_resume_or_the_next_push() {
    let mut site = Site::started("");
    let first = site.deploy(&[("web.yaml", &web(1)), ("service.yaml", &service("web"))]);
    let second = site.deploy(&[("web.yaml", &web(2))]);
    site.wait_answer("/", "app 2");

    site.windlass(&["rollback"]).ok();
    let rolled_back = |status: &serde_json::Value| {
        is(&status["target"]["id"], &first) && is(&status["phase"], "Healthy")
    };
    let status = site.wait_status("the first commit is the target again", rolled_back);
    assert!(is(&status["pinned_against"], &second), "{status:#}");
    assert_eq!(
        status["bad"],
        serde_json::json!({}),
        "a manual rollback must not make a commit bad: {status:#}"
    );
    site.wait_answer("/", "app 1");
    assert!(
        site.windlass(&["status"])
            .ok()
            .contains("pinned by hand against")
    );
    let outcome = site.windlass(&["sync", "--wait", "--timeout", "10s"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome.stdout.contains("rolled back by hand"),
        "{outcome:?}"
    );

    let before = site.running();
    site.stop();
    site.start();
    site.wait_status("the rollback is in effect after a restart", |status| {
        rolled_back(status) && is(&status["head"]["id"], &second) && status["converged"] == true
    });
    assert_eq!(
        site.running(),
        before,
        "a restart of the daemon touched a container"
    );

    site.windlass(&["resume"]).ok();
    site.wait_healthy(&second);
    site.wait_answer("/", "app 2");

    // A rollback to a named commit ends with the next push.
    site.windlass(&["rollback", &first[..8]]).ok();
    site.wait_status("the first commit is the target again", rolled_back);
    let third = site.deploy(&[("note.yaml", &pod("note", APP))]);
    assert_eq!(site.status()["pinned_against"], serde_json::Value::Null);
    site.wait_answer("/", "app 2");

    let unknown = site.windlass(&["rollback", "0123456789012345678901234567890123456789"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stderr.contains("windlass history"), "{unknown:?}");
    assert!(is(&site.status()["target"]["id"], &third));
}

#[test]
fn a_suspended_daemon_deploys_no_commit_and_restarts_containers() {
    let mut site = Site::started("");
    let first = site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("service.yaml", &service("web")),
    ]);
    site.windlass(&["suspend"]).ok();
    let second = site.push(&[("web.yaml", &pod("web", APP_2))], "the next");
    site.wait_status("the second commit is the head", |status| {
        is(&status["head"]["id"], &second)
    });
    let outcome = site.windlass(&["sync", "--wait", "--timeout", "10s"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stdout.contains("suspended"), "{outcome:?}");
    assert!(site.windlass(&["status"]).ok().contains("suspended"));
    assert_eq!(site.metric("windlass_suspended"), 1.0);

    let killed = site.container("web");
    site.host.docker(&["kill", &killed.id]);
    eventually(SOON, "another container of web runs", || {
        let running = site.running_of("web");
        running
            .iter()
            .any(|container| !container.is_sandbox() && container.id != killed.id)
    });
    site.wait_answer("/", "app 1 web");
    let status = site.status();
    assert!(
        is(&status["target"]["id"], &first) && status["suspended"] == true,
        "{status:#}"
    );

    site.windlass(&["resume"]).ok();
    site.wait_healthy(&second);
    site.wait_answer("/", "app 2 web");
}

#[test]
fn a_retry_deploys_a_failed_commit_again() {
    let mut site = Site::started("");
    let registry = site.registry();
    let good = site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("service.yaml", &service("web")),
    ]);
    let container = format!(
        "{{name: app, image: '{}/team/retried:1'}}",
        registry.address()
    );
    let failed = site.push(
        &[("web.yaml", &pod("web", &container))],
        "an image that is pushed later",
    );
    site.wait_rolled_back(&failed, &good);
    assert_eq!(
        site.windlass(&["retry", &good[..8]]).code,
        1,
        "a retry of a commit that has not failed"
    );

    registry.push(site.host, "windlass-test/app:2", "team/retried:1");
    let printed = site.windlass(&["retry", &failed[..8]]).ok();
    assert!(printed.contains("1 failed commit"), "{printed}");
    site.wait_healthy(&failed);
    site.wait_answer("/", "app 2 web");
    assert_eq!(site.status()["bad"], serde_json::json!({}));
}

#[test]
fn a_restart_replaces_the_pods_of_one_workload() {
    let mut site = Site::started("");
    site.deploy(&[
        ("web.yaml", &web(1)),
        ("service.yaml", &service("web")),
        ("other.yaml", &deployment("other", 1, APP)),
    ]);
    let (web, other) = (site.running_of("web"), site.running_of("other"));
    site.windlass(&["restart", "deploy/web"]).ok();
    eventually(SOON, "all pods of web are replaced", || {
        let running = site.running_of("web");
        let is_new = |new: &Container| web.iter().all(|old| old.id != new.id);
        running.len() == web.len() && running.iter().all(is_new)
    });
    assert_eq!(
        site.running_of("other"),
        other,
        "another workload was touched"
    );
    site.wait_answer("/", "app 1 web");
    let absent = site.windlass(&["restart", "deploy/absent"]);
    assert_eq!(absent.code, 1, "{absent:?}");
    assert!(
        absent.stderr.contains("Deployment/default/absent"),
        "{absent:?}"
    );
    assert_eq!(site.windlass(&["restart", "svc/web"]).code, 2);
}

#[test]
fn the_exit_code_of_sync_is_the_result_of_the_rollout() {
    let mut site = Site::started("");
    let never_ready = "{name: app, image: 'windlass-test/app:1', readinessProbe: {tcpSocket: {port: 1}, periodSeconds: 1}}";
    site.push(
        &[
            ("web.yaml", &deployment("web", 1, APP)),
            ("service.yaml", &service("web")),
        ],
        "good",
    );
    let good = site.windlass(&["sync", "--wait", "--timeout", "30s"]);
    assert_eq!(good.code, 0, "{good:?}");
    assert!(good.stdout.ends_with("Healthy"), "{good:?}");

    site.push(
        &[("web.yaml", &deployment("web", 1, never_ready))],
        "never ready",
    );
    let late = site.windlass(&["sync", "--wait", "--timeout", "3s", "-o", "json"]);
    assert_eq!(late.code, 4, "{late:?}");
    let answer: serde_json::Value = serde_json::from_str(&late.stdout).unwrap();
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("timed out after"),
        "{answer}"
    );

    site.push(
        &[("web.yaml", "kind: Pot\napiVersion: v1\n")],
        "no such kind",
    );
    let refused = site.windlass(&["sync", "--wait", "--timeout", "30s"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stdout.contains("web.yaml:1:"), "{refused:?}");

    site.repo
        .commit_unsigned(&[("web.yaml", &deployment("web", 1, APP))], "not signed");
    let unsigned = site.windlass(&["sync", "--wait", "--timeout", "30s", "-o", "json"]);
    assert_eq!(unsigned.code, 3, "{unsigned:?}");
    let answer: serde_json::Value = serde_json::from_str(&unsigned.stdout).unwrap();
    assert!(is(&answer["verdict"], "refused"), "{answer}");
    let status = site.windlass(&["status", "--exit-code"]);
    assert_eq!(status.code, 3, "{status:?}");
    let first = status.stdout.lines().next().unwrap_or_default();
    assert_eq!(first, "node-1: Refused: the newest commit does not run");
    let events = site.windlass(&["get", "events"]).ok();
    let refusals = events
        .lines()
        .filter(|line| line.contains("CommitRefused") && line.contains("it is not signed"));
    assert_eq!(refusals.count(), 1, "{events}");
    // The head is fetched again, and is refused as before.
    site.windlass(&["sync", "--wait", "--timeout", "30s"]);
    let log = site.log();
    let refusals = log.lines().filter(|line| line.contains("it is not signed"));
    assert_eq!(refusals.count(), 1, "{log}");

    site.stop();
    for command in [
        &["sync", "--wait"][..],
        &["status"],
        &["get", "pods"],
        &["suspend"],
    ] {
        let outcome = site.windlass(command);
        assert_eq!(outcome.code, 5, "{outcome:?}");
        assert!(
            outcome.stderr.contains("is `windlass run` running?"),
            "{outcome:?}"
        );
    }
}

#[test]
fn status_history_objects_logs_and_plans_are_printed_as_text_and_as_json() {
    let mut site = Site::started("");
    let first = site.deploy(&[("web.yaml", &web(1)), ("service.yaml", &service("web"))]);
    let commit = site.push(&[("web.yaml", &web(2))], "serve the second version");
    site.wait_healthy(&commit);

    let status = site.windlass(&["status"]).ok();
    for words in [
        "node-1: Healthy",
        &commit[..7],
        "serve the second version",
        "deployer@example.com",
        "2 of 2 ready",
    ] {
        assert!(status.contains(words), "{words:?} is not in\n{status}");
    }
    let history = site.windlass(&["history", "-o", "json"]).json();
    let states: Vec<_> = history["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["state"].as_str())
        .collect();
    assert_eq!(states, [Some("Healthy"), Some("Healthy")], "{history:#}");
    let history = site.windlass(&["history"]).ok();
    for words in [
        "COMMIT",
        "SIGNER",
        "Healthy",
        &first[..7],
        "serve the second version",
    ] {
        assert!(history.contains(words), "{words:?} is not in\n{history}");
    }

    let chosen = site.windlass(&["logs", "deploy/web"]);
    assert!(
        chosen.success() && chosen.stderr.contains("Found 2 pods, using pod/web-"),
        "{chosen:?}"
    );
    let pods = site.windlass(&["get", "pods"]).ok();
    assert_eq!(
        pods.lines()
            .filter(|line| line.starts_with("web-") && line.contains("1/1"))
            .count(),
        2,
        "{pods}"
    );
    let wide = site.windlass(&["get", "pods", "-o", "wide"]).ok();
    assert!(
        wide.contains("node-1") && wide.contains("10.244.0."),
        "{wide}"
    );
    let names = site.windlass(&["get", "deploy,svc", "-o", "name"]).ok();
    assert!(
        names.contains("deployment.apps/web") && names.contains("service/web"),
        "{names}"
    );
    let yaml = site.windlass(&["get", "deploy/web", "-o", "yaml"]).ok();
    assert!(
        yaml.contains("availableReplicas: 2") && yaml.contains("windlass-test/app:2"),
        "{yaml}"
    );
    let selected = site
        .windlass(&["get", "pods", "-l", "app=absent", "-o", "json"])
        .json();
    assert_eq!(selected["items"], serde_json::json!([]));
    assert_eq!(site.windlass(&["get", "pod", "absent"]).code, 1);
    for kind in [
        "deployments",
        "replicasets",
        "services",
        "endpoints",
        "nodes",
        "namespaces",
        "events",
    ] {
        assert!(
            site.windlass(&["get", kind, "-A", "-o", "json"]).json()["items"].is_array(),
            "{kind}"
        );
    }

    let name = site.pods().into_keys().next().unwrap();
    assert_eq!(site.windlass(&["logs", &name]).ok(), "listening on 8080");
    assert_eq!(site.windlass(&["logs", "absent"]).code, 1);

    assert!(site.windlass(&["plan"]).ok().contains("nothing to do here"));
    assert_eq!(
        site.windlass(&["plan", "-o", "json"]).json()["lanes"],
        serde_json::json!([])
    );
    let back = site.windlass(&["plan", &first]).ok();
    assert!(
        back.contains("start a pod of Deployment/default/web on node-1"),
        "{back}"
    );
    let short = site.windlass(&["plan", &first[..8], "-o", "json"]).json();
    assert!(is(&short["commit"], &first), "{short:#}");
}

#[test]
fn an_unreachable_repository_is_reported_and_stops_no_pod() {
    let mut site = Site::started("[source]\npoll = '1s'");
    site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("service.yaml", &service("web")),
    ]);
    let before = site.running();
    let (here, away) = (site.repo.path(), site.repo.path().with_extension("away"));
    std::fs::rename(&here, &away).unwrap();
    let status = site.wait_status("the error of the fetch is published", |status| {
        status["source"]["error"].is_string()
    });
    assert!(is(&status["phase"], "Healthy"), "{status:#}");
    let killed = site.container("web");
    site.host.docker(&["kill", &killed.id]);
    eventually(SOON, "the killed container is replaced", || {
        let running = site.running_of("web");
        running.len() == 2 && !running.contains(&killed)
    });
    assert_ne!(site.running(), before);
    std::fs::rename(&away, &here).unwrap();
    let next = site.push(&[("web.yaml", &pod("web", APP_2))], "the next");
    site.wait_healthy(&next);
    site.wait_answer("/", "app 2 web");
}

/// The objects of a kind that a client is told of, each with whether it is ready as a pod; `None`
/// if the daemon does not answer.
fn objects(site: &Site, kind: &str) -> Option<Vec<(String, bool)>> {
    let listed = site.windlass(&["get", kind, "-o", "json"]);
    let listed = listed.success().then(|| listed.json())?;
    let items = listed["items"].as_array().unwrap();
    let object = |item: &serde_json::Value| (text(&item["metadata"]["name"]), is_ready(item));
    Some(items.iter().map(object).collect())
}

#[test]
fn a_client_that_waits_for_a_starting_daemon_is_told_all_objects() {
    let mut site = Site::started("");
    site.deploy(&[("web.yaml", &web(1)), ("service.yaml", &service("web"))]);
    for (kind, count) in [("services", 1), ("pods", 2)] {
        let before = objects(&site, kind).unwrap();
        assert_eq!(before.len(), count, "{before:?}");
        site.stop();
        site.launch(&[]);
        let first = eventually_some(SOON, "the daemon answers", || objects(&site, kind));
        assert_eq!(first, before, "the first answer after a start");
    }
}
