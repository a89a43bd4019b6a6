//! Converts one document to one of our objects.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
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
    name::{NodeName, ObjectKey, WorkloadKey, WorkloadKind},
    object::{ObjectId, Objects, Place},
};

/// Everything that was read so far.
pub(super) struct Reading {
    read_as: ReadAs,
    pub(super) objects: Objects,
    pub(super) problems: Vec<Problem>,
    /// Where each object was written, objects without effect included.
    seen: BTreeMap<ObjectId, Place>,
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
                    self.place(&id, report, &at);
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
        let place = Place {
            file: report.file.to_owned(),
            line: report.line,
        };
        match kind.name {
            "Secret" => mend_base64(&mut value, "data", "stringData", at),
            "ConfigMap" => mend_base64(&mut value, "binaryData", "data", at),
            _ => {}
        }
        let Some(object) = read_object(kind.name, &value, place.clone(), at) else {
            return;
        };
        let id = ObjectId {
            api_version: kind.api_version(),
            kind: kind.name.to_owned(),
            key: object.key(),
        };
        if id.key.name.is_empty() || !self.place(&id, report, at) {
            return;
        }
        if kind.namespaced {
            value["metadata"]["namespace"] = Value::from(id.key.namespace.as_str());
        }
        if let Object::Secret(..) = object {
            hide_values(&mut value);
        }
        self.objects.places.insert(id.clone(), place);
        self.objects.originals.insert(id, value);
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
    fn place(&mut self, id: &ObjectId, report: &Report<'_>, at: &At<'_>) -> bool {
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
            Place {
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

/// Converts a document of a supported kind; `None` after a problem.
fn read_object(kind: &str, value: &Value, place: Place, at: &At<'_>) -> Option<Object> {
    if let Some(kind) = WorkloadKind::parse(kind) {
        let written = Written {
            hash: template_hash(value),
            place,
        };
        let workload = match kind {
            WorkloadKind::Pod => convert::pod(typed(value, at)?, written, at),
            WorkloadKind::ReplicaSet => convert::replica_set(typed(value, at)?, written, at),
            WorkloadKind::ReplicationController => {
                convert::replication_controller(typed(value, at)?, written, at)
            }
            WorkloadKind::Deployment => convert::deployment(typed(value, at)?, written, at),
            WorkloadKind::DaemonSet => convert::daemon_set(typed(value, at)?, written, at),
        };
        return Some(Object::Workload(Box::new(workload)));
    }
    match kind {
        "Service" => {
            let (key, service) = convert::service(typed(value, at)?, at);
            Some(Object::Service(key, service))
        }
        "ConfigMap" => {
            let (key, map) = convert::config_map(typed(value, at)?, at);
            Some(Object::ConfigMap(key, map))
        }
        "Secret" => {
            let (key, secret) = convert::secret(typed(value, at)?, at);
            Some(Object::Secret(key, secret))
        }
        "Namespace" => {
            let (name, meta) = convert::namespace(typed(value, at)?, at);
            Some(Object::Namespace(name, meta))
        }
        "Node" => {
            let (name, node) = convert::node(typed(value, at)?, at);
            Some(Object::Node(name, node))
        }
        _ => None,
    }
}

fn typed<T: DeserializeOwned>(value: &Value, at: &At<'_>) -> Option<T> {
    strict::read(value, at)
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
fn hide_values(value: &mut Value) {
    for field in ["data", "stringData"] {
        for value in value
            .get_mut(field)
            .and_then(Value::as_object_mut)
            .into_iter()
            .flat_map(|data| data.values_mut())
        {
            *value = Value::from("");
        }
    }
    if let Some(annotations) = value
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
}
