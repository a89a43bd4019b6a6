//! The snapshot from which a step of the rollout decides.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Judgement, judged_workloads};
use crate::{
    commit::Commits,
    name::{CommitId, NodeName},
    settings::RolloutSettings,
    state::{NodeFault, NodeReport, Preparation, Rollout, Stored},
    time::later,
};

/// How this host judged the newest commit of the followed branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Head {
    /// There is no head yet, or it could not be judged: no reason to change anything.
    #[default]
    Unknown,
    /// The head is verified, read and without errors.
    Accepted(CommitId),
    /// The head must not be run.
    Refused {
        /// Id of the refused commit.
        commit: CommitId,
        /// The first line of its message.
        subject: String,
        /// Its signer; empty unless its own signature is good.
        signer: String,
        /// Why the commit is refused.
        reason: String,
    },
}

/// The snapshot from which a step decides.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// The leader's clock at the start of the cycle.
    pub now: Timestamp,
    /// Deadlines, soak time and budgets from the configuration.
    pub settings: &'a RolloutSettings,
    /// The rollout as it is stored.
    pub rollout: &'a Rollout,
    /// The newest commit of the followed branch.
    pub head: &'a Head,
    /// The eligible commits among those in use, and the head.
    pub commits: &'a Commits,
    /// Commits that are not eligible while something of them runs.
    pub kept: &'a Commits,
    /// The nodes that are not unreachable, with their reports.
    pub nodes: BTreeMap<&'a NodeName, Option<&'a NodeReport>>,
    /// Maximum number of nodes that may be at fault without the commit being at fault.
    pub max_faulty: usize,
    /// The nodes that are at fault, judged by pods of the driving commit, with the reason.
    pub faulty: BTreeMap<NodeName, Stored<NodeFault>>,
    /// The nodes, canaries apart, where a DaemonSet's pod fails.
    pub failing: BTreeSet<NodeName>,
    /// The judgement of all changed workloads of the driving commit together.
    pub judgement: Judgement,
    /// When one of these workloads last made progress.
    pub progressed: Option<Timestamp>,
}

impl StepInput<'_> {
    /// The time by which the changed workloads must make progress. It counts from the last
    /// progress, not from the start of the rollout, since nodes are updated one after another.
    pub(super) fn deadline(&self, rollout: &Rollout) -> Timestamp {
        let from = rollout
            .clock
            .unwrap_or(self.now)
            .max(self.progressed.unwrap_or(Timestamp::MIN));
        later(from, self.settings.deadline)
    }

    /// Whether a node still has to receive the target or pull its images.
    pub(super) fn lacks_images(&self, target: Option<&CommitId>, node: &NodeName) -> bool {
        let Some(report) = self.nodes.get(node) else {
            return false;
        };
        let prepared = target.and_then(|target| report.as_ref()?.prepared.get(target));
        prepared != Some(&Preparation::Ready)
    }

    pub(super) fn nothing_to_judge(&self, rollout: &Rollout) -> bool {
        let get = |id: &Option<CommitId>| id.as_ref().and_then(|id| self.commits.get(id));
        let (Some(target), Some(_)) = (get(&rollout.target), get(&rollout.base())) else {
            return false;
        };
        judged_workloads(rollout, self.commits, target).is_empty()
    }
}
