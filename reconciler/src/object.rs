//! Our own types of what a commit contains, converted from Kubernetes' structs with every default
//! applied. There is no conversion back: the API shows the structs that were converted, see
//! [`Original`].

mod affinity;
mod config;
mod node;
mod original;
mod pod;
mod service;
mod workload;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use affinity::{
    Affinity, NameRequirement, NodeAffinity, NodeOperator, NodeRequirement, NodeTerm, PodAffinity,
    PodSelector, PodTerm, SpreadConstraint,
};
pub use config::{ConfigMap, Secret, Sensitive};
pub use node::{DRAIN, NodeObject, Taint, TaintEffect, TaintError, Toleration};
pub use original::Original;
pub use pod::*;
pub use service::*;
pub use workload::*;

use crate::name::{NodeName, ObjectKey, WorkloadKey};

/// The parts of `metadata` that have a meaning here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
}

/// Identity of an object: API version, kind, namespace and name, such as `apps/v1`, `Deployment`,
/// `default`, `web`. The namespace of cluster-scoped objects is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId {
    /// The current API version (`v1`, `apps/v1`), whichever group the manifest used.
    pub api_version: String,
    /// The kind, such as `Deployment`.
    pub kind: String,
    /// Namespace and name of the object.
    pub key: ObjectKey,
}

/// The position of an object in the repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ManifestPosition {
    /// Path in the repository.
    pub file: String,
    /// Line of the document's first key, counted from 1.
    pub line: u32,
}

/// All objects of one commit, sorted. Errors that concern several objects are reported by
/// `desired`.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Namespaces that have a manifest; other namespaces may be used without one.
    pub namespaces: BTreeMap<String, Meta>,
    /// Owners of pods.
    pub workloads: BTreeMap<WorkloadKey, Workload>,
    /// Services.
    pub services: BTreeMap<ObjectKey, Service>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<ObjectKey, ConfigMap>,
    /// Secrets.
    pub secrets: BTreeMap<ObjectKey, Secret>,
    /// Labels, taints and cordons of nodes.
    pub nodes: BTreeMap<NodeName, NodeObject>,
    /// The manifests, upgraded to the current API version, for the API; values of Secrets are
    /// removed.
    pub originals: BTreeMap<ObjectId, Original>,
    /// The position of each object.
    pub positions: BTreeMap<ObjectId, ManifestPosition>,
}
