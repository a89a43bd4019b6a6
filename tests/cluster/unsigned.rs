//! A thief of the store and the commit that nobody signed: below a signed one it lies in every
//! host's mirror.

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
fn a_thief_of_the_store_starts_no_commit_that_nobody_signed() {
    let cluster = Cluster::builder(2).without_daemons().start();
    let thief = Thief { cluster: &cluster };
    // Fresh hosts accept the signed head: they have no commit before it to begin from.
    let mine = deployment("mine", 1, APP);
    let planted = cluster
        .repo
        .commit_unsigned(&[("mine.yaml", &mine)], "nobody signed this");
    let head = cluster.push(&[("web.yaml", &web())]);
    cluster.start_daemons();
    for host in &cluster.hosts {
        host.wait_status("the signed head is healthy", |status| {
            status["healthy"]["id"] == head.as_str() && status["phase"] == "Healthy"
        });
    }
    let webs = cluster.eventually_running("web", 3);
    let like = thief.record(webs[0]["metadata"]["uid"].as_str().unwrap());

    thief.leads();
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
        wait_trouble(host, "\"nobody signed this\": it is not signed");
        thief.refused(
            &host.name,
            &format!("forged-{}", host.name),
            "may not run on this node",
        );
        let of_mine = |pod: &str| pod.starts_with("mine");
        assert!(
            host.containers().iter().all(|one| !of_mine(&one.pod)),
            "{:?}",
            host.containers()
        );
        // Nor by hand, on the host itself.
        let outcome = host.windlass(&["rollback", "--local", &planted]);
        assert!(!outcome.success(), "{outcome:?}");
        let outcome = host.windlass(&["plan", &planted]);
        assert!(outcome.stderr.contains("it is not signed"), "{outcome:?}");
    }
    thief.goes();
}
