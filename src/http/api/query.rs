//! The query parameters of lists, watches and logs.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{
    resource::Resource,
    selector::{FieldSelector, LabelSelector},
    status::ApiError,
};

/// Query parameters. Those that only make an answer smaller or later (`limit`, `timeout`) may be
/// ignored by a server.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListQuery {
    label_selector: String,
    field_selector: String,
    include_object: String,
    /// Answer with the stream of changes.
    #[serde(deserialize_with = "truth")]
    pub(super) watch: bool,
    /// Which view answers, or which one the stream starts after; see `options`.
    pub(super) resource_version: String,
    /// How that is meant: `NotOlderThan` or `Exact`.
    pub(super) resource_version_match: String,
    /// Begin the stream with everything there is, and say where that ends.
    #[serde(deserialize_with = "maybe_truth")]
    pub(super) send_initial_events: Option<bool>,
    /// Tell the client from time to time up to where it has seen everything.
    #[serde(deserialize_with = "truth")]
    pub(super) allow_watch_bookmarks: bool,
    /// End the stream after so long.
    pub(super) timeout_seconds: Option<u64>,
    /// Which container's log.
    pub(super) container: Option<String>,
    /// Go on with what is written from now on.
    #[serde(deserialize_with = "truth")]
    pub(super) follow: bool,
    /// The log of the container before.
    #[serde(deserialize_with = "truth")]
    pub(super) previous: bool,
    /// Put the time before each line.
    #[serde(deserialize_with = "truth")]
    pub(super) timestamps: bool,
    /// Only so many of the last lines.
    pub(super) tail_lines: Option<u64>,
    /// Only what was written in the last so many seconds.
    pub(super) since_seconds: Option<u64>,
    /// Only what was written since then.
    pub(super) since_time: Option<jiff::Timestamp>,
    /// End after so many bytes.
    pub(super) limit_bytes: Option<u64>,
}

/// What each row of a table carries beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    /// Nothing.
    None,
    /// `metadata` only.
    Metadata,
    /// The whole object.
    Object,
}

/// The two selectors, read.
#[derive(Debug, Default)]
pub(super) struct Filter {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl ListQuery {
    /// Reads the selectors.
    pub(super) fn filter(&self, resource: &Resource) -> Result<Filter, ApiError> {
        let labels = LabelSelector::parse(&self.label_selector).map_err(ApiError::bad_request)?;
        let fields =
            FieldSelector::parse(&self.field_selector, resource).map_err(ApiError::bad_request)?;
        Ok(Filter { labels, fields })
    }

    /// `includeObject`.
    pub(super) fn include(&self) -> Include {
        match self.include_object.as_str() {
            "None" => Include::None,
            "Object" => Include::Object,
            _ => Include::Metadata,
        }
    }
}

impl Filter {
    /// Whether an object satisfies both.
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }

    /// The one name that can match, where the selector says so.
    pub(super) fn name(&self) -> Option<&str> {
        self.fields.name()
    }
}

/// A boolean that differs from none.
fn maybe_truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    truth(deserializer).map(Some)
}

/// Go's idea of a boolean in a query: `true`, `1`, or just the name.
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
