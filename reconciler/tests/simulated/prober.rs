//! A simulated prober: its facts follow from the behaviour of a container and the time since its
//! probe began.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use reconciler::{
    name::ContainerId,
    observed::ProbeFact,
    plan::{ProbeKind, ProbeTask},
};

use crate::{engine::Engine, registry::Behaviour};

type Key = (ContainerId, ProbeKind);

/// The probes that run, and since when. They are lost with the daemon.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prober {
    tasks: BTreeMap<Key, (ProbeTask, Timestamp)>,
}

impl Prober {
    /// Replaces the set of probes.
    pub(crate) fn replace(&mut self, tasks: Vec<ProbeTask>, now: Timestamp) {
        let mut before = std::mem::take(&mut self.tasks);
        for task in tasks {
            let key = (task.container.clone(), task.kind);
            let since = before.remove(&key).map_or(now, |(_, since)| since);
            self.tasks.insert(key, (task, since));
        }
    }

    /// The results of the probes up to now.
    pub(crate) fn facts(&self, host: &Engine, now: Timestamp) -> BTreeMap<Key, ProbeFact> {
        let mut facts = BTreeMap::new();
        for (key, (task, since)) in &self.tasks {
            let known = transitions(host, task, *since)
                .into_iter()
                .rfind(|(at, _)| *at <= now);
            if let Some((since, ok)) = known {
                let message = if ok {
                    String::new()
                } else {
                    "connection refused".to_owned()
                };
                facts.insert(key.clone(), ProbeFact { ok, since, message });
            }
        }
        facts
    }

    /// The time of the next change of a result.
    pub(crate) fn next(&self, host: &Engine, now: Timestamp) -> Option<Timestamp> {
        self.tasks
            .values()
            .flat_map(|(task, since)| transitions(host, task, *since))
            .map(|(at, _)| at)
            .filter(|at| *at > now)
            .min()
    }
}

fn transitions(host: &Engine, task: &ProbeTask, since: Timestamp) -> Vec<(Timestamp, bool)> {
    let Some(behaviour) = host.behaviour(&task.container) else {
        return Vec::new();
    };
    let first = (task.started + task.probe.initial_delay).max(since);
    let first_success = first + Duration::from_millis(50);
    let until_failure = task.probe.period * task.probe.failure_threshold;
    match (task.kind, behaviour) {
        (ProbeKind::Readiness, Behaviour::NeverReady)
        | (ProbeKind::Startup, Behaviour::NeverStarts) => {
            vec![(first + until_failure, false)]
        }
        (ProbeKind::Readiness, Behaviour::SlowReady(after)) => {
            vec![(first_success.max(task.started + after), true)]
        }
        (ProbeKind::Liveness, Behaviour::FailsLivenessAfter(after)) => {
            vec![
                (first_success, true),
                (
                    first_success.max(task.started + after) + until_failure,
                    false,
                ),
            ]
        }
        (_, Behaviour::ExitsAtOnce(_)) => Vec::new(),
        _ => vec![(first_success, true)],
    }
}
