//! The ReplicaSets that a Deployment implies: one for each template that its pods have.

use std::collections::{BTreeMap, BTreeSet};

use reconciler::{
    name::{ObjectKey, TemplateHash, WorkloadKey, WorkloadKind},
    object::{Control, Workload},
    state::PodRecord,
};
use serde_json::{Value, json};

use super::{
    ObjectSource, Scope, meta, original_id, pod,
    workload::{replica_status, tally},
};

/// The name of the ReplicaSet of a Deployment's template.
pub(super) fn key(deployment: &WorkloadKey, template: &TemplateHash) -> ObjectKey {
    let name = format!("{}-{}", deployment.object.name, template.short());
    ObjectKey::new(deployment.object.namespace.clone(), name)
}

/// All implied ReplicaSets: those of the current templates, and those of older templates while they
/// have pods.
pub(super) fn implied(source: &ObjectSource<'_>, scope: Scope<'_>) -> BTreeMap<ObjectKey, Value> {
    let mut groups: BTreeSet<(&WorkloadKey, &TemplateHash)> = BTreeSet::new();
    let current = source
        .objects()
        .into_iter()
        .flat_map(|objects| objects.workloads.values());
    groups.extend(
        current
            .filter(|workload| workload.key.kind == WorkloadKind::Deployment)
            .map(|workload| (&workload.key, &workload.template.hash)),
    );
    let records = source.view.state.pods.values();
    groups.extend(
        records
            .filter(|record| record.owner.kind == WorkloadKind::Deployment && record.stop.is_none())
            .map(|record| (&record.owner, &record.template)),
    );
    let wanted = groups
        .into_iter()
        .filter(|(owner, template)| scope.has(&key(owner, template)));
    wanted
        .map(|(owner, template)| (key(owner, template), render(source, owner, template)))
        .collect()
}

fn render(source: &ObjectSource<'_>, owner: &WorkloadKey, template: &TemplateHash) -> Value {
    let records: Vec<&PodRecord> = source
        .pods_of(owner)
        .filter(|record| record.template == *template)
        .collect();
    let current = source
        .objects()
        .and_then(|objects| objects.workloads.get(owner));
    let is_current = current.is_some_and(|workload| workload.template.hash == *template);
    let resolved = match is_current {
        true => current.map(|workload| {
            (
                workload,
                source
                    .objects()
                    .and_then(|objects| objects.originals.get(&original_id(owner))),
            )
        }),
        false => records.first().and_then(|record| source.owner(record)),
    };
    let key = key(owner, template);
    let workload = resolved.map(|(workload, _)| workload);
    let labels = workload
        .map(|workload| workload.template.meta.labels.clone())
        .unwrap_or_default();
    let labels = meta::with_template_hash(&labels, template.short());
    let min_ready = workload
        .map(|workload| workload.control.min_ready())
        .unwrap_or_default();
    let tally = tally(source, records.iter().copied(), template, min_ready);
    let replicas = wanted_replicas(workload, is_current, tally.total);
    let mut written = resolved
        .and_then(|(_, original)| original)
        .and_then(|original| original.pointer("/spec/template"))
        .cloned()
        .unwrap_or_else(|| json!({ "spec": { "containers": [] } }));
    meta::section(&mut written, "metadata").insert("labels".to_owned(), json!(labels));
    pod::defaults(&mut written["spec"]);
    let created = records.iter().map(|record| record.created).min();
    let mut object = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "uid": meta::uid(source, "ReplicaSet", &key),
            "labels": labels,
            "ownerReferences": meta::owner_reference(
                "apps/v1",
                "Deployment",
                &owner.object.name,
                &meta::uid(source, "Deployment", &owner.object),
            ),
        },
        "spec": { "replicas": replicas, "selector": { "matchLabels": labels }, "template": written },
        "status": replica_status(&tally),
    });
    if let Some(created) = created {
        object["metadata"]["creationTimestamp"] = json!(meta::time(created));
    }
    object
}

/// The number of wanted replicas: the manifest's for the current template, and the number of
/// running pods for an older one.
fn wanted_replicas(workload: Option<&Workload>, is_current: bool, running: u32) -> u32 {
    match workload.map(|workload| &workload.control) {
        Some(Control::Deployment { replicas, .. }) if is_current => *replicas,
        _ => running,
    }
}
