//! What a host makes of manifests, without a simulation: endpoints, environments and files.

mod endpoints;
mod environment;
mod files;

use std::net::Ipv4Addr;

use reconciler::{
    manifest::{Limits, ReadAs, Severity, SourceFile, parse},
    name::{NodeName, ObjectKey, PodUid},
    object::{Objects, Workload},
    pod::environment::PodFacts,
};

const CONFIG: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: app}
data: {COLOR: blue, SIZE: '3'}
---
apiVersion: v1
kind: Secret
metadata: {name: app}
stringData: {PASSWORD: secret}
---
";

/// The objects of these manifests, which have no errors.
fn objects(manifests: &str) -> Objects {
    let file = SourceFile {
        path: "a.yaml",
        content: manifests.as_bytes(),
    };
    let (objects, problems) = parse(&[file], &Limits::default(), ReadAs::NewHead);
    let mut errors = problems.iter();
    let error = errors.find(|problem| problem.severity == Severity::Error);
    assert_eq!(error, None);
    objects
}

/// The ConfigMap and the Secret `app`, and a Pod `web` with this `spec`.
fn with_pod(spec: &str) -> Objects {
    objects(&format!(
        "{CONFIG}apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}, annotations: {{team: a}}}}
spec: {{{spec}}}
"
    ))
}

fn only_workload(objects: &Objects) -> &Workload {
    objects.workloads.values().next().unwrap()
}

/// Calls a function with the facts of the only pod of these objects, which runs on `n1`.
fn with_facts<T>(objects: &Objects, act: impl FnOnce(&PodFacts<'_>) -> T) -> T {
    act(&PodFacts {
        key: &ObjectKey::new("default", "web"),
        uid: &PodUid::new("u1"),
        meta: &only_workload(objects).template.meta,
        node: &NodeName::new("n1"),
        address: Ipv4Addr::new(10, 42, 1, 7),
        host_address: Ipv4Addr::new(192, 0, 2, 1),
    })
}
