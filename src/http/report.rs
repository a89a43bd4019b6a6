//! The answers of `/windlass/v1`: facts about commits and the daemon that have no place in
//! Kubernetes' API.

mod unwell;

use std::collections::BTreeMap;

use jiff::Timestamp;
use reconciler::{
    commit, foreign,
    manifest::Problem,
    name::CommitId,
    state::{CommitState, HistoryEntry, Rollback},
};
use runtime::{ImagePull, LastOutput};
use serde::{Deserialize, Serialize};

use super::{api, outputs::query};
use crate::{
    source::allowed_signers::Signer,
    view::{ClusterView, FailedPull, SourceStatus, View},
};

/// `/windlass/v1/status`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    /// The version of the daemon.
    pub version: String,
    /// The time of the view, in RFC 3339.
    pub at: Timestamp,
    /// The name of this host.
    pub node: String,
    /// This host's state in its cluster; absent for a host that is alone.
    #[serde(default)]
    pub cluster: Option<ClusterView>,
    /// The commit that must run; absent before the first one.
    pub target: Option<CommitReport>,
    /// The last commit that was healthy; absent if there was none.
    pub healthy: Option<CommitReport>,
    /// The newest commit that this host has verified; absent if there is none.
    pub verified: Option<CommitReport>,
    /// The newest commit of the followed branch; absent if none is known.
    pub head: Option<CommitReport>,
    /// The phase of the target, as one word.
    pub phase: String,
    /// What the rollout waits for, or why it is degraded; empty if neither is the case.
    pub message: String,
    /// Whether something outside of the commit is in its way: the registry, the engine, the disk.
    /// Deadlines are extended by this time.
    pub waiting: bool,
    /// When the phase began.
    pub since: Option<Timestamp>,
    /// Present while the target is a commit that a rollback went to.
    pub rollback: Option<Rollback>,
    /// The head that a manual rollback has left; absent without one.
    pub pinned_against: Option<CommitId>,
    /// Whether new commits are not taken.
    pub suspended: bool,
    /// The commits that failed, with the reasons.
    pub bad: BTreeMap<CommitId, String>,
    /// The repository, and the result of the last fetch.
    pub source: SourceStatus,
    /// The number of pods with each STATUS that `get pods` shows.
    pub pods: BTreeMap<String, usize>,
    /// The number of ready pods.
    pub ready_pods: usize,
    /// The first pods that are not as the commit wants them, one sentence each.
    pub unwell: Vec<String>,
    /// What containers printed before they failed, newest first: those of the newest commit, if it
    /// has failed, and of pods that fail now.
    #[serde(default)]
    pub last_outputs: Vec<LastOutput>,
    /// The troubles of the daemon itself.
    pub troubles: Vec<String>,
    /// The warnings about the manifests of the driving commit.
    pub warnings: Vec<Problem>,
    /// Notes about the configuration and the cluster.
    pub notes: Vec<String>,
    /// The first container that exits again and again; absent if there is none.
    #[serde(default)]
    pub crashing: Option<CrashingContainer>,
    /// The images of the target that this host cannot pull now.
    #[serde(default)]
    pub failed_pulls: Vec<FailedPull>,
    /// The pulls under way on this host.
    #[serde(default)]
    pub pulls: Vec<ImagePull>,
    /// Whether the first cycle since the start has converged.
    pub converged: bool,
    /// The state of the head in the newest entry of the history; before the first fetch since the
    /// start, of the newest verified commit.
    pub head_state: Option<CommitState>,
    /// Why it is in that state.
    pub head_reason: String,
}

/// A container that waits for its next start after a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CrashingContainer {
    /// The namespace of the pod.
    pub namespace: String,
    /// The name of the pod.
    pub pod: String,
    /// The name of the container.
    pub container: String,
}

/// A commit, as people read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CommitReport {
    pub id: CommitId,
    /// The first line of the commit's message; empty if it is not known.
    pub subject: String,
    /// The signer; empty if the signer is not known or signatures are not checked.
    pub signer: String,
    /// The committer's time; absent if it is not known.
    pub time: Option<Timestamp>,
}

/// `/windlass/v1/history`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct HistoryReport {
    /// The entries, newest first.
    pub entries: Vec<HistoryEntry>,
    /// What containers of the latest failed commits printed before they failed, newest first.
    #[serde(default)]
    pub last_outputs: Vec<LastOutput>,
}

