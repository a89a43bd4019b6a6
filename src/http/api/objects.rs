//! The objects of the API: the manifests of a commit, with the present state.

mod endpoints;
mod event;
mod meta;
mod node;
mod plain;
mod pod;
mod pod_status;
mod replicaset;
mod service;
mod workload;

use std::collections::BTreeMap;

use reconciler::{
    commit,
    name::{ObjectKey, WorkloadKey},
    object::{ObjectId, Objects, Workload},
    state::PodRecord,
};
use serde_json::Value;

use super::Resource;
use crate::{
    http::views::Numbered,
    view::{Commit, View},
};

/// The objects of a kind that a request selects.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scope<'a> {
    /// Only objects in this namespace; `None` for all namespaces.
    pub(super) namespace: Option<&'a str>,
    /// Only the object with this name; `None` for all names.
    pub(super) name: Option<&'a str>,
}

impl Scope<'_> {
    fn has(&self, key: &ObjectKey) -> bool {
        self.namespace
            .is_none_or(|namespace| namespace == key.namespace)
            && self.name.is_none_or(|name| name == key.name)
    }
}

/// Renders the objects of a kind, in the order of their names.
pub(super) fn all(
    numbered: &Numbered,
    resource: &Resource,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, Value> {
    let source = ObjectSource::new(numbered);
    let mut objects = match resource.kind {
        "Pod" => pod::all(&source, scope),
        "ReplicaSet" => {
            let mut sets = workload::all(&source, resource, scope);
            sets.extend(replicaset::implied(&source, scope));
            sets
        }
        "Deployment" | "DaemonSet" | "ReplicationController" => {
            workload::all(&source, resource, scope)
        }
        "Service" => service::all(&source, scope),
        "Endpoints" => endpoints::all(&source, scope),
        "EndpointSlice" => endpoints::slices(&source, scope),
        "ConfigMap" => plain::config_maps(&source, scope),
        "Secret" => plain::secrets(&source, scope),
        "Namespace" => plain::namespaces(&source, scope),
        "Node" => node::all(&source, scope),
        "Event" => event::all(&source, scope),
        _ => BTreeMap::new(),
    };
    let version = Value::from(source.number.to_string());
    for object in objects.values_mut() {
        object["metadata"]["resourceVersion"] = version.clone();
    }
    objects
}

/// A view, with the values that all renderers use.
struct ObjectSource<'a> {
    number: u64,
    view: &'a View,
    driving: Option<&'a Commit>,
}

impl<'a> ObjectSource<'a> {
    fn new(numbered: &'a Numbered) -> Self {
        let view = numbered.view.as_ref();
        Self {
            number: numbered.number,
            view,
            driving: commit::driving(&view.commits, &view.state.rollout).map(AsRef::as_ref),
        }
    }

    /// The objects of the driving commit; `None` before the first commit.
    fn objects(&self) -> Option<&'a Objects> {
        self.driving.map(|commit| &commit.objects)
    }

    /// The manifests of a kind in the driving commit.
    fn originals(
        &self,
        api_version: &str,
        kind: &str,
    ) -> impl Iterator<Item = (&'a ObjectId, &'a Value)> + use<'a> {
        let wanted = (api_version.to_owned(), kind.to_owned());
        let originals = self
            .objects()
            .into_iter()
            .flat_map(|objects| &objects.originals);
        originals.filter(move |(id, _)| id.api_version == wanted.0 && id.kind == wanted.1)
    }

    /// The owner of a pod, as it is in the pod's own commit.
    fn owner(&self, record: &PodRecord) -> Option<(&'a Workload, Option<&'a Value>)> {
        let objects = &self.view.commits.get(&record.commit)?.objects;
        let workload = objects.workloads.get(&record.owner)?;
        Some((workload, objects.originals.get(&original_id(&record.owner))))
    }

    /// The pods of a workload that are not stopping.
    fn pods_of(&self, owner: &WorkloadKey) -> impl Iterator<Item = &'a PodRecord> + use<'a> {
        let owner = owner.clone();
        self.view
            .state
            .pods
            .values()
            .filter(move |record| record.owner == owner && record.stop.is_none())
    }
}

/// The id of a workload's manifest.
fn original_id(key: &WorkloadKey) -> ObjectId {
    use reconciler::name::WorkloadKind::{
        DaemonSet, Deployment, Pod, ReplicaSet, ReplicationController,
    };
    let api_version = match key.kind {
        Pod | ReplicationController => "v1",
        ReplicaSet | Deployment | DaemonSet => "apps/v1",
    };
    ObjectId {
        api_version: api_version.to_owned(),
        kind: key.kind.as_str().to_owned(),
        key: key.object.clone(),
    }
}
