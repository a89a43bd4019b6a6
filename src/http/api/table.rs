//! `meta.k8s.io/v1` Tables with the columns that kube-apiserver sends for each kind
//! (`pkg/printers/internalversion/printers.go` of Kubernetes).

mod config;
mod pod;
mod service;
mod workload;

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use reconciler::foreign;
use serde::{Deserialize, Serialize};

use super::{age, object::ApiObject, query::Include, resource::ApiKind};

/// A `meta.k8s.io/v1` Table, as the API sends it and the command line reads it. `O` is the object
/// that a row may have beside its cells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KubernetesTable<O> {
    kind: Cow<'static, str>,
    api_version: Cow<'static, str>,
    /// The version of the list that the table shows.
    #[serde(default)]
    pub(crate) metadata: TableMeta,
    /// In a watch, a client needs these only with the first table.
    #[serde(default = "Vec::new")]
    pub(crate) column_definitions: Vec<ColumnDefinition>,
    #[serde(default = "Vec::new")]
    pub(crate) rows: Vec<TableRow<O>>,
}

/// `metadata` of a table.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TableMeta {
    pub(crate) resource_version: String,
}

/// A column of a table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ColumnDefinition {
    pub(crate) name: Cow<'static, str>,
    /// The JSON type of the cells: `string` or `integer`.
    #[serde(rename = "type")]
    kind: Cow<'static, str>,
    /// `name` in the column with the names of the objects.
    #[serde(default)]
    pub(crate) format: Cow<'static, str>,
    #[serde(default)]
    description: Cow<'static, str>,
    /// Columns with a priority above 0 are shown only with `-o wide`.
    #[serde(default)]
    pub(crate) priority: i32,
}

/// A row of a table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TableRow<O> {
    pub(crate) cells: Vec<Cell>,
    #[serde(skip_serializing_if = "Option::is_none", default = "Option::default")]
    pub(crate) object: Option<O>,
}

/// A cell of a table, of the JSON type of its column.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    Integer(i64),
    Text(String),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i32> for Cell {
    fn from(number: i32) -> Self {
        Self::Integer(number.into())
    }
}

/// The object of a row, as the request wants it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum RowObject<'a> {
    Whole(&'a ApiObject),
    #[serde(rename_all = "camelCase")]
    Metadata {
        kind: &'static str,
        api_version: &'static str,
        metadata: &'a ObjectMeta,
    },
}

/// A column: its name, its JSON type, and whether only `-o wide` shows it.
struct Column {
    name: &'static str,
    kind: &'static str,
    wide: bool,
}

const fn text(name: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        wide: false,
    }
}

const fn number(name: &'static str) -> Column {
    Column {
        name,
        kind: "integer",
        wide: false,
    }
}

const fn wide(name: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        wide: true,
    }
}

/// The STATUS of a pod; `None` for an object of another kind.
pub(super) fn pod_status(object: &ApiObject) -> Option<String> {
    match object {
        ApiObject::Pod(pod) => Some(pod::status(pod)),
        _ => None,
    }
}

/// The columns of a kind; [`cells`] has the cells of its objects in the same order.
fn columns(kind: ApiKind) -> &'static [Column] {
    match kind {
        ApiKind::Pod => pod::COLUMNS,
        ApiKind::ReplicationController | ApiKind::ReplicaSet => workload::REPLICAS,
        ApiKind::Service => service::SERVICE,
        ApiKind::DaemonSet => workload::DAEMON_SET,
        ApiKind::Deployment => workload::DEPLOYMENT,
        ApiKind::ConfigMap => config::CONFIG_MAP,
        ApiKind::Secret => config::SECRET,
        ApiKind::Endpoints => service::ENDPOINTS,
        ApiKind::Event => config::EVENT,
        ApiKind::Namespace => config::NAMESPACE,
        ApiKind::Node => config::NODE,
        ApiKind::EndpointSlice => service::SLICE,
    }
}

