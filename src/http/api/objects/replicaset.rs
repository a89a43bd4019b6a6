//! The ReplicaSets that a Deployment implies: one for each template that its pods have.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::{apps::v1 as apps, core::v1 as core},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use reconciler::{
    name::{ObjectKey, TemplateHash, WorkloadKey, WorkloadKind},
    object::{Control, Workload},
    state::PodRecord,
};

use super::{
    ApiKind, ApiObject, ObjectSource, Owner, Scope, count, meta, pod, tally::Tally,
    workload::replica_set_status,
};

/// The name of the ReplicaSet of a Deployment's template.
pub(super) fn key(deployment: &WorkloadKey, template: &TemplateHash) -> ObjectKey {
    let name = format!("{}-{}", deployment.object.name, template.short());
    ObjectKey::new(deployment.object.namespace.clone(), name)
}

/// All implied ReplicaSets: those of the current templates, and those of older templates while they
/// have pods.
pub(super) fn implied(
    source: &ObjectSource<'_>,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, ApiObject> {
    let mut templates: BTreeSet<(&WorkloadKey, &TemplateHash)> = BTreeSet::new();
    let objects = source.objects().into_iter();
    for workload in objects.flat_map(|objects| objects.workloads.values()) {
        if workload.key.kind == WorkloadKind::Deployment {
            templates.insert((&workload.key, &workload.template.hash));
        }
    }
    for record in source.view.state.pods.values() {
        if record.owner.kind == WorkloadKind::Deployment && record.stop.is_none() {
            templates.insert((&record.owner, &record.template));
        }
    }

    let mut shown = BTreeMap::new();
    for (deployment, template) in templates {
        let key = key(deployment, template);
        if scope.has(&key) {
            let set = render(source, &key, deployment, template);
            shown.insert(key, ApiObject::ReplicaSet(Box::new(set)));
        }
    }
    shown
}

fn render(
    source: &ObjectSource<'_>,
    key: &ObjectKey,
    deployment: &WorkloadKey,
    template: &TemplateHash,
) -> apps::ReplicaSet {
    let records = source.pods_of(deployment);
    let records: Vec<&PodRecord> = records
        .filter(|record| record.template == *template)
        .collect();
    let current = source
        .objects()
        .and_then(|objects| Owner::of(objects, deployment));
    let is_current = current.is_some_and(|owner| owner.workload.template.hash == *template);
    // An older template is only in the commits of its pods.
    let owner = match is_current {
        true => current,
        false => records.first().and_then(|record| source.owner(record)),
    };
    let workload = owner.map(|owner| owner.workload);
    let labels = workload
        .map(|workload| workload.template.meta.labels.clone())
        .unwrap_or_default();
    let labels = meta::with_template_hash(&labels, template.short());

    let min_ready = workload
        .map(|workload| workload.control.min_ready())
        .unwrap_or_default();
    let tally = Tally::of(source, records.iter().copied(), template, min_ready);
    let created = records.iter().map(|record| record.created).min();

    apps::ReplicaSet {
        metadata: ObjectMeta {
            labels: Some(labels.clone()),
            owner_references: meta::controlled_by(source, ApiKind::Deployment, &deployment.object),
            creation_timestamp: created.map(meta::time),
            ..meta::derived(source, ApiKind::ReplicaSet, key)
        },
        spec: Some(apps::ReplicaSetSpec {
            replicas: Some(count(wanted_replicas(workload, is_current, tally.total))),
            selector: LabelSelector {
                match_labels: Some(labels.clone()),
                match_expressions: None,
            },
            template: Some(pod_template(owner, labels)),
            ..apps::ReplicaSetSpec::default()
        }),
        status: Some(replica_set_status(&tally)),
    }
}

/// The Deployment's template with the labels of the ReplicaSet's pods.
fn pod_template(
    owner: Option<Owner<'_>>,
    labels: BTreeMap<String, String>,
) -> core::PodTemplateSpec {
    let written = owner.and_then(|owner| owner.original?.pod_template());
    let mut template = written.cloned().unwrap_or_default();
    template.metadata.get_or_insert_default().labels = Some(labels);
    pod::default_containers(template.spec.get_or_insert_default());
    template
}

/// The number of wanted replicas: the manifest's for the current template, and the number of
/// running pods for an older one.
fn wanted_replicas(workload: Option<&Workload>, is_current: bool, running: u32) -> u32 {
    match workload.map(|workload| &workload.control) {
        Some(Control::Deployment { replicas, .. }) if is_current => *replicas,
        _ => running,
    }
}
