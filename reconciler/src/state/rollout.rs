//! How the rollout of a commit is stored: which commit runs, its phase, and the history of others.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    FailureClass, FailureReason, HistoryEntry, NodeFault, NodeReport, Phase, PodRecord, Shares,
    Stored, restarts,
};
use crate::name::{CommitId, NodeName, WorkloadKey};

/// The rollout of the current commit; persisted, so that a restarted leader continues it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The commit that must run; `None` before the first commit.
    pub target: Option<CommitId>,
    /// The last commit that was healthy: the goal of a rollback.
    pub healthy: Option<CommitId>,
    /// The commit that the controllers follow: the target, or, while the target is being prepared,
    /// the commit that they followed before.
    pub driving: Option<CommitId>,
    /// Commits that were driven since the last healthy commit and no longer are, newest last,
    /// bounded: pods of these commits may still exist.
    #[serde(default)]
    pub left: Vec<CommitId>,
    /// Phase of the target.
    pub phase: Phase,
    /// When the phase began; `None` before the first commit.
    pub since: Option<Timestamp>,
    /// When the target became the target.
    pub began: Option<Timestamp>,
    /// The time from which deadlines count: the controllers follow the target since then, and
    /// nothing outside of the commit has been in its way since then.
    #[serde(default)]
    pub clock: Option<Timestamp>,
    /// Whether something outside of the commit is in its way; meanwhile no deadline passes.
    #[serde(default)]
    pub waiting: bool,
    /// Since when an image of the target cannot be pulled for an unknown reason.
    #[serde(default)]
    pub failing: Option<Timestamp>,
    /// Present while the target is the result of a rollback.
    pub rollback: Option<Rollback>,
    /// Set by a manual rollback: the head that was abandoned. The pin ends when the head moves on,
    /// or by `resume`.
    pub pinned_against: Option<CommitId>,
    /// Nodes that are themselves at fault, since the driving commit runs on other nodes, with the
    /// reason: the rollout does not wait for these nodes.
    #[serde(default)]
    pub faulty: BTreeMap<NodeName, Stored<NodeFault>>,
    /// Which nodes pull which images of the target before it is driven; `None` means that every
    /// node pulls all images.
    #[serde(default)]
    pub shares: Option<Shares>,
    /// Present while only the canaries follow the target.
    #[serde(default)]
    pub wave: Option<Wave>,
    /// The last adoption of a store by a person; `None` if there was none.
    #[serde(default)]
    pub adopted: Option<Adoption>,
    /// Commits that failed, with the reason; `retry` removes the entry.
    pub bad: BTreeMap<CommitId, Stored<FailureReason>>,
    /// Set by `windlass suspend`: no new commit is rolled out.
    pub suspended: bool,
    /// What became of each commit, newest last, bounded.
    pub history: Vec<HistoryEntry>,
    /// Requested restarts: pods of each owner with a serial up to this one are replaced. A serial
    /// is stored, not a time, because a clock that is set back must not make new pods count as old.
    #[serde(default, rename = "restarted_up_to", with = "restarts")]
    pub restarts: BTreeMap<WorkloadKey, u64>,
}

/// A person made a host's copy of the state the content of a store. The copy may be older than what
/// the nodes run, so each node reports its pods before anything is started on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// When the store was adopted, by the clock of the host where that was done; identifies the
    /// adoption.
    pub at: Timestamp,
    /// Pods with a serial up to this one come from the copy. Such a pod of which nothing is on its
    /// node is not started: it may have been stopped after the copy was written.
    pub serial: u64,
    /// Whether all nodes that were not lost have reported their pods. Until then nothing else is
    /// decided.
    pub stock_taken: bool,
}

impl Adoption {
    /// Whether a pod comes from the adopted copy while its own node, which sent this report, has
    /// nothing of it: such a record is deleted without a stop record.
    pub fn is_without(&self, record: &PodRecord, report: &NodeReport) -> bool {
        let has_taken_stock = report.stock == Some(self.at);
        has_taken_stock && record.serial <= self.serial && report.gone.contains(&record.uid)
    }
}

/// Why an earlier commit is the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollback {
    /// The commit that was abandoned.
    pub from: CommitId,
    /// Why that commit was abandoned.
    pub reason: Stored<FailureReason>,
    /// The class of that reason.
    #[serde(default)]
    pub class: FailureClass,
}

/// The canaries of a rollout: the nodes that follow a new commit first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Names of the canaries.
    pub nodes: BTreeSet<NodeName>,
    /// Since when the canaries follow the target.
    pub since: Timestamp,
    /// Nodes that are at fault independently of the target: the canaries do not wait for them.
    #[serde(default)]
    pub broken: BTreeSet<NodeName>,
    /// Since when everything on the canaries has settled; `None` while it has not.
    pub settled: Option<Timestamp>,
}
