//! `/windlass/v1`: commits, history, plan, trust and source.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{future::BoxFuture, stream};
use runtime::ImagePull;
use serde::Deserialize;
use thiserror::Error;
use tokio::{task::JoinError, time::timeout};

use super::{
    HttpContext,
    outputs::{look_up, query},
    plan,
    report::{HistoryReport, StatusReport, TrustReport},
};
use crate::view::{SourceStatus, View};

/// Reports the grounds on which the pods of this host run.
pub(crate) trait Auditor: Send + Sync {
    /// The grounds of each pod.
    fn audit(&self) -> BoxFuture<'_, Result<TrustReport, AuditError>>;
}

/// Why the grounds could not be reported.
#[derive(Debug, Error)]
pub(crate) enum AuditError {
    #[error("the grounds cannot be audited")]
    Signers(#[source] anyhow::Error),
    #[error("the audit ended early: {0}")]
    Ended(JoinError),
}

/// Maximum size of the manifests that are not pushed yet and are sent for a plan, in bytes.
const MANIFEST_BYTES: usize = 32 << 20;

/// How often a watch shows the progress of pulls.
const PULL_INTERVAL: Duration = Duration::from_secs(1);

/// The routes of the facts that are not in the Kubernetes API.
pub(super) fn router(daemon: &Arc<HttpContext>) -> Router {
    Router::new()
        .route("/windlass/v1/status", get(status))
        .route("/windlass/v1/history", get(history))
        .route("/windlass/v1/plan", get(plan::plan).post(plan::plan_local))
        .layer(DefaultBodyLimit::max(MANIFEST_BYTES))
        .route("/windlass/v1/trust", get(trust))
        .route("/windlass/v1/source", get(source))
        .with_state(daemon.clone())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    /// Answers with a line for each change.
    #[serde(default)]
    watch: bool,
}

async fn status(
    State(daemon): State<Arc<HttpContext>>,
    Query(query): Query<StatusQuery>,
) -> Response {
    if !query.watch {
        let view = daemon.views.current().view;
        let last_outputs = look_up(&daemon, &view, &query::of_status(&view)).await;
        let report = StatusReport::new(&view);
        return Json(StatusReport {
            last_outputs,
            pulls: (daemon.pulls)(),
            ..report
        })
        .into_response();
    }
    let mut receiver = daemon.views.subscribe();
    receiver.mark_changed();
    let lines = stream::unfold((receiver, daemon), |(mut receiver, daemon)| async move {
        loop {
            // A pull makes progress without a new view.
            match timeout(PULL_INTERVAL, receiver.changed()).await {
                Ok(changed) => break changed.ok()?,
                Err(_) if (daemon.pulls)().is_empty() => {}
                Err(_) => break,
            }
        }
        let view = receiver.borrow_and_update().clone();
        let line = line(&view, (daemon.pulls)());
        Some((Ok::<_, Infallible>(line), (receiver, daemon)))
    });
    (
        [(CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}

fn line(view: &View, pulls: Vec<ImagePull>) -> Bytes {
    let report = StatusReport {
        pulls,
        ..StatusReport::new(view)
    };
    // A report is plain data with text keys, so serializing it cannot fail.
    let mut line = serde_json::to_vec(&report).unwrap_or_default();
    line.push(b'\n');
    Bytes::from(line)
}

async fn history(State(daemon): State<Arc<HttpContext>>) -> Json<HistoryReport> {
    let view = daemon.views.current().view;
    let last_outputs = look_up(&daemon, &view, &query::of_history(&view)).await;
    Json(HistoryReport {
        last_outputs,
        ..HistoryReport::new(&view)
    })
}

async fn trust(
    State(daemon): State<Arc<HttpContext>>,
) -> Result<Json<TrustReport>, (StatusCode, String)> {
    daemon
        .auditor
        .audit()
        .await
        .map(Json)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, message(error)))
}

async fn source(State(daemon): State<Arc<HttpContext>>) -> Json<SourceStatus> {
    Json(daemon.views.current().view.source.clone())
}

/// An error with its causes, as the body of an answer.
pub(super) fn message(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}
