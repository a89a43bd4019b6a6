//! The core against a simulated host: real decisions and plans, an engine, a registry and containers that are played,
//! virtual time, and an independent referee who looks at every step.
#![expect(clippy::unwrap_used, reason = "a test")]

mod build;
mod daemon;
mod host;
mod look;
mod prober;
mod properties;
mod registry;
mod scenarios;
