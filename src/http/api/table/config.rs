//! The columns of configuration, namespaces, nodes and events.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, age, at, count, created, each, name, number, or_none, text, wide};

pub(super) const CONFIG_MAP: &[Column] = &[text("Name"), number("Data"), text("Age")];

pub(super) fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        json!(keys(object, "data") + keys(object, "binaryData")),
        created(object, now),
    ]
}

pub(super) const SECRET: &[Column] = &[text("Name"), text("Type"), number("Data"), text("Age")];

pub(super) fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        json!(at(object, "/type")),
        json!(keys(object, "data")),
        created(object, now),
    ]
}

fn keys(object: &Value, field: &str) -> usize {
    object[field].as_object().map_or(0, serde_json::Map::len)
}

pub(super) const NAMESPACE: &[Column] = &[text("Name"), text("Status"), text("Age")];

pub(super) fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        json!(at(object, "/status/phase")),
        created(object, now),
    ]
}

pub(super) const NODE: &[Column] = &[
    text("Name"),
    text("Status"),
    text("Roles"),
    text("Age"),
    text("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];

pub(super) fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let is = |condition: &&Value| condition["type"] == "Ready" && condition["status"] == "True";
    let mut status = if each(object, "/status/conditions").any(|condition| is(&condition)) {
        "Ready"
    } else {
        "NotReady"
    }
    .to_owned();
    if object.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let internal =
        each(object, "/status/addresses").find(|address| address["type"] == "InternalIP");
    let info = |field: &str| match at(object, &format!("/status/nodeInfo/{field}")) {
        "" => json!("<unknown>"),
        known => json!(known),
    };
    vec![
        name(object),
        json!(status),
        json!(roles(object)),
        created(object, now),
        info("kubeletVersion"),
        json!(or_none(
            internal
                .map(|address| at(address, "/address"))
                .unwrap_or_default()
        )),
        json!("<none>"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

/// The roles in the labels `node-role.kubernetes.io/<role>`.
fn roles(object: &Value) -> String {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    let roles = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"));
    super::joined(roles)
}

pub(super) const EVENT: &[Column] = &[
    text("Last Seen"),
    text("Type"),
    text("Reason"),
    text("Object"),
    wide("Source"),
    text("Message"),
    wide("First Seen"),
    wide("Count"),
    wide("Name"),
];

pub(super) fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let ago = |pointer: &str| json!(age::since(age::parse(Some(at(object, pointer))), now));
    let about = format!(
        "{}/{}",
        at(object, "/involvedObject/kind").to_lowercase(),
        at(object, "/involvedObject/name")
    );
    vec![
        ago("/lastTimestamp"),
        json!(at(object, "/type")),
        json!(at(object, "/reason")),
        json!(about),
        json!(format!(
            "{}, {}",
            at(object, "/source/component"),
            at(object, "/source/host")
        )),
        json!(at(object, "/message")),
        ago("/firstTimestamp"),
        json!(count(object, "/count").to_string()),
        name(object),
    ]
}

pub(super) const PLAIN: &[Column] = &[text("Name"), text("Age")];

pub(super) fn plain(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), created(object, now)]
}
