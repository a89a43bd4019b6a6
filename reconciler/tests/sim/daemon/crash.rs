//! Crashes of the daemon, and reboots of its host.

use reconciler::plan::{Role, Step};

use super::Sim;
use crate::prober::Prober;

impl Sim {
    /// The daemon is killed and starts again. With `halfway` the steps that were under way have
    /// their effects, and no daemon has recorded them.
    pub(crate) fn crash(&mut self, halfway: bool) {
        self.note(format!("the daemon is killed, halfway: {halfway}"));
        let lanes = std::mem::take(&mut self.lanes);
        for running in lanes.into_values() {
            let step = &running.lane.steps[running.at];
            match step {
                // The daemon is killed between the two calls to the engine: the container is
                // created and not started.
                Step::StartContainer(spec) if !halfway => {
                    let sandbox = self.host.containers.values().any(|container| {
                        container.identity.uid == spec.identity.uid
                            && container.role == Role::Sandbox
                            && container.state.is_alive()
                    });
                    if sandbox && self.host.images.contains_key(&spec.image) {
                        self.host.create(
                            &spec.identity,
                            spec.role,
                            &spec.name,
                            spec.attempt,
                            &spec.image,
                        );
                    }
                }
                _ if halfway => {
                    let _ = self.host.apply(step, &self.registry, self.now);
                }
                _ => {}
            }
        }
        self.failures.clear();
        self.report = None;
        self.last_plan = None;
        self.prober = Prober::default();
        self.cycle();
    }

    /// The host reboots: containers end, links are removed, and the daemon starts with what is on
    /// the disk.
    pub(crate) fn reboot(&mut self) {
        self.note("reboot".to_owned());
        self.lanes.clear();
        self.host.end_all(self.now);
        self.crash(false);
    }
}
