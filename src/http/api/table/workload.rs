//! The columns of workloads.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, at, count, created, each, joined, labels, name, number, text, wide};

pub(super) const DEPLOYMENT: &[Column] = &[
    text("Name"),
    text("Ready"),
    number("Up-to-date"),
    number("Available"),
    text("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(super) fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = format!(
        "{}/{}",
        count(object, "/status/readyReplicas"),
        count(object, "/spec/replicas")
    );
    let mut cells = vec![
        name(object),
        json!(ready),
        json!(count(object, "/status/updatedReplicas")),
        json!(count(object, "/status/availableReplicas")),
        created(object, now),
    ];
    cells.extend(template(object));
    cells
}

pub(super) const REPLICAS: &[Column] = &[
    text("Name"),
    number("Desired"),
    number("Current"),
    number("Ready"),
    text("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(super) fn replicas(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        name(object),
        json!(count(object, "/spec/replicas")),
        json!(count(object, "/status/replicas")),
        json!(count(object, "/status/readyReplicas")),
        created(object, now),
    ];
    cells.extend(template(object));
    cells
}

pub(super) const DAEMON_SET: &[Column] = &[
    text("Name"),
    number("Desired"),
    number("Current"),
    number("Ready"),
    number("Up-to-date"),
    number("Available"),
    text("Node Selector"),
    text("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(super) fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        name(object),
        json!(count(object, "/status/desiredNumberScheduled")),
        json!(count(object, "/status/currentNumberScheduled")),
        json!(count(object, "/status/numberReady")),
        json!(count(object, "/status/updatedNumberScheduled")),
        json!(count(object, "/status/numberAvailable")),
        json!(labels(object, "/spec/template/spec/nodeSelector")),
        created(object, now),
    ];
    cells.extend(template(object));
    cells
}

/// The three columns that all workloads have only with `-o wide`.
fn template(object: &Value) -> [Value; 3] {
    let containers = || each(object, "/spec/template/spec/containers");
    // The selector of a ReplicationController is a plain map of labels.
    let selector = match object.pointer("/spec/selector/matchLabels") {
        Some(_) => labels(object, "/spec/selector/matchLabels"),
        None if at(object, "/kind") == "ReplicationController" => labels(object, "/spec/selector"),
        None => "<none>".to_owned(),
    };
    [
        json!(joined(containers().map(|container| at(container, "/name")))),
        json!(joined(
            containers().map(|container| at(container, "/image"))
        )),
        json!(selector),
    ]
}
