//! Nodes: the reports of their daemons, with labels, taints and cordons from Git.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1 as core,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use reconciler::{
    name::ObjectKey,
    object::{NodeObject, Taint, TaintEffect},
    state::{KnownNode, NodeFacts, NodeLife},
};

use super::{ApiKind, ApiObject, ObjectSource, Scope, escaped, meta};
use crate::view::View;

pub(super) fn all(source: &ObjectSource<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, ApiObject> {
    let mut shown = BTreeMap::new();
    for known in source.view.nodes.values() {
        let key = ObjectKey::new("", known.facts.name.as_str());
        if scope.name.is_none_or(|name| name == key.name) {
            let object = node(source, &key, known);
            shown.insert(key, ApiObject::Node(Box::new(object)));
        }
    }
    shown
}

/// All texts but the annotations are foreign: another host may have written them.
fn node(source: &ObjectSource<'_>, key: &ObjectKey, known: &KnownNode) -> core::Node {
    let facts = &known.facts;
    let objects = source.objects();
    let written = objects.and_then(|objects| objects.nodes.get(&facts.name));
    let mut labels = facts.labels.clone();
    labels.extend(
        written
            .map(|written| written.labels.clone())
            .unwrap_or_default(),
    );
    let labels = labels.iter();
    let labels = labels.map(|(key, value)| (escaped(key), escaped(value)));
    core::Node {
        metadata: ObjectMeta {
            name: Some(escaped(&key.name)),
            labels: Some(labels.collect()),
            annotations: Some(
                written
                    .map(|written| written.annotations.clone())
                    .unwrap_or_default(),
            ),
            creation_timestamp: facts.system.installed.map(meta::time),
            ..meta::derived(source, ApiKind::Node, key)
        },
        spec: Some(spec(written, facts)),
        status: Some(status(source, known)),
    }
}

fn spec(written: Option<&NodeObject>, facts: &NodeFacts) -> core::NodeSpec {
    let is_cordoned = written.is_some_and(|written| written.unschedulable);
    let of_git = written.map_or(&[][..], |written| &written.taints);
    let further = of_git.iter().filter(|taint| !facts.taints.contains(taint));
    let taints: Vec<core::Taint> = facts.taints.iter().chain(further).map(taint).collect();
    core::NodeSpec {
        unschedulable: is_cordoned.then_some(true),
        taints: (!taints.is_empty()).then_some(taints),
        ..core::NodeSpec::default()
    }
}

fn taint(taint: &Taint) -> core::Taint {
    let effect = match taint.effect {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute => "NoExecute",
    };
    core::Taint {
        key: escaped(&taint.key),
        value: Some(escaped(&taint.value)),
        effect: effect.to_owned(),
        time_added: None,
    }
}

fn status(source: &ObjectSource<'_>, known: &KnownNode) -> core::NodeStatus {
    let facts = &known.facts;
    let system = &facts.system;
    // A node of a version that did not report its size has no CPU.
    let capacity: BTreeMap<String, Quantity> = match system.cpus {
        0 => BTreeMap::new(),
        cpus => BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpus.to_string())),
            (
                "memory".to_owned(),
                Quantity(format!("{}Ki", system.memory_kib)),
            ),
        ]),
    };
    let address = |kind: &str, address: String| core::NodeAddress {
        type_: kind.to_owned(),
        address,
    };
    core::NodeStatus {
        allocatable: Some(capacity.clone()),
        capacity: Some(capacity),
        conditions: Some(vec![ready_condition(source, known)]),
        addresses: Some(vec![
            address("InternalIP", facts.address.to_string()),
            address("Hostname", escaped(facts.name.as_str())),
        ]),
        node_info: Some(core::NodeSystemInfo {
            architecture: escaped(&system.architecture),
            kernel_version: escaped(&system.kernel),
            os_image: escaped(&system.os),
            container_runtime_version: escaped(&system.engine),
            kubelet_version: escaped(&format!("windlass-{}", system.version)),
            operating_system: "linux".to_owned(),
            ..core::NodeSystemInfo::default()
        }),
        ..core::NodeStatus::default()
    }
}

/// The troubles of this host as one sentence; empty if there are none.
fn troubles(view: &View) -> String {
    let troubles: Vec<String> = view.troubles.iter().map(ToString::to_string).collect();
    troubles.join("; ")
}

fn ready_condition(source: &ObjectSource<'_>, known: &KnownNode) -> core::NodeCondition {
    let this_host = known.facts.name == source.view.node;
    let (status, reason, message) = match &known.life {
        NodeLife::Ready if this_host => ("True", "WindlassReady", troubles(source.view)),
        NodeLife::Ready => ("True", "WindlassReady", String::new()),
        NodeLife::NotReady(why) => ("False", "WindlassNotReady", why.to_string()),
        NodeLife::Away => (
            "Unknown",
            "NodeAway",
            "the node announced a short absence".to_owned(),
        ),
        NodeLife::Silent(why) => ("Unknown", "NodeSilent", why.to_string()),
        NodeLife::Lost => (
            "Unknown",
            "NodeLost",
            "the node does not report, and was given up".to_owned(),
        ),
    };
    core::NodeCondition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(escaped(&message)),
        last_heartbeat_time: Some(meta::time(source.view.at)),
        last_transition_time: None,
    }
}
