//! YAML to typed objects, with every problem of a commit at once.

mod problem;

pub use problem::{Problem, Severity};
