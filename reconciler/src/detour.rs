//! The detour of a host: the host goes back to an earlier commit by itself, without the leader
//! (`windlass rollback --local`).
//!
//! The decided state is not changed. The host acts on its own version of the state, in which each
//! pod whose template differs from the earlier commit's has a stop record and, once that pod is
//! gone, a twin with the earlier commit's template. The host reports the twin under the pod's own
//! uid, so that all other hosts count pods as before.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    commit::Commit,
    digest::pod_uid,
    name::{CommitId, NodeName, PodUid},
    state::{ClusterState, NodeReport, PodRecord, StopReason, StopRecord},
    status::PodStatus,
};

/// The detour of one host; stored on the host's disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detour {
    /// The commit to which the host went back.
    pub commit: CommitId,
    /// When the detour began, by the host's clock.
    pub since: Timestamp,
    /// Whether the detour is over: the twins stop, and the decided pods run again.
    pub ended: bool,
    /// The twin of each pod, by the uid of the decided pod.
    pub twins: BTreeMap<PodUid, PodRecord>,
}

impl Detour {
    /// Begins a detour.
    pub fn to(commit: CommitId, since: Timestamp) -> Self {
        Self {
            commit,
            since,
            ended: false,
            twins: BTreeMap::new(),
        }
    }

    /// Changes the commit of a detour: pods of the previous commit stop first.
    pub fn turn(&mut self, commit: CommitId, since: Timestamp) {
        (self.commit, self.since, self.ended) = (commit, since, false);
    }

    /// Whether nothing of the detour is left.
    pub fn is_over(&self) -> bool {
        self.ended && self.twins.is_empty()
    }

    /// Records which pods are gone from this host, and makes their twins. `gone` are the pods that
    /// the host's own plan reports as gone, before [`Detour::report`].
    pub fn advance(
        &mut self,
        state: &ClusterState,
        node: &NodeName,
        commit: Option<&Commit>,
        gone: &BTreeSet<PodUid>,
    ) {
        self.twins.retain(|_, twin| !gone.contains(&twin.uid));
        let Some(commit) = commit.filter(|commit| commit.id == self.commit && !self.ended) else {
            return;
        };
        for record in self.affected(state, node, commit) {
            let Some(workload) = commit.objects.workloads.get(&record.owner) else {
                continue;
            };
            if !gone.contains(&record.uid) || self.twins.contains_key(&record.uid) {
                continue;
            }
            let twin = PodRecord {
                uid: pod_uid(&format!("{}\n{}", record.uid, self.commit), record.serial),
                commit: self.commit.clone(),
                template: workload.template.hash.clone(),
                ..record.clone()
            };
            self.twins.insert(record.uid.clone(), twin);
        }
    }

    /// The pods on this host whose template in the earlier commit differs. Pods whose owner the
    /// earlier commit does not contain are not affected.
    fn affected<'s>(
        &self,
        state: &'s ClusterState,
        node: &NodeName,
        commit: &Commit,
    ) -> Vec<&'s PodRecord> {
        let other = |record: &&PodRecord| {
            let workload = commit.objects.workloads.get(&record.owner);
            workload.is_some_and(|workload| workload.template.hash != record.template)
        };
        let here = |record: &&PodRecord| record.place.node() == Some(node) && record.stop.is_none();
        state.pods.values().filter(here).filter(other).collect()
    }

    /// The state on which this host acts.
    pub fn state(
        &self,
        state: &ClusterState,
        node: &NodeName,
        commit: Option<&Commit>,
    ) -> ClusterState {
        let mut own = state.clone();
        let stop = StopRecord {
            at: self.since,
            reason: StopReason::WentBack,
        };
        let commit = commit.filter(|commit| commit.id == self.commit && !self.ended);
        let affected: BTreeSet<PodUid> = commit
            .map(|commit| {
                self.affected(state, node, commit)
                    .into_iter()
                    .map(|record| record.uid.clone())
                    .collect()
            })
            .unwrap_or_default();
        // Until its twin is gone, a pod is not started again.
        for uid in affected.iter().chain(self.twins.keys()) {
            if let Some(record) = own.pods.get_mut(uid) {
                record.stop.get_or_insert_with(|| stop.clone());
            }
        }
        for (uid, twin) in &self.twins {
            let mut twin = twin.clone();
            let decided = state.pods.get(uid);
            twin.stop = decided.and_then(|record| record.stop.clone());
            // The leader's new target may have the template that the twin runs.
            let needless = decided.is_some() && commit.is_some() && !affected.contains(uid);
            if self.ended || twin.commit != self.commit || needless {
                twin.stop.get_or_insert_with(|| stop.clone());
            }
            own.pods.insert(twin.uid.clone(), twin);
        }
        own
    }

    /// The report for other hosts: decided pods have the status of their twins.
    pub fn report(&self, state: &ClusterState, mut report: NodeReport) -> NodeReport {
        let went_back = |uid: &PodUid| {
            state
                .pods
                .get(uid)
                .is_some_and(|record| record.stop.is_none())
        };
        // A stopped pod is gone when its twin is: without its record, the twin would run on.
        report
            .gone
            .retain(|uid| !went_back(uid) && !self.twins.contains_key(uid));
        for (uid, twin) in &self.twins {
            if let Some(refused) = report.refused.remove(&twin.uid) {
                report.refused.insert(uid.clone(), refused);
            }
            if report.gone.remove(&twin.uid) && !went_back(uid) {
                report.gone.insert(uid.clone());
            }
            if let Some(status) = report.pods.remove(&twin.uid) {
                report.pods.insert(uid.clone(), self.marked(status));
            }
        }
        report
    }

    fn marked(&self, mut status: PodStatus) -> PodStatus {
        if !self.ended {
            let words = format!(
                "runs commit {} by `windlass rollback --local`",
                self.commit.short()
            );
            status.message = Some(match status.message {
                Some(message) => format!("{message}; {words}"),
                None => words,
            });
        }
        status
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests;
