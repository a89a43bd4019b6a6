//! The referee: what must hold of every transaction and every effect, worked out from the world
//! itself and not from what any of its parts believes.

mod alone;
mod bounds;
mod effects;
mod lines;
mod records;
mod recreate;
mod renames;
mod rollout;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use lines::Lines;
use reconciler::{
    name::{CommitId, NodeName, ObjectKey, PodUid},
    state::ClusterState,
};

use crate::{
    clock::Time,
    store::{Contents, Revision},
    world::World,
};

/// For so long a leader may not know yet what the store knows: a watch that is late, and a decision
/// under way.
const BLIND: Time = 6_000;
/// Losses within this time count together.
const BRAKE: Time = 60_000;

/// What the referee remembers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Referee {
    newest_epoch: Revision,
    /// Pods that ever had a stop record.
    stopped: BTreeSet<PodUid>,
    /// Pods that the store says are ready, by node.
    ready: BTreeMap<NodeName, BTreeSet<PodUid>>,
    /// Since when it has said so of those, and until when of the others.
    ready_since: BTreeMap<PodUid, Time>,
    ready_until: BTreeMap<PodUid, Time>,
    /// Since when a node has no lease, and when others had theirs again.
    absent: BTreeMap<NodeName, Time>,
    back: BTreeMap<NodeName, Time>,
    cluster_ips: BTreeMap<ObjectKey, Ipv4Addr>,
    /// Pods that may run beside those that took their places: their node was given up.
    left_behind: BTreeSet<PodUid>,
    lines: Lines,
    /// Commits that were called bad.
    pub(crate) called_bad: BTreeMap<CommitId, String>,
}

impl Referee {
    /// A node's report has come to the store.
    pub(crate) fn report(&mut self, now: Time, node: &NodeName, contents: &Contents) {
        let ready: BTreeSet<PodUid> = contents
            .reports
            .get(node)
            // Who said that it comes back has left its pods running.
            .filter(|_| contents.present.contains_key(node) || contents.away.contains_key(node))
            .into_iter()
            .flat_map(|report| &report.pods)
            .filter(|(_, status)| status.ready.is_some())
            .map(|(uid, _)| uid.clone())
            .collect();
        let before = self
            .ready
            .insert(node.clone(), ready.clone())
            .unwrap_or_default();
        for uid in before.difference(&ready) {
            self.ready_since.remove(uid);
            self.ready_until.insert(uid.clone(), now);
        }
        for uid in ready.difference(&before) {
            self.ready_since.insert(uid.clone(), now);
        }
    }

    /// Leases came or went.
    pub(crate) fn leases<'a>(
        &mut self,
        now: Time,
        nodes: impl Iterator<Item = &'a NodeName>,
        contents: &Contents,
    ) {
        for node in nodes {
            if contents.present.contains_key(node) {
                if self.absent.remove(node).is_some() {
                    self.back.insert(node.clone(), now);
                }
            } else {
                self.absent.entry(node.clone()).or_insert(now);
            }
            self.report(now, node, contents);
        }
    }

    /// Whether a leader with the oldest view it may have could take a pod for ready.
    fn could_be_ready(&self, now: Time, uid: &PodUid) -> bool {
        self.ready_since.contains_key(uid)
            || self
                .ready_until
                .get(uid)
                .is_some_and(|until| now - until <= BLIND)
    }

    /// Whether a leader with the oldest view it may have must take a pod for ready.
    fn must_be_ready(&self, now: Time, uid: &PodUid) -> bool {
        self.ready_since
            .get(uid)
            .is_some_and(|since| now - since > BLIND)
    }

    /// Whether a leader may take a node for silent.
    fn may_be_silent(&self, now: Time, node: &NodeName) -> bool {
        self.absent.contains_key(node)
            || self.back.get(node).is_some_and(|back| now - back <= BLIND)
    }
}

impl World {
    /// A leader's transaction is in the store. `driven` is the commit it decided by, `before` what
    /// was there.
    pub(crate) fn judge_transaction(
        &mut self,
        epoch: Revision,
        driven: Option<&CommitId>,
        before: &ClusterState,
    ) {
        let after = self.store.contents.state.clone();
        let newest = self.referee.newest_epoch;
        self.require(epoch >= newest, || {
            format!("a leader of epoch {epoch} wrote after one of {newest}")
        });
        self.referee.newest_epoch = newest.max(epoch);
        let commit = driven
            .and_then(|id| self.pushed.iter().find(|commit| commit.id == *id))
            .cloned();
        self.judge_records(before, &after, commit.as_deref());
        self.judge_renames(before, &after, commit.as_deref());
        self.judge_losses(before, &after);
        self.judge_rollout(before, &after);
        self.judge_services(&after);
        self.judge_canaries(before, &after);
        if let Some(commit) = &commit {
            for workload in commit.objects.workloads.values() {
                self.judge_bounds(workload, commit, before, &after);
                self.judge_recreate(workload, before, &after);
                self.judge_alone(workload, before, &after);
            }
        }
    }
}
