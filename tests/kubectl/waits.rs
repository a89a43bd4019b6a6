//! Waits and watches with two versions of kubectl, which request changes from the API in different
//! ways.

use std::path::Path;

use crate::{
    Follow, SHOP, command_of, kubectl, pod_of, served,
    support::{Outcome, SOON, eventually, run},
};

/// Debian's kubectl, and a newer one, which requests the existing objects at the start of a watch
/// and waits for the bookmark after them.
fn old_and_new() -> [String; 2] {
    let cache =
        std::env::var("WINDLASS_CACHE").unwrap_or_else(|_| "/var/cache/windlass".to_owned());
    ["kubectl-debian", "kubectl-1.37"].map(|name| {
        let path = format!("{cache}/tools/{name}");
        assert!(
            Path::new(&path).exists(),
            "{path} is missing: `scripts/test` installs it"
        );
        path
    })
}

/// Runs the kubectl at a path, with a time-out that makes it fail where it hangs.
fn kubectl_of(client: &str, arguments: &str) -> Outcome {
    let served = served();
    run(
        command_of(&["timeout", "90", client], served, &served.token)
            .args(arguments.split_whitespace()),
    )
}

/// A Deployment that is added and removed while kubectl waits for it.
const GUEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: guest}
spec:
  replicas: 1
  selector: {matchLabels: {app: guest}}
  template:
    metadata: {labels: {app: guest}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: windlass-test/app:1
        env: [{name: APP, value: guest}]
        readinessProbe: {httpGet: {path: /, port: 8080}, initialDelaySeconds: 3, periodSeconds: 1}
"#;

/// Whether kubectl ended because the object to wait for did not exist.
fn object_did_not_exist(outcome: &Outcome) -> bool {
    ["not found", "no matching resources found"]
        .iter()
        .any(|text| outcome.stderr.contains(text))
}

#[test]
fn an_old_and_a_new_kubectl_end_a_wait_whose_condition_holds_already() {
    for client in old_and_new() {
        for (arguments, text) in [
            (
                "wait --for=condition=Available deployment/shop --timeout=20s",
                "condition met",
            ),
            (
                "wait pod -l app=shop --for=condition=Ready --timeout=20s",
                "condition met",
            ),
            ("wait --for=delete pod/absent --timeout=20s", ""),
            (
                "rollout status deployment/shop --timeout=20s",
                "successfully rolled out",
            ),
        ] {
            let outcome = kubectl_of(&client, arguments);
            let succeeded = outcome.success() && outcome.stdout.contains(text);
            // For a pod that does not exist Debian's kubectl fails, and the new kubectl succeeds.
            let is_absent = text.is_empty() && object_did_not_exist(&outcome);
            assert!(succeeded || is_absent, "{client} {arguments}: {outcome:#?}");
        }
        let outcome = kubectl_of(
            &client,
            "wait --for=condition=Never deployment/shop --timeout=2s",
        );
        assert!(
            outcome.stderr.contains("timed out"),
            "{client}: {outcome:#?}"
        );
    }
}

#[test]
fn an_old_and_a_new_kubectl_observe_a_deployment_that_is_added_and_removed() {
    let site = &served().site;
    let push = |files: &[(&str, &str)], subject: &str| {
        let commit = site.repo.replace_signed(files, subject);
        eventually(
            SOON,
            &format!("the commit is the target: {subject}"),
            || site.status()["target"]["id"] == commit.as_str(),
        );
    };
    for client in old_and_new() {
        let mut watch = Follow::start_of(&client, &["get", "pods", "--watch"]);
        watch.wait_for("unwell");
        push(
            &[("shop.yaml", SHOP), ("guest.yaml", GUEST)],
            "add the guest",
        );
        eventually(SOON, "the pod of the guest is listed", || {
            !kubectl("get pods -l app=guest -o name").ok().is_empty()
        });
        // None of these conditions holds when the wait begins, and each holds three seconds later.
        let waits = [
            "rollout status deployment/guest --timeout=60s",
            "wait --for=condition=Available deployment/guest --timeout=60s",
            "wait pod -l app=guest --for=condition=Ready --timeout=60s",
        ];
        std::thread::scope(|scope| {
            let waiting =
                waits.map(|arguments| (arguments, scope.spawn(|| kubectl_of(&client, arguments))));
            for (arguments, waiting) in waiting {
                let outcome = waiting.join().unwrap();
                assert!(outcome.success(), "{client} {arguments}: {outcome:#?}");
            }
        });
        watch.wait_for("guest");
        watch.wait_for("1/1 Running");
        let pod = pod_of("guest");
        let (watched, pod) = (client.clone(), format!("pod/{pod}"));
        let gone = std::thread::spawn(move || {
            kubectl_of(
                &watched,
                &format!("wait --for=delete {pod} deployment/guest --timeout=60s"),
            )
        });
        push(&[("shop.yaml", SHOP)], "remove the guest");
        let outcome = gone.join().unwrap();
        // On a machine under load the guest may be gone before kubectl starts to wait.
        let was_late = object_did_not_exist(&outcome);
        assert!(outcome.success() || was_late, "{client}: {outcome:#?}");
        watch.wait_for("Terminating");
    }
}
