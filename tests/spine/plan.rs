//! What `windlass plan` shows of a commit: while its images are awaited, and when the commit is held
//! or refused.

use crate::manifest::{APP, APP_2, deployment};
use crate::support::{Outcome, Site, is};

/// Asserts that these parts are in a text, in this order.
#[track_caller]
fn assert_parts(outcome: &Outcome, parts: &[&str]) {
    let mut rest = outcome.stdout.as_str();
    for part in parts {
        let found = rest.split_once(part);
        rest = found
            .unwrap_or_else(|| panic!("{part:?} is not there, or too early:\n{outcome:?}"))
            .1;
    }
}

#[test]
fn a_plan_shows_differences_pods_and_what_keeps_a_commit_back() {
    let mut site = Site::started("[rollout]\ndeadline = '10min'");
    let registry = site.registry();
    registry.push(site.host, "windlass-test/app:2", "team/planned:1");
    let old = ["a", "b", "c"].map(|name| deployment(name, 1, APP));
    let good = site.deploy(&[
        ("web.yaml", &deployment("web", 3, APP)),
        ("old.yaml", &old.join("---\n")),
    ]);

    // Not pushed yet.
    let local = site.repo.path().with_extension("local");
    std::fs::create_dir(&local).unwrap();
    std::fs::write(local.join("web.yaml"), deployment("web", 3, APP_2)).unwrap();
    let plan = site.windlass(&["plan", "--local", local.to_str().unwrap()]);
    assert_eq!(plan.code, 3, "{plan:?}");
    assert_parts(
        &plan,
        &[
            "Held: it would delete 3 of 4 workloads",
            "- Deployment/default/a: deleted",
            "+ spec.template.spec.containers[app].image: windlass-test/app:2",
            "pods, if it is rolled out",
        ],
    );

    // Preparing: two replicas instead of three, and a new image that cannot be pulled yet.
    registry.stop();
    let container = format!(
        "{{name: app, image: '{}/team/planned:1'}}",
        registry.address()
    );
    let prepared = site.push(
        &[("web.yaml", &deployment("web", 2, &container))],
        "two replicas of the new page",
    );
    site.wait_status("the rollout waits for the registry", |status| {
        is(&status["target"]["id"], &prepared) && is(&status["phase"], "Preparing")
    });
    let plan = site.windlass(&["plan"]);
    assert_eq!(plan.code, 0, "{plan:?}");
    let new_image = format!(
        "+ spec.template.spec.containers[app].image: \"{}/team/planned:1\"",
        registry.address()
    );
    assert_parts(
        &plan,
        &[
            &format!("{} two replicas of the new page", &prepared[..10]),
            &format!("compared with {}", &good[..10]),
            "Preparing: ",
            "Deployment/default/web  web.yaml:1",
            "- spec.replicas: 3\n  + spec.replicas: 2",
            "- spec.template.spec.containers[app].image: windlass-test/app:1",
            &new_image,
            "rolling update to 2 replicas",
            "1. stop pod default/web-",
            "start a pod of Deployment/default/web on node-1",
            "then the commit is healthy",
        ],
    );
    registry.resume();
    site.wait_healthy(&prepared);

    // Held: three of four workloads are deleted.
    let held = site.push(
        &[("old.yaml", ""), ("web.yaml", &deployment("web", 2, APP_2))],
        "without the old ones",
    );
    site.wait_status("the commit is held", |status| {
        is(&status["head"]["id"], &held) && is(&status["head_state"], "Held")
    });
    let plan = site.windlass(&["plan", "HEAD"]);
    assert_eq!(plan.code, 3, "{plan:?}");
    assert_parts(
        &plan,
        &[
            "Held: it would delete 3 of 4 workloads",
            "- Deployment/default/a: deleted  old.yaml:1",
            "- Deployment/default/b: deleted",
            "Deployment/default/web  web.yaml:1",
            "pods, if it is rolled out",
            "stop pod default/a-",
            "its owner is not in the commit any more",
        ],
    );

    // Refused for its content: the plan has the problems and the differences.
    let wrong = deployment("web", 2, APP).replace("replicas: 2", "replicas: many");
    let refused = site.push(
        &[("old.yaml", &old[..2].join("---\n")), ("web.yaml", &wrong)],
        "many replicas",
    );
    site.wait_status("the commit is refused", |status| {
        is(&status["source"]["refusal"]["commit"], &refused)
    });
    let plan = site.windlass(&["plan", &refused[..8]]);
    assert_eq!(plan.code, 3, "{plan:?}");
    assert_parts(
        &plan,
        &[
            "Refused: ",
            "web.yaml:",
            "spec.replicas",
            "- Deployment/default/c: deleted",
            "+ spec.replicas: (not valid)",
        ],
    );
    assert!(!plan.stdout.contains("pods,"), "{plan:?}");

    // Refused for its signature: only the refusal.
    let files = [("secret.yaml", deployment("hidden", 1, APP))];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let unsigned = site.repo.commit_unsigned(&files, "not signed");
    site.wait_status("the unsigned commit is refused", |status| {
        is(&status["source"]["refusal"]["commit"], &unsigned)
    });
    for revision in ["HEAD", &unsigned, &unsigned[..10]] {
        let plan = site.windlass(&["plan", revision]);
        assert_eq!(plan.code, 1, "{plan:?}");
        assert!(plan.stderr.contains("it is not signed"), "{plan:?}");
        assert!(!format!("{plan:?}").contains("hidden"), "{plan:?}");
    }
    let plan = site.windlass(&["plan"]);
    assert_eq!(plan.code, 0, "{plan:?}");
    assert_parts(&plan, &["Refused: ", "it is not signed"]);
}
