//! An independent referee for tests: what must hold of every decision and every plan, said a second
//! time and in other words than the code that makes them.
//!
//! It trusts nothing that the planner computed: it looks only at what went in and what came out.

mod decision;
mod plan;

pub use decision::check_decision;
pub use plan::{check_observed, check_plan};

/// Collects what was broken, as sentences.
#[derive(Debug, Default)]
struct Violations(Vec<String>);

impl Violations {
    fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.0.push(otherwise());
        }
    }
}
