//! Pods: the owner's template in the pod's commit, the name in the record, the status from the
//! node.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use reconciler::{
    name::{ObjectKey, WorkloadKind},
    object::{DnsPolicy, PodSpec, Resources, RestartPolicy, Workload},
    state::{PodPlace, PodRecord},
    status::PodStatus,
};

use super::{ApiKind, ApiObject, ObjectSource, Owner, Scope, meta, pod_status, replicaset};

/// All pods. If a stopping pod and its successor have the same name, the successor is shown.
pub(super) fn all(source: &ObjectSource<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, ApiObject> {
    let records = source.view.state.pods.values();
    let mut records: Vec<&PodRecord> = records.filter(|record| scope.has(&record.key)).collect();
    // The last record of a name is the one that stays in the map.
    records.sort_by_key(|record| (record.stop.is_none(), record.serial));
    let pod = |record: &PodRecord| ApiObject::Pod(Box::new(render(source, record)));
    records
        .into_iter()
        .map(|record| (record.key.clone(), pod(record)))
        .collect()
}

fn render(source: &ObjectSource<'_>, record: &PodRecord) -> core::Pod {
    let owner = source.owner(record);
    let workload = owner.map(|owner| owner.workload);
    let pending = PodStatus::pending();
    let status = source.view.pods.get(&record.uid).unwrap_or(&pending);
    core::Pod {
        metadata: metadata(source, record, workload),
        spec: Some(spec(record, owner)),
        status: Some(pod_status::render(source, record, status, workload)),
    }
}

fn metadata(source: &ObjectSource<'_>, record: &PodRecord, owner: Option<&Workload>) -> ObjectMeta {
    let mut annotations = owner
        .map(|owner| owner.template.meta.annotations.clone())
        .unwrap_or_default();
    let commit = record.commit.to_string();
    annotations.insert(meta::COMMIT_ANNOTATION.to_owned(), commit);
    let mut metadata = ObjectMeta {
        name: Some(record.key.name.clone()),
        namespace: Some(record.key.namespace.clone()),
        uid: Some(record.uid.to_string()),
        creation_timestamp: Some(meta::time(record.created)),
        labels: Some(labels(record, owner)),
        owner_references: match record.owner.kind {
            WorkloadKind::Pod => None,
            // As in Kubernetes, the pods of a Deployment belong to its ReplicaSets.
            WorkloadKind::Deployment => {
                let set = replicaset::key(&record.owner, &record.template);
                meta::controlled_by(source, ApiKind::ReplicaSet, &set)
            }
            kind @ (WorkloadKind::ReplicaSet
            | WorkloadKind::ReplicationController
            | WorkloadKind::DaemonSet) => {
                meta::controlled_by(source, kind.into(), &record.owner.object)
            }
        },
        ..ObjectMeta::default()
    };

    if record.key.name != record.owner.object.name {
        metadata.generate_name = Some(generate_name(&record.key.name).to_owned());
    }
    if let Some(stop) = &record.stop {
        let grace = owner.map_or(30, |owner| owner.template.spec.termination_grace.as_secs());
        let deletion = stop.at + Duration::from_secs(grace);
        metadata.deletion_timestamp = Some(meta::time(deletion));
        metadata.deletion_grace_period_seconds = Some(seconds(grace));
        let reason = stop.reason.as_str().to_owned();
        annotations.insert("windlass.dev/stopping".to_owned(), reason);
    }
    metadata.annotations = Some(annotations);
    metadata
}

/// A pod's labels, by which Services select it.
pub(super) fn labels(record: &PodRecord, owner: Option<&Workload>) -> BTreeMap<String, String> {
    let labels = owner
        .map(|owner| owner.template.meta.labels.clone())
        .unwrap_or_default();
    match record.owner.kind {
        WorkloadKind::Deployment => meta::with_template_hash(&labels, record.template.short()),
        WorkloadKind::Pod
        | WorkloadKind::ReplicaSet
        | WorkloadKind::ReplicationController
        | WorkloadKind::DaemonSet => labels,
    }
}

fn generate_name(name: &str) -> &str {
    name.rfind('-').map_or(name, |end| &name[..=end])
}

/// The template's spec as written, with the pod's node and the defaults that clients rely on.
fn spec(record: &PodRecord, owner: Option<Owner<'_>>) -> core::PodSpec {
    let written = owner.and_then(|owner| owner.original?.pod_spec());
    let mut spec = written.cloned().unwrap_or_default();
    if let Some(owner) = owner {
        let read = &owner.workload.template.spec;
        spec.restart_policy
            .get_or_insert_with(|| restart_policy(read.restart_policy).to_owned());
        spec.dns_policy
            .get_or_insert_with(|| dns_policy(read.dns_policy).to_owned());
        spec.termination_grace_period_seconds
            .get_or_insert(seconds(read.termination_grace.as_secs()));
        spec.enable_service_links
            .get_or_insert(read.enable_service_links);
    }
    default_containers(&mut spec);
    if let PodPlace::Node(node) = &record.place {
        spec.node_name = Some(node.to_string());
    }
    spec
}

fn restart_policy(policy: RestartPolicy) -> &'static str {
    match policy {
        RestartPolicy::Always => "Always",
        RestartPolicy::OnFailure => "OnFailure",
        RestartPolicy::Never => "Never",
    }
}

fn dns_policy(policy: DnsPolicy) -> &'static str {
    match policy {
        DnsPolicy::ClusterFirst => "ClusterFirst",
        DnsPolicy::ClusterFirstWithHostNet => "ClusterFirstWithHostNet",
        DnsPolicy::Default => "Default",
        DnsPolicy::None => "None",
    }
}

fn seconds(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Adds Kubernetes' defaults of fields that containers omit and clients print: protocols of ports,
/// times of probes.
pub(super) fn default_containers(spec: &mut core::PodSpec) {
    let init_containers = spec.init_containers.iter_mut().flatten();
    for container in init_containers.chain(&mut spec.containers) {
        for port in container.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        let probes = [
            &mut container.startup_probe,
            &mut container.readiness_probe,
            &mut container.liveness_probe,
        ];
        for probe in probes.into_iter().flatten() {
            default_probe(probe);
        }
    }
}

/// `SetDefaults_Probe` and `SetDefaults_HTTPGetAction` of Kubernetes.
fn default_probe(probe: &mut core::Probe) {
    probe.timeout_seconds.get_or_insert(1);
    probe.period_seconds.get_or_insert(10);
    probe.success_threshold.get_or_insert(1);
    probe.failure_threshold.get_or_insert(3);
    if let Some(get) = &mut probe.http_get {
        get.scheme.get_or_insert_with(|| "HTTP".to_owned());
        get.path.get_or_insert_with(|| "/".to_owned());
    }
}

/// `status.qosClass` by Kubernetes' rule.
pub(super) fn qos_class(spec: &PodSpec) -> &'static str {
    let containers = spec.init_containers.iter().chain(&spec.containers);
    let mut resources = containers.map(|container| container.resources);
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
