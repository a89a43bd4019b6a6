//! Converts one document to one of our objects.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1 as core};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Problem, ReadAs,
    at::{At, Report},
    convert::{self, LAST_APPLIED, Written},
    encrypted,
    hash::template_hash,
    kind::{self, Fate, ManifestKind},
    strict,
    upgrade::upgrade,
};
use crate::{
    name::{NodeName, ObjectKey, WorkloadKey},
    object::{ManifestPosition, ObjectId, Objects, Original},
};

/// Everything that was read so far.
pub(super) struct Reading {
    read_as: ReadAs,
    pub(super) objects: Objects,
    pub(super) problems: Vec<Problem>,
    /// Where each object was written, objects without effect included.
    seen: BTreeMap<ObjectId, ManifestPosition>,
}

/// Whether a file's text contains certain marks, so that its documents must be searched for them.
#[derive(Clone, Copy)]
pub(super) struct Holds {
    placeholders: bool,
    cipher_texts: bool,
}

impl Holds {
    pub(super) fn of(text: &str) -> Self {
        Self {
            placeholders: text.contains("${"),
            cipher_texts: text.contains("ENC["),
        }
    }
}

/// The result of reading a document.
pub(super) enum Outcome {
    /// The document is fully handled.
    Done,
    /// The document is of a kind without effect.
    NoEffect(&'static str),
    /// The document is a list of documents.
    List(Vec<Value>),
}

impl Reading {
    pub(super) fn new(read_as: ReadAs) -> Self {
        Self {
            read_as,
            objects: Objects::default(),
            problems: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Reads one document that begins at a line of a file.
    pub(super) fn document(
        &mut self,
        value: Value,
        file: &str,
        line: u32,
        holds: Holds,
    ) -> Outcome {
        let mut report = Report::new(file, line, self.read_as);
        if holds.placeholders {
            report.find_placeholders(&value);
        }
        let outcome = self.reported(value, &report, holds);
        self.problems.append(&mut report.into_problems());
        outcome
    }

    fn reported(&mut self, mut value: Value, report: &Report<'_>, holds: Holds) -> Outcome {
        let at = report.root();
        if !value.is_object() {
            at.error("must be a mapping with apiVersion and kind: correct it, or move it out of the configured paths");
            return Outcome::Done;
        }
        // SOPS may have encrypted the kind too, so its mark is checked first.
        if encrypted::is_marked(&value) && !kind::has_no_effect(&value) {
            at.error(format_args!(
                "this document is encrypted by SOPS, and {}",
                encrypted::INSTEAD
            ));
            return Outcome::Done;
        }
        let Some((kind, api_version)) = kind::of(&value, &at) else {
            return Outcome::Done;
        };
        let api_version = api_version.to_owned();
        match kind.fate {
            Fate::List => return list(value, &at),
            Fate::NoEffect => {
                if let Some(id) = self.identify(kind, &value) {
                    self.record_position(&id, report, &at);
                }
                return Outcome::NoEffect(kind.name);
            }
            Fate::Works | Fate::Later(_) => {}
        }
        if holds.cipher_texts {
            refuse_cipher_texts(kind, &value, &at);
        }
        upgrade(
            &mut value,
            kind.name,
            &api_version,
            &kind.api_version(),
            &at,
        );
        let status = value
            .as_object_mut()
            .and_then(|document| document.remove("status"));
        at.field("status").ignore(
            status.is_some_and(|status| {
                !status.is_null() && status != Value::Object(serde_json::Map::new())
            }),
            "Git says what is wanted, not what is",
        );
        self.object(kind, value, report, &at);
        Outcome::Done
    }

    /// Converts a document of a supported kind and keeps the object, even if there are problems
    /// with it: references to the object are then checked against it, instead of being reported as
    /// missing.
    fn object(
        &mut self,
        kind: &'static ManifestKind,
        mut value: Value,
        report: &Report<'_>,
        at: &At<'_>,
    ) {
        let position = ManifestPosition {
            file: report.file.to_owned(),
            line: report.line,
        };
        match kind.name {
            "Secret" => mend_base64(&mut value, "data", "stringData", at),
            "ConfigMap" => mend_base64(&mut value, "binaryData", "data", at),
            _ => {}
        }
        let Some(mut original) = read_original(kind.name, &value, at) else {
            return;
        };
        let object = to_object(&original, &value, position.clone(), at);
        let id = ObjectId {
            api_version: kind.api_version(),
            kind: kind.name.to_owned(),
            key: object.key(),
        };
        if id.key.name.is_empty() || !self.record_position(&id, report, at) {
            return;
        }
        if kind.namespaced {
            original.metadata_mut().namespace = Some(id.key.namespace.clone());
        }
        if let Original::Secret(secret) = &mut original {
            hide_values(secret);
        }
        self.objects.positions.insert(id.clone(), position);
        self.objects.originals.insert(id, original);
        match object {
            Object::Workload(workload) => {
                self.objects
                    .workloads
                    .insert(workload.key.clone(), *workload);
            }
            Object::Service(key, service) => {
                self.objects.services.insert(key, service);
            }
            Object::ConfigMap(key, map) => {
                self.objects.config_maps.insert(key, map);
            }
            Object::Secret(key, secret) => {
                self.objects.secrets.insert(key, secret);
            }
            Object::Namespace(name, meta) => {
                self.objects.namespaces.insert(name, meta);
            }
            Object::Node(name, node) => {
                self.objects.nodes.insert(name, node);
            }
        }
    }

    /// Records where an object is written; returns false, and reports a problem, if the object is
    /// also written elsewhere.
    fn record_position(&mut self, id: &ObjectId, report: &Report<'_>, at: &At<'_>) -> bool {
        if let Some(first) = self.seen.get(id) {
            let name = if id.key.namespace.is_empty() {
                id.key.name.clone()
            } else {
                id.key.to_string()
            };
            at.field("metadata").field("name").error(format_args!(
                "{} {name} is written at {}:{} already: keep one of them",
                id.kind, first.file, first.line
            ));
            return false;
        }
        self.seen.insert(
            id.clone(),
            ManifestPosition {
                file: report.file.to_owned(),
                line: report.line,
            },
        );
        true
    }

    /// The identity of a document that is not converted.
    fn identify(&self, kind: &ManifestKind, value: &Value) -> Option<ObjectId> {
        let text = |pointer| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        let namespace = if kind.namespaced {
            text("/metadata/namespace").unwrap_or("default")
        } else {
            ""
        };
        Some(ObjectId {
            api_version: kind.api_version(),
            kind: kind.name.to_owned(),
            key: ObjectKey::new(namespace, text("/metadata/name")?),
        })
    }
}

/// A document, converted to one of our objects.
enum Object {
    Workload(Box<crate::object::Workload>),
    Service(ObjectKey, crate::object::Service),
    ConfigMap(ObjectKey, crate::object::ConfigMap),
    Secret(ObjectKey, crate::object::Secret),
    Namespace(String, crate::object::Meta),
    Node(NodeName, crate::object::NodeObject),
}

impl Object {
    fn key(&self) -> ObjectKey {
        match self {
            Self::Workload(workload) => {
                let WorkloadKey { kind: _, object } = &workload.key;
                object.clone()
            }
            Self::Service(key, _) | Self::ConfigMap(key, _) | Self::Secret(key, _) => key.clone(),
            Self::Namespace(name, _) => ObjectKey::new("", name),
            Self::Node(name, _) => ObjectKey::new("", name.as_str()),
        }
    }
}

/// Reads a document of a supported kind into Kubernetes' own struct; `None` after a problem that
/// ended the reading.
fn read_original(kind: &str, value: &Value, at: &At<'_>) -> Option<Original> {
    Some(match kind {
        "Pod" => Original::Pod(typed(value, at)?),
        "ReplicaSet" => Original::ReplicaSet(typed(value, at)?),
        "ReplicationController" => Original::ReplicationController(typed(value, at)?),
        "Deployment" => Original::Deployment(typed(value, at)?),
        "DaemonSet" => Original::DaemonSet(typed(value, at)?),
        "Service" => Original::Service(typed(value, at)?),
        "ConfigMap" => Original::ConfigMap(typed(value, at)?),
        "Secret" => Original::Secret(typed(value, at)?),
        "Namespace" => Original::Namespace(typed(value, at)?),
        "Node" => Original::Node(typed(value, at)?),
        _ => return None,
    })
}

fn typed<T: DeserializeOwned>(value: &Value, at: &At<'_>) -> Option<Box<T>> {
    strict::read(value, at).map(Box::new)
}

/// Converts a manifest to one of our objects; the template hash is over `value`, the same manifest
/// as it is written.
fn to_object(
    original: &Original,
    value: &Value,
    position: ManifestPosition,
    at: &At<'_>,
) -> Object {
    let written = || Written {
        hash: template_hash(value),
        position,
    };
    let workload = |workload| Object::Workload(Box::new(workload));
    match original {
        Original::Pod(pod) => workload(convert::pod(*pod.clone(), written(), at)),
        Original::ReplicaSet(set) => workload(convert::replica_set(*set.clone(), written(), at)),
        Original::ReplicationController(controller) => workload(convert::replication_controller(
            *controller.clone(),
            written(),
            at,
        )),
        Original::Deployment(deployment) => {
            workload(convert::deployment(*deployment.clone(), written(), at))
        }
        Original::DaemonSet(set) => workload(convert::daemon_set(*set.clone(), written(), at)),
        Original::Service(service) => {
            let (key, service) = convert::service(*service.clone(), at);
            Object::Service(key, service)
        }
        Original::ConfigMap(map) => {
            let (key, map) = convert::config_map(*map.clone(), at);
            Object::ConfigMap(key, map)
        }
        Original::Secret(secret) => {
            let (key, secret) = convert::secret(*secret.clone(), at);
            Object::Secret(key, secret)
        }
        Original::Namespace(namespace) => {
            let (name, meta) = convert::namespace(*namespace.clone(), at);
            Object::Namespace(name, meta)
        }
        Original::Node(node) => {
            let (name, node) = convert::node(*node.clone(), at);
            Object::Node(name, node)
        }
    }
}

fn list(mut value: Value, at: &At<'_>) -> Outcome {
    let Some(list) = value.as_object_mut() else {
        return Outcome::Done;
    };
    let items = list.remove("items").unwrap_or_default();
    for key in list.keys() {
        if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            at.field(key)
                .error("unknown field: a list has only items; remove it");
        }
    }
    match items {
        Value::Array(items) => Outcome::List(items),
        Value::Null => Outcome::List(Vec::new()),
        _ => {
            at.field("items").error("must be a list of documents");
            Outcome::Done
        }
    }
}

/// Refuses values that SOPS encrypted, except values that must be base64: [`mend_base64`] reports
/// those.
fn refuse_cipher_texts(kind: &ManifestKind, value: &Value, at: &At<'_>) {
    let encoded = match kind.name {
        "Secret" => "data",
        "ConfigMap" => "binaryData",
        _ => "",
    };
    for (key, value) in value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != encoded)
    {
        encrypted::refuse_cipher_texts(value, &at.field(key));
    }
}

/// Removes line breaks from base64, as kubectl does, and replaces invalid base64 by an empty value,
/// so that reading can continue. The decoder's own message is not shown, since it contains a byte
/// of the secret.
fn mend_base64(value: &mut Value, field: &str, plain: &str, at: &At<'_>) {
    let at = at.field(field);
    for (key, value) in value
        .get_mut(field)
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
    {
        let Value::String(text) = value else { continue };
        text.retain(|c| !matches!(c, '\r' | '\n'));
        let is_cipher_text = encrypted::is_cipher_text(text);
        let is_template = text.contains("${");
        if let Ok(ByteString(bytes)) = ByteString::deserialize(&*value) {
            // SOPS writes its cipher text in place of the base64 value; here somebody has encoded
            // that cipher text.
            if std::str::from_utf8(&bytes).is_ok_and(encrypted::is_cipher_text) {
                at.field(key).error_in_new_heads(format_args!(
                    "this value is encrypted by SOPS, and {}",
                    encrypted::INSTEAD
                ));
            }
            continue;
        }
        if is_cipher_text {
            at.field(key).error(format_args!(
                "this value is encrypted by SOPS, and {}",
                encrypted::INSTEAD
            ));
        } else if is_template {
            at.field(key).error("must be base64");
        } else {
            at.field(key).error(format_args!(
                "must be base64: encode it, or move it to {plain}, which takes plain text"
            ));
        }
        *value = Value::from("");
    }
}

/// Replaces the values of a Secret, so that the API shows only its keys.
fn hide_values(secret: &mut core::Secret) {
    for value in secret.data.iter_mut().flat_map(BTreeMap::values_mut) {
        *value = ByteString::default();
    }
    for value in secret.string_data.iter_mut().flat_map(BTreeMap::values_mut) {
        value.clear();
    }
    if let Some(annotations) = &mut secret.metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
}
