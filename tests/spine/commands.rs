//! What is asked for on the command line, and what it answers.

use crate::manifest::{APP, APP_2, deployment, pod, service};
use crate::support::{SOON, Site, eventually, is};

/// The default and the changed state of one web server.
fn web(version: u32) -> String {
    deployment("web", 2, if version == 1 { APP } else { APP_2 })
}

#[test]
fn a_rollback_by_hand_pins_until_resume_or_the_next_push() {
    let mut site = Site::started("");
    let first = site.deploy(&[("web.yaml", &web(1)), ("service.yaml", &service("web"))]);
    let second = site.deploy(&[("web.yaml", &web(2))]);
    site.wait_answer("/", "app 2");

    site.windlass(&["rollback"]).ok();
    let back = |status: &serde_json::Value| {
        is(&status["target"]["id"], &first) && is(&status["phase"], "Healthy")
    };
    let status = site.wait_status("it is back", back);
    assert!(is(&status["pinned_against"], &second), "{status:#}");
    assert_eq!(
        status["bad"],
        serde_json::json!({}),
        "going back by hand is no verdict: {status:#}"
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
    site.wait_status("the pin outlives the daemon", |status| {
        back(status) && is(&status["head"]["id"], &second) && status["converged"] == true
    });
    assert_eq!(
        site.running(),
        before,
        "a restart of the daemon touched what runs"
    );

    site.windlass(&["resume"]).ok();
    site.wait_healthy(&second);
    site.wait_answer("/", "app 2");

    // By name, and ended by the next push.
    site.windlass(&["rollback", &first[..8]]).ok();
    site.wait_status("it is back", back);
    let third = site.deploy(&[("note.yaml", &pod("note", APP))]);
    assert_eq!(site.status()["pinned_against"], serde_json::Value::Null);
    site.wait_answer("/", "app 2");

    let nowhere = site.windlass(&["rollback", "0123456789012345678901234567890123456789"]);
    assert_eq!(nowhere.code, 1, "{nowhere:?}");
    assert!(nowhere.stderr.contains("windlass history"), "{nowhere:?}");
    assert!(is(&site.status()["target"]["id"], &third));
}

#[test]
fn a_suspended_daemon_takes_no_commit_and_heals_what_runs() {
    let mut site = Site::started("");
    let first = site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("service.yaml", &service("web")),
    ]);
    site.windlass(&["suspend"]).ok();
    let second = site.push(&[("web.yaml", &pod("web", APP_2))], "the next");
    site.wait_status("the head is seen", |status| {
        is(&status["head"]["id"], &second)
    });
    let outcome = site.windlass(&["sync", "--wait", "--timeout", "10s"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stdout.contains("suspended"), "{outcome:?}");
    assert!(site.windlass(&["status"]).ok().contains("suspended"));
    assert_eq!(site.metric("windlass_suspended"), 1.0);

    let killed = site.container("web");
    site.host.docker(&["kill", &killed.id]);
    eventually(SOON, "another container runs in its place", || {
        let now = site.running_of("web");
        now.iter()
            .any(|one| !one.is_sandbox() && one.id != killed.id)
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
fn a_retry_tries_a_failed_commit_afresh() {
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
        "its image comes later",
    );
    site.wait_rolled_back(&failed, &good);
    assert_eq!(
        site.windlass(&["retry", &good[..8]]).code,
        1,
        "it has not failed"
    );

    registry.push(site.host, "windlass-test/app:2", "team/retried:1");
    let said = site.windlass(&["retry", &failed[..8]]).ok();
    assert!(said.contains("1 failed commit"), "{said}");
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
    eventually(SOON, "all pods of it are other ones", || {
        let now = site.running_of("web");
        now.len() == web.len() && now.iter().all(|one| web.iter().all(|old| old.id != one.id))
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
fn sync_says_by_its_exit_code_what_became_of_the_commit() {
    let mut site = Site::started("");
    let deaf = "{name: app, image: 'windlass-test/app:1', readinessProbe: {tcpSocket: {port: 1}, periodSeconds: 1}}";
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

    site.push(&[("web.yaml", &deployment("web", 1, deaf))], "never ready");
    let late = site.windlass(&["sync", "--wait", "--timeout", "3s", "-o", "json"]);
    assert_eq!(late.code, 4, "{late:?}");
    let told: serde_json::Value = serde_json::from_str(&late.stdout).unwrap();
    assert!(
        told["message"].as_str().unwrap().contains("the time is up"),
        "{told}"
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
    let told: serde_json::Value = serde_json::from_str(&unsigned.stdout).unwrap();
    assert!(is(&told["verdict"], "refused"), "{told}");

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
fn what_runs_can_be_read_in_text_and_in_json() {
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
        .map(|one| one["state"].as_str())
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
        .windlass(&["get", "pods", "-l", "app=nobody", "-o", "json"])
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
    assert!(back.contains("start for Deployment/default/web"), "{back}");
    let short = site.windlass(&["plan", &first[..8], "-o", "json"]).json();
    assert!(is(&short["commit"], &first), "{short:#}");
}

#[test]
fn an_unreachable_repository_is_told_and_stops_nothing() {
    let mut site = Site::started("[source]\npoll = '1s'");
    site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("service.yaml", &service("web")),
    ]);
    let before = site.running();
    let (here, away) = (site.repo.path(), site.repo.path().with_extension("away"));
    std::fs::rename(&here, &away).unwrap();
    let status = site.wait_status("it is told", |status| status["source"]["error"].is_string());
    assert!(is(&status["phase"], "Healthy"), "{status:#}");
    let killed = site.container("web");
    site.host.docker(&["kill", &killed.id]);
    eventually(SOON, "what runs is healed", || {
        let now = site.running_of("web");
        now.len() == 2 && !now.contains(&killed)
    });
    assert_ne!(site.running(), before);
    std::fs::rename(&away, &here).unwrap();
    let next = site.push(&[("web.yaml", &pod("web", APP_2))], "the next");
    site.wait_healthy(&next);
    site.wait_answer("/", "app 2 web");
}
