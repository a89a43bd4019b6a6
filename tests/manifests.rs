//! The nine manifests that Windlass was made for, run on a real engine, and the names and Services
//! that pods can reach.

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
