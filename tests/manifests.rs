//! The manifests that the project exists for, run for real: the nine given ones, and what pods see
//! of the names and services around them.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

#[path = "manifests/dns.rs"]
mod dns;
#[path = "manifests/given.rs"]
mod given;
#[path = "manifests/service.rs"]
mod service;
#[path = "manifests/world.rs"]
mod world;
