//! `?watch=true`: the difference between one view and the next, as a stream of events.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use reconciler::name::ObjectKey;
use serde::Serialize;
use tokio::{sync::watch, time::Instant};

use super::{
    accept::Form,
    object::ApiObject,
    objects::{self, Scope},
    options::Begin,
    query::{Filter, Include, ListQuery},
    resource::Resource,
    status::ApiError,
    table,
};
use crate::{
    http::{HttpContext, views::Numbered},
    view::View,
};

/// The time limit of a watch without a time-out of its own; clients start another one.
const LONGEST: Duration = Duration::from_secs(3600);
/// How often a client that accepts bookmarks receives the number of the last view that was reported
/// completely, as from kube-apiserver. Without this a client of a kind that never changes could not
/// continue where its stream ended.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// The annotation of the bookmark after the initial events of a stream (KEP-3157). client-go 0.35
/// waits for it.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Starts a stream, after the view that the client has listed, or with all objects.
pub(super) fn start(
    daemon: Arc<HttpContext>,
    resource: &'static Resource,
    namespace: Option<String>,
    form: Form,
    query: &ListQuery,
) -> Result<Response, ApiError> {
    let filter = query.filter(resource)?;
    let begin = query.for_watch()?;

    // The receiver is taken before the view, so that a view that is published in between is
    // compared too.
    let receiver = daemon.views.subscribe();
    let current = daemon.views.current();
    let base = match begin {
        Begin::WithEverything { at_least } if at_least > current.number => {
            return Err(ApiError::too_large(at_least, current.number));
        }
        Begin::WithEverything { .. } => None,
        Begin::Now => Some(current.clone()),
        // The number may be from another start of the daemon whose clock was ahead: it is as
        // unknown as an old one.
        Begin::After(number) => Some(
            daemon
                .views
                .get(number)
                .ok_or_else(|| ApiError::expired(number))?,
        ),
    };

    let now = Instant::now();
    let wanted = query
        .timeout_seconds
        .map_or(LONGEST, Duration::from_secs)
        .min(LONGEST);
    let mut watcher = Watcher {
        daemon,
        receiver,
        resource,
        namespace,
        form,
        include: query.include(),
        filter,
        known: BTreeMap::new(),
        seen: current.number,
        next_bookmark: query.allow_watch_bookmarks.then(|| now + BOOKMARK_EVERY),
        until: now + wanted,
    };

    if let Some(base) = &base {
        watcher.known = watcher.render(base);
    }
    let mut first = watcher.events(&current);
    if base.is_none() && query.allow_watch_bookmarks {
        watcher.write_bookmark(&mut first, true);
    }

    let events = stream::unfold((watcher, Some(first)), |(mut watcher, first)| async move {
        let chunk = match first {
            Some(chunk) => chunk,
            None => watcher.next().await?,
        };
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), (watcher, None)))
    });
    Ok((
        [(CONTENT_TYPE, "application/json")],
        Body::from_stream(events),
    )
        .into_response())
}

struct Watcher {
    daemon: Arc<HttpContext>,
    receiver: watch::Receiver<Arc<View>>,
    resource: &'static Resource,
    namespace: Option<String>,
    form: Form,
    include: Include,
    filter: Filter,
    /// The objects that the client knows, without their versions.
    known: BTreeMap<ObjectKey, ApiObject>,
    /// The number of the newest view that was compared with them.
    seen: u64,
    /// `None` if the client accepts no bookmarks, or has received the last one.
    next_bookmark: Option<Instant>,
    until: Instant,
}

