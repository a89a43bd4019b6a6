//! The manifests that this project was made for are accepted, and no change of them makes the
//! reader panic.

#[path = "inputs/advice.rs"]
mod advice;
#[path = "inputs/documents.rs"]
mod documents;
#[path = "inputs/practice.rs"]
mod practice;

use proptest::prelude::*;
use reconciler::{
    desired::{self, CheckSettings},
    manifest::{Limits, ReadAs, Severity, SourceFile},
    object::Objects,
};

const MANIFESTS: &[(&str, &str)] = &[
    (
        "app-wordpress.yml",
        include_str!("manifests/app-wordpress.yml"),
    ),
    (
        "app-wordpress2.yml",
        include_str!("manifests/app-wordpress2.yml"),
    ),
    (
        "app-wordpress3.yml",
        include_str!("manifests/app-wordpress3.yml"),
    ),
    ("deployment.yaml", include_str!("manifests/deployment.yaml")),
    (
        "mackerel-daemonset.yaml",
        include_str!("manifests/mackerel-daemonset.yaml"),
    ),
    (
        "mackerel-pod.yaml",
        include_str!("manifests/mackerel-pod.yaml"),
    ),
    (
        "mackerel-replicaset.yaml",
        include_str!("manifests/mackerel-replicaset.yaml"),
    ),
    ("services.yaml", include_str!("manifests/services.yaml")),
    ("svc-httpd.yml", include_str!("manifests/svc-httpd.yml")),
];

fn read(path: &str, text: &str) -> (Objects, String) {
    let file = SourceFile {
        path,
        content: text.as_bytes(),
    };
    let (objects, problems) = desired::read(
        &[file],
        &Limits::default(),
        &CheckSettings::default(),
        ReadAs::NewHead,
    );
    (
        objects,
        problems
            .iter()
            .map(|problem| format!("{problem}\n"))
            .collect(),
    )
}

#[test]
fn every_manifest_is_accepted() {
    let problems: String = MANIFESTS
        .iter()
        .map(|(path, text)| read(path, text).1)
        .collect();
    insta::assert_snapshot!(problems, @"
    services.yaml:9:3: warning: spec.externalName: an address, not a name: DNS answers it as an A record, which Kubernetes does not
    services.yaml:22:3: warning: spec.selector: no pod of the namespace default in this commit has these labels: correct them, or add the pods
    ");
}

#[test]
fn every_manifest_becomes_its_objects() {
    let objects: String = MANIFESTS
        .iter()
        .map(|(path, text)| {
            let (objects, _) = read(path, text);
            let workloads = objects.workloads.keys().map(ToString::to_string);
            let services = objects.services.keys().map(|key| format!("Service/{key}"));
            format!(
                "{path}: {}\n",
                workloads.chain(services).collect::<Vec<_>>().join(" ")
            )
        })
        .collect();
    insta::assert_snapshot!(objects, @"
    app-wordpress.yml: Pod/default/wordpress-app Service/default/wordpress Service/default/wordpress-mysql
    app-wordpress2.yml: Pod/default/wordpress-mysql ReplicaSet/default/wordpress-reps Service/default/wordpress Service/default/wordpress-mysql
    app-wordpress3.yml: Pod/default/wordpress-mysql Deployment/default/wordpress Service/default/wordpress Service/default/wordpress-mysql
    deployment.yaml: Deployment/default/example-app-deployment
    mackerel-daemonset.yaml: DaemonSet/default/mackerel-agent
    mackerel-pod.yaml: Pod/default/mackerel-agent
    mackerel-replicaset.yaml: ReplicaSet/default/mackerel-agent
    services.yaml: Service/default/example-app Service/default/mysql-service
    svc-httpd.yml: Pod/default/httpd Service/default/httpd-svc
    ");
}

/// A manifest in which a few pieces are replaced, duplicated or removed.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n".to_owned()),
        Just("  ".to_owned()),
        Just(": ".to_owned()),
        Just("- ".to_owned()),
        Just("---\n".to_owned()),
        Just("&a ".to_owned()),
        Just("*a ".to_owned()),
        Just("<<: ".to_owned()),
        Just("!!binary ".to_owned()),
        Just("{".to_owned()),
        Just("]".to_owned()),
        Just("\"".to_owned()),
        Just("\"\\n\": ".to_owned()),
        Just("null".to_owned()),
        Just("-1".to_owned()),
        "\\PC{0,6}",
    ];
    let edit = (any::<prop::sample::Index>(), 0_usize..20, piece);
    (0..MANIFESTS.len(), prop::collection::vec(edit, 1..6)).prop_map(|(manifest, edits)| {
        let mut text: Vec<char> = MANIFESTS[manifest].1.chars().collect();
        for (at, removed, piece) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, piece.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(content in prop::collection::vec(any::<u8>(), 0..400), json in any::<bool>()) {
        let file = SourceFile { path: if json { "a.json" } else { "a.yaml" }, content: &content };
        desired::read(&[file], &Limits::default(), &CheckSettings::default(), ReadAs::NewHead);
    }

    #[test]
    fn changed_manifests_never_panic_and_problems_have_positions(text in mutated()) {
        let file = SourceFile { path: "a.yaml", content: text.as_bytes() };
        let (_, problems) = desired::read(&[file], &Limits::default(), &CheckSettings::default(), ReadAs::NewHead);
        let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX) + 1;
        for problem in problems {
            prop_assert!((1..=lines).contains(&problem.line) && problem.column > 0, "{problem}");
            prop_assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
        }
    }

    #[test]
    fn the_order_of_files_does_not_matter(mut order in Just((0..MANIFESTS.len()).collect::<Vec<_>>()).prop_shuffle()) {
        let read = |order: &[usize]| {
            let files: Vec<SourceFile<'_>> = order
                .iter()
                .map(|index| SourceFile { path: MANIFESTS[*index].0, content: MANIFESTS[*index].1.as_bytes() })
                .collect();
            let (objects, problems) = desired::read(&files, &Limits::default(), &CheckSettings::default(), ReadAs::NewHead);
            (format!("{objects:?}"), problems)
        };
        let shuffled = read(&order);
        order.sort_unstable();
        let sorted = read(&order);
        prop_assert_eq!(&shuffled, &sorted);
        prop_assert!(sorted.1.iter().any(|problem| problem.severity == Severity::Error), "the manifests reuse names");
    }
}
