//! Tests of the runtime on a real Docker engine. They fail without an engine, and remove everything
//! that they make.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bed;
mod engine;
mod images;
mod life;
mod logs;
mod pods;
mod probes;
mod proxy;
mod registry;
mod security;
