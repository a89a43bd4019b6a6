//! A commit that does not become healthy is rolled back, and stays recorded as bad.

use crate::manifest::{APP, APP_2, deployment, deployment_with, pod, service, shell_with};
use crate::support::{Site, is, unwrapped};

/// Deployments that cannot become healthy, each with a part of the published reason and with the
/// reason's label in the metrics.
fn broken(site: &Site) -> [(&'static str, String, &'static str, &'static str); 4] {
    let missing = format!(
        "{{name: app, image: '{}/team/absent:1'}}",
        site.registry().address()
    );
    let never_ready = "{name: app, image: 'windlass-test/app:2', readinessProbe: {httpGet: {path: /absent, port: 8080}, \
                periodSeconds: 1}}";
    let unknown = "{name: app, image: 'windlass-test/app:2', command: [/does/not/exist]}";
    // Without a readiness probe the pod would be available until it crashes, and the old pod would
    // be stopped.
    let crash = shell_with(
        "sleep 0.2; exit 7",
        "readinessProbe: {exec: {command: [\"false\"]}}",
    );
    [
        (
            "image missing",
            deployment("web", 1, &missing),
            "absent:1",
            "image",
        ),
        (
            "command not found",
            deployment("web", 1, unknown),
            "/does/not/exist",
            "rejected",
        ),
        (
            "never ready",
            deployment_with("web", 1, never_ready, "progressDeadlineSeconds: 4"),
            "no progress within progressDeadlineSeconds",
            "deadline",
        ),
        (
            "crash loop",
            deployment("web", 1, &crash),
            "exit code 7",
            "crash_loop",
        ),
    ]
}

#[test]
fn a_broken_commit_is_rolled_back_and_recorded_and_the_next_good_commit_runs() {
    let mut site = Site::started("");
    let mut good = site.deploy(&[
        ("web.yaml", &deployment("web", 1, APP)),
        ("service.yaml", &service("web")),
        ("other.yaml", &pod("other", APP)),
    ]);
    let before = site.running();
    assert_eq!(before.len(), 4);

    for (number, (what, manifest, reason, word)) in broken(&site).into_iter().enumerate() {
        let bad = site.push(&[("web.yaml", &manifest)], what);
        let published = site.wait_rolled_back(&bad, &good);
        assert!(published.contains(reason), "{what}: {published}");
        assert_eq!(site.running(), before, "{what}: a container was touched");
        assert_eq!(site.ask("/").unwrap().status, 200, "{what}");
        let metric = format!("windlass_rollbacks_total{{reason=\"{word}\"}}");
        assert_eq!(site.metric(&metric), 1.0, "{what}: {published}");

        site.stop();
        site.start();
        let status = site.wait_status("the host has converged after a restart", |status| {
            is(&status["head"]["id"], &bad) && status["converged"] == true
        });
        assert!(
            is(&status["target"]["id"], &good) && is(&status["bad"][&bad], &published),
            "{what}: {status:#}"
        );
        assert_eq!(site.running(), before, "{what}: a container was touched");

        // The next good commit changes no running pod.
        let note = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: note}}\ndata: {{number: '{number}'}}\n"
        );
        good = site.deploy(&[
            ("web.yaml", &deployment("web", 1, APP)),
            ("note.yaml", &note),
        ]);
        assert_eq!(
            site.running(),
            before,
            "after {what}: a container was touched"
        );
    }
    site.deploy(&[("web.yaml", &deployment("web", 1, APP_2))]);
    site.wait_answer("/", "app 2 web");

    let history = unwrapped(&site.windlass(&["history"]).ok());
    for word in [
        "RolledBack",
        "Healthy",
        "never ready",
        "crash loop",
        "deployer@example.com",
    ] {
        assert!(history.contains(word), "{word} is not in\n{history}");
    }
}

#[test]
fn what_a_failed_container_printed_is_shown_after_its_pod_is_removed() {
    let mut site = Site::started("");
    let good = site.deploy(&[("web.yaml", &pod("web", APP))]);
    let lines = "echo reading the configuration; echo opening the key; echo fatal: no key >&2";
    // Without a readiness probe the pod may be available until it ends.
    let container = shell_with(
        &format!("{lines}; exit 1"),
        "readinessProbe: {exec: {command: [\"false\"]}}",
    );
    let manifest = pod("web", &container).replace("spec:", "spec:\n  restartPolicy: Never");
    let bad = site.push(&[("web.yaml", &manifest)], "no key");
    let synced = site.windlass(&["sync", "--wait", "--timeout", "60s"]);
    site.wait_rolled_back(&bad, &good);

    let printed = [
        "| reading the configuration\n",
        "| opening the key\n",
        "| fatal: no key\n",
    ];
    let is_shown = |text: &str| printed.iter().all(|line| text.contains(line));
    assert!(is_shown(&synced.stdout), "{synced:#?}");
    let check = |site: &Site| {
        for command in ["status", "history"] {
            let text = site.windlass(&[command]).ok();
            assert!(is_shown(&text), "{command}: {text}");
            assert!(
                unwrapped(&text).contains("default/web, container app: exit code 1, "),
                "{command}: {text}"
            );
        }
        let events = site.windlass(&["get", "events"]).ok();
        assert!(events.contains("fatal: no key"), "{events}");
    };
    check(&site);
    assert!(
        !site.log().contains("opening the key"),
        "what a container printed is in the log of the daemon"
    );

    site.stop();
    site.start();
    check(&site);
}

#[test]
fn a_changed_bare_pod_that_fails_is_replaced_by_the_pod_of_the_last_healthy_commit() {
    let mut site = Site::started("");
    let good = site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("service.yaml", &service("web")),
        ("other.yaml", &pod("other", APP)),
    ]);
    let other = site.running_of("other");
    let container = "{name: app, image: 'windlass-test/app:2', command: [/does/not/exist]}";
    let bad = site.push(&[("web.yaml", &pod("web", container))], "no such command");
    site.wait_rolled_back(&bad, &good);
    site.wait_answer("/", "app 1 web");
    assert_eq!(site.running_of("other"), other);
    assert_eq!(
        site.running().len(),
        4,
        "containers of the failed pod remain"
    );
}

#[test]
fn a_first_commit_that_fails_is_degraded_and_the_next_commit_runs() {
    let mut site = Site::started("");
    let container = "{name: app, image: 'windlass-test/app:1', command: [/does/not/exist]}";
    let bad = site.push(&[("web.yaml", &pod("web", container))], "no such command");
    let status = site.wait_status("the rollout is degraded", |status| {
        is(&status["phase"], "Degraded")
    });
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("/does/not/exist"),
        "{status:#}"
    );
    assert!(status["bad"][&bad].is_string(), "{status:#}");
    assert_eq!(site.metric("windlass_degraded"), 1.0);
    site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("service.yaml", &service("web")),
    ]);
    site.wait_answer("/", "app 1 web");
    assert_eq!(site.metric("windlass_degraded"), 0.0);
}
