//! Deployments, ReplicaSets, ReplicationControllers and DaemonSets: the manifest, with a status
//! that counts its pods.

use std::collections::BTreeMap;

use reconciler::{
    name::{ObjectKey, TemplateHash, WorkloadKey, WorkloadKind},
    object::{Control, DaemonSetUpdate, DeploymentStrategy, IntOrPercent, Workload},
    state::PodRecord,
};
use serde_json::{Value, json};

use super::{ObjectSource, Scope, meta, pod};
use crate::http::api::Resource;

/// All workloads of a kind that have a manifest.
pub(super) fn all(
    source: &ObjectSource<'_>,
    resource: &Resource,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, Value> {
    let Some(kind) = WorkloadKind::parse(resource.kind) else {
        return BTreeMap::new();
    };
    let originals = source.originals(&resource.api_version(), resource.kind);
    let wanted = originals.filter(|(id, _)| scope.has(&id.key));
    let render = |(id, original): (&reconciler::object::ObjectId, &Value)| {
        let mut object = meta::filled(source, id, original);
        let key = WorkloadKey {
            kind,
            object: id.key.clone(),
        };
        if let Some(workload) = source
            .objects()
            .and_then(|objects| objects.workloads.get(&key))
        {
            defaults(&mut object, workload);
            object["status"] = status(source, workload);
        }
        (id.key.clone(), object)
    };
    wanted.map(render).collect()
}

/// The numbers of a workload's pods by their state.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) total: u32,
    pub(super) updated: u32,
    pub(super) ready: u32,
    pub(super) available: u32,
}

/// Counts the pods that are not stopping.
pub(super) fn tally<'a>(
    source: &ObjectSource<'_>,
    records: impl Iterator<Item = &'a PodRecord>,
    template: &TemplateHash,
    min_ready: std::time::Duration,
) -> Tally {
    let mut tally = Tally::default();
    for record in records {
        let status = source.view.pods.get(&record.uid);
        tally.total += 1;
        tally.updated += u32::from(record.template == *template);
        tally.ready += u32::from(status.is_some_and(|status| status.ready.is_some()));
        tally.available += u32::from(status.is_some_and(|status| status.available(min_ready)));
    }
    tally
}

fn status(source: &ObjectSource<'_>, workload: &Workload) -> Value {
    let pods = source.pods_of(&workload.key);
    let tally = tally(
        source,
        pods,
        &workload.template.hash,
        workload.control.min_ready(),
    );
    match &workload.control {
        Control::Pod => json!({}),
        Control::Replicas { .. } => replica_status(&tally),
        Control::Deployment { replicas, .. } => {
            deployment_status(source, workload, *replicas, &tally)
        }
        Control::DaemonSet { .. } => json!({
            "desiredNumberScheduled": tally.total,
            "currentNumberScheduled": tally.total,
            "numberMisscheduled": 0,
            "numberReady": tally.ready,
            "updatedNumberScheduled": tally.updated,
            "numberAvailable": tally.available,
            "numberUnavailable": tally.total - tally.available,
            "observedGeneration": 1,
        }),
    }
}

/// `status` of a ReplicaSet or ReplicationController.
pub(super) fn replica_status(tally: &Tally) -> Value {
    json!({
        "replicas": tally.total,
        "fullyLabeledReplicas": tally.total,
        "readyReplicas": tally.ready,
        "availableReplicas": tally.available,
        "observedGeneration": 1,
    })
}

fn deployment_status(
    source: &ObjectSource<'_>,
    workload: &Workload,
    replicas: u32,
    tally: &Tally,
) -> Value {
    let allowed_down = match &workload.control {
        Control::Deployment {
            strategy:
                DeploymentStrategy::RollingUpdate {
                    max_unavailable, ..
                },
            ..
        } => max_unavailable.round_down(replicas),
        _ => 0,
    };
    let since = source
        .view
        .state
        .workloads
        .get(&workload.key)
        .map_or(source.view.at, |progress| progress.since);
    let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
        json!({
            "type": kind,
            "status": if holds { "True" } else { "False" },
            "reason": reason,
            "message": message,
            "lastUpdateTime": meta::time(since),
            "lastTransitionTime": meta::time(since),
        })
    };
    let available = tally.available >= replicas.saturating_sub(allowed_down);
    let complete =
        tally.updated >= replicas && tally.total == replicas && tally.available >= replicas;
    let conditions = [
        match available {
            true => condition(
                "Available",
                true,
                "MinimumReplicasAvailable",
                "the minimum of pods is available",
            ),
            false => condition(
                "Available",
                false,
                "MinimumReplicasUnavailable",
                "fewer pods than the minimum are available",
            ),
        },
        match complete {
            true => condition(
                "Progressing",
                true,
                "NewReplicaSetAvailable",
                "all pods are of the current template",
            ),
            false => condition(
                "Progressing",
                true,
                "ReplicaSetUpdated",
                "pods are being moved to the current template",
            ),
        },
    ];
    json!({
        "replicas": tally.total,
        "updatedReplicas": tally.updated,
        "readyReplicas": tally.ready,
        "availableReplicas": tally.available,
        "unavailableReplicas": replicas.max(tally.total) - tally.available,
        "observedGeneration": 1,
        "conditions": conditions,
    })
}

/// Adds fields that the manifest omits and clients require: `kubectl describe` fails without
/// `replicas`.
fn defaults(object: &mut Value, workload: &Workload) {
    if let Some(spec) = object.pointer_mut("/spec/template/spec") {
        pod::defaults(spec);
    }
    let labels = &workload.template.meta.labels;
    match (&workload.control, workload.key.kind) {
        (Control::Replicas { replicas, .. }, WorkloadKind::ReplicationController) => {
            meta::default(object, "spec", "replicas", json!(replicas));
            meta::default(object, "spec", "selector", json!(labels));
        }
        (Control::Replicas { replicas, .. }, _) => {
            meta::default(object, "spec", "replicas", json!(replicas));
            meta::default(object, "spec", "selector", json!({ "matchLabels": labels }));
        }
        (
            Control::Deployment {
                replicas, strategy, ..
            },
            _,
        ) => {
            meta::default(object, "spec", "replicas", json!(replicas));
            meta::default(object, "spec", "selector", json!({ "matchLabels": labels }));
            object["spec"]["strategy"] = match strategy {
                DeploymentStrategy::Recreate => json!({ "type": "Recreate" }),
                DeploymentStrategy::RollingUpdate {
                    max_surge,
                    max_unavailable,
                } => rolling(*max_surge, *max_unavailable),
            };
        }
        (Control::DaemonSet { update, .. }, _) => {
            meta::default(object, "spec", "selector", json!({ "matchLabels": labels }));
            object["spec"]["updateStrategy"] = match update {
                DaemonSetUpdate::OnDelete => json!({ "type": "OnDelete" }),
                DaemonSetUpdate::RollingUpdate {
                    max_surge,
                    max_unavailable,
                } => rolling(*max_surge, *max_unavailable),
            };
        }
        (Control::Pod, _) => {}
    }
}

fn rolling(max_surge: IntOrPercent, max_unavailable: IntOrPercent) -> Value {
    let value = |share: IntOrPercent| match share {
        IntOrPercent::Int(number) => json!(number),
        IntOrPercent::Percent(percent) => json!(format!("{percent}%")),
    };
    let bounds = json!({ "maxSurge": value(max_surge), "maxUnavailable": value(max_unavailable) });
    json!({ "type": "RollingUpdate", "rollingUpdate": bounds })
}
