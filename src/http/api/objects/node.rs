//! Nodes: what their daemons say, with labels, taints and cordons out of Git.

use std::collections::BTreeMap;

use reconciler::{name::ObjectKey, object::NodeObject, state::NodeFacts};
use serde_json::{Value, json};

use super::{Picture, Scope, meta};
use crate::http::host::{HostFacts, architecture};

/// All nodes.
pub(super) fn all(picture: &Picture<'_>, host: &HostFacts, scope: Scope<'_>) -> BTreeMap<ObjectKey, Value> {
    let nodes = picture.view.nodes.values();
    let named = nodes.map(|facts| (ObjectKey::new("", facts.name.as_str()), facts));
    named
        .filter(|(key, _)| scope.name.is_none_or(|name| name == key.name))
        .map(|(key, facts)| {
            let object = node(picture, host, &key, facts);
            (key, object)
        })
        .collect()
}

fn node(picture: &Picture<'_>, host: &HostFacts, key: &ObjectKey, facts: &NodeFacts) -> Value {
    let written = picture.objects().and_then(|objects| objects.nodes.get(&facts.name));
    let mut labels = facts.labels.clone();
    labels.extend(written.map(|written| written.labels.clone()).unwrap_or_default());
    let annotations = written.map(|written| written.annotations.clone()).unwrap_or_default();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": key.name,
            "uid": meta::uid(picture, "Node", key),
            "labels": labels,
            "annotations": annotations,
        },
        "spec": spec(written, facts),
        "status": status(picture, host, facts),
    })
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

fn status(picture: &Picture<'_>, host: &HostFacts, facts: &NodeFacts) -> Value {
    let this = facts.name == picture.view.node;
    let ready = json!({
        "type": "Ready",
        "status": if facts.ready { "True" } else { "False" },
        "reason": if facts.ready { "WindlassReady" } else { "WindlassNotReady" },
        "message": if this { picture.view.troubles.join("; ") } else { String::new() },
        "lastHeartbeatTime": meta::time(picture.view.at),
    });
    let capacity = match this {
        true => json!({ "cpu": host.cpus.to_string(), "memory": format!("{}Ki", host.memory_kib) }),
        false => json!({}),
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
            "architecture": if this { architecture() } else { "" },
            "kernelVersion": if this { host.kernel.as_str() } else { "" },
            "osImage": if this { host.os.as_str() } else { "" },
            "containerRuntimeVersion": if this { host.engine.as_str() } else { "" },
            "kubeletVersion": concat!("windlass-", env!("CARGO_PKG_VERSION")),
            "operatingSystem": "linux",
            "machineID": "", "systemUUID": "", "bootID": "", "kubeProxyVersion": "",
        },
    })
}
