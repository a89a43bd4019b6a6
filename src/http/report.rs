//! What `/windlass/v1` answers: everything about commits and the daemon that Kubernetes has no word
//! for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use reconciler::{
    fault::FaultKind,
    manifest::Problem,
    name::CommitId,
    state::{CommitState, HistoryEntry, Phase, PodRecord, Rollback},
};
use serde::{Deserialize, Serialize};

use crate::source::allowed_signers::Signer;
use crate::view::{ClusterView, LaneView, SourceStatus, View};

/// `/windlass/v1/status`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    /// Version of the daemon.
    pub version: String,
    /// When the view was made.
    pub at: Timestamp,
    /// This host.
    pub node: String,
    /// How this host stands in its cluster, where it is one of several.
    #[serde(default)]
    pub cluster: Option<ClusterView>,
    /// The commit that must run.
    pub target: Option<CommitReport>,
    /// The last one that was healthy.
    pub healthy: Option<CommitReport>,
    /// The newest one that was found trusted.
    pub verified: Option<CommitReport>,
    /// The newest one in the repository.
    pub head: Option<CommitReport>,
    /// How far the target is: one word.
    pub phase: String,
    /// What is waited for, or why it is degraded; empty where there is nothing to say.
    pub message: String,
    /// Something outside of the commit is in the way: the registry, the engine, the disk. Time does
    /// not count meanwhile.
    pub waiting: bool,
    /// Since when the phase is what it is.
    pub since: Option<Timestamp>,
    /// Present while the target is a commit that was gone back to.
    pub rollback: Option<Rollback>,
    /// The head that a manual rollback has left.
    pub pinned_against: Option<CommitId>,
    /// No new commit is taken.
    pub suspended: bool,
    /// Commits that failed, and why.
    pub bad: BTreeMap<CommitId, String>,
    /// Where commits come from and how that stands.
    pub source: SourceStatus,
    /// Pods by phase.
    pub pods: BTreeMap<String, usize>,
    /// Pods that are ready.
    pub ready_pods: usize,
    /// Pods that are not as they should be, each in a sentence; the first of them.
    pub unwell: Vec<String>,
    /// What stands in the daemon's own way.
    pub troubles: Vec<String>,
    /// Warnings of the commit that drives.
    pub warnings: Vec<Problem>,
    /// What a reader should know of the configuration.
    pub notes: Vec<String>,
    /// Whether the first cycle since start has converged.
    pub converged: bool,
    /// The newest entry of the history about the head.
    pub head_state: Option<CommitState>,
    /// Why the head is in that state.
    pub head_reason: String,
}

/// A commit for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CommitReport {
    /// Its id.
    pub id: CommitId,
    /// The first line of its message; empty where it is not known.
    pub subject: String,
    /// Who signed it; empty where that is not known or not asked.
    pub signer: String,
    /// Committer's time, where it is known.
    pub time: Option<Timestamp>,
}

/// `/windlass/v1/history`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct HistoryReport {
    /// Newest first.
    pub entries: Vec<HistoryEntry>,
}

/// `/windlass/v1/plan`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PlanReport {
    /// The commit that it leads to.
    pub commit: Option<CommitId>,
    /// One a pod or image.
    pub lanes: Vec<LaneView>,
}

/// `/windlass/v1/trust`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TrustReport {
    /// This host.
    pub node: String,
    /// `mainline`, `all`, `head` or `off`.
    pub mode: String,
    /// The pods of this host, by name.
    pub pods: Vec<PodTrust>,
}

/// On which grounds a pod runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PodTrust {
    /// Namespace and name.
    pub pod: String,
    /// The commit it was last run from.
    pub commit: CommitId,
    /// `signature`, `anchor`, `mode off`, or `none`.
    pub grounds: String,
    /// Who signed that commit.
    pub signer: Option<Signer>,
    /// When this host judged it, in RFC 3339; absent where a version before the trusted set did.
    pub judged: Option<Timestamp>,
    /// What to know of it: its key was withdrawn or has expired since; why it may not run.
    pub note: String,
}

/// How many unwell pods are named.
const NAMED: usize = 20;

