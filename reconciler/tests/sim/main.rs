//! The core against a simulated host: real decisions and plans, an engine, a registry and containers that are played,
//! virtual time, and an independent referee who looks at every step.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "../simulated/build.rs"]
mod build;
mod daemon;
#[path = "../simulated/engine.rs"]
mod engine;
mod look;
#[path = "../simulated/prober.rs"]
mod prober;
mod properties;
#[path = "../simulated/registry.rs"]
mod registry;
mod scenarios;
