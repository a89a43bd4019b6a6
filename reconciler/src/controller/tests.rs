//! What each kind of owner decides for pods that are written as text.

mod daemonset;
mod deployment;
mod drain;
mod replicas;
pub(crate) mod scene;
mod view;
