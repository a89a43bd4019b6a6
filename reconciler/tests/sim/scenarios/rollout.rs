//! The life of commits: rollouts, rollbacks, and heads that are not followed.

mod head;
mod progress;
mod removal;
mod rollback;

use crate::{daemon::Sim, registry::Behaviour};

/// A host and a registry with good and bad images of `web`.
fn sim() -> Sim {
    let mut sim = Sim::default();
    sim.registry.push("web:1", Behaviour::Fine);
    sim.registry.push("web:2", Behaviour::Fine);
    sim.registry.push("web:crash", Behaviour::ExitsAtOnce(1));
    sim.registry.push("web:deaf", Behaviour::NeverReady);
    sim.registry.push("web:broken", Behaviour::Rejected);
    sim
}
