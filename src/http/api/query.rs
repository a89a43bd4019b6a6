//! The query parameters of lists, watches and logs.

use serde::{Deserialize, Deserializer};

use super::{
    field_selector::FieldSelector,
    object::ApiObject,
    resource::Resource,
    selector::{LabelSelector, SelectorError},
    status::ApiError,
};

/// Query parameters. A server may ignore those that only make an answer smaller or later (`limit`,
/// `timeout`).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListQuery {
    label_selector: String,
    field_selector: String,
    include_object: String,
    /// Whether the answer is a stream of changes.
    #[serde(deserialize_with = "truth")]
    pub(super) watch: bool,
    /// The number of the view that answers, or after which the stream starts; see `options`.
    pub(super) resource_version: String,
    /// How `resource_version` is compared: `NotOlderThan` or `Exact`.
    pub(super) resource_version_match: String,
    /// Whether the stream begins with all objects, and marks the end of them.
    #[serde(deserialize_with = "maybe_truth")]
    pub(super) send_initial_events: Option<bool>,
    /// Whether the stream contains bookmarks, which name the last view that was reported
    /// completely.
    #[serde(deserialize_with = "truth")]
    pub(super) allow_watch_bookmarks: bool,
    /// The time limit of the stream, in seconds.
    pub(super) timeout_seconds: Option<u64>,
    /// The container of a log.
    pub(super) container: Option<String>,
    /// Whether the log continues with lines that are written from now on.
    #[serde(deserialize_with = "truth")]
    pub(super) follow: bool,
    /// Whether the log of the previous attempt is wanted.
    #[serde(deserialize_with = "truth")]
    pub(super) previous: bool,
    /// Whether each line begins with its time.
    #[serde(deserialize_with = "truth")]
    pub(super) timestamps: bool,
    /// The number of last lines; `None` for all.
    pub(super) tail_lines: Option<u64>,
    /// Only lines of this number of last seconds.
    pub(super) since_seconds: Option<u64>,
    /// Only lines since this time.
    pub(super) since_time: Option<jiff::Timestamp>,
    /// The size limit of the log, in bytes.
    pub(super) limit_bytes: Option<u64>,
}

/// The object that each row of a table contains beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    /// Rows have only cells.
    None,
    /// Rows have the `metadata` of their object, as a `PartialObjectMetadata`.
    Metadata,
    /// Rows have the whole object.
    Object,
}

/// The two selectors, parsed.
#[derive(Debug, Default)]
pub(super) struct Filter {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl ListQuery {
    /// The selectors; an invalid one is refused as kube-apiserver refuses it.
    pub(super) fn filter(&self, resource: &Resource) -> Result<Filter, ApiError> {
        let bad_request = |error: SelectorError| ApiError::bad_request(error.to_string());
        let labels = LabelSelector::parse(&self.label_selector).map_err(bad_request)?;
        let fields = FieldSelector::parse(&self.field_selector, resource).map_err(bad_request)?;
        Ok(Filter { labels, fields })
    }

    /// `includeObject`: as in kube-apiserver, the default is the `metadata`.
    pub(super) fn include(&self) -> Include {
        match self.include_object.as_str() {
            "None" => Include::None,
            "Object" => Include::Object,
            _ => Include::Metadata,
        }
    }
}

impl Filter {
    /// Whether an object matches both selectors.
    pub(super) fn matches(&self, object: &ApiObject) -> bool {
        let labels = object.metadata().labels.as_ref();
        self.labels.matches(labels) && self.fields.matches(object)
    }

    /// The one name that can match; `None` if the selector does not contain a name.
    pub(super) fn name(&self) -> Option<&str> {
        self.fields.name()
    }
}

/// A boolean that may be absent.
fn maybe_truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    truth(deserializer).map(Some)
}

/// A boolean in a query, as Go parses it: `true`, `1`, or only the parameter's name.
fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "" | "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        other => Err(serde::de::Error::custom(format!(
            "expected true or false, not `{other}`"
        ))),
    }
}
