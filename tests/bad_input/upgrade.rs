//! An upgrade to a version that refuses more manifests: a commit that an older version accepted
//! keeps running, its containers are restarted, and it is the target of rollbacks.

use std::fs;

use crate::manifest::{APP, APP_2, deployment_with, service};
use crate::support::{SOON, Site, eventually, is};

const TRUST: &str = "/var/lib/windlass/trust";

/// Files that older versions accepted and this version refuses in a new head, each with a part of
/// its message. There is one file for each rule that pods can run without.
const NOW_REFUSED: &[(&str, &str, &str)] = &[
    (
        "basic.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: basic}\ntype: kubernetes.io/basic-auth\nstringData: {a: b}\n",
        "needs the key \"username\" or \"password\"",
    ),
    (
        "registry.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: registry}\ntype: kubernetes.io/dockerconfigjson\n\
         stringData: {.dockerconfigjson: none}\n",
        "must be a mapping in JSON",
    ),
    (
        "key.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\ntype: kubernetes.io/ssh-auth\n\
         stringData: {ssh-privatekey: ''}\n",
        "must not be empty",
    ),
    (
        "account.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: account}\ntype: kubernetes.io/service-account-token\n",
        "needs the annotation",
    ),
    (
        "sops.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: sops}\n\
         stringData: {password: 'ENC[AES256_GCM,data:AA,iv:AA,tag:AA,type:str]'}\n",
        "encrypted by SOPS",
    ),
    (
        "inner.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: inner}\nspec:\n  externalTrafficPolicy: Cluster\n  \
         healthCheckNodePort: 30100\n  allocateLoadBalancerNodePorts: true\n  selector: {app: web}\n  \
         ports: [{port: 80, targetPort: 8080}]\n",
        "only for the types NodePort and LoadBalancer",
    ),
    (
        "outer.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: outer}\nspec: {type: ExternalName, externalName: \
         a.example.com, clusterIP: None, ipFamilyPolicy: SingleStack}\n",
        "not even None",
    ),
];

/// A Deployment that uses one of the Secrets.
fn web(container: &str) -> String {
    let container = container.replacen(
        "{name: app,",
        "{name: app, env: [{name: P, valueFrom: {secretKeyRef: {name: sops, key: password}}}],",
        1,
    );
    deployment_with(
        "web",
        1,
        &container,
        "strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}",
    )
}

#[test]
fn a_commit_that_an_older_version_accepted_keeps_running_and_is_rolled_back_to_after_an_upgrade() {
    let mut site = Site::new("");
    site.configure("");
    let (first, service) = (web(APP), service("web"));
    let mut files = vec![
        ("web.yaml", first.as_str()),
        ("service.yaml", service.as_str()),
    ];
    files.extend(NOW_REFUSED.iter().map(|(name, text, _)| (*name, *text)));
    let old = site.push(&files, "accepted by the older version");

    // The older version accepted this commit. So that this version accepts it too, the record of
    // accepted heads names it for the first start; without the record, the directory is as the
    // older version leaves it.
    let trust = site.host.path(TRUST);
    let record = trust.join("accepted.json");
    fs::create_dir_all(&trust).unwrap();
    fs::write(
        &record,
        format!("{{\"schema\": 1, \"heads\": [\"{old}\"]}}"),
    )
    .unwrap();
    site.start();
    site.wait_healthy(&old);
    site.wait_answer("/", "app 1 web");
    let before = site.running();
    site.stop();
    fs::remove_file(&record).unwrap();

    // Now the daemon starts as after an upgrade.
    site.start();
    let status = site.wait_status("the host has converged after the upgrade", |status| {
        is(&status["head"]["id"], &old) && status["converged"] == true
    });
    assert!(
        status["source"]["refusal"].is_null() && is(&status["healthy"]["id"], &old),
        "{status:#}"
    );
    let warnings = status["warnings"].to_string();
    for (name, _, message) in NOW_REFUSED {
        let message = serde_json::to_string(message).unwrap();
        assert!(
            warnings.contains(message.trim_matches('"')),
            "{name}: {message} is not in {warnings}"
        );
    }
    assert_eq!(site.running(), before, "a running container was touched");

    // A container that is killed is restarted.
    let app = before
        .iter()
        .find(|container| container.name == "app")
        .unwrap();
    site.host.docker(&["kill", &app.id]);
    eventually(SOON, "the container runs again", || {
        site.running().len() == before.len() && site.running() != before
    });
    site.wait_answer("/", "app 1 web");

    // A new head with the same files is refused, and no container changes.
    let running = site.running();
    let refused = site.push(
        &[(
            "note.yaml",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: extra}\n",
        )],
        "the next commit",
    );
    let status = site.wait_status("the new head is refused", |status| {
        is(&status["source"]["refusal"]["commit"], &refused)
    });
    assert!(is(&status["target"]["id"], &old), "{status:#}");
    // The new head is refused after a restart too: a commit in the trusted set was not necessarily
    // accepted.
    site.stop();
    site.start();
    site.wait_status("the new head is refused again", |status| {
        is(&status["source"]["refusal"]["commit"], &refused)
    });
    assert_eq!(site.running(), running, "a running container was touched");

    // A new head with valid files whose rollout fails is rolled back to the old commit.
    let broken = web("{name: app, image: 'windlass-test/app:2', command: [/does/not/exist]}");
    let plain = "apiVersion: v1\nkind: Secret\nmetadata: {name: NAME}\nstringData: {password: x}\n";
    let plain: Vec<(&str, String)> = NOW_REFUSED
        .iter()
        .map(|(file, ..)| (*file, plain.replace("NAME", file.trim_end_matches(".yaml"))))
        .collect();
    let plain: Vec<(&str, &str)> = plain
        .iter()
        .map(|(file, text)| (*file, text.as_str()))
        .collect();
    let bad = site.push(
        &[plain.as_slice(), &[("web.yaml", &broken)]].concat(),
        "no such command",
    );
    site.wait_rolled_back(&bad, &old);
    site.wait_answer("/", "app 1 web");
    let good = site.deploy(&[("web.yaml", &web(APP_2))]);
    site.wait_answer("/", "app 2 web");

    // A manual rollback to the old commit works too.
    site.windlass(&["rollback", &old]).ok();
    site.wait_answer("/", "app 1 web");
    let status = site.status();
    assert!(
        status["source"]["refusal"].is_null() && !is(&status["healthy"]["id"], &refused),
        "{good} {status:#}"
    );
}
