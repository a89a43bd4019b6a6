//! `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};

use super::HttpContext;

/// The routes of the `listen` address.
pub(super) fn router(daemon: &Arc<HttpContext>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .with_state(daemon.clone())
}

async fn metrics(State(daemon): State<Arc<HttpContext>>) -> Response {
    match daemon.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// 200 while the control loop is alive: the loop publishes a view at least at every resync.
async fn healthy(State(daemon): State<Arc<HttpContext>>) -> (StatusCode, String) {
    let view = daemon.views.current().view;
    let age = view.made.elapsed();
    if age > daemon.silence {
        let limit = daemon.silence.as_secs();
        let message = format!(
            "the control loop's last cycle ended {} s ago (limit {limit} s)\n",
            age.as_secs()
        );
        return (StatusCode::SERVICE_UNAVAILABLE, message);
    }
    (StatusCode::OK, "ok\n".to_owned())
}

/// 200 once the first cycle since the start has converged.
async fn ready(State(daemon): State<Arc<HttpContext>>) -> (StatusCode, &'static str) {
    if daemon.views.current().view.converged {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the first cycle has not converged yet\n",
        )
    }
}
