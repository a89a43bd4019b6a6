//! An attacker who may write all of the store assigns pods of an unsigned commit. The commit is in
//! every host's mirror, because a signed head descends from it.

use reconciler::{
    desired::{self, CheckSettings},
    manifest::{Limits, ReadAs, SourceFile},
};
use serde_json::Value;

use crate::{
    manifest::{APP, deployment},
    store::{wait_trouble, web},
    support::Cluster,
    thief::Thief,
};

/// The hash of the only workload's template, as every host computes it.
fn template(manifest: &str) -> String {
    let files = [SourceFile {
        path: "mine.yaml",
        content: manifest.as_bytes(),
    }];
    let (objects, problems) = desired::read(
        &files,
        &Limits::default(),
        &CheckSettings::default(),
        ReadAs::NewHead,
    );
    assert!(problems.is_empty(), "{problems:?}");
    objects
        .workloads
        .values()
        .next()
        .unwrap()
        .template
        .hash
        .to_string()
}

#[test]
fn an_attacker_with_the_store_cannot_start_pods_of_an_unsigned_commit() {
    let cluster = Cluster::builder(2).without_daemons().start();
    let thief = Thief { cluster: &cluster };
    // New hosts accept the signed head although its parent is unsigned: they have no verified
    // commit, so there is no range of commits to check.
    let mine = deployment("mine", 1, APP);
    let planted = cluster
        .repo
        .commit_unsigned(&[("mine.yaml", &mine)], "an unsigned commit");
    let head = cluster.push(&[("web.yaml", &web())]);
    cluster.start_daemons();
    for host in &cluster.hosts {
        host.wait_status("the signed head is healthy", |status| {
            status["healthy"]["id"] == head.as_str() && status["phase"] == "Healthy"
        });
    }
    let webs = cluster.eventually_running("web", 3);
    let like = thief.record(webs[0]["metadata"]["uid"].as_str().unwrap());

    thief.take_leadership();
    let to_mine =
        |value: &Value| serde_json::from_str(&value.to_string().replace("web", "mine")).unwrap();
    for node in ["n1", "n2"] {
        thief.assign(&like, &format!("forged-{node}"), node, |pod| {
            pod["owner"] = to_mine(&pod["owner"]);
            pod["key"] = format!("default/mine-{node}").into();
            pod["commit"] = planted.as_str().into();
            pod["template"] = template(&mine).into();
        });
    }
    for host in &cluster.hosts {
        wait_trouble(
            host,
            &format!(
                "commit {} cannot be read: it may not run here",
                &planted[..10]
            ),
        );
        wait_trouble(host, "\"an unsigned commit\": it is not signed");
        thief.wait_refused(
            &host.name,
            &format!("forged-{}", host.name),
            "may not run on this node",
        );
        let of_mine = |pod: &str| pod.starts_with("mine");
        assert!(
            host.containers()
                .iter()
                .all(|container| !of_mine(&container.pod)),
            "{:?}",
            host.containers()
        );
        // Commands of a person on the host itself refuse the commit too.
        let outcome = host.windlass(&["rollback", "--local", &planted]);
        assert!(!outcome.success(), "{outcome:?}");
        let outcome = host.windlass(&["plan", &planted]);
        assert!(outcome.stderr.contains("it is not signed"), "{outcome:?}");
    }
    thief.give_up_leadership();
}
