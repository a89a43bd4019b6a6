//! Nodes: the reports of their daemons, with labels, taints and cordons from Git.

use std::collections::BTreeMap;

use reconciler::{
    foreign,
    name::ObjectKey,
    object::NodeObject,
    state::{KnownNode, NodeFacts, NodeLife},
};
use serde_json::{Value, json};

use super::{ObjectSource, Scope, meta};
use crate::view::View;

pub(super) fn all(source: &ObjectSource<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, Value> {
    let nodes = source.view.nodes.values();
    let named = nodes.map(|node| (ObjectKey::new("", node.facts.name.as_str()), node));
    named
        .filter(|(key, _)| scope.name.is_none_or(|name| name == key.name))
        .map(|(key, known)| {
            let object = node(source, &key, known);
            (key, object)
        })
        .collect()
}

fn node(source: &ObjectSource<'_>, key: &ObjectKey, known: &KnownNode) -> Value {
    let facts = &known.facts;
    let written = source
        .objects()
        .and_then(|objects| objects.nodes.get(&facts.name));
    let mut labels = facts.labels.clone();
    labels.extend(
        written
            .map(|written| written.labels.clone())
            .unwrap_or_default(),
    );
    let annotations = written
        .map(|written| written.annotations.clone())
        .unwrap_or_default();
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": key.name,
            "uid": meta::uid(source, "Node", key),
            "labels": labels,
            "annotations": annotations,
        },
        "spec": spec(written, facts),
        "status": status(source, known),
    });
    if let Some(installed) = facts.system.installed {
        object["metadata"]["creationTimestamp"] = json!(meta::time(installed));
    }
    // Foreign text: another host wrote these fields, and `kubectl describe` prints them unescaped.
    for pointer in ["/metadata/name", "/metadata/labels", "/spec", "/status"] {
        if let Some(value) = object.pointer_mut(pointer) {
            foreign::escape_value(value);
        }
    }
    object
}

fn spec(written: Option<&NodeObject>, facts: &NodeFacts) -> Value {
    let mut spec = json!({});
    if written.is_some_and(|written| written.unschedulable) {
        spec["unschedulable"] = json!(true);
    }
    let of_git = written.map_or(&[][..], |written| &written.taints);
    let taints: Vec<Value> = facts
        .taints
        .iter()
        .chain(of_git.iter().filter(|taint| !facts.taints.contains(taint)))
        .map(|taint| json!({ "key": taint.key, "value": taint.value, "effect": format!("{:?}", taint.effect) }))
        .collect();
    if !taints.is_empty() {
        spec["taints"] = json!(taints);
    }
    spec
}

/// The troubles of this host as one sentence; empty if there are none.
fn troubles(view: &View) -> String {
    let troubles: Vec<String> = view.troubles.iter().map(ToString::to_string).collect();
    foreign::escape(&troubles.join("; ")).into_owned()
}

fn status(source: &ObjectSource<'_>, known: &KnownNode) -> Value {
    let KnownNode { facts, life } = known;
    let this = facts.name == source.view.node;
    let (status, reason, message) = match life {
        NodeLife::Ready if this => ("True", "WindlassReady", troubles(source.view)),
        NodeLife::Ready => ("True", "WindlassReady", String::new()),
        NodeLife::NotReady(why) => ("False", "WindlassNotReady", why.to_string()),
        NodeLife::Away => (
            "Unknown",
            "NodeAway",
            "it said that it comes back soon".to_owned(),
        ),
        NodeLife::Silent(why) => ("Unknown", "NodeSilent", why.to_string()),
        NodeLife::Lost => ("Unknown", "NodeLost", "nobody hears from it".to_owned()),
    };
    let ready = json!({
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": meta::time(source.view.at),
    });
    let system = &facts.system;
    let capacity = match system.cpus {
        0 => json!({}),
        cpus => json!({ "cpu": cpus.to_string(), "memory": format!("{}Ki", system.memory_kib) }),
    };
    json!({
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [ready],
        "addresses": [
            { "type": "InternalIP", "address": facts.address },
            { "type": "Hostname", "address": facts.name },
        ],
        "nodeInfo": {
            "architecture": system.architecture,
            "kernelVersion": system.kernel,
            "osImage": system.os,
            "containerRuntimeVersion": system.engine,
            "kubeletVersion": format!("windlass-{}", system.version),
            "operatingSystem": "linux",
            "machineID": "", "systemUUID": "", "bootID": "", "kubeProxyVersion": "",
        },
    })
}
