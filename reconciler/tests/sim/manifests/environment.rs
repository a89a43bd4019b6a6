//! The environment of containers, from the manifests to the container that is created.

use std::{collections::BTreeMap, net::Ipv4Addr};

use reconciler::{
    manifest::{Limits, ReadAs, Severity, SourceFile, parse},
    name::{NodeName, ObjectKey, PodUid},
    object::{Objects, Sensitive},
    plan::Step,
    pod::environment::{PodFacts, environment},
};

use super::life::sim;
use crate::build::{bare, commit, node_port, pod};

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
pub(super) fn objects(manifests: &str) -> Objects {
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

/// The lines `NAME=value` of the environment that the only pod of the manifests gets, or why it
/// gets none; `services` are the variables of Services.
fn lines_of(fields: &str, services: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let objects = objects(&format!(
        "{CONFIG}apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: default, labels: {{app: web}}, annotations: {{team: a}}}}
spec: {{containers: [{{name: main, image: 'web:1', {fields}}}]}}
"
    ));
    let workload = objects.workloads.values().next().unwrap();
    let pod = PodFacts {
        key: &ObjectKey::new("default", "web"),
        uid: &PodUid::new("u1"),
        meta: &workload.template.meta,
        node: &NodeName::new("n1"),
        address: Ipv4Addr::new(10, 42, 1, 7),
        host_address: Ipv4Addr::new(192, 0, 2, 1),
    };
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let services: BTreeMap<String, String> = services.iter().map(text).collect();

    let container = &workload.template.spec.containers[0];
    let line = |(name, value): (String, Sensitive<String>)| format!("{name}={}", value.expose());
    let environment = environment(container, &pod, &objects, &services);
    environment
        .map(|variables| variables.into_iter().map(line).collect())
        .map_err(|missing| missing.to_string())
}

#[test]
fn a_variable_has_the_value_of_its_source() {
    let fields = "env: [
        {name: TEXT, value: plain}, {name: NONE},
        {name: KEY, valueFrom: {configMapKeyRef: {name: app, key: COLOR}}},
        {name: SECRET, valueFrom: {secretKeyRef: {name: app, key: PASSWORD}}},
        {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}},
        {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}},
        {name: UID_, valueFrom: {fieldRef: {fieldPath: metadata.uid}}},
        {name: LABEL, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}},
        {name: NO_LABEL, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['none']\"}}},
        {name: ANNOTATION, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['team']\"}}},
        {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}},
        {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}},
        {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}},
        {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}]";
    let expected = [
        "TEXT=plain",
        "NONE=",
        "KEY=blue",
        "SECRET=secret",
        "NAME=web",
        "NAMESPACE=default",
        "UID_=u1",
        "LABEL=web",
        "NO_LABEL=",
        "ANNOTATION=a",
        "NODE=n1",
        "ACCOUNT=default",
        "POD_IP=10.42.1.7",
        "HOST_IP=192.0.2.1",
    ];
    assert_eq!(lines_of(fields, &[]).unwrap(), expected);
}

#[test]
fn variables_of_the_container_replace_those_of_its_sources_and_of_services() {
    let fields = "envFrom: [{configMapRef: {name: app}}, {prefix: P_, secretRef: {name: app}}],
        env: [{name: SIZE, value: 'not $(SIZE), $(WEB_HOST), $(COLOR), $(P_PASSWORD), $(LATER), $$(SIZE)'},
        {name: LATER, value: x}]";
    let services = [("WEB_HOST", "10.96.0.1"), ("COLOR", "of a Service")];
    let expected = [
        "WEB_HOST=10.96.0.1",
        "COLOR=blue",
        "P_PASSWORD=secret",
        "SIZE=not 3, 10.96.0.1, blue, secret, $(LATER), $(SIZE)",
        "LATER=x",
    ];
    assert_eq!(lines_of(fields, &services).unwrap(), expected);
}

#[test]
fn what_is_optional_is_left_out_and_what_is_missing_is_named() {
    let optional = "envFrom: [{configMapRef: {name: none, optional: true}}],
        env: [{name: A, valueFrom: {secretKeyRef: {name: none, key: a, optional: true}}},
        {name: B, valueFrom: {configMapKeyRef: {name: app, key: none, optional: true}}}]";
    assert_eq!(lines_of(optional, &[]).unwrap(), Vec::<String>::new());

    let missing = [
        (
            "envFrom: [{configMapRef: {name: none}}]",
            "ConfigMap \"none\" is not in the commit",
        ),
        (
            "env: [{name: A, valueFrom: {secretKeyRef: {name: none, key: a}}}]",
            "Secret \"none\" is not in the commit",
        ),
        (
            "env: [{name: A, valueFrom: {secretKeyRef: {name: app, key: none}}}]",
            "Secret \"app\" has no key \"none\"",
        ),
    ];
    for (fields, why) in missing {
        assert_eq!(lines_of(fields, &[]).unwrap_err(), why);
    }
}

#[test]
fn a_container_gets_the_variables_of_the_services_of_its_namespace() {
    let started = |links: bool| {
        let mut spec = pod("web:1");
        spec.enable_service_links = links;
        let mut sim = sim();
        let commit = commit("c1").with(bare("web", spec));
        sim.push(commit.service("my-web", "web", node_port(None)).build());
        for _ in 0..50 {
            let lanes = sim.state.pods.keys().filter_map(|uid| sim.lane(uid));
            let mut steps = lanes.flat_map(|lane| &lane.steps);
            let started = steps.find_map(|step| match step {
                Step::StartContainer(spec) => Some(spec.env.clone()),
                _ => None,
            });
            if let Some(variables) = started {
                return variables;
            }
            sim.run(std::time::Duration::from_millis(100));
        }
        sim.fail("no container starts")
    };
    assert_eq!(started(false).len(), 0);
    let names: Vec<String> = started(true).into_iter().map(|(name, _)| name).collect();
    let expected = [
        "MY_WEB_PORT",
        "MY_WEB_PORT_80_TCP",
        "MY_WEB_PORT_80_TCP_ADDR",
        "MY_WEB_PORT_80_TCP_PORT",
        "MY_WEB_PORT_80_TCP_PROTO",
        "MY_WEB_SERVICE_HOST",
        "MY_WEB_SERVICE_PORT",
    ];
    assert_eq!(names, expected);
}
