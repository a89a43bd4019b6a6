//! The manifests of a commit in Kubernetes' own structs, which the API shows.

use k8s_openapi::{
    api::{apps::v1 as apps, core::v1 as core},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;

/// A manifest, upgraded to the current API version. Its fields are those of the manifest: no
/// default is applied but the namespace, and there is no `status`.
#[derive(Clone, Debug, PartialEq)]
pub enum Original {
    /// v1 Pod.
    Pod(Box<core::Pod>),
    /// apps/v1 ReplicaSet.
    ReplicaSet(Box<apps::ReplicaSet>),
    /// v1 ReplicationController.
    ReplicationController(Box<core::ReplicationController>),
    /// apps/v1 Deployment.
    Deployment(Box<apps::Deployment>),
    /// apps/v1 DaemonSet.
    DaemonSet(Box<apps::DaemonSet>),
    /// v1 Service.
    Service(Box<core::Service>),
    /// v1 ConfigMap.
    ConfigMap(Box<core::ConfigMap>),
    /// v1 Secret: its keys, each with an empty value.
    Secret(Box<core::Secret>),
    /// v1 Namespace.
    Namespace(Box<core::Namespace>),
    /// v1 Node.
    Node(Box<core::Node>),
}

impl Original {
    /// `metadata`.
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Pod(pod) => &mut pod.metadata,
            Self::ReplicaSet(set) => &mut set.metadata,
            Self::ReplicationController(controller) => &mut controller.metadata,
            Self::Deployment(deployment) => &mut deployment.metadata,
            Self::DaemonSet(set) => &mut set.metadata,
            Self::Service(service) => &mut service.metadata,
            Self::ConfigMap(map) => &mut map.metadata,
            Self::Secret(secret) => &mut secret.metadata,
            Self::Namespace(namespace) => &mut namespace.metadata,
            Self::Node(node) => &mut node.metadata,
        }
    }

    /// The manifest as JSON, with `apiVersion` and `kind`.
    pub fn to_value(&self) -> Value {
        let value = match self {
            Self::Pod(pod) => serde_json::to_value(pod),
            Self::ReplicaSet(set) => serde_json::to_value(set),
            Self::ReplicationController(controller) => serde_json::to_value(controller),
            Self::Deployment(deployment) => serde_json::to_value(deployment),
            Self::DaemonSet(set) => serde_json::to_value(set),
            Self::Service(service) => serde_json::to_value(service),
            Self::ConfigMap(map) => serde_json::to_value(map),
            Self::Secret(secret) => serde_json::to_value(secret),
            Self::Namespace(namespace) => serde_json::to_value(namespace),
            Self::Node(node) => serde_json::to_value(node),
        };
        // The structs have text keys only, so serializing them cannot fail.
        value.unwrap_or_default()
    }

    /// The template of a workload's pods; `None` for a bare Pod, and for what owns no pods.
    pub fn pod_template(&self) -> Option<&core::PodTemplateSpec> {
        match self {
            Self::ReplicaSet(set) => set.spec.as_ref()?.template.as_ref(),
            Self::ReplicationController(controller) => controller.spec.as_ref()?.template.as_ref(),
            Self::Deployment(deployment) => deployment.spec.as_ref().map(|spec| &spec.template),
            Self::DaemonSet(set) => set.spec.as_ref().map(|spec| &spec.template),
            Self::Pod(_)
            | Self::Service(_)
            | Self::ConfigMap(_)
            | Self::Secret(_)
            | Self::Namespace(_)
            | Self::Node(_) => None,
        }
    }

    /// The `spec` of a workload's pods, a bare Pod's included.
    pub fn pod_spec(&self) -> Option<&core::PodSpec> {
        match self {
            Self::Pod(pod) => pod.spec.as_ref(),
            other => other.pod_template()?.spec.as_ref(),
        }
    }
}
