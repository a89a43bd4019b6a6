//! What Kubernetes documents of placement, and that the quick answer is that of looking at every
//! node.

mod build;
mod property;
mod related;
mod scan;
mod single;
