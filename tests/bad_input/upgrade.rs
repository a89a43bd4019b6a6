//! An upgrade to a version with more rules: what an older version accepted runs on, is healed and
//! is rolled back to.

use std::fs;

use crate::manifest::{APP, APP_2, deployment_with, service};
use crate::support::{SOON, Site, eventually, is};

const TRUST: &str = "/var/lib/windlass/trust";

/// What older versions accepted and this one refuses in a new head, with a part of what is said of
/// it: one of each that containers can run with.
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
fn what_an_older_version_accepted_is_kept_healed_and_rolled_back_to_after_the_upgrade() {
    let mut site = Site::new("");
    site.configure("");
    let (first, service) = (web(APP), service("web"));
    let mut files = vec![
        ("web.yaml", first.as_str()),
        ("service.yaml", service.as_str()),
    ];
    files.extend(NOW_REFUSED.iter().map(|(name, text, _)| (*name, *text)));
    let old = site.push(&files, "accepted by the older version");

    // The older version took this commit: this one does too where its record says that it was
    // accepted, and without the record the directory is as the older version leaves it.
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

    // The upgrade.
    site.start();
    let status = site.wait_status("the first look after the upgrade", |status| {
        is(&status["head"]["id"], &old) && status["converged"] == true
    });
    assert!(
        status["source"]["refusal"].is_null() && is(&status["healthy"]["id"], &old),
        "{status:#}"
    );
    let warnings = status["warnings"].to_string();
    for (name, _, said) in NOW_REFUSED {
        let said = serde_json::to_string(said).unwrap();
        assert!(
            warnings.contains(said.trim_matches('"')),
            "{name}: {said} is not in {warnings}"
        );
    }
    assert_eq!(site.running(), before, "what ran was touched");

    // What dies is started again.
    let app = before.iter().find(|one| one.name == "app").unwrap();
    site.host.docker(&["kill", &app.id]);
    eventually(SOON, "the container runs again", || {
        site.running().len() == before.len() && site.running() != before
    });
    site.wait_answer("/", "app 1 web");

    // The same in a new head is refused, and changes nothing.
    let running = site.running();
    let refused = site.push(
        &[(
            "note.yaml",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: extra}\n",
        )],
        "the next",
    );
    let status = site.wait_status("the new head is refused", |status| {
        is(&status["source"]["refusal"]["commit"], &refused)
    });
    assert!(is(&status["target"]["id"], &old), "{status:#}");
    // Also after a restart: that its signature is good is not that it was accepted.
    site.stop();
    site.start();
    site.wait_status("it is refused again", |status| {
        is(&status["source"]["refusal"]["commit"], &refused)
    });
    assert_eq!(site.running(), running, "what ran was touched");

    // A new head without them that fails is rolled back, to the old commit.
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

    // And by hand.
    site.windlass(&["rollback", &old]).ok();
    site.wait_answer("/", "app 1 web");
    let status = site.status();
    assert!(
        status["source"]["refusal"].is_null() && !is(&status["healthy"]["id"], &refused),
        "{good} {status:#}"
    );
}
