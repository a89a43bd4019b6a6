//! An independent referee for tests: the invariants of every decision and every plan, written a
//! second time and differently from the code that makes them.
//!
//! The referee trusts no value that the planner computed: it only compares the inputs with the
//! results.

mod decision;
mod plan;

pub use decision::check_decision;
pub use plan::{check_observed, check_plan};

/// Collects violated invariants, as sentences.
#[derive(Debug, Default)]
struct Violations(Vec<String>);

impl Violations {
    fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.0.push(otherwise());
        }
    }
}
