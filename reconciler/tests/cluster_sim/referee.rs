//! The referee: the rules that hold for every transaction and every effect. It derives them from
//! the simulated world itself, and not from what any host or leader has read.

mod bounds;
mod duplicates;
mod effects;
mod lost_stores;
mod records;
mod recreate;
mod renames;
mod rollout;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use lost_stores::LostStores;
use reconciler::{
    name::{CommitId, NodeName, ObjectKey, PodUid},
    state::ClusterState,
};

use crate::{
    clock::Time,
    store::{Contents, Revision},
    world::World,
};

/// For how long a leader may act on an outdated view: the longest delay of a watch, and a decision
/// under way.
const MAX_VIEW_AGE: Time = 6_000;
/// Nodes that lose their leases within this time count as one outage.
const OUTAGE_WINDOW: Time = 60_000;

/// What the referee remembers of a history.
#[derive(Clone, Debug, Default)]
pub(crate) struct Referee {
    newest_epoch: Revision,
    /// Pods that have, or had, a stop record.
    stopped: BTreeSet<PodUid>,
    /// Pods that are ready by the reports in the store, by node.
    ready: BTreeMap<NodeName, BTreeSet<PodUid>>,
    /// Since when these pods are ready, and until when the others were.
    ready_since: BTreeMap<PodUid, Time>,
    ready_until: BTreeMap<PodUid, Time>,
    /// Since when nodes have no lease, and when other nodes got theirs again.
    absent: BTreeMap<NodeName, Time>,
    back: BTreeMap<NodeName, Time>,
    cluster_ips: BTreeMap<ObjectKey, Ipv4Addr>,
    /// Pods on a lost node: they may run beside the pods that replace them.
    left_behind: BTreeSet<PodUid>,
    lost_stores: LostStores,
    /// Commits that were recorded as bad, with the reason.
    pub(crate) called_bad: BTreeMap<CommitId, String>,
}

impl Referee {
    /// A node's report was written to the store.
    pub(crate) fn report(&mut self, now: Time, node: &NodeName, contents: &Contents) {
        let mut ready = BTreeSet::new();
        // The pods of a node that published its return keep running without its lease.
        let runs = contents.present.contains_key(node) || contents.away.contains_key(node);
        if runs && let Some(report) = contents.reports.get(node) {
            let pods = report.pods.iter();
            let ready_pods = pods.filter(|(_, status)| status.ready.is_some());
            ready.extend(ready_pods.map(|(uid, _)| uid.clone()));
        }

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

    /// A lease was made, or expired.
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

    /// Whether a pod may be ready in the view of a leader, however outdated that is.
    fn could_be_ready(&self, now: Time, uid: &PodUid) -> bool {
        self.ready_since.contains_key(uid)
            || self
                .ready_until
                .get(uid)
                .is_some_and(|until| now - until <= MAX_VIEW_AGE)
    }

    /// Whether a pod is ready in the view of each leader, however outdated that is.
    fn must_be_ready(&self, now: Time, uid: &PodUid) -> bool {
        self.ready_since
            .get(uid)
            .is_some_and(|since| now - since > MAX_VIEW_AGE)
    }

    /// Whether a node may be silent in the view of a leader.
    fn may_be_silent(&self, now: Time, node: &NodeName) -> bool {
        self.absent.contains_key(node)
            || self
                .back
                .get(node)
                .is_some_and(|back| now - back <= MAX_VIEW_AGE)
    }
}

impl World {
    /// A leader's transaction was written to the store. `driven` is the commit of the decision,
    /// `before` the state before the transaction.
    pub(crate) fn check_transaction(
        &mut self,
        epoch: Revision,
        driven: Option<&CommitId>,
        before: &ClusterState,
    ) {
        let after = self.store.contents.state.clone();
        let newest = self.referee.newest_epoch;
        self.require(epoch >= newest, || {
            format!("a leader of epoch {epoch} wrote after a leader of epoch {newest}")
        });
        self.referee.newest_epoch = newest.max(epoch);
        let commit = driven
            .and_then(|id| self.pushed.iter().find(|commit| commit.id == *id))
            .cloned();
        self.check_records(before, &after, commit.as_deref());
        self.check_renames(before, &after, commit.as_deref());
        self.check_losses(before, &after);
        self.check_rollout(before, &after);
        self.check_services(&after);
        self.check_canaries(before, &after);
        if let Some(commit) = &commit {
            for workload in commit.objects.workloads.values() {
                self.check_bounds(workload, commit, before, &after);
                self.check_recreate(workload, before, &after);
                self.check_duplicates(workload, before, &after);
            }
        }
    }
}
