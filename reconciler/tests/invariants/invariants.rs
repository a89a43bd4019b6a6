//! An independent referee: the invariants of every decision and every plan, written a second time
//! and differently from the code that makes them.
//!
//! The referee trusts no value that the planner computed: it only compares the inputs with the
//! results.

pub(crate) mod decision;
mod owners;
pub(crate) mod plan;

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