impl StatusReport {
    /// Reads it out of a view.
    pub(crate) fn new(view: &View) -> Self {
        let rollout = &view.state.rollout;
        let message = match &rollout.phase {
            Phase::Preparing { message }
            | Phase::Progressing { message }
            | Phase::Degraded { message } => message.clone(),
            Phase::Empty | Phase::Soaking | Phase::Healthy => String::new(),
        };
        let commit = |id: &Option<CommitId>| id.as_ref().map(|id| CommitReport::new(view, id));
        let head_entry = view.source.head.as_ref().and_then(|head| entry(view, head));
        let driving = rollout.driving.as_ref().and_then(|id| view.commits.get(id));
        let mut pods = BTreeMap::new();
        for record in view.state.pods.values() {
            let phase = view
                .pods
                .get(&record.uid)
                .map_or("Pending", |status| status.phase.as_str());
            *pods.entry(phase.to_owned()).or_insert(0) += 1;
        }
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
            message,
            waiting: rollout.waiting,
            since: rollout.since,
            rollback: rollout.rollback.clone(),
            pinned_against: rollout.pinned_against.clone(),
            suspended: rollout.suspended,
            bad: rollout.bad.clone(),
            source: view.source.clone(),
            pods,
            ready_pods: view
                .pods
                .values()
                .filter(|status| status.ready.is_some())
                .count(),
            unwell: unwell(view),
            troubles: view.troubles.clone(),
            warnings: driving
                .map(|commit| commit.warnings.clone())
                .unwrap_or_default(),
            notes: view.notes.clone(),
            converged: view.converged,
            head_state: head_entry.map(|entry| entry.state),
            head_reason: head_entry
                .map(|entry| entry.reason.clone())
                .unwrap_or_default(),
        }
    }
}

impl HistoryReport {
    /// Reads it out of a view.
    pub(crate) fn new(view: &View) -> Self {
        Self {
            entries: view.state.rollout.history.iter().rev().cloned().collect(),
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
        // A commit that was refused is known to the history only.
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

/// So long a pod stops before it is named without its host having said what is in the way.
const LONG_STOP: i64 = 30;

/// A pod that was told to stop and does not go. Only its own host knows what the engine says of
/// that.
fn unfinished_stop(view: &View, record: &PodRecord) -> Option<String> {
    let stop = record.stop.as_ref()?;
    let node = record.place.node()?;
    let seconds = view.at.duration_since(stop.at).as_secs().max(0);
    let status = view.pods.get(&record.uid);
    let fault = status.and_then(|status| status.fault);
    if fault.is_none() && seconds < LONG_STOP {
        return None;
    }
    let class = fault.map_or("it has not ended yet", FaultKind::stopping_reason);
    let words = match status.and_then(|status| status.message.as_ref()) {
        Some(message) if *node == view.node => format!(": {message}"),
        _ if *node == view.node => String::new(),
        _ => format!("; `windlass status` on node {node} says more"),
    };
    Some(format!(
        "{}: the old pod has been stopping for {seconds} s: {class}{words}",
        record.key
    ))
}

/// Pods that wait for something or have failed.
fn unwell(view: &View) -> Vec<String> {
    use reconciler::{state::PodPlace, status::ContainerPhase};
    let mut sentences: Vec<String> = view
        .state
        .pods
        .values()
        .filter_map(|record| unfinished_stop(view, record))
        .collect();
    for record in view
        .state
        .pods
        .values()
        .filter(|record| record.stop.is_none())
    {
        if let PodPlace::Unplaced(why) = &record.place {
            sentences.push(format!("{}: {why}", record.key));
            continue;
        }
        let Some(status) = view.pods.get(&record.uid) else {
            continue;
        };
        if let Some(reason) = status.reason.as_ref().or(status.message.as_ref()) {
            let message = status.message.as_ref().filter(|message| *message != reason);
            let message = message
                .map(|message| format!(": {message}"))
                .unwrap_or_default();
            sentences.push(format!("{}: {reason}{message}", record.key));
        }
        for container in status.init_containers.iter().chain(&status.containers) {
            if let ContainerPhase::Waiting { reason, message } = &container.state
                && reason != "ContainerCreating"
                && reason != "PodInitializing"
            {
                let message = if message.is_empty() {
                    String::new()
                } else {
                    format!(": {message}")
                };
                sentences.push(format!(
                    "{}, container {}: {reason}{message}",
                    record.key, container.name
                ));
            }
        }
    }
    let more = sentences.len().saturating_sub(NAMED);
    sentences.truncate(NAMED);
    if more > 0 {
        sentences.push(format!("and {more} more"));
    }
    sentences
}
