//! Several hosts under one leader: scenarios, each with its expected outcome.
#![expect(clippy::unwrap_used, reason = "a test")]

mod adoption;
#[path = "../simulated/build.rs"]
#[allow(dead_code, reason = "the simulation of one host uses the other parts")]
mod build;
mod canary;
mod drain;
mod faults;
mod host_plan;
mod images;
#[path = "../invariants/invariants.rs"]
#[allow(dead_code, reason = "the simulation of one host checks plans")]
mod invariants;
mod kept;
mod leftovers;
mod pulls;
mod refusals;
mod renames;
mod rules;
mod world;
