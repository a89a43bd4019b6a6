//! The columns of Services, Endpoints and EndpointSlices.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, at, count, created, each, joined, labels, name, or_none, text, wide};

pub(super) const SERVICE: &[Column] = &[
    text("Name"),
    text("Type"),
    text("Cluster-IP"),
    text("External-IP"),
    text("Port(s)"),
    text("Age"),
    wide("Selector"),
];

pub(super) fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        json!(at(object, "/spec/type")),
        json!(or_none(at(object, "/spec/clusterIP"))),
        json!(external(object)),
        json!(ports(object)),
        created(object, now),
        json!(labels(object, "/spec/selector")),
    ]
}

fn external(object: &Value) -> String {
    match at(object, "/spec/type") {
        "ExternalName" => at(object, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let addresses: Vec<&str> = each(object, "/status/loadBalancer/ingress")
                .map(|ingress| at(ingress, "/ip"))
                .collect();
            if addresses.is_empty() {
                "<pending>".to_owned()
            } else {
                addresses.join(",")
            }
        }
        _ => joined(each(object, "/spec/externalIPs").filter_map(Value::as_str)),
    }
}

/// The ports in the form `80:30080/TCP,53/UDP`.
fn ports(object: &Value) -> String {
    let ports: Vec<String> = each(object, "/spec/ports")
        .map(|port| {
            let (number, protocol) = (count(port, "/port"), at(port, "/protocol"));
            match count(port, "/nodePort") {
                0 => format!("{number}/{protocol}"),
                node_port => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    or_none(&ports.join(",")).to_owned()
}

pub(super) const ENDPOINTS: &[Column] = &[text("Name"), text("Endpoints"), text("Age")];

pub(super) fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut list = Vec::new();
    for subset in each(object, "/subsets") {
        for address in each(subset, "/addresses") {
            let ip = at(address, "/ip");
            list.extend(
                each(subset, "/ports").map(|port| format!("{ip}:{}", count(port, "/port"))),
            );
        }
    }
    vec![name(object), json!(shortened(&list)), created(object, now)]
}

pub(super) const SLICE: &[Column] = &[
    text("Name"),
    text("AddressType"),
    text("Ports"),
    text("Endpoints"),
    text("Age"),
];

pub(super) fn slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = each(object, "/ports")
        .map(|port| count(port, "/port").to_string())
        .collect();
    let addresses: Vec<String> = each(object, "/endpoints")
        .flat_map(|endpoint| each(endpoint, "/addresses"))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    vec![
        name(object),
        json!(at(object, "/addressType")),
        json!(shortened(&ports)),
        json!(shortened(&addresses)),
        created(object, now),
    ]
}

/// The first three entries, and the number of the others.
fn shortened(list: &[String]) -> String {
    match list.len() {
        0 => "<none>".to_owned(),
        1..=3 => list.join(","),
        many => format!("{} + {} more...", list[..3].join(","), many - 3),
    }
}
