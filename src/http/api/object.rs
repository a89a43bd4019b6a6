//! An object of the API, in Kubernetes' own types.

use k8s_openapi::{
    api::{apps::v1 as apps, core::v1 as core, discovery::v1 as discovery},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Serialize;

use super::resource::ApiKind;

/// An object that the API serves: what tables and selectors read, and what clients receive as JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum ApiObject {
    Pod(Box<core::Pod>),
    ReplicationController(Box<core::ReplicationController>),
    Service(Box<core::Service>),
    DaemonSet(Box<apps::DaemonSet>),
    Deployment(Box<apps::Deployment>),
    ReplicaSet(Box<apps::ReplicaSet>),
    ConfigMap(Box<core::ConfigMap>),
    Secret(Box<core::Secret>),
    Endpoints(Box<core::Endpoints>),
    Event(Box<core::Event>),
    Namespace(Box<core::Namespace>),
    Node(Box<core::Node>),
    EndpointSlice(Box<discovery::EndpointSlice>),
}

impl ApiObject {
    /// An object with nothing but its `metadata`.
    pub(super) fn empty(kind: ApiKind, metadata: ObjectMeta) -> Self {
        let mut object = match kind {
            ApiKind::Pod => Self::Pod(Box::default()),
            ApiKind::ReplicationController => Self::ReplicationController(Box::default()),
            ApiKind::Service => Self::Service(Box::default()),
            ApiKind::DaemonSet => Self::DaemonSet(Box::default()),
            ApiKind::Deployment => Self::Deployment(Box::default()),
            ApiKind::ReplicaSet => Self::ReplicaSet(Box::default()),
            ApiKind::ConfigMap => Self::ConfigMap(Box::default()),
            ApiKind::Secret => Self::Secret(Box::default()),
            ApiKind::Endpoints => Self::Endpoints(Box::default()),
            ApiKind::Event => Self::Event(Box::default()),
            ApiKind::Namespace => Self::Namespace(Box::default()),
            ApiKind::Node => Self::Node(Box::default()),
            ApiKind::EndpointSlice => Self::EndpointSlice(Box::default()),
        };
        *object.metadata_mut() = metadata;
        object
    }

    pub(super) fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Pod(pod) => &pod.metadata,
            Self::ReplicationController(controller) => &controller.metadata,
            Self::Service(service) => &service.metadata,
            Self::DaemonSet(set) => &set.metadata,
            Self::Deployment(deployment) => &deployment.metadata,
            Self::ReplicaSet(set) => &set.metadata,
            Self::ConfigMap(map) => &map.metadata,
            Self::Secret(secret) => &secret.metadata,
            Self::Endpoints(endpoints) => &endpoints.metadata,
            Self::Event(event) => &event.metadata,
            Self::Namespace(namespace) => &namespace.metadata,
            Self::Node(node) => &node.metadata,
            Self::EndpointSlice(slice) => &slice.metadata,
        }
    }

    pub(super) fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Pod(pod) => &mut pod.metadata,
            Self::ReplicationController(controller) => &mut controller.metadata,
            Self::Service(service) => &mut service.metadata,
            Self::DaemonSet(set) => &mut set.metadata,
            Self::Deployment(deployment) => &mut deployment.metadata,
            Self::ReplicaSet(set) => &mut set.metadata,
            Self::ConfigMap(map) => &mut map.metadata,
            Self::Secret(secret) => &mut secret.metadata,
            Self::Endpoints(endpoints) => &mut endpoints.metadata,
            Self::Event(event) => &mut event.metadata,
            Self::Namespace(namespace) => &mut namespace.metadata,
            Self::Node(node) => &mut node.metadata,
            Self::EndpointSlice(slice) => &mut slice.metadata,
        }
    }
}
