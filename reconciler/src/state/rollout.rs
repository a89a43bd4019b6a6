//! How the life of a commit is stored: what runs, how far it is, and what became of others.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{NodeReport, PodRecord, Shares};
use crate::{
    foreign,
    name::{CommitId, NodeName},
};

/// The rollout as it stands; persisted, so that a restart goes on where it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The commit that must run.
    pub target: Option<CommitId>,
    /// The last one that was healthy.
    pub healthy: Option<CommitId>,
    /// The one the controllers follow: the target, or, while that is being prepared, what they
    /// followed before.
    pub driving: Option<CommitId>,
    /// What was driven since the last healthy commit and is not any more, newest last, bounded:
    /// pods of it may still be there.
    #[serde(default)]
    pub left: Vec<CommitId>,
    /// How far the target is.
    pub phase: Phase,
    /// When the phase began; `None` before the first commit.
    pub since: Option<Timestamp>,
    /// When the target became the target.
    pub began: Option<Timestamp>,
    /// From when the deadlines count: since the controllers follow the target, and since nothing
    /// outside of the commit is in its way any more.
    #[serde(default)]
    pub clock: Option<Timestamp>,
    /// Something outside of the commit is in its way: the clock stands still.
    #[serde(default)]
    pub waiting: bool,
    /// Since when an image of the target cannot be had and nobody can say why.
    #[serde(default)]
    pub failing: Option<Timestamp>,
    /// Present while the target is a commit that was gone back to.
    pub rollback: Option<Rollback>,
    /// Set by a manual rollback: the head that was left. The pin ends when the head moves on, or by
    /// `resume`.
    pub pinned_against: Option<CommitId>,
    /// Nodes that are at fault themselves where what is driven runs on others, and why: they do not
    /// hold it up.
    #[serde(default)]
    pub faulty: BTreeMap<NodeName, String>,
    /// Which nodes get the images of the target before it is driven; `None` is all of them.
    #[serde(default)]
    pub shares: Option<Shares>,
    /// Present while only the canaries move to the target.
    #[serde(default)]
    pub wave: Option<Wave>,
    /// Present once somebody has adopted a store: the last time.
    #[serde(default)]
    pub adopted: Option<Adoption>,
    /// Commits that failed, with the reason; a retry clears it.
    pub bad: BTreeMap<CommitId, String>,
    /// `windlass suspend`: no new commit is taken.
    pub suspended: bool,
    /// What became of each commit, newest last, bounded.
    pub history: Vec<HistoryEntry>,
    /// Restarts that were asked for, with the serial of then: pods of these owners up to it are
    /// replaced. A clock that is set back must not make new pods old.
    #[serde(default, rename = "restarted_up_to")]
    pub restarts: BTreeMap<String, u64>,
}

/// That somebody made a host's copy the content of a store. It may be behind what the nodes run:
/// each of them says what it holds before anything is begun there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// When, by that host's clock: which adoption is meant.
    pub at: Timestamp,
    /// Pods with a serial up to this are from the copy: one of which nothing is on its node may
    /// have been stopped in a time of which the copy knows nothing, and is not begun.
    pub serial: u64,
    /// All nodes that were not lost have said what they hold. Until then nothing is decided.
    pub stock_taken: bool,
}

impl Adoption {
    /// Whether a pod is of the copy and its own node, whose report this is, has nothing of it: it
    /// is forgotten without being stopped.
    pub fn is_without(&self, record: &PodRecord, report: &NodeReport) -> bool {
        let heard = report.stock == Some(self.at);
        heard && record.serial <= self.serial && report.gone.contains(&record.uid)
    }
}

/// How far the target is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// There was no commit yet.
    #[default]
    Empty,
    /// Its images are being pulled; everything runs as before.
    Preparing {
        /// What is waited for.
        #[serde(deserialize_with = "foreign::sentence")]
        message: String,
    },
    /// The controllers are moving the workloads to it.
    Progressing {
        /// What is waited for.
        #[serde(deserialize_with = "foreign::sentence")]
        message: String,
    },
    /// Everything has settled; it must stay so for the soak time.
    Soaking,
    /// It runs and is good.
    Healthy,
    /// It failed and there is nothing better to go back to, or going back failed too. It is kept
    /// running and healed.
    Degraded {
        /// Why.
        #[serde(deserialize_with = "foreign::sentence")]
        message: String,
    },
}

impl Phase {
    /// One word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing { .. } => "Preparing",
            Self::Progressing { .. } => "Progressing",
            Self::Soaking => "Soaking",
            Self::Healthy => "Healthy",
            Self::Degraded { .. } => "Degraded",
        }
    }
}

/// Why an earlier commit is the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollback {
    /// The commit that was left.
    pub from: CommitId,
    /// Why it was left.
    #[serde(deserialize_with = "foreign::sentence")]
    pub reason: String,
    /// What sort of reason that is.
    #[serde(default)]
    pub class: FailureClass,
}

/// The first hosts that a commit comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// The canaries.
    pub nodes: BTreeSet<NodeName>,
    /// Since when they move.
    pub since: Timestamp,
    /// Nodes that are at fault without it: that they are down holds up no canary.
    #[serde(default)]
    pub broken: BTreeSet<NodeName>,
    /// Since when all is well there.
    pub settled: Option<Timestamp>,
}

/// Why a commit failed, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureClass {
    /// An image is missing or for another architecture.
    Image,
    /// A container does not stay up.
    CrashLoop,
    /// Something did not become ready in time.
    Deadline,
    /// The engine refuses a container.
    Rejected,
    /// Somebody asked for it.
    Manual,
    /// Something else.
    #[default]
    Other,
}

/// Why a commit failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In a word.
    pub class: FailureClass,
    /// As a sentence.
    pub reason: String,
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The commit.
    pub commit: CommitId,
    /// The first line of its message.
    #[serde(deserialize_with = "foreign::sentence")]
    pub subject: String,
    /// Who signed it; empty where verification is off.
    #[serde(deserialize_with = "foreign::sentence")]
    pub signer: String,
    /// What became of it.
    pub state: CommitState,
    /// Why, where there is something to say.
    #[serde(deserialize_with = "foreign::sentence")]
    pub reason: String,
    /// What sort of failure it was, if it was one.
    #[serde(default)]
    pub class: Option<FailureClass>,
    /// When it was taken up, or refused.
    pub began: Timestamp,
    /// When its state became final.
    pub ended: Option<Timestamp>,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitState {
    /// Not trusted, not readable, or wrong in itself: never run.
    Refused,
    /// It would delete more than the budget allows: waits for a word.
    Held,
    /// Being prepared or progressing.
    Progressing,
    /// Ran and was good.
    Healthy,
    /// Failed; the last healthy commit runs instead.
    RolledBack,
    /// Failed, and there was none to go back to.
    Degraded,
    /// A newer commit took its place before it was healthy.
    Superseded,
}

impl CommitState {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "Refused",
            Self::Held => "Held",
            Self::Progressing => "Progressing",
            Self::Healthy => "Healthy",
            Self::RolledBack => "RolledBack",
            Self::Degraded => "Degraded",
            Self::Superseded => "Superseded",
        }
    }
}
