//! A fake of the probes.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use reconciler::{
    name::ContainerId,
    observed::ProbeFact,
    plan::{ProbeKind, ProbeTask},
};

use crate::Probes;

/// Probes whose facts a test sets.
#[derive(Default)]
pub struct FakeProber {
    wanted: Mutex<Vec<ProbeTask>>,
    facts: Mutex<BTreeMap<(ContainerId, ProbeKind), ProbeFact>>,
    /// Whether a probe without a fact of a test succeeds; otherwise it has no result.
    succeeds: bool,
}

impl FakeProber {
    /// A prober whose probes all succeed, but for those whose fact a test sets.
    pub fn successful() -> Self {
        Self {
            succeeds: true,
            ..Self::default()
        }
    }

    /// The probes of the last `set`.
    pub fn wanted(&self) -> Vec<ProbeTask> {
        self.wanted.lock().clone()
    }

    /// Sets the fact of a probe.
    pub fn find(&self, container: &ContainerId, kind: ProbeKind, fact: ProbeFact) {
        self.facts.lock().insert((container.clone(), kind), fact);
    }
}

impl Probes for FakeProber {
    fn set(&self, wanted: &[ProbeTask]) {
        *self.wanted.lock() = wanted.to_vec();
    }

    fn facts(&self) -> BTreeMap<(ContainerId, ProbeKind), ProbeFact> {
        let mut facts = self.facts.lock().clone();
        if self.succeeds {
            for task in self.wanted() {
                let fact = ProbeFact {
                    ok: true,
                    since: task.started,
                    message: String::new(),
                };
                facts.entry((task.container, task.kind)).or_insert(fact);
            }
        }
        facts
    }
}