fn cells(object: &ApiObject, now: Timestamp) -> Vec<Cell> {
    match object {
        ApiObject::Pod(pod) => pod::cells(pod, now),
        ApiObject::ReplicationController(controller) => {
            workload::replication_controller(controller, now)
        }
        ApiObject::Service(service) => service::service(service, now),
        ApiObject::DaemonSet(set) => workload::daemon_set(set, now),
        ApiObject::Deployment(deployment) => workload::deployment(deployment, now),
        ApiObject::ReplicaSet(set) => workload::replica_set(set, now),
        ApiObject::ConfigMap(map) => config::config_map(map, now),
        ApiObject::Secret(secret) => config::secret(secret, now),
        ApiObject::Endpoints(endpoints) => service::endpoints(endpoints, now),
        ApiObject::Event(event) => config::event(event, now),
        ApiObject::Namespace(namespace) => config::namespace(namespace, now),
        ApiObject::Node(node) => config::node(node, now),
        ApiObject::EndpointSlice(slice) => service::slice(slice, now),
    }
}

/// The table of several objects of one kind.
pub(super) fn render<'a>(
    kind: ApiKind,
    objects: impl IntoIterator<Item = &'a ApiObject>,
    version: &str,
    include: Include,
) -> KubernetesTable<RowObject<'a>> {
    let now = Timestamp::now();
    let definition = |column: &Column| ColumnDefinition {
        name: Cow::Borrowed(column.name),
        kind: Cow::Borrowed(column.kind),
        format: Cow::Borrowed(if column.name == "Name" { "name" } else { "" }),
        description: Cow::Borrowed(""),
        priority: column.wide.into(),
    };
    let row = |object| TableRow {
        cells: printable(cells(object, now)),
        object: row_object(object, include),
    };
    KubernetesTable {
        kind: Cow::Borrowed("Table"),
        api_version: Cow::Borrowed("meta.k8s.io/v1"),
        metadata: TableMeta {
            resource_version: version.to_owned(),
        },
        column_definitions: columns(kind).iter().map(definition).collect(),
        rows: objects.into_iter().map(row).collect(),
    }
}

/// Escapes cells, since kubectl prints them unescaped.
fn printable(mut cells: Vec<Cell>) -> Vec<Cell> {
    for cell in &mut cells {
        if let Cell::Text(text) = cell
            && let Cow::Owned(escaped) = foreign::escape(text)
        {
            *text = escaped;
        }
    }
    cells
}

fn row_object(object: &ApiObject, include: Include) -> Option<RowObject<'_>> {
    match include {
        Include::None => None,
        Include::Object => Some(RowObject::Whole(object)),
        Include::Metadata => Some(RowObject::Metadata {
            kind: "PartialObjectMetadata",
            api_version: "meta.k8s.io/v1",
            metadata: object.metadata(),
        }),
    }
}

fn name(metadata: &ObjectMeta) -> Cell {
    metadata.name.as_deref().unwrap_or_default().into()
}

/// The age of an object.
fn created(metadata: &ObjectMeta, now: Timestamp) -> Cell {
    since(metadata.creation_timestamp.as_ref(), now).into()
}

/// The time since an event; `<unknown>` if its time is absent.
fn since(time: Option<&Time>, now: Timestamp) -> String {
    age::since(time.map(|time| time.0), now)
}

/// The text, or kubectl's `<none>` for an absent or empty one.
fn or_none(text: Option<&str>) -> &str {
    match text {
        None | Some("") => "<none>",
        Some(text) => text,
    }
}

fn joined<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<&str> = texts.into_iter().collect();
    or_none(Some(&texts.join(","))).to_owned()
}

/// Labels in the form `app=web,tier=front`.
fn labels(labels: Option<&BTreeMap<String, String>>) -> String {
    let pairs: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    joined(pairs.iter().map(String::as_str))
}
