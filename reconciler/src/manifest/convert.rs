//! Converts Kubernetes' structs to our own types.
//!
//! The structs are destructured without `..`: a field of a newer Kubernetes version does not
//! compile until this code honours it, refuses it, or lists it as meaningless. The only exception
//! is `status`, which is removed with a warning before.

mod affinity;
mod config;
mod container;
mod env;
mod meta;
mod node;
mod pod;
mod probe;
mod quantity;
mod secret_type;
mod security;
mod selector;
mod service;
mod signal;
mod spread;
mod volume;
mod workload;

pub(super) use config::{LAST_APPLIED, config_map, secret};
pub(super) use node::{namespace, node};
pub(super) use service::service;
pub(super) use workload::{
    Written, daemon_set, deployment, pod, replica_set, replication_controller,
};