/// `/windlass/v1/trust`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TrustReport {
    /// The name of this host.
    pub node: String,
    /// The signature mode: `mainline`, `all`, `head` or `off`.
    pub mode: String,
    /// The pods of this host, ordered by name.
    pub pods: Vec<PodTrust>,
}

/// The grounds on which a pod runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PodTrust {
    /// The namespace and the name of the pod.
    pub pod: String,
    /// The commit that the pod was last started from.
    pub commit: CommitId,
    /// `signature`, `anchor`, `mode off`, or `none`.
    pub grounds: String,
    /// The signer of that commit; absent if its own signature was not judged.
    pub signer: Option<Signer>,
    /// When this host judged the commit, in RFC 3339; absent if a version without the trusted set
    /// judged it.
    pub judged: Option<Timestamp>,
    /// A doubt about the commit: its key was withdrawn or has expired since, or the commit may not
    /// run.
    pub note: String,
}

impl StatusReport {
    /// The newest commit that the host knows of: before the first fetch since the start, the
    /// newest verified one.
    pub(crate) fn newest(&self) -> Option<&CommitReport> {
        self.head.as_ref().or(self.verified.as_ref())
    }

    pub(crate) fn new(view: &View) -> Self {
        let rollout = &view.state.rollout;
        let commit = |id: &Option<CommitId>| id.as_ref().map(|id| CommitReport::new(view, id));

        let head_entry = view.source.newest().and_then(|newest| entry(view, newest));
        let driving = commit::driving(&view.commits, rollout);

        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: view.at,
            node: view.node.to_string(),
            cluster: view.cluster.clone(),
            target: commit(&rollout.target),
            healthy: commit(&rollout.healthy),
            verified: commit(&view.source.verified),
            head: commit(&view.source.head),
            phase: rollout.phase.as_str().to_owned(),
            message: rollout.phase.message(),
            waiting: rollout.waiting,
            since: rollout.since,
            rollback: rollout.rollback.clone(),
            pinned_against: rollout.pinned_against.clone(),
            suspended: rollout.suspended,
            bad: rollout
                .bad
                .iter()
                .map(|(commit, reason)| (commit.clone(), reason.to_string()))
                .collect(),
            source: view.source.clone(),
            pods: api::pod_counts(view),
            ready_pods: view
                .pods
                .values()
                .filter(|status| status.ready.is_some())
                .count(),
            unwell: unwell::sentences(view),
            last_outputs: query::of_status(view).select(view.last_outputs.iter().cloned()),
            troubles: sentences(&view.troubles),
            warnings: driving
                .map(|commit| commit.warnings.clone())
                .unwrap_or_default(),
            notes: sentences(&view.notes),
            crashing: unwell::crashing(view),
            failed_pulls: view.failed_pulls.clone(),
            pulls: Vec::new(),
            converged: view.converged,
            head_state: head_entry.map(|entry| entry.state),
            head_reason: head_entry
                .map(|entry| entry.reason.to_string())
                .unwrap_or_default(),
        }
    }
}

/// Reasons as sentences that are safe to print: a name in them may come from another host or from
/// the store.
fn sentences(reasons: &[impl ToString]) -> Vec<String> {
    reasons
        .iter()
        .map(|reason| foreign::escape(&reason.to_string()).into_owned())
        .collect()
}

impl HistoryReport {
    pub(crate) fn new(view: &View) -> Self {
        Self {
            entries: view.state.rollout.history.iter().rev().cloned().collect(),
            last_outputs: Vec::new(),
        }
    }
}

impl CommitReport {
    fn new(view: &View, id: &CommitId) -> Self {
        if let Some(commit) = view.commits.get(id) {
            let (subject, signer) = (commit.subject.clone(), commit.signer.clone());
            return Self {
                id: id.clone(),
                subject,
                signer,
                time: Some(commit.time),
            };
        }
        // A refused commit is only in the history.
        let entry = entry(view, id);
        let subject = entry.map(|entry| entry.subject.clone()).unwrap_or_default();
        let signer = entry.map(|entry| entry.signer.clone()).unwrap_or_default();
        Self {
            id: id.clone(),
            subject,
            signer,
            time: None,
        }
    }
}

fn entry<'a>(view: &'a View, id: &CommitId) -> Option<&'a HistoryEntry> {
    view.state
        .rollout
        .history
        .iter()
        .rev()
        .find(|entry| entry.commit == *id)
}
