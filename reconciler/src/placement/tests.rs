//! The examples of placement in Kubernetes' documentation, and that the placer gives the same
//! result as checking every node.

mod build;
mod order;
mod property;
mod recheck;
mod related;
mod scan;
mod single;
mod terms;