impl Watcher {
    /// The next events; `None` ends the stream.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let wake = self
                .next_bookmark
                .map_or(self.until, |due| due.min(self.until));
            match tokio::time::timeout_at(wake, self.receiver.changed()).await {
                Ok(changed) => {
                    changed.ok()?;
                    let current = self.daemon.views.current();
                    let events = self.events(&current);
                    if !events.is_empty() {
                        return Some(events);
                    }
                }
                Err(_) => return self.bookmark(),
            }
        }
    }

    /// The bookmark that is due, the last one shortly before the end of the stream; `None` if none
    /// is due.
    fn bookmark(&mut self) -> Option<Vec<u8>> {
        let due = self.next_bookmark?;
        let is_over = Instant::now() >= self.until;
        self.next_bookmark = (!is_over).then(|| due + BOOKMARK_EVERY);
        let mut lines = Vec::new();
        self.write_bookmark(&mut lines, false);
        Some(lines)
    }

    /// The changes of the objects that the client knows, one JSON object on each line.
    fn events(&mut self, current: &Numbered) -> Vec<u8> {
        let fresh = self.render(current);
        let mut lines = Vec::new();
        for (key, object) in &fresh {
            match self.known.get(key) {
                Some(known) if known == object => {}
                // An object with another uid under the same name is a new object.
                Some(known) if known.metadata().uid != object.metadata().uid => {
                    self.write(&mut lines, "DELETED", known, current.number);
                    self.write(&mut lines, "ADDED", object, current.number);
                }
                Some(_) => self.write(&mut lines, "MODIFIED", object, current.number),
                None => self.write(&mut lines, "ADDED", object, current.number),
            }
        }

        for (key, known) in &self.known {
            if !fresh.contains_key(key) {
                self.write(&mut lines, "DELETED", known, current.number);
            }
        }

        self.known = fresh;
        self.seen = current.number;
        lines
    }

    fn write(&self, lines: &mut Vec<u8>, kind: &'static str, object: &ApiObject, number: u64) {
        let version = number.to_string();
        let mut object = object.clone();
        object.metadata_mut().resource_version = Some(version.clone());
        let before = lines.len();
        let written = match self.form {
            Form::Object => serde_json::to_writer(&mut *lines, &WatchEvent { kind, object }),
            Form::Table => {
                let object = table::render(self.resource.kind, [&object], &version, self.include);
                serde_json::to_writer(&mut *lines, &WatchEvent { kind, object })
            }
        };
        // Kubernetes' types are plain data with text keys, so serializing them cannot fail.
        match written {
            Ok(()) => lines.push(b'\n'),
            Err(_) => lines.truncate(before),
        }
    }

    /// Writes a bookmark for a view that was reported completely: an object of the kind with
    /// nothing but its version.
    fn write_bookmark(&self, lines: &mut Vec<u8>, is_end_of_initial_events: bool) {
        let end = || [(INITIAL_EVENTS_END.to_owned(), "true".to_owned())].into();
        let metadata = ObjectMeta {
            annotations: is_end_of_initial_events.then(end),
            ..ObjectMeta::default()
        };
        let object = ApiObject::empty(self.resource.kind, metadata);
        self.write(lines, "BOOKMARK", &object, self.seen);
    }

    /// The watched objects, without the one field that every view changes.
    fn render(&self, numbered: &Numbered) -> BTreeMap<ObjectKey, ApiObject> {
        let scope = Scope {
            namespace: self.namespace.as_deref(),
            name: self.filter.name(),
        };

        let mut objects = objects::all(numbered, self.resource.kind, scope);
        objects.retain(|_, object| self.filter.matches(object));
        for object in objects.values_mut() {
            object.metadata_mut().resource_version = None;
            if let ApiObject::Node(node) = object {
                strip_heartbeats(node);
            }
        }
        objects
    }
}

/// An event of a watch: one line of the stream.
#[derive(Serialize)]
struct WatchEvent<O> {
    #[serde(rename = "type")]
    kind: &'static str,
    object: O,
}

/// Removes the heartbeat of a node, which changes in every view and shows nothing.
fn strip_heartbeats(node: &mut core::Node) {
    let conditions = node
        .status
        .as_mut()
        .and_then(|status| status.conditions.as_mut());
    for condition in conditions.into_iter().flatten() {
        condition.last_heartbeat_time = None;
    }
}
