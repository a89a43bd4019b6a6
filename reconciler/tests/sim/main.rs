//! The core against a simulated host: real decisions and plans, an engine, a registry and
//! containers that are played, virtual time, and an independent referee who looks at every step.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "../simulated/build.rs"]
#[allow(dead_code, reason = "the simulations of several hosts use the rest")]
mod build;
mod daemon;
#[path = "../simulated/engine.rs"]
#[allow(dead_code, reason = "the simulation of several hosts uses the rest")]
mod engine;
#[path = "../invariants/invariants.rs"]
mod invariants;
mod look;
#[path = "../simulated/prober.rs"]
mod prober;
mod properties;
#[path = "../simulated/registry.rs"]
mod registry;
mod scenarios;
