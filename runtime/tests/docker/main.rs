//! The runtime on a real Docker engine. These tests fail without one; what they make they remove.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bed;
mod engine;
mod images;
mod life;
mod pods;
mod probes;
mod proxy;
mod registry;
