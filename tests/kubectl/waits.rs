//! Waits and watches with two versions of kubectl, which ask the API for changes in different ways.

use std::path::Path;

use crate::{
    Follow, SHOP, command_of, kubectl, pod_of, served,
    support::{Outcome, SOON, eventually, run},
};

/// Debian's kubectl, and one that begins its watches with everything there is and waits for the
/// bookmark behind it.
fn old_and_new() -> [String; 2] {
    let cache =
        std::env::var("WINDLASS_CACHE").unwrap_or_else(|_| "/var/cache/windlass".to_owned());
    ["kubectl-debian", "kubectl-1.37"].map(|name| {
        let path = format!("{cache}/tools/{name}");
        assert!(
            Path::new(&path).exists(),
            "{path} is missing: `scripts/test` brings it"
        );
        path
    })
}

/// Runs a kubectl of choice, which fails where it hangs.
fn kubectl_of(client: &str, arguments: &str) -> Outcome {
    let served = served();
    run(
        command_of(&["timeout", "90", client], served, &served.token)
            .args(arguments.split_whitespace()),
    )
}

/// What comes and goes while a kubectl waits for it.
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

/// Whether kubectl ended because what it was to wait for did not exist.
fn nothing_was_there(outcome: &Outcome) -> bool {
    ["not found", "no matching resources found"]
        .iter()
        .any(|said| outcome.stderr.contains(said))
}

#[test]
fn an_old_and_a_new_kubectl_end_their_waits_for_what_is_so_already() {
    for client in old_and_new() {
        for (arguments, said) in [
            (
                "wait --for=condition=Available deployment/shop --timeout=20s",
                "condition met",
            ),
            (
                "wait pod -l app=shop --for=condition=Ready --timeout=20s",
                "condition met",
            ),
            ("wait --for=delete pod/nobody --timeout=20s", ""),
            (
                "rollout status deployment/shop --timeout=20s",
                "successfully rolled out",
            ),
        ] {
            let outcome = kubectl_of(&client, arguments);
            let is_so = outcome.success() && outcome.stdout.contains(said);
            // Debian's kubectl takes a pod that is not there for a mistake, the new one for
            // deleted.
            let is_nothing_there = said.is_empty() && nothing_was_there(&outcome);
            assert!(
                is_so || is_nothing_there,
                "{client} {arguments}: {outcome:#?}"
            );
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
fn an_old_and_a_new_kubectl_see_a_guest_come_and_go() {
    let site = &served().site;
    let settled = |files: &[(&str, &str)], subject: &str| {
        let commit = site.repo.replace_signed(files, subject);
        eventually(SOON, subject, || {
            site.status()["target"]["id"] == commit.as_str()
        });
    };
    for client in old_and_new() {
        let mut watch = Follow::start_of(&client, &["get", "pods", "--watch"]);
        watch.wait_for("unwell");
        settled(
            &[("shop.yaml", SHOP), ("guest.yaml", GUEST)],
            "a guest comes",
        );
        eventually(SOON, "the guest is shown", || {
            !kubectl("get pods -l app=guest -o name").ok().is_empty()
        });
        // None of these is so when it is asked for, and all of them will be in three seconds.
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
        settled(&[("shop.yaml", SHOP)], "the guest goes");
        let outcome = gone.join().unwrap();
        // On a machine under load it may have gone before it was asked for.
        let was_late = nothing_was_there(&outcome);
        assert!(outcome.success() || was_late, "{client}: {outcome:#?}");
        watch.wait_for("Terminating");
    }
}
