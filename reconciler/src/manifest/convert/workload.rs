//! Owners of pods: bare pods and controllers.

use std::time::Duration;

use k8s_openapi::{
    api::{
        apps::v1::{
            DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, Deployment, DeploymentSpec,
            DeploymentStrategy, ReplicaSet, ReplicaSetSpec, RollingUpdateDaemonSet,
            RollingUpdateDeployment,
        },
        core::v1::{Pod, PodTemplateSpec, ReplicationController, ReplicationControllerSpec},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    meta::{Named, object_meta, template_meta},
    pod::pod_spec,
    selector::{plain_selector, selector},
};
use crate::{
    manifest::{at::At, upgrade::NO_DEADLINE},
    name::{ObjectKey, TemplateHash, WorkloadKey, WorkloadKind},
    object::{
        Control, DaemonSetUpdate, DeploymentStrategy as Strategy, IntOrPercent, ManifestPosition,
        Meta, PodTemplate, RestartPolicy, Workload,
    },
};

/// Parts of a workload that are not in the structs of its document.
pub(in crate::manifest) struct Written {
    /// Hash of the template as written in the manifest.
    pub(in crate::manifest) hash: TemplateHash,
    /// File and line of the document.
    pub(in crate::manifest) position: ManifestPosition,
}

impl Written {
    fn workload(
        self,
        kind: WorkloadKind,
        (object, meta): (ObjectKey, Meta),
        (pod_meta, spec): (Meta, crate::object::PodSpec),
        control: Control,
    ) -> Workload {
        Workload {
            key: WorkloadKey { kind, object },
            meta,
            template: PodTemplate {
                meta: pod_meta,
                spec,
                hash: self.hash,
            },
            control,
            position: self.position,
        }
    }
}

/// Reads a bare pod, whose template is the pod itself.
pub(in crate::manifest) fn pod(pod: Pod, written: Written, at: &At<'_>) -> Workload {
    let Pod {
        metadata,
        spec,
        status: _,
    } = pod;
    let (object, meta) = object_meta(metadata, Named::Subdomain, at);
    let spec = pod_spec(spec.unwrap_or_default(), &at.field("spec"));
    written.workload(
        WorkloadKind::Pod,
        (object, meta.clone()),
        (meta, spec),
        Control::Pod,
    )
}

/// Reads an apps/v1 ReplicaSet.
pub(in crate::manifest) fn replica_set(set: ReplicaSet, written: Written, at: &At<'_>) -> Workload {
    let ReplicaSet {
        metadata,
        spec,
        status: _,
    } = set;
    let named = object_meta(metadata, Named::Subdomain, at);
    let at = at.field("spec");
    let ReplicaSetSpec {
        min_ready_seconds,
        replicas,
        selector: selected,
        template,
    } = spec.unwrap_or_default();

    let template = pod_template(template, &at);
    let control = Control::Replicas {
        replicas: wanted(replicas, &at),
        min_ready: min_ready(min_ready_seconds, &at),
        selector: selector(selected, &template.0.labels, &at),
    };
    written.workload(WorkloadKind::ReplicaSet, named, template, control)
}

/// Reads a ReplicationController.
pub(in crate::manifest) fn replication_controller(
    controller: ReplicationController,
    written: Written,
    at: &At<'_>,
) -> Workload {
    let ReplicationController {
        metadata,
        spec,
        status: _,
    } = controller;
    let named = object_meta(metadata, Named::Subdomain, at);
    let at = at.field("spec");
    let ReplicationControllerSpec {
        min_ready_seconds,
        replicas,
        selector: selected,
        template,
    } = spec.unwrap_or_default();

    let template = pod_template(template, &at);
    let control = Control::Replicas {
        replicas: wanted(replicas, &at),
        min_ready: min_ready(min_ready_seconds, &at),
        selector: plain_selector(selected, &template.0.labels, &at),
    };
    written.workload(
        WorkloadKind::ReplicationController,
        named,
        template,
        control,
    )
}

/// Reads an apps/v1 Deployment.
pub(in crate::manifest) fn deployment(
    deployment: Deployment,
    written: Written,
    at: &At<'_>,
) -> Workload {
    let Deployment {
        metadata,
        spec,
        status: _,
    } = deployment;
    let named = object_meta(metadata, Named::Subdomain, at);
    let at = at.field("spec");
    let DeploymentSpec {
        min_ready_seconds,
        paused,
        progress_deadline_seconds,
        replicas,
        revision_history_limit,
        selector: selected,
        strategy,
        template,
    } = spec.unwrap_or_default();

    at.field("revisionHistoryLimit")
        .ignore(revision_history_limit.is_some(), HISTORY);
    let template = pod_template(Some(template), &at);
    let min_ready = min_ready(min_ready_seconds, &at);

    // 600 seconds is the default of Kubernetes (SetDefaults_Deployment).
    let deadline = progress_deadline_seconds.unwrap_or(600);
    let progress_deadline = if deadline == NO_DEADLINE {
        None
    } else {
        let at = at.field("progressDeadlineSeconds");
        let deadline = Duration::from_secs(at.count(deadline).into());
        if deadline <= min_ready {
            at.error("must be more than minReadySeconds: raise it");
        }
        Some(deadline)
    };

    let control = Control::Deployment {
        replicas: wanted(replicas, &at),
        min_ready,
        selector: selector(selected, &template.0.labels, &at),
        strategy: deployment_strategy(strategy, &at.field("strategy")),
        progress_deadline,
        paused: paused.unwrap_or(false),
    };
    written.workload(WorkloadKind::Deployment, named, template, control)
}

/// Reads an apps/v1 DaemonSet.
pub(in crate::manifest) fn daemon_set(set: DaemonSet, written: Written, at: &At<'_>) -> Workload {
    let DaemonSet {
        metadata,
        spec,
        status: _,
    } = set;
    let named = object_meta(metadata, Named::Subdomain, at);
    let at = at.field("spec");
    let DaemonSetSpec {
        min_ready_seconds,
        revision_history_limit,
        selector: selected,
        template,
        update_strategy,
    } = spec.unwrap_or_default();

    at.field("revisionHistoryLimit")
        .ignore(revision_history_limit.is_some(), HISTORY);
    let template = pod_template(Some(template), &at);
    let control = Control::DaemonSet {
        min_ready: min_ready(min_ready_seconds, &at),
        selector: selector(selected, &template.0.labels, &at),
        update: daemon_set_update(update_strategy, &at.field("updateStrategy")),
    };
    written.workload(WorkloadKind::DaemonSet, named, template, control)
}

const HISTORY: &str = "the history is Git's";

/// `spec.template` of a controller; `at` is the position of its `spec`.
fn pod_template(template: Option<PodTemplateSpec>, at: &At<'_>) -> (Meta, crate::object::PodSpec) {
    let PodTemplateSpec { metadata, spec } = template.unwrap_or_default();
    let at = at.field("template");
    let meta = template_meta(metadata, &at.field("metadata"));
    let at = at.field("spec");
    let spec = pod_spec(spec.unwrap_or_default(), &at);

    if spec.restart_policy != RestartPolicy::Always {
        at.field("restartPolicy").error(
            "must be Always: a controller's pods are meant to run; write a bare Pod for what ends",
        );
    }
    if spec.active_deadline.is_some() {
        at.field("activeDeadlineSeconds")
            .error("only a bare Pod may have it: remove it");
    }
    (meta, spec)
}

/// Kubernetes wants one replica where none are counted.
fn wanted(replicas: Option<i32>, at: &At<'_>) -> u32 {
    replicas.map_or(1, |replicas| at.field("replicas").count(replicas))
}

fn min_ready(seconds: Option<i32>, at: &At<'_>) -> Duration {
    Duration::from_secs(
        seconds
            .map_or(0, |seconds| at.field("minReadySeconds").count(seconds))
            .into(),
    )
}

fn deployment_strategy(strategy: Option<DeploymentStrategy>, at: &At<'_>) -> Strategy {
    let DeploymentStrategy {
        rolling_update,
        type_,
    } = strategy.unwrap_or_default();

    let rolls = at.field("type").word(
        type_.as_deref(),
        &[("RollingUpdate", true), ("Recreate", false)],
        true,
    );

    let at = at.field("rollingUpdate");
    if !rolls {
        if rolling_update.is_some() {
            at.error("contradicts the type Recreate: remove one of them");
        }
        return Strategy::Recreate;
    }

    let RollingUpdateDeployment {
        max_surge,
        max_unavailable,
    } = rolling_update.unwrap_or_default();
    let quarter = IntOrPercent::Percent(25);
    let max_surge = share(max_surge, quarter, u32::MAX, &at.field("maxSurge"));
    let max_unavailable = share(max_unavailable, quarter, 100, &at.field("maxUnavailable"));
    if is_zero(max_surge) && is_zero(max_unavailable) {
        at.field("maxUnavailable")
            .error("must not be 0 when maxSurge is 0: no pod could ever be replaced; raise one");
    }
    Strategy::RollingUpdate {
        max_surge,
        max_unavailable,
    }
}

fn daemon_set_update(strategy: Option<DaemonSetUpdateStrategy>, at: &At<'_>) -> DaemonSetUpdate {
    let DaemonSetUpdateStrategy {
        rolling_update,
        type_,
    } = strategy.unwrap_or_default();

    let rolls = at.field("type").word(
        type_.as_deref(),
        &[("RollingUpdate", true), ("OnDelete", false)],
        true,
    );

    let at = at.field("rollingUpdate");
    if !rolls {
        // Kubernetes accepts the field and ignores it (ValidateDaemonSetUpdateStrategy).
        at.ignore(
            rolling_update.is_some(),
            "the type OnDelete replaces no pod by itself",
        );
        return DaemonSetUpdate::OnDelete;
    }

    let RollingUpdateDaemonSet {
        max_surge,
        max_unavailable,
    } = rolling_update.unwrap_or_default();
    let max_surge = share(max_surge, IntOrPercent::Int(0), 100, &at.field("maxSurge"));
    let max_unavailable = share(
        max_unavailable,
        IntOrPercent::Int(1),
        100,
        &at.field("maxUnavailable"),
    );
    match (is_zero(max_surge), is_zero(max_unavailable)) {
        (true, true) => at
            .field("maxUnavailable")
            .error("must not be 0 when maxSurge is 0: no pod could ever be replaced; raise one"),
        (false, false) => at
            .field("maxSurge")
            .error("must be 0 unless maxUnavailable is 0: set one of them to 0"),
        _ => {}
    }
    DaemonSetUpdate::RollingUpdate {
        max_unavailable,
        max_surge,
    }
}

/// A number, or a percentage up to a maximum.
fn share(
    value: Option<IntOrString>,
    default: IntOrPercent,
    most_percent: u32,
    at: &At<'_>,
) -> IntOrPercent {
    match value {
        None => default,
        Some(IntOrString::Int(number)) => IntOrPercent::Int(at.count(number)),
        Some(IntOrString::String(text)) => {
            let percent = percentage(&text, most_percent);
            if percent.is_none() {
                at.error(format_args!(
                    "{text:?} is not valid: write a number, or a percentage such as \"25%\""
                ));
            }
            percent.map_or(default, IntOrPercent::Percent)
        }
    }
}

fn percentage(text: &str, most: u32) -> Option<u32> {
    let digits = text.strip_suffix('%')?;
    // `parse` alone would accept a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let percent = digits.parse().ok()?;
    (percent <= most).then_some(percent)
}

fn is_zero(share: IntOrPercent) -> bool {
    matches!(share, IntOrPercent::Int(0) | IntOrPercent::Percent(0))
}
