//! Pods on Docker: carries out the steps of a plan, and observes the result.
//!
//! ```text
//! Step ──Runtime──► translate ──► docker (time-outs, faults) ──► engine
//! engine ──events──► observer ──observe()──► Observation        what there is, never an empty answer for an error
//! ProbeTask ──Prober──► http, tcp, exec ──► ProbeFact           counted, and only sensed: the core decides
//! ```
//!
//! Every container is found again by its labels and name, so that a daemon that is killed between
//! any two calls creates nothing twice.

mod config;
mod container;
mod docker;
mod events;
pub mod fake;
#[cfg(test)]
#[path = "../../tests/support/fuzz.rs"]
mod fuzz;
mod hook;
mod http;
#[cfg(test)]
#[path = "../../tests/support/ids.rs"]
mod ids;
mod labels;
mod observer;
mod pause;
mod pods;
mod prober;
mod pulse;
mod runtime;
mod sandbox;
mod stop;
mod translate;
mod tree;
mod uninstall;
mod volume;

pub use config::{LogBounds, RegistryAuth, RuntimeConfig};
pub use observer::{LastOutput, LastOutputs, Observation};
pub use pods::Pods;
pub use prober::{Prober, Probes};
pub use runtime::{
    Collected, EngineInfo, ExecOutcome, ImagePull, LogOptions, LogStream, PullStage, Runtime,
    RuntimeError,
};
pub use tree::remove_tree;
