//! The core with one simulated host: decisions and plans are the product's; the engine, the
//! registry, the containers and time are simulated. An independent referee checks every decision
//! and plan.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "../simulated/build.rs"]
#[allow(
    dead_code,
    reason = "the simulations of several hosts use the other parts"
)]
mod build;
mod daemon;
#[path = "../simulated/engine.rs"]
#[allow(
    dead_code,
    reason = "the simulation of several hosts uses the other parts"
)]
mod engine;
#[path = "../invariants/invariants.rs"]
mod invariants;
mod manifests;
#[path = "../simulated/prober.rs"]
mod prober;
mod properties;
mod queries;
#[path = "../simulated/registry.rs"]
mod registry;
mod scenarios;
