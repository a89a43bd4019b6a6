//! The `metadata` of objects: the manifest's fields, with those that a cluster adds.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use reconciler::{name::ObjectKey, object::ObjectId};
use ring::digest::{SHA256, digest};

use super::{ApiKind, ObjectSource};

/// The annotation with the commit that an object was read from.
pub(super) const COMMIT_ANNOTATION: &str = "windlass.dev/commit";
/// The annotation with the file and line that an object was read from.
const POSITION_ANNOTATION: &str = "windlass.dev/position";

/// Completes the `metadata` of a manifest of the driving commit, and removes what only a server may
/// set.
pub(super) fn complete(source: &ObjectSource<'_>, id: &ObjectId, metadata: &mut ObjectMeta) {
    metadata.resource_version = None;
    metadata.managed_fields = None;
    metadata.self_link = None;
    metadata.generate_name = None;

    metadata.name = Some(id.key.name.clone());
    if !id.key.namespace.is_empty() {
        metadata.namespace = Some(id.key.namespace.clone());
    }
    metadata.uid = Some(uid(source, &id.kind, &id.key));
    metadata.generation = Some(1);
    if let Some(created) = created(source, id) {
        metadata.creation_timestamp = Some(time(created));
    }
    annotate(source, id, metadata);
}

fn annotate(source: &ObjectSource<'_>, id: &ObjectId, metadata: &mut ObjectMeta) {
    let Some(commit) = source.driving else {
        return;
    };
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(COMMIT_ANNOTATION.to_owned(), commit.id.to_string());
    if let Some(position) = commit.objects.positions.get(id) {
        let position = format!("{}:{}", position.file, position.line);
        annotations.insert(POSITION_ANNOTATION.to_owned(), position);
    }
}

/// The `metadata` of an object without a manifest.
pub(super) fn derived(source: &ObjectSource<'_>, kind: ApiKind, key: &ObjectKey) -> ObjectMeta {
    let is_namespaced = !key.namespace.is_empty();
    ObjectMeta {
        name: Some(key.name.clone()),
        namespace: is_namespaced.then(|| key.namespace.clone()),
        uid: Some(uid(source, kind.as_str(), key)),
        ..ObjectMeta::default()
    }
}

/// The creation time of an object: when it first appeared, or the committer's time of the earliest
/// known commit that has the object.
fn created(source: &ObjectSource<'_>, id: &ObjectId) -> Option<Timestamp> {
    if let Some(first) = source.view.first_seen.get(id) {
        return Some(*first);
    }
    let commits = source.view.commits.values();
    let having = commits.filter(|commit| commit.objects.originals.contains_key(id));
    having.map(|commit| commit.time).min()
}

/// A uid that is the same on every host and after every restart: a hash of the cluster, the kind
/// and the name.
pub(super) fn uid(source: &ObjectSource<'_>, kind: &str, key: &ObjectKey) -> String {
    let text = format!(
        "{}\0{kind}\0{}\0{}",
        source.view.state.cluster, key.namespace, key.name
    );
    let hash = digest(&SHA256, text.as_bytes());
    let hex: String = hash
        .as_ref()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // Version 8 of RFC 9562 leaves the content to the application; variant 10.
    format!(
        "{}-{}-8{}-a{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    )
}

/// The `metadata.ownerReferences` of an object with one controlling owner.
pub(super) fn controlled_by(
    source: &ObjectSource<'_>,
    kind: ApiKind,
    owner: &ObjectKey,
) -> Option<Vec<OwnerReference>> {
    Some(vec![OwnerReference {
        api_version: kind.api_version().to_owned(),
        kind: kind.as_str().to_owned(),
        name: owner.name.clone(),
        uid: uid(source, kind.as_str(), owner),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }])
}

/// The labels of a pod or of the ReplicaSet that a Deployment implies.
pub(super) fn with_template_hash(
    labels: &BTreeMap<String, String>,
    hash: &str,
) -> BTreeMap<String, String> {
    let mut labels = labels.clone();
    labels.insert("pod-template-hash".to_owned(), hash.to_owned());
    labels
}

/// A time as Kubernetes has it, in whole seconds.
pub(super) fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
