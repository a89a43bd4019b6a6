//! Which outputs of failed containers explain what is shown.

use jiff::Timestamp;
use reconciler::{
    state::{CommitState, HistoryEntry, Phase, PodRecord},
    status::{ContainerPhase, ContainerStatus, PodStatus},
};

use crate::{last_outputs::OutputQuery, view::View};

/// The most failed commits whose outputs a history shows.
const COMMITS: usize = 3;

/// The outputs of the newest commit, if it has failed, and of pods that fail now.
pub(in crate::http) fn of_status(view: &View) -> OutputQuery {
    let rollout = &view.state.rollout;
    let newest = view.source.newest().into_iter();
    let failed_newest = newest.filter(|commit| rollout.bad.contains_key(*commit));
    let degraded = match rollout.phase {
        Phase::Degraded { .. } => rollout.target.as_ref(),
        _ => None,
    };
    let records = view.state.pods.values();
    let staying = records.filter(|record| record.stop.is_none());
    let failing = staying.filter(|record| view.pods.get(&record.uid).is_some_and(is_failing));
    OutputQuery {
        commits: failed_newest.chain(degraded).cloned().collect(),
        pods: failing.map(|record| record.uid.clone()).collect(),
    }
}

/// The outputs of the latest commits that have failed.
pub(in crate::http) fn of_history(view: &View) -> OutputQuery {
    let newest_first = view.state.rollout.history.iter().rev();
    let failed = newest_first.filter(has_failed).take(COMMITS);
    OutputQuery {
        commits: failed.map(|entry| entry.commit.clone()).collect(),
        ..OutputQuery::default()
    }
}

/// The outputs of a pod that fails now.
pub(in crate::http) fn of_pod(view: &View, namespace: Option<&str>, name: &str) -> OutputQuery {
    let is_it = |record: &&PodRecord| {
        record.key.name == name && namespace.is_none_or(|one| record.key.namespace == one)
    };
    let records = view.state.pods.values().filter(is_it);
    let failing = records.filter(|record| view.pods.get(&record.uid).is_some_and(is_failing));
    OutputQuery {
        pods: failing.map(|record| record.uid.clone()).collect(),
        ..OutputQuery::default()
    }
}

/// The outputs of the newest commit, of commits that have failed since a time, and of pods that
/// fail now.
pub(in crate::http) fn of_events(view: &View, since: Timestamp) -> OutputQuery {
    let mut query = of_status(view);
    let newest_first = view.state.rollout.history.iter().rev();
    let recent = newest_first.filter(|entry| entry.ended.is_none_or(|ended| ended >= since));
    let failed = recent.filter(has_failed).take(COMMITS);
    query
        .commits
        .extend(failed.map(|entry| entry.commit.clone()));
    query
}

fn has_failed(entry: &&HistoryEntry) -> bool {
    matches!(entry.state, CommitState::RolledBack | CommitState::Degraded)
}

/// Whether a pod is not ready and one of its containers has ended with an error.
fn is_failing(status: &PodStatus) -> bool {
    let has_failed = |container: &ContainerStatus| {
        let now = match &container.state {
            ContainerPhase::Waiting { .. } | ContainerPhase::Running { .. } => None,
            ContainerPhase::Terminated(end) => Some(end),
        };
        now.or(container.last.as_ref())
            .is_some_and(|end| end.code != 0)
    };
    let mut containers = status.init_containers.iter().chain(&status.containers);
    status.ready.is_none() && containers.any(has_failed)
}
