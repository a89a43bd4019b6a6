//! Wrong manifests: all problems of a commit are reported at once, with file, line, column and
//! field.

use crate::case::Bench;
use crate::manifest::{APP, deployment, idle, pod};
use crate::support::{MAY_DELETE, is, unwrapped};

/// One wrong file: what is wrong with it, its text, and the messages that must follow
/// `apps/bad.yaml`.
struct Case {
    what: &'static str,
    text: String,
    messages: &'static [&'static str],
}

fn case(what: &'static str, text: impl Into<String>, messages: &'static [&'static str]) -> Case {
    Case {
        what,
        text: text.into(),
        messages,
    }
}

fn with_host_port(name: &str) -> String {
    pod(
        name,
        "{name: app, image: busybox, ports: [{containerPort: 80, hostPort: 8081}]}",
    )
}

fn node_port(name: &str, port: u32) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  type: NodePort\n  selector: {{app: web}}\n  \
         ports:\n  - port: 80\n    nodePort: {port}\n"
    )
}

/// Nine levels of nine aliases each, which expand to nearly four billion values.
fn alias_bomb() -> String {
    let mut text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\ndata:\n  a: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let below = format!("*a{}", level - 1);
        text.push_str(&format!(
            "  b{level}: &a{level} [{}]\n",
            [below.as_str(); 9].join(", ")
        ));
    }
    text
}

fn cases() -> Vec<Case> {
    let key = "{name: app, image: busybox, env: [{name: A, valueFrom: {configMapKeyRef: {name: settings, key: absent}}}]}";
    let volume = |path: &str| {
        format!(
            "{}  volumes:\n  - name: state\n    hostPath: {{path: {path}}}\n",
            pod(
                "thief",
                "{name: app, image: busybox, volumeMounts: [{name: state, mountPath: /state}]}"
            )
        )
    };
    vec![
        case(
            "malformed YAML",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x\nspec: 1\n",
            &[":4:", "not valid YAML"],
        ),
        case("an alias bomb", alias_bomb(), &["alias"]),
        case(
            "a file of 40 MB",
            format!("# {}\n", "x".repeat(40 << 20)),
            &["41943043 bytes"],
        ),
        case(
            "an unknown kind",
            "apiVersion: v1\nkind: Pot\nmetadata: {name: x}\n",
            &[":2:1: kind:", "Pot"],
        ),
        case(
            "a kind for later",
            "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: x}\n",
            &[":2:1: kind:", "StatefulSet", "not supported yet"],
        ),
        case(
            "an unknown field",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  contaners: []\n",
            &[":5:3: spec.contaners: unknown field (did you mean \"containers\"?)"],
        ),
        case(
            "an object twice",
            pod("a", &idle()),
            &[":3:18: metadata.name: Pod default/a is written at apps/a.yaml:1"],
        ),
        case(
            "a selector that does not match",
            deployment("x", 1, APP).replace("matchLabels: {app: x}", "matchLabels: {app: y}"),
            &[":7:", "spec.selector", "template"],
        ),
        case(
            "the same hostPort twice",
            format!("{}---\n{}", with_host_port("one"), with_host_port("two")),
            &[
                ":15:61: spec.containers[0].ports[0].hostPort: 8081/TCP",
                "apps/bad.yaml:",
            ],
        ),
        case(
            "the same nodePort twice",
            format!(
                "{}---\n{}",
                node_port("one", 30081),
                node_port("two", 30081)
            ),
            &[":19:5: spec.ports[0].nodePort: 30081/TCP", "apps/bad.yaml:"],
        ),
        case(
            "a nodePort out of range",
            node_port("one", 80),
            &[":9:5: spec.ports[0].nodePort", "30000", "32767"],
        ),
        case(
            "a missing ConfigMap key",
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{present: x}}\n---\n{}",
                pod("x", key)
            ),
            &[":12:", "absent", "settings"],
        ),
        case(
            "a missing ConfigMap",
            pod("x", key),
            &[":7:", "ConfigMap", "settings"],
        ),
        case(
            "a hostPath into our data",
            volume("/var/lib/windlass/trust"),
            &[":10:", "hostPath", "/var/lib/windlass"],
        ),
        case(
            "a hostPath above our data",
            volume("/var/lib"),
            &[":10:", "hostPath", "/var/lib/windlass"],
        ),
        case(
            "a hostPath to our sockets",
            volume("/run/windlass/admin.sock"),
            &[":10:", "hostPath", "/run/windlass"],
        ),
        case(
            "several problems",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: Upper}\nspec:\n  replicas: 1\n  containers: []\n",
            &[
                ":3:12: metadata.name:",
                ":5:3: spec.replicas: unknown field",
                ":6:3: spec.containers:",
            ],
        ),
    ]
}

