//! The main path on one host: a signed push becomes running, reachable pods, and a bad commit is
//! rolled back; with commands, metrics, webhooks and the limits of listeners.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

#[path = "spine/commands.rs"]
mod commands;
#[path = "spine/deploy.rs"]
mod deploy;
#[path = "spine/eligible.rs"]
mod eligible;
#[path = "spine/engine.rs"]
mod engine;
#[path = "spine/exposure.rs"]
mod exposure;
#[path = "spine/flood.rs"]
mod flood;
#[path = "spine/images.rs"]
mod images;
#[path = "spine/manifest.rs"]
mod manifest;
#[path = "spine/metrics.rs"]
mod metrics;
#[path = "spine/plan.rs"]
mod plan;
#[path = "spine/renaming.rs"]
mod renaming;
#[path = "spine/rollback.rs"]
mod rollback;
#[path = "spine/rolling.rs"]
mod rolling;
#[path = "spine/webhook.rs"]
mod webhook;
