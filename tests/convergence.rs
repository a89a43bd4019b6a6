//! A host that stays what its commit says: drift is repaired, nothing is done where nothing is to
//! do, and what has left the commit leaves the host.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

#[path = "convergence/drift.rs"]
mod drift;
#[path = "convergence/idle.rs"]
mod idle;
#[path = "convergence/pods.rs"]
mod pods;
#[path = "convergence/proxy.rs"]
mod proxy;
#[path = "convergence/prune.rs"]
mod prune;
#[path = "crash/sample.rs"]
mod sample;
