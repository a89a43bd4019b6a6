//! Deployments, ReplicaSets, ReplicationControllers and DaemonSets: the manifest, with a status
//! that counts its pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{apps::v1 as apps, core::v1 as core},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use reconciler::{
    name::{ObjectKey, WorkloadKind},
    object::{Control, DaemonSetUpdate, DeploymentStrategy, IntOrPercent, Original, Workload},
};

use super::{ApiObject, ObjectSource, Scope, count, meta, pod, tally::Tally};

/// The Deployments of the driving commit.
pub(super) fn deployments(
    source: &ObjectSource<'_>,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, ApiObject> {
    let mut shown = BTreeMap::new();
    for (id, original) in source.originals(scope) {
        if let Original::Deployment(written) = original {
            let mut deployment = written.clone();
            meta::complete(source, id, &mut deployment.metadata);
            if let Some(workload) = source.workload(WorkloadKind::Deployment, &id.key) {
                fill_deployment(source, workload, &mut deployment);
            }
            shown.insert(id.key.clone(), ApiObject::Deployment(deployment));
        }
    }
    shown
}

/// The ReplicaSets that have a manifest in the driving commit.
pub(super) fn replica_sets(
    source: &ObjectSource<'_>,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, ApiObject> {
    let mut shown = BTreeMap::new();
    for (id, original) in source.originals(scope) {
        if let Original::ReplicaSet(written) = original {
            let mut set = written.clone();
            meta::complete(source, id, &mut set.metadata);
            if let Some(workload) = source.workload(WorkloadKind::ReplicaSet, &id.key) {
                fill_replica_set(source, workload, &mut set);
            }
            shown.insert(id.key.clone(), ApiObject::ReplicaSet(set));
        }
    }
    shown
}

/// The ReplicationControllers of the driving commit.
pub(super) fn replication_controllers(
    source: &ObjectSource<'_>,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, ApiObject> {
    let mut shown = BTreeMap::new();
    for (id, original) in source.originals(scope) {
        if let Original::ReplicationController(written) = original {
            let mut controller = written.clone();
            meta::complete(source, id, &mut controller.metadata);
            if let Some(workload) = source.workload(WorkloadKind::ReplicationController, &id.key) {
                fill_replication_controller(source, workload, &mut controller);
            }
            let object = ApiObject::ReplicationController(controller);
            shown.insert(id.key.clone(), object);
        }
    }
    shown
}

/// The DaemonSets of the driving commit.
pub(super) fn daemon_sets(
    source: &ObjectSource<'_>,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, ApiObject> {
    let mut shown = BTreeMap::new();
    for (id, original) in source.originals(scope) {
        if let Original::DaemonSet(written) = original {
            let mut set = written.clone();
            meta::complete(source, id, &mut set.metadata);
            if let Some(workload) = source.workload(WorkloadKind::DaemonSet, &id.key) {
                fill_daemon_set(source, workload, &mut set);
            }
            shown.insert(id.key.clone(), ApiObject::DaemonSet(set));
        }
    }
    shown
}

// The functions below fill in what a manifest omits and clients rely on: `kubectl describe` fails
// without `replicas`.

fn fill_deployment(
    source: &ObjectSource<'_>,
    workload: &Workload,
    deployment: &mut apps::Deployment,
) {
    let Control::Deployment {
        replicas, strategy, ..
    } = &workload.control
    else {
        return;
    };
    let spec = deployment.spec.get_or_insert_default();
    spec.replicas.get_or_insert(count(*replicas));
    spec.strategy = Some(deployment_strategy(strategy));
    default_selector(&mut spec.selector, workload);
    default_template(&mut spec.template);
    deployment.status = Some(deployment_status(source, workload, *replicas, strategy));
}

fn fill_replica_set(source: &ObjectSource<'_>, workload: &Workload, set: &mut apps::ReplicaSet) {
    let Control::Replicas { replicas, .. } = &workload.control else {
        return;
    };
    let spec = set.spec.get_or_insert_default();
    spec.replicas.get_or_insert(count(*replicas));
    default_selector(&mut spec.selector, workload);
    spec.template.iter_mut().for_each(default_template);
    set.status = Some(replica_set_status(&Tally::of_workload(source, workload)));
}

fn fill_replication_controller(
    source: &ObjectSource<'_>,
    workload: &Workload,
    controller: &mut core::ReplicationController,
) {
    let Control::Replicas { replicas, .. } = &workload.control else {
        return;
    };
    let spec = controller.spec.get_or_insert_default();
    spec.replicas.get_or_insert(count(*replicas));
    spec.selector
        .get_or_insert_with(|| workload.template.meta.labels.clone());
    spec.template.iter_mut().for_each(default_template);

    let tally = Tally::of_workload(source, workload);
    controller.status = Some(core::ReplicationControllerStatus {
        replicas: count(tally.total),
        fully_labeled_replicas: Some(count(tally.total)),
        ready_replicas: Some(count(tally.ready)),
        available_replicas: Some(count(tally.available)),
        observed_generation: Some(1),
        ..core::ReplicationControllerStatus::default()
    });
}

