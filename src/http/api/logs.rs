//! `pods/{name}/log`: the output of a container, as it was written.

use std::{io, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use jiff::Timestamp;
use reconciler::{
    name::{ContainerId, NodeName, ObjectKey, PodUid},
    state::PodRecord,
    status::{ContainerPhase, ContainerStatus},
};

use super::{query::ListQuery, resource, status::ApiError};
use crate::http::HttpContext;

/// Opens container logs; in the daemon, those of the engine.
pub(crate) trait LogSource: Send + Sync {
    /// Opens a container's log. Both outputs are in the order in which they were written.
    fn logs(
        &self,
        target: LogTarget,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<LogStream, LogError>>;

    /// Opens the log of a container on another host.
    fn remote(
        &self,
        pod: RemotePod,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<LogStream, LogError>>;
}

/// The text of a log in pieces, as it arrives; a piece need not end with a line.
pub(crate) type LogStream = BoxStream<'static, io::Result<Bytes>>;

/// A container on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogTarget {
    pub pod: PodUid,
    /// The container's name in the pod.
    pub container: String,
    /// The present container; `None` if there is none.
    pub current: Option<ContainerId>,
    /// The number of restarts, which is also the number of the present attempt.
    pub restarts: u32,
}

/// A pod of another host. If no container is named, that host chooses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemotePod {
    pub node: NodeName,
    pub key: ObjectKey,
    /// The container's name, if the request has one.
    pub container: Option<String>,
}

/// The sender of a request, which is passed on to another host at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogReader {
    /// A client of this host.
    Reader,
    /// Another host, which has assumed that the pod is on this one.
    Host,
}

/// The part of the log that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// Whether the log continues with lines that are written from now on.
    pub follow: bool,
    /// Whether the log of the previous attempt is wanted.
    pub previous: bool,
    /// Whether each line begins with its RFC 3339 time.
    pub timestamps: bool,
    /// The number of last lines; `None` for all.
    pub tail: Option<u64>,
    /// Only lines since this time.
    pub since: Option<Timestamp>,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The container does not exist any more.
    #[error("the container and its log were removed")]
    Gone,
    /// The engine cannot open the log.
    #[error("cannot read the log: {0}")]
    Engine(String),
    /// The pod's host refused the request; the text is that host's.
    #[error("{0}")]
    Refused(String),
    /// The pod's host cannot be reached.
    #[error("cannot read the log: {0}")]
    Remote(String),
}

/// Answers with the log as plain text.
pub(super) async fn answer(
    daemon: &HttpContext,
    (namespace, name): (&str, &str),
    query: &ListQuery,
    reader: LogReader,
) -> Result<Response, ApiError> {
    // A time before the earliest possible one means the beginning of the log.
    let since = query.since_seconds.and_then(|seconds| {
        Timestamp::now()
            .checked_sub(Duration::from_secs(seconds))
            .ok()
    });
    let options = LogOptions {
        follow: query.follow && !query.previous,
        previous: query.previous,
        timestamps: query.timestamps,
        tail: query.tail_lines,
        since: query.since_time.or(since),
    };

    let key = ObjectKey::new(namespace, name);
    let (described, opened) = match place(daemon, &key, query)? {
        LogPlace::Here(target) => {
            let described = format!("container \"{}\" in pod \"{name}\"", target.container);
            (described, daemon.logs.logs(target, options).await)
        }
        LogPlace::There(pod) if reader == LogReader::Reader => {
            let described = format!("pod \"{name}\" on {}", pod.node);
            (described, daemon.logs.remote(pod, options).await)
        }
        LogPlace::There(RemotePod { node, .. }) => {
            let message = format!(
                "pod \"{name}\" is not on this host any more: it is on {node}, repeat the request"
            );
            return Err(ApiError::bad_request(message));
        }
    };

    let stream = opened.map_err(|error| match error {
        LogError::Gone => ApiError::bad_request(format!("{described}: {error}")),
        LogError::Refused(message) => ApiError::bad_request(message),
        LogError::Engine(_) | LogError::Remote(_) => {
            ApiError::internal(format!("{described}: {error}"))
        }
    })?;

    let body = match query.limit_bytes {
        Some(limit) => Body::from_stream(limited(stream, limit)),
        None => Body::from_stream(stream),
    };
    Ok(([(CONTENT_TYPE, "text/plain")], body).into_response())
}

