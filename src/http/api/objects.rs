//! The objects of the API: the manifests of a commit, with the present state.

mod endpoints;
pub(super) mod event;
mod meta;
mod node;
mod plain;
mod pod;
mod pod_status;
mod replicaset;
mod service;
mod tally;
mod workload;

use std::collections::BTreeMap;

use reconciler::{
    commit, foreign,
    name::{ObjectKey, WorkloadKey, WorkloadKind},
    object::{ObjectId, Objects, Original, Workload},
    state::PodRecord,
};

use super::{object::ApiObject, resource::ApiKind};
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

/// The objects of a kind, in the order of their names.
pub(super) fn all(
    numbered: &Numbered,
    kind: ApiKind,
    scope: Scope<'_>,
) -> BTreeMap<ObjectKey, ApiObject> {
    let source = ObjectSource::new(&numbered.view);
    let mut objects = match kind {
        ApiKind::Pod => pod::all(&source, scope),
        ApiKind::ReplicationController => workload::replication_controllers(&source, scope),
        ApiKind::Service => service::all(&source, scope),
        ApiKind::DaemonSet => workload::daemon_sets(&source, scope),
        ApiKind::Deployment => workload::deployments(&source, scope),
        ApiKind::ReplicaSet => {
            let mut sets = workload::replica_sets(&source, scope);
            sets.extend(replicaset::implied(&source, scope));
            sets
        }
        ApiKind::ConfigMap => plain::config_maps(&source, scope),
        ApiKind::Secret => plain::secrets(&source, scope),
        ApiKind::Endpoints => endpoints::all(&source, scope),
        ApiKind::Event => event::all(&source, scope),
        ApiKind::Namespace => plain::namespaces(&source, scope),
        ApiKind::Node => node::all(&source, scope),
        ApiKind::EndpointSlice => endpoints::slices(&source, scope),
    };
    let version = numbered.number.to_string();
    for object in objects.values_mut() {
        object.metadata_mut().resource_version = Some(version.clone());
    }
    objects
}

/// All pods of a view.
pub(super) fn pods(view: &View) -> impl Iterator<Item = ApiObject> {
    pod::all(&ObjectSource::new(view), Scope::default()).into_values()
}

/// A view, with the values that all renderers use.
struct ObjectSource<'a> {
    view: &'a View,
    driving: Option<&'a Commit>,
}

impl<'a> ObjectSource<'a> {
    fn new(view: &'a View) -> Self {
        let driving = commit::driving(&view.commits, &view.state.rollout);
        Self {
            view,
            driving: driving.map(AsRef::as_ref),
        }
    }

    /// The objects of the driving commit; `None` before the first commit.
    fn objects(&self) -> Option<&'a Objects> {
        self.driving.map(|commit| &commit.objects)
    }

    /// The manifests of the driving commit that a request may select, of all kinds.
    fn originals<'s>(
        &self,
        scope: Scope<'s>,
    ) -> impl Iterator<Item = (&'a ObjectId, &'a Original)> + use<'a, 's> {
        let objects = self.objects().into_iter();
        let originals = objects.flat_map(|objects| &objects.originals);
        originals.filter(move |(id, _)| scope.has(&id.key))
    }

    /// A workload of the driving commit.
    fn workload(&self, kind: WorkloadKind, object: &ObjectKey) -> Option<&'a Workload> {
        let object = object.clone();
        let key = WorkloadKey { kind, object };
        self.objects()?.workloads.get(&key)
    }

    /// The owner of a pod, as it is in the pod's own commit.
    fn owner(&self, record: &PodRecord) -> Option<Owner<'a>> {
        let objects = &self.view.commits.get(&record.commit)?.objects;
        Owner::of(objects, &record.owner)
    }

    /// The pods of a workload that are not stopping.
    fn pods_of(&self, owner: &WorkloadKey) -> impl Iterator<Item = &'a PodRecord> + use<'a> {
        let owner = owner.clone();
        let records = self.view.state.pods.values();
        records.filter(move |record| record.owner == owner && record.stop.is_none())
    }
}

/// An owner of pods in one commit.
#[derive(Clone, Copy)]
struct Owner<'a> {
    workload: &'a Workload,
    original: Option<&'a Original>,
}

impl<'a> Owner<'a> {
    fn of(objects: &'a Objects, key: &WorkloadKey) -> Option<Self> {
        Some(Self {
            workload: objects.workloads.get(key)?,
            original: objects.originals.get(&original_id(key)),
        })
    }
}

/// The id of a workload's manifest.
fn original_id(key: &WorkloadKey) -> ObjectId {
    let kind = ApiKind::from(key.kind);
    ObjectId {
        api_version: kind.api_version().to_owned(),
        kind: kind.as_str().to_owned(),
        key: key.object.clone(),
    }
}

/// A count of pods as Kubernetes' types have it.
fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Escaped foreign text: another host may have written it, and `kubectl describe` prints texts
/// unescaped.
fn escaped(text: &str) -> String {
    foreign::escape(text).into_owned()
}
