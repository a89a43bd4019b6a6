//! A pod's life on its host.

pub mod backoff;
pub mod environment;
pub mod files;
pub mod lifecycle;
pub mod memory;
pub mod phase;
