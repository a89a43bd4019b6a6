//! Pods: the owner's template in the pod's commit, the name in the record, the status from the
//! node.

use std::collections::BTreeMap;

use reconciler::{
    name::{ObjectKey, WorkloadKind},
    object::{PodSpec, Resources, Workload},
    state::{PodPlace, PodRecord},
    status::PodStatus,
};
use serde_json::{Map, Value, json};

use super::{ObjectSource, Scope, meta, original_id, pod_status, replicaset};

/// All pods. If a stopping pod and its successor have the same name, the successor is shown.
pub(super) fn all(source: &ObjectSource<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, Value> {
    let mut records: Vec<&PodRecord> = source
        .view
        .state
        .pods
        .values()
        .filter(|record| scope.has(&record.key))
        .collect();
    records.sort_by_key(|record| (record.stop.is_none(), record.serial));
    records
        .into_iter()
        .map(|record| (record.key.clone(), render(source, record)))
        .collect()
}

fn render(source: &ObjectSource<'_>, record: &PodRecord) -> Value {
    let owner = source.owner(record);
    let pending = PodStatus::pending();
    let status = source.view.pods.get(&record.uid).unwrap_or(&pending);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(source, record, owner.map(|(workload, _)| workload)),
        "spec": spec(record, owner),
        "status": pod_status::render(source, record, status, owner.map(|(workload, _)| workload)),
    })
}

fn metadata(source: &ObjectSource<'_>, record: &PodRecord, owner: Option<&Workload>) -> Value {
    let mut annotations = owner
        .map(|owner| owner.template.meta.annotations.clone())
        .unwrap_or_default();
    annotations.insert(
        meta::COMMIT_ANNOTATION.to_owned(),
        record.commit.to_string(),
    );
    let mut metadata = json!({
        "name": record.key.name,
        "namespace": record.key.namespace,
        "uid": record.uid,
        "creationTimestamp": meta::time(record.created),
        "labels": labels(record, owner),
        "annotations": annotations,
    });
    if let Some(references) = owner_references(source, record) {
        metadata["ownerReferences"] = references;
    }
    if record.key.name != record.owner.object.name {
        metadata["generateName"] = json!(generate_name(&record.key.name));
    }
    if let Some(stop) = &record.stop {
        let grace = owner.map_or(30, |owner| owner.template.spec.termination_grace.as_secs());
        metadata["deletionTimestamp"] =
            json!(meta::time(stop.at + std::time::Duration::from_secs(grace)));
        metadata["deletionGracePeriodSeconds"] = json!(grace);
        metadata["annotations"]["windlass/stopping"] = json!(stop.reason.as_str());
    }
    metadata
}

/// A pod's labels, by which Services select it.
pub(super) fn labels(record: &PodRecord, owner: Option<&Workload>) -> BTreeMap<String, String> {
    let labels = owner
        .map(|owner| owner.template.meta.labels.clone())
        .unwrap_or_default();
    match record.owner.kind {
        WorkloadKind::Deployment => meta::with_template_hash(&labels, record.template.short()),
        _ => labels,
    }
}

fn generate_name(name: &str) -> &str {
    name.rfind('-').map_or(name, |end| &name[..=end])
}

fn owner_references(source: &ObjectSource<'_>, record: &PodRecord) -> Option<Value> {
    let owner = &record.owner;
    let id = original_id(owner);
    Some(match owner.kind {
        WorkloadKind::Pod => return None,
        WorkloadKind::Deployment => {
            let key = replicaset::key(owner, &record.template);
            meta::owner_reference(
                "apps/v1",
                "ReplicaSet",
                &key.name,
                &meta::uid(source, "ReplicaSet", &key),
            )
        }
        WorkloadKind::ReplicaSet
        | WorkloadKind::ReplicationController
        | WorkloadKind::DaemonSet => {
            let uid = meta::uid(source, &id.kind, &id.key);
            meta::owner_reference(&id.api_version, &id.kind, &id.key.name, &uid)
        }
    })
}

/// The template's spec as written, with the pod's node and the defaults that clients rely on.
fn spec(record: &PodRecord, owner: Option<(&Workload, Option<&Value>)>) -> Value {
    let written = owner
        .and_then(|(_, original)| original)
        .and_then(|original| match record.owner.kind {
            WorkloadKind::Pod => original.get("spec"),
            _ => original.pointer("/spec/template/spec"),
        });
    let mut pod =
        json!({ "spec": written.cloned().unwrap_or_else(|| json!({ "containers": [] })) });
    if let Some((workload, _)) = owner {
        let spec = &workload.template.spec;
        meta::default(
            &mut pod,
            "spec",
            "restartPolicy",
            json!(format!("{:?}", spec.restart_policy)),
        );
        meta::default(
            &mut pod,
            "spec",
            "dnsPolicy",
            json!(format!("{:?}", spec.dns_policy)),
        );
        let grace = spec.termination_grace.as_secs();
        meta::default(
            &mut pod,
            "spec",
            "terminationGracePeriodSeconds",
            json!(grace),
        );
        meta::default(
            &mut pod,
            "spec",
            "enableServiceLinks",
            json!(spec.enable_service_links),
        );
    }
    defaults(&mut pod["spec"]);
    if let PodPlace::Node(node) = &record.place {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod["spec"].take()
}

/// Adds Kubernetes' defaults of fields that containers omit and clients print: protocols of ports,
/// times of probes.
pub(super) fn defaults(spec: &mut Value) {
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let ports = container.get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
                port.entry("protocol").or_insert_with(|| json!("TCP"));
            }
            for name in ["startupProbe", "readinessProbe", "livenessProbe"] {
                if let Some(probe) = container.get_mut(name).and_then(Value::as_object_mut) {
                    probe_defaults(probe);
                }
            }
        }
    }
}

fn probe_defaults(probe: &mut Map<String, Value>) {
    for (field, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        probe.entry(field).or_insert_with(|| json!(value));
    }
    if let Some(get) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
        get.entry("scheme").or_insert_with(|| json!("HTTP"));
        get.entry("path").or_insert_with(|| json!("/"));
    }
}

/// `status.qosClass` by Kubernetes' rule.
pub(super) fn qos_class(spec: &PodSpec) -> &'static str {
    let mut resources = spec
        .init_containers
        .iter()
        .chain(&spec.containers)
        .map(|container| container.resources);
    if resources
        .clone()
        .all(|resources| resources == Resources::default())
    {
        return "BestEffort";
    }
    let guaranteed = |resources: Resources| {
        resources.cpu_limit_milli.is_some()
            && resources.memory_limit_bytes.is_some()
            && resources
                .cpu_request_milli
                .is_none_or(|request| Some(request) == resources.cpu_limit_milli)
            && resources
                .memory_request_bytes
                .is_none_or(|request| Some(request) == resources.memory_limit_bytes)
    };
    if resources.all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
