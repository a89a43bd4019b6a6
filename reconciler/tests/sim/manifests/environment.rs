//! The environment of containers, from the manifests to the container that is created.

use std::{collections::BTreeMap, time::Duration};

use reconciler::{object::Sensitive, plan::Step, pod::environment::environment};

use super::{only_workload, with_facts, with_pod};
use crate::{
    build::{bare, commit, node_port, pod},
    daemon::Sim,
    registry::Behaviour,
};

/// The lines `NAME=value` of the environment that the only pod of the manifests gets, or why it
/// gets none; `services` are the variables of Services.
fn lines_of(fields: &str, services: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let objects = with_pod(&format!(
        "containers: [{{name: main, image: 'web:1', {fields}}}]"
    ));
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let services: BTreeMap<String, String> = services.iter().map(text).collect();

    let container = &only_workload(&objects).template.spec.containers[0];
    let line = |(name, value): (String, Sensitive<String>)| format!("{name}={}", value.expose());
    with_facts(&objects, |pod| {
        environment(container, pod, &objects, &services)
    })
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
        let mut sim = Sim::default();
        sim.registry.push("web:1", Behaviour::Fine);
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
            sim.run(Duration::from_millis(100));
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
