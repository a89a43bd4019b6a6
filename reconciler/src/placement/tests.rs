//! The examples of placement in Kubernetes' documentation, and that the placer gives the same
//! result as checking every node.

mod build;
mod property;
mod related;
mod scan;
mod single;