/// The host of a log.
enum LogPlace {
    Here(LogTarget),
    There(RemotePod),
}

fn place(daemon: &HttpContext, key: &ObjectKey, query: &ListQuery) -> Result<LogPlace, ApiError> {
    let current = daemon.views.current();
    let view = &current.view;

    // A stopping pod and its successor may have the same name: the successor is meant.
    let record = view
        .state
        .pods
        .values()
        .filter(|record| record.key == *key)
        .max_by_key(|record| (record.stop.is_none(), record.serial))
        .ok_or_else(|| ApiError::not_found(&resource::PODS, &key.name))?;
    if let Some(node) = record.place.node()
        && *node != view.node
    {
        let (node, key, container) = (node.clone(), key.clone(), query.container.clone());
        return Ok(LogPlace::There(RemotePod {
            node,
            key,
            container,
        }));
    }

    let status = view.pods.get(&record.uid);
    let containers: Vec<&ContainerStatus> = status
        .into_iter()
        .flat_map(|status| status.containers.iter().chain(&status.init_containers))
        .collect();
    let container = choose(record, &containers, query.container.as_deref())?;

    let has_run = container.container_id.is_some() || (query.previous && container.restarts > 0);
    if query.previous && container.restarts == 0 {
        let message = format!(
            "previous terminated container \"{}\" in pod \"{}\" not found",
            container.name, key.name
        );
        return Err(ApiError::bad_request(message));
    }

    // The messages about a missing attempt are those of the kubelet.
    if !has_run {
        let reason = match &container.state {
            ContainerPhase::Waiting { reason, .. } => reason.as_str(),
            ContainerPhase::Running { .. } | ContainerPhase::Terminated(_) => "unknown",
        };
        let message = format!(
            "container \"{}\" in pod \"{}\" is waiting to start: {reason}",
            container.name, key.name
        );
        return Err(ApiError::bad_request(message));
    }

    Ok(LogPlace::Here(LogTarget {
        pod: record.uid.clone(),
        container: container.name.clone(),
        current: container.container_id.clone(),
        restarts: container.restarts,
    }))
}

/// The named container, or the pod's only one.
fn choose<'a>(
    record: &PodRecord,
    containers: &[&'a ContainerStatus],
    wanted: Option<&str>,
) -> Result<&'a ContainerStatus, ApiError> {
    let name = &record.key.name;
    match (wanted, containers) {
        (Some(wanted), _) => containers
            .iter()
            .find(|container| container.name == wanted)
            .copied()
            .ok_or_else(|| {
                ApiError::bad_request(format!("container {wanted} is not valid for pod {name}"))
            }),
        (None, []) => Err(ApiError::bad_request(format!(
            "pod \"{name}\" has no container yet: repeat the request later"
        ))),
        (None, [only]) => Ok(only),
        (None, many) => {
            let names: Vec<&str> = many
                .iter()
                .map(|container| container.name.as_str())
                .collect();
            let message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                names.join(" ")
            );
            Err(ApiError::bad_request(message))
        }
    }
}

/// Ends the stream after this number of bytes.
fn limited(stream: LogStream, limit: u64) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    stream.scan(limit, |left, chunk| {
        let chunk = chunk.map(|mut bytes| {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
            bytes
        });
        let ended = chunk.as_ref().is_ok_and(Bytes::is_empty);
        futures_util::future::ready((!ended).then_some(chunk))
    })
}
