//! A host stays in the state that its commit describes: drift is repaired, a cycle without a
//! difference changes nothing, and objects that leave the commit leave the host.

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
