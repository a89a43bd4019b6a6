//! Commits that stop being eligible on a host: their pods are kept running in place.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    manifest::{APP, deployment},
    support::{SOON, Site, eventually_some},
};

/// The ids of the running application containers.
fn containers(site: &Site) -> BTreeSet<String> {
    let filter = [
        "ps",
        "-q",
        "--no-trunc",
        "--filter",
        "label=io.windlass.container=app",
    ];
    site.host
        .docker(&filter)
        .lines()
        .map(str::to_owned)
        .collect()
}

fn reports_ineligible(status: &Value, commit: &str) -> bool {
    let notes = status["notes"].as_array().into_iter().flatten();
    let words = format!("commit {} may not run here", &commit[..10]);
    notes
        .filter_map(Value::as_str)
        .any(|note| note.starts_with(&words) && note.contains("it is not signed"))
}

/// The commit and the grounds of each pod, as `windlass trust audit` prints them.
fn audit(site: &Site) -> Vec<(String, String)> {
    let report = site.host.windlass(&["trust", "audit", "-o", "json"]).json();
    let pods = report["pods"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    pods.map(|pod| (text(&pod["commit"]), text(&pod["grounds"])))
        .collect()
}

#[test]
fn pods_of_an_unsigned_commit_are_kept_in_place_after_signatures_become_required() {
    let mut site = Site::started("[trust]\nmode = 'off'\n");
    let web = deployment("web", 2, APP);
    let files = [("web.yaml", web.as_str())];
    let unsigned = site.repo.commit_unsigned(&files, "an unsigned commit");
    site.wait_healthy(&unsigned);
    let before = containers(&site);
    assert_eq!(before.len(), 2);
    assert!(
        audit(&site)
            .iter()
            .all(|(_, grounds)| grounds == "mode off")
    );

    site.stop();
    site.configure("");
    site.start();
    site.wait_status("the commit is reported as not eligible", |status| {
        reports_ineligible(status, &unsigned)
    });
    assert_eq!(containers(&site), before, "a container was touched");
    assert_eq!(audit(&site), vec![(unsigned.clone(), "none".to_owned()); 2]);

    // A killed container is restarted, and a pod without containers is started again.
    let victim = before.first().unwrap();
    site.host.docker(&["kill", victim]);
    eventually_some(SOON, "the killed container is replaced", || {
        let running = containers(&site);
        (running.len() == 2 && !running.contains(victim)).then_some(())
    });
    let sandbox = site
        .host
        .docker(&["ps", "-q", "--filter", "label=io.windlass.role=sandbox"]);
    let sandbox = sandbox.lines().next().unwrap();
    let uid = site.host.docker(&[
        "inspect",
        "-f",
        "{{index .Config.Labels \"io.windlass.pod.uid\"}}",
        sandbox,
    ]);
    let of_pod = [
        "ps",
        "-aq",
        "--filter",
        &format!("label=io.windlass.pod.uid={uid}"),
    ];
    let all = site.host.docker(&of_pod);
    site.host
        .docker(&[&["rm", "-f"], all.lines().collect::<Vec<_>>().as_slice()].concat());
    eventually_some(SOON, "the removed pod runs again", || {
        (containers(&site).len() == 2).then_some(())
    });

    // After a signed commit with the same files no container has changed, and all pods have a
    // signature.
    let kept = containers(&site);
    let signed = site.deploy(&files);
    site.wait_status("no commit is reported as not eligible", |status| {
        !reports_ineligible(status, &unsigned)
    });
    assert_eq!(containers(&site), kept);
    assert_eq!(audit(&site), vec![(signed, "signature".to_owned()); 2]);
}
