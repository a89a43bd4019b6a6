//! The HTTP listeners of the daemon.
//!
//! ```text
//! windlass.sock  (0660)  the read-only Kubernetes API and /windlass/v1: kubectl's and the command line's reading
//! kubectl  TCP   (opt-in) the same behind TLS and a bearer token
//! admin.sock     (0600)  POST /windlass/v1/command: the only way to act
//! listen   TCP           /metrics, /healthz, /readyz
//! webhook  TCP           /webhook/github, /webhook/generic (on `listen` where it has no address of its own)
//! ```
//!
//! All routes read one immutable [`View`](crate::view::View) at a time; no decision is made here.

pub(crate) mod admin;
pub(crate) mod api;
pub(crate) mod auth;
mod health;
mod outputs;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod serve;
mod socket;
pub(crate) mod tls;
pub(crate) mod views;
pub(crate) mod webhook;
mod windlass;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use axum::Router;
use runtime::ImagePull;
use tokio::sync::mpsc;

use self::{api::LogSource, views::Views};
pub(crate) use self::{
    outputs::OutputSource,
    plan::{PlanError, Planner},
    windlass::{AuditError, Auditor},
};
use crate::{command::Request, metrics::Metrics};

/// The parts of the daemon that the listeners use.
pub(crate) struct HttpContext {
    /// The views that the control loop publishes.
    pub views: Views,
    /// The metrics of the daemon.
    pub metrics: Arc<Metrics>,
    /// Opens pod logs.
    pub logs: Arc<dyn LogSource>,
    /// Looks up what failed containers printed.
    pub outputs: Arc<dyn OutputSource>,
    /// The pulls under way on this host.
    pub pulls: Arc<dyn Fn() -> Vec<ImagePull> + Send + Sync>,
    /// Computes what a commit changes.
    pub planner: Arc<dyn Planner>,
    /// Reports the grounds on which the pods run.
    pub auditor: Arc<dyn Auditor>,
    /// Passes commands to the control loop.
    pub requests: mpsc::Sender<Request>,
    /// The loop counts as dead when its last view is older than this.
    pub silence: Duration,
}

/// The routes that only read: the Kubernetes API and `/windlass/v1`.
pub(crate) fn reading(daemon: &Arc<HttpContext>) -> Router {
    windlass::router(daemon).merge(api::router(daemon))
}
