//! Several hosts under one leader, in a few scenarios each of which says what must become of it.
#![expect(clippy::unwrap_used, reason = "a test")]

mod adoption;
#[path = "../simulated/build.rs"]
#[allow(dead_code, reason = "the simulation of one host uses the rest")]
mod build;
mod canary;
mod drain;
mod faults;
mod images;
#[path = "../invariants/invariants.rs"]
#[allow(dead_code, reason = "the simulation of one host checks plans")]
mod invariants;
mod kept;
mod refusals;
mod renames;
mod rules;
mod world;
