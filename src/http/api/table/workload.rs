//! The columns of workloads.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1 as apps, core::v1 as core};

use super::{Cell, Column, created, joined, labels, name, number, text, wide};

pub(super) const DEPLOYMENT: &[Column] = &[
    text("Name"),
    text("Ready"),
    number("Up-to-date"),
    number("Available"),
    text("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(super) fn deployment(deployment: &apps::Deployment, now: Timestamp) -> Vec<Cell> {
    let (spec, status) = (deployment.spec.as_ref(), deployment.status.as_ref());
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or_default();
    let ready = status.and_then(|status| status.ready_replicas);
    let updated = status.and_then(|status| status.updated_replicas);
    let available = status.and_then(|status| status.available_replicas);
    let mut cells = vec![
        name(&deployment.metadata),
        format!("{}/{wanted}", ready.unwrap_or_default()).into(),
        updated.unwrap_or_default().into(),
        available.unwrap_or_default().into(),
        created(&deployment.metadata, now),
    ];
    cells.extend(template(
        spec.map(|spec| &spec.template),
        spec.and_then(|spec| spec.selector.match_labels.as_ref()),
    ));
    cells
}

pub(super) const REPLICAS: &[Column] = &[
    text("Name"),
    number("Desired"),
    number("Current"),
    number("Ready"),
    text("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(super) fn replica_set(set: &apps::ReplicaSet, now: Timestamp) -> Vec<Cell> {
    let (spec, status) = (set.spec.as_ref(), set.status.as_ref());
    let ready = status.and_then(|status| status.ready_replicas);
    let mut cells = vec![
        name(&set.metadata),
        spec.and_then(|spec| spec.replicas)
            .unwrap_or_default()
            .into(),
        status.map_or(0, |status| status.replicas).into(),
        ready.unwrap_or_default().into(),
        created(&set.metadata, now),
    ];
    cells.extend(template(
        spec.and_then(|spec| spec.template.as_ref()),
        spec.and_then(|spec| spec.selector.match_labels.as_ref()),
    ));
    cells
}

pub(super) fn replication_controller(
    controller: &core::ReplicationController,
    now: Timestamp,
) -> Vec<Cell> {
    let (spec, status) = (controller.spec.as_ref(), controller.status.as_ref());
    let ready = status.and_then(|status| status.ready_replicas);
    let mut cells = vec![
        name(&controller.metadata),
        spec.and_then(|spec| spec.replicas)
            .unwrap_or_default()
            .into(),
        status.map_or(0, |status| status.replicas).into(),
        ready.unwrap_or_default().into(),
        created(&controller.metadata, now),
    ];
    cells.extend(template(
        spec.and_then(|spec| spec.template.as_ref()),
        spec.and_then(|spec| spec.selector.as_ref()),
    ));
    cells
}

pub(super) const DAEMON_SET: &[Column] = &[
    text("Name"),
    number("Desired"),
    number("Current"),
    number("Ready"),
    number("Up-to-date"),
    number("Available"),
    text("Node Selector"),
    text("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(super) fn daemon_set(set: &apps::DaemonSet, now: Timestamp) -> Vec<Cell> {
    let status = set.status.clone().unwrap_or_default();
    let pod_template = set.spec.as_ref().map(|spec| &spec.template);
    let pod = pod_template.and_then(|template| template.spec.as_ref());
    let mut cells = vec![
        name(&set.metadata),
        status.desired_number_scheduled.into(),
        status.current_number_scheduled.into(),
        status.number_ready.into(),
        status.updated_number_scheduled.unwrap_or_default().into(),
        status.number_available.unwrap_or_default().into(),
        labels(pod.and_then(|pod| pod.node_selector.as_ref())).into(),
        created(&set.metadata, now),
    ];
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    cells.extend(template(
        pod_template,
        selector.and_then(|selector| selector.match_labels.as_ref()),
    ));
    cells
}

/// The three columns that all workloads have only with `-o wide`.
fn template(
    template: Option<&core::PodTemplateSpec>,
    selector: Option<&BTreeMap<String, String>>,
) -> [Cell; 3] {
    let spec = template.and_then(|template| template.spec.as_ref());
    let containers = spec.map_or(&[][..], |spec| &spec.containers);
    let names = containers.iter().map(|container| container.name.as_str());
    let images = containers.iter();
    let images = images.map(|container| container.image.as_deref().unwrap_or_default());
    [
        joined(names).into(),
        joined(images).into(),
        labels(selector).into(),
    ]
}
