//! Kubernetes' structs to our narrow types.
//!
//! The structs are taken apart without `..`: a field of a newer Kubernetes does not compile until
//! it is honoured, refused or named as meaningless here. Only `status` is passed over: it is taken
//! off, with a warning, before.

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
mod spread;
mod volume;
mod workload;

pub(super) use config::{LAST_APPLIED, config_map, secret};
pub(super) use node::{namespace, node};
pub(super) use service::service;
pub(super) use workload::{
    Written, daemon_set, deployment, pod, replica_set, replication_controller,
};
