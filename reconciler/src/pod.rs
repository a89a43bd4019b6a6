//! A pod's life on its host.

pub mod backoff;
pub mod environment;
pub mod files;
pub mod lifecycle;
pub mod link;
pub mod memory;
pub mod missing;
mod observation;
pub mod phase;