fn fill_daemon_set(source: &ObjectSource<'_>, workload: &Workload, set: &mut apps::DaemonSet) {
    let Control::DaemonSet { update, .. } = &workload.control else {
        return;
    };
    let spec = set.spec.get_or_insert_default();
    spec.update_strategy = Some(daemon_set_strategy(update));
    default_selector(&mut spec.selector, workload);
    default_template(&mut spec.template);

    // A daemon pod exists only on a node that may run it, so all that exist are wanted.
    let tally = Tally::of_workload(source, workload);
    set.status = Some(apps::DaemonSetStatus {
        desired_number_scheduled: count(tally.total),
        current_number_scheduled: count(tally.total),
        number_misscheduled: 0,
        number_ready: count(tally.ready),
        updated_number_scheduled: Some(count(tally.updated)),
        number_available: Some(count(tally.available)),
        number_unavailable: Some(count(tally.total - tally.available)),
        observed_generation: Some(1),
        ..apps::DaemonSetStatus::default()
    });
}

fn default_template(template: &mut core::PodTemplateSpec) {
    if let Some(spec) = &mut template.spec {
        pod::default_containers(spec);
    }
}

fn default_selector(selector: &mut LabelSelector, workload: &Workload) {
    if *selector == LabelSelector::default() {
        selector.match_labels = Some(workload.template.meta.labels.clone());
    }
}

/// `status` of a ReplicaSet.
pub(super) fn replica_set_status(tally: &Tally) -> apps::ReplicaSetStatus {
    apps::ReplicaSetStatus {
        replicas: count(tally.total),
        fully_labeled_replicas: Some(count(tally.total)),
        ready_replicas: Some(count(tally.ready)),
        available_replicas: Some(count(tally.available)),
        observed_generation: Some(1),
        ..apps::ReplicaSetStatus::default()
    }
}

fn deployment_status(
    source: &ObjectSource<'_>,
    workload: &Workload,
    replicas: u32,
    strategy: &DeploymentStrategy,
) -> apps::DeploymentStatus {
    let allowed_down = match strategy {
        DeploymentStrategy::RollingUpdate {
            max_unavailable, ..
        } => max_unavailable.round_down(replicas),
        DeploymentStrategy::Recreate => 0,
    };
    let tally = Tally::of_workload(source, workload);
    let is_available = tally.available >= replicas.saturating_sub(allowed_down);
    let is_complete =
        tally.updated >= replicas && tally.total == replicas && tally.available >= replicas;

    let progress = source.view.state.workloads.get(&workload.key);
    let since = progress.map_or(source.view.at, |progress| progress.since);
    let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
        let status = if holds { "True" } else { "False" };
        apps::DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_update_time: Some(meta::time(since)),
            last_transition_time: Some(meta::time(since)),
        }
    };
    let available = match is_available {
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
    };
    let progressing = match is_complete {
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
    };
    apps::DeploymentStatus {
        replicas: Some(count(tally.total)),
        updated_replicas: Some(count(tally.updated)),
        ready_replicas: Some(count(tally.ready)),
        available_replicas: Some(count(tally.available)),
        unavailable_replicas: Some(count(replicas.max(tally.total) - tally.available)),
        observed_generation: Some(1),
        conditions: Some(vec![available, progressing]),
        ..apps::DeploymentStatus::default()
    }
}

fn deployment_strategy(strategy: &DeploymentStrategy) -> apps::DeploymentStrategy {
    match strategy {
        DeploymentStrategy::Recreate => apps::DeploymentStrategy {
            type_: Some("Recreate".to_owned()),
            rolling_update: None,
        },
        DeploymentStrategy::RollingUpdate {
            max_surge,
            max_unavailable,
        } => apps::DeploymentStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(apps::RollingUpdateDeployment {
                max_surge: Some(int_or_string(*max_surge)),
                max_unavailable: Some(int_or_string(*max_unavailable)),
            }),
        },
    }
}

fn daemon_set_strategy(update: &DaemonSetUpdate) -> apps::DaemonSetUpdateStrategy {
    match update {
        DaemonSetUpdate::OnDelete => apps::DaemonSetUpdateStrategy {
            type_: Some("OnDelete".to_owned()),
            rolling_update: None,
        },
        DaemonSetUpdate::RollingUpdate {
            max_surge,
            max_unavailable,
        } => apps::DaemonSetUpdateStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(apps::RollingUpdateDaemonSet {
                max_surge: Some(int_or_string(*max_surge)),
                max_unavailable: Some(int_or_string(*max_unavailable)),
            }),
        },
    }
}

fn int_or_string(share: IntOrPercent) -> IntOrString {
    match share {
        IntOrPercent::Int(number) => IntOrString::Int(count(number)),
        IntOrPercent::Percent(percent) => IntOrString::String(format!("{percent}%")),
    }
}
