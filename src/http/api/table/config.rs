//! The columns of configuration, namespaces, nodes and events.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::{Cell, Column, created, joined, name, number, or_none, since, text, wide};

pub(super) const CONFIG_MAP: &[Column] = &[text("Name"), number("Data"), text("Age")];

pub(super) fn config_map(map: &core::ConfigMap, now: Timestamp) -> Vec<Cell> {
    vec![
        name(&map.metadata),
        entries(keys(map.data.as_ref()) + keys(map.binary_data.as_ref())),
        created(&map.metadata, now),
    ]
}

pub(super) const SECRET: &[Column] = &[text("Name"), text("Type"), number("Data"), text("Age")];

pub(super) fn secret(secret: &core::Secret, now: Timestamp) -> Vec<Cell> {
    vec![
        name(&secret.metadata),
        secret.type_.as_deref().unwrap_or_default().into(),
        entries(keys(secret.data.as_ref())),
        created(&secret.metadata, now),
    ]
}

fn keys<V>(data: Option<&BTreeMap<String, V>>) -> usize {
    data.map_or(0, BTreeMap::len)
}

fn entries(number: usize) -> Cell {
    Cell::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(super) const NAMESPACE: &[Column] = &[text("Name"), text("Status"), text("Age")];

pub(super) fn namespace(namespace: &core::Namespace, now: Timestamp) -> Vec<Cell> {
    let status = namespace.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    vec![
        name(&namespace.metadata),
        phase.unwrap_or_default().into(),
        created(&namespace.metadata, now),
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

pub(super) fn node(node: &core::Node, now: Timestamp) -> Vec<Cell> {
    let absent = core::NodeStatus::default();
    let status = node.status.as_ref().unwrap_or(&absent);
    let mut conditions = status.conditions.iter().flatten();
    let is_ready =
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let mut word = if is_ready { "Ready" } else { "NotReady" }.to_owned();
    let spec = node.spec.as_ref();
    if spec.is_some_and(|spec| spec.unschedulable == Some(true)) {
        word.push_str(",SchedulingDisabled");
    }

    let mut addresses = status.addresses.iter().flatten();
    let internal = addresses.find(|address| address.type_ == "InternalIP");
    let absent = core::NodeSystemInfo::default();
    let info = status.node_info.as_ref().unwrap_or(&absent);
    vec![
        name(&node.metadata),
        word.into(),
        roles(node).into(),
        created(&node.metadata, now),
        or_unknown(&info.kubelet_version),
        or_none(internal.map(|address| address.address.as_str())).into(),
        "<none>".into(),
        or_unknown(&info.os_image),
        or_unknown(&info.kernel_version),
        or_unknown(&info.container_runtime_version),
    ]
}

fn or_unknown(text: &str) -> Cell {
    match text {
        "" => "<unknown>".into(),
        known => known.into(),
    }
}

/// The roles in the labels `node-role.kubernetes.io/<role>`.
fn roles(node: &core::Node) -> String {
    let labels = node.metadata.labels.iter().flatten();
    joined(labels.filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/")))
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

pub(super) fn event(event: &core::Event, now: Timestamp) -> Vec<Cell> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let about = &event.involved_object;
    let about = format!("{}/{}", text(&about.kind).to_lowercase(), text(&about.name));
    let absent = core::EventSource::default();
    let source = event.source.as_ref().unwrap_or(&absent);
    vec![
        since(event.last_timestamp.as_ref(), now).into(),
        text(&event.type_).into(),
        text(&event.reason).into(),
        about.into(),
        format!("{}, {}", text(&source.component), text(&source.host)).into(),
        text(&event.message).into(),
        since(event.first_timestamp.as_ref(), now).into(),
        event.count.unwrap_or_default().to_string().into(),
        name(&event.metadata),
    ]
}