#[test]
fn every_wrong_manifest_is_refused_with_its_place_and_no_running_pod_is_touched() {
    let mut bench = Bench::start();
    let mut missing = Vec::new();
    for Case {
        what,
        text,
        messages,
    } in cases()
    {
        let commit = bench.site.push(&[("apps/bad.yaml", &text)], what);
        bench.wait_refused(what, &commit, &["apps/bad.yaml"]);
        let status = unwrapped(&bench.site.windlass(&["status"]).ok());

        // `windlass check` reports the same problems without a daemon.
        let apps = bench.site.repo.work().join("apps");
        let checked = bench.site.windlass(&["check", apps.to_str().unwrap()]);
        assert_eq!(checked.code, 1, "{what}: {checked:?}");
        let checked = unwrapped(&format!("{}{}", checked.stdout, checked.stderr));
        for message in messages {
            // `check` prints paths of the work tree, so the directory before the file differs.
            let message = &unwrapped(message.rsplit("apps/").next().unwrap());
            for printed in [&status, &checked]
                .into_iter()
                .filter(|printed| !printed.contains(message.as_str()))
            {
                missing.push(format!("{what}: {message:?} is not in\n{printed}"));
            }
        }

        let corrected = bench
            .site
            .repo
            .commit_removing(&["apps/bad.yaml"], "without it");
        bench.wait_corrected(what, corrected);
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    let history = bench.site.windlass(&["history"]).ok();
    assert!(
        history.contains("Refused") && history.contains("several problems"),
        "{history}"
    );
}

#[test]
fn a_commit_that_would_delete_too_many_workloads_is_refused_or_held() {
    let mut bench = Bench::start();

    let commit = bench.site.repo.commit_removing(&["apps"], "no directory");
    bench.wait_refused(
        "a missing path",
        &commit,
        &["apps: this configured path is not in the commit"],
    );
    let commit = bench
        .site
        .push(&[("apps/README", "nothing here\n")], "no manifest");
    bench.wait_refused(
        "all manifests deleted",
        &commit,
        &["apps: no *.yaml, *.yml or *.json file (in lower case) is here"],
    );
    let commit = bench
        .site
        .push(&[("apps/empty.yaml", "---\n---\n")], "no object");
    bench
        .site
        .wait_status("the commit without an object is the head", |status| {
            is(&status["head"]["id"], &commit)
        });
    bench.assert_unchanged("manifests without an object");

    // The budget lets one of four workloads be deleted without the trailer, and not three.
    let good = bench.good.clone();
    bench
        .site
        .repo
        .git(&["checkout", "-q", &good, "--", "apps"])
        .ok();
    let restored = bench
        .site
        .repo
        .commit_removing(&["apps/README", "apps/empty.yaml"], "as it was");
    bench.wait_corrected("as it was", restored);
    let held = bench
        .site
        .repo
        .commit_removing(&["apps/a.yaml", "apps/b.yaml", "apps/c.yaml"], "less");
    bench.site.wait_status("the head is held", |status| {
        is(&status["head"]["id"], &held) && is(&status["head_state"], "Held")
    });
    bench.assert_status_contains(
        "held",
        &[
            "Held: the newest commit waits for an approval",
            "delete 3 of 4 workloads",
            "Pod/default/a",
            "Windlass-Allow-Deletions: yes",
        ],
    );
    bench.assert_unchanged("held");
    let outcome = bench.site.windlass(&["sync", "--wait", "--timeout", "10s"]);
    assert_eq!(outcome.code, 3, "{outcome:?}");
    assert!(
        outcome.stdout.contains("Windlass-Allow-Deletions: yes"),
        "{outcome:?}"
    );

    let web = bench.site.running_of("web");
    let allowed = bench
        .site
        .push(&[], &format!("allow the deletion{MAY_DELETE}"));
    bench.site.wait_healthy(&allowed);
    crate::support::eventually(crate::support::SOON, "only containers of web run", || {
        bench.site.running() == web
    });
}
