//! `meta.k8s.io/v1` Tables with the columns that kube-apiserver sends for each kind.

mod config;
mod pod;
mod service;
mod workload;

use jiff::Timestamp;
use reconciler::foreign;
use serde_json::{Value, json};

use super::{age, query::Include, resource::Resource};

/// A column: its name, its JSON type, and whether only `-o wide` shows it.
struct Column {
    name: &'static str,
    kind: &'static str,
    wide: bool,
}

const fn text(name: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        wide: false,
    }
}

const fn number(name: &'static str) -> Column {
    Column {
        name,
        kind: "integer",
        wide: false,
    }
}

const fn wide(name: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        wide: true,
    }
}

/// The columns of a kind, and a function that returns the cells of an object in the same order.
type Layout = (&'static [Column], fn(&Value, Timestamp) -> Vec<Value>);

fn layout(resource: &Resource) -> Layout {
    match resource.kind {
        "Pod" => (pod::COLUMNS, pod::cells),
        "Deployment" => (workload::DEPLOYMENT, workload::deployment),
        "ReplicaSet" | "ReplicationController" => (workload::REPLICAS, workload::replicas),
        "DaemonSet" => (workload::DAEMON_SET, workload::daemon_set),
        "Service" => (service::SERVICE, service::service),
        "Endpoints" => (service::ENDPOINTS, service::endpoints),
        "EndpointSlice" => (service::SLICE, service::slice),
        "ConfigMap" => (config::CONFIG_MAP, config::config_map),
        "Secret" => (config::SECRET, config::secret),
        "Namespace" => (config::NAMESPACE, config::namespace),
        "Node" => (config::NODE, config::node),
        "Event" => (config::EVENT, config::event),
        _ => (config::PLAIN, config::plain),
    }
}

/// The table of several objects of one kind.
pub(super) fn render(
    resource: &Resource,
    items: &[Value],
    version: &str,
    include: Include,
) -> Value {
    let (columns, cells) = layout(resource);
    let now = Timestamp::now();
    let definitions: Vec<Value> = columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.kind,
                "format": if column.name == "Name" { "name" } else { "" },
                "description": "",
                "priority": u8::from(column.wide),
            })
        })
        .collect();
    let rows: Vec<Value> = items
        .iter()
        .map(|item| match row_object(item, include) {
            Some(object) => json!({ "cells": printable(cells(item, now)), "object": object }),
            None => json!({ "cells": printable(cells(item, now)) }),
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": { "resourceVersion": version },
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

/// Escapes cells, since kubectl prints them unescaped.
fn printable(mut cells: Vec<Value>) -> Vec<Value> {
    cells.iter_mut().for_each(foreign::escape_value);
    cells
}

fn row_object(item: &Value, include: Include) -> Option<Value> {
    match include {
        Include::None => None,
        Include::Object => Some(item.clone()),
        Include::Metadata => Some(json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": item["metadata"],
        })),
    }
}

/// A text in an object; empty if it is absent.
fn at<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A number in an object; 0 if it is absent.
fn count(object: &Value, pointer: &str) -> u64 {
    object
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_default()
}

/// A list in an object; empty if it is absent.
fn each<'v>(object: &'v Value, pointer: &str) -> std::slice::Iter<'v, Value> {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(|list| list.iter())
        .unwrap_or_default()
}

fn name(object: &Value) -> Value {
    json!(at(object, "/metadata/name"))
}

fn created(object: &Value, now: Timestamp) -> Value {
    json!(age::since(
        age::parse(Some(at(object, "/metadata/creationTimestamp"))),
        now
    ))
}

/// The text, or kubectl's `<none>` for an empty one.
fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    or_none(&texts.collect::<Vec<_>>().join(",")).to_owned()
}

/// A map of labels in the form `app=web,tier=front`.
fn labels(object: &Value, pointer: &str) -> String {
    let map = object.pointer(pointer).and_then(Value::as_object);
    let pairs = map.into_iter().flatten();
    let pairs: Vec<String> = pairs
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(&pairs.join(",")).to_owned()
}
