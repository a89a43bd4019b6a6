//! The pure core of Windlass. No I/O, no clock, no randomness: the same input gives the same bytes
//! on every host.
//!
//! ```text
//! files of a commit ──manifest::parse──► Objects + Problems
//! Objects           ──desired::check───► Problems of references and clashes
//!
//! ClusterInput ──cluster()──► ClusterChange        what the leader decides: rollout, controllers, placement, addresses
//! NodeInput    ──node()─────► NodePlan             what one host does: lanes of steps, probes, services, status
//! ```

// The helpers that the tests of all packages share name this package from outside.
#[cfg(test)]
extern crate self as reconciler;

pub mod allocate;
pub mod cluster;
pub mod commit;
pub mod controller;
pub mod desired;
pub mod detour;
pub mod difference;
pub mod digest;
pub mod endpoints;
pub mod fault;
pub mod forecast;
pub mod foreign;
#[cfg(test)]
#[path = "../../tests/support/fuzz.rs"]
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it reads inputs, and the clock to know when to stop"
)]
mod fuzz;
#[cfg(test)]
#[path = "../../tests/support/ids.rs"]
mod ids;
pub mod image_name;
pub mod life;
pub mod manifest;
pub mod name;
pub mod network;
pub mod node;
pub mod object;
pub mod observed;
pub mod placement;
pub mod plan;
pub mod pod;
pub mod rollout;
pub mod settings;
pub mod state;
pub mod status;
mod syntax;
pub mod time;
