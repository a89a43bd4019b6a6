//! Our narrow types: what a commit says, converted one way from Kubernetes' structs, with every
//! default applied.

mod affinity;
mod config;
mod node;
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
pub use pod::*;
pub use service::*;
pub use workload::*;

use crate::name::{NodeName, ObjectKey, WorkloadKey};

/// `metadata` as far as it means something here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
}

/// Which object of which API: `apps/v1`, `Deployment`, `default`, `web`. Cluster-scoped objects
/// have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId {
    /// The current API version (`v1`, `apps/v1`), whatever group the manifest used.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// Namespace and name.
    pub key: ObjectKey,
}

/// Where an object was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Path in the repository.
    pub file: String,
    /// 1-based line of the document's first key.
    pub line: u32,
}

/// Everything one commit says, sorted. It can be wrong in itself only in ways that `desired`
/// reports.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Namespaces that were written out; any namespace may be used without that.
    pub namespaces: BTreeMap<String, Meta>,
    /// What owns pods.
    pub workloads: BTreeMap<WorkloadKey, Workload>,
    /// Services.
    pub services: BTreeMap<ObjectKey, Service>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<ObjectKey, ConfigMap>,
    /// Secrets.
    pub secrets: BTreeMap<ObjectKey, Secret>,
    /// Labels, taints and cordons of nodes.
    pub nodes: BTreeMap<NodeName, NodeObject>,
    /// The manifests as written, upgraded to the current API version, for the API; Secrets without
    /// their values.
    pub originals: BTreeMap<ObjectId, serde_json::Value>,
    /// Where each of them was written.
    pub places: BTreeMap<ObjectId, Place>,
}
