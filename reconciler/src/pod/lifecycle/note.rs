//! Updates a pod's memory from what is observed.

use super::PodLifecycle;
use crate::{
    object::RestartPolicy,
    observed::ContainerState,
    plan::{ProbeKind, Role},
};

impl PodLifecycle<'_> {
    /// Updates the memory from what is observed: the current container of each name, the results of
    /// its probes, and its exit.
    pub(super) fn take_note(&mut self) {
        for (name, (id, container)) in &self.found.latest {
            let memory = self
                .memory
                .containers
                .entry((*name).to_owned())
                .or_default();
            // Somebody removed the newest container: the exit of its predecessor was counted
            // before.
            if memory.next_attempt > container.attempt + 1 {
                continue;
            }
            if memory.id.as_ref() != Some(*id) {
                memory.id = Some((*id).clone());
                memory.next_attempt = memory.next_attempt.max(container.attempt + 1);
                memory.past_startup = false;
                memory.ready = None;
                memory.completed = None;
            }

            let probe = |kind| self.input.observed.probes.get(&((*id).clone(), kind));
            if let Some(fact) = probe(ProbeKind::Startup) {
                memory.past_startup |= fact.ok;
            }
            if let Some(fact) = probe(ProbeKind::Readiness) {
                memory.ready = Some(fact.ok);
            }

            if let ContainerState::Exited {
                started,
                finished,
                code,
                ..
            } = &container.state
            {
                memory.ready = None;
                memory.backoff = memory.backoff.count(container.attempt, *started, *finished);
                let policy = self.workload.template.spec.restart_policy;
                let succeeded = *code == 0;
                let is_over = match (container.role, policy) {
                    (Role::Init, RestartPolicy::Never) | (Role::Main, RestartPolicy::Never) => true,
                    (Role::Init, _) | (Role::Main, RestartPolicy::OnFailure) => succeeded,
                    (Role::Main, RestartPolicy::Always) | (Role::Sandbox, _) => false,
                };
                if is_over {
                    memory.completed = Some(*code);
                }
            }
        }
        if let Some((_, sandbox)) = self.found.sandbox {
            self.memory.sandboxes = self.memory.sandboxes.max(sandbox.attempt + 1);
        }
    }
}
