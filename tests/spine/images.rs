//! Images: a rollout waits for a registry that does not answer, fails for an image that does not
//! exist, and a tag that changes changes no running pod.

use crate::manifest::{APP, pod, service};
use crate::support::{Site, is};

#[test]
fn a_rollout_waits_for_a_registry_and_fails_for_a_missing_image() {
    let mut site = Site::started("");
    let registry = site.registry();
    registry.push(site.host, "windlass-test/app:2", "team/late:1");
    let good = site.deploy(&[
        ("web.yaml", &pod("web", APP)),
        ("service.yaml", &service("web")),
    ]);
    let before = site.running();

    registry.stop();
    let container = format!("{{name: app, image: '{}/team/late:1'}}", registry.address());
    let late = site.push(
        &[("web.yaml", &pod("web", &container))],
        "from the registry",
    );
    let status = site.wait_status("the rollout waits for the registry", |status| {
        is(&status["phase"], "Preparing") && status["message"].as_str().unwrap().contains("refused")
    });
    assert!(
        is(&status["target"]["id"], &late) && is(&status["healthy"]["id"], &good),
        "{status:#}"
    );
    assert_eq!(
        status["bad"],
        serde_json::json!({}),
        "a registry that does not answer must not make a commit bad: {status:#}"
    );
    // The rollout still waits after 5 s.
    let outcome = site.windlass(&["sync", "--wait", "--timeout", "5s"]);
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert!(is(&site.status()["phase"], "Preparing"));
    assert_eq!(site.running(), before, "a container was touched");
    assert_eq!(site.ask("/").unwrap().body, "app 1 web");

    registry.resume();
    site.wait_healthy(&late);
    site.wait_answer("/", "app 2 web");

    let before = site.running();
    let container = format!(
        "{{name: app, image: '{}/team/late:absent'}}",
        registry.address()
    );
    let missing = site.push(&[("web.yaml", &pod("web", &container))], "not there");
    let reason = site.wait_rolled_back(&missing, &late);
    assert!(reason.contains("late:absent"), "{reason}");
    assert_eq!(site.running(), before, "a container was touched");
    assert_eq!(
        site.metric("windlass_rollbacks_total{reason=\"image\"}"),
        1.0
    );
}

#[test]
fn a_rollback_runs_the_image_that_a_tag_meant_at_the_time_of_the_commit() {
    let mut site = Site::started("");
    let registry = site.registry();
    registry.push(site.host, "windlass-test/app:1", "team/moving:latest");
    let container = |note: &str| {
        format!(
            "{{name: app, image: '{}/team/moving', env: [{{name: NOTE, value: {note}}}]}}",
            registry.address()
        )
    };
    let first = site.deploy(&[
        ("web.yaml", &pod("web", &container("one"))),
        ("service.yaml", &service("web")),
    ]);
    site.wait_answer("/", "app 1 web");

    registry.push(site.host, "windlass-test/app:2", "team/moving:latest");
    site.deploy(&[("web.yaml", &pod("web", &container("two")))]);
    site.wait_answer("/", "app 2 web");

    let printed = site.windlass(&["rollback"]).ok();
    assert!(printed.contains(&first[..7]), "{printed}");
    site.wait_status("the first commit is the target again", |status| {
        is(&status["target"]["id"], &first) && is(&status["phase"], "Healthy")
    });
    site.wait_answer("/", "app 1 web");

    // A restarted container has the pinned image of the commit, not the image that the tag means
    // now.
    let container = site.container("web");
    site.host.docker(&["rm", "-f", &container.id]);
    site.wait_status("the pod is ready again", |status| status["ready_pods"] == 1);
    site.wait_answer("/", "app 1 web");
}
