//! The rules for records of pods: no record changes into that of another pod, and none stops or is
//! deleted without a reason.

use reconciler::{
    commit::Commit,
    name::NodeName,
    state::{ClusterState, NodeFacts, StopReason},
};

use super::{MAX_VIEW_AGE, OUTAGE_WINDOW};
use crate::world::World;

impl World {
    pub(super) fn check_records(
        &mut self,
        before: &ClusterState,
        after: &ClusterState,
        driven: Option<&Commit>,
    ) {
        for (uid, record) in &after.pods {
            let old = before.pods.get(uid);
            if let Some(old) = old {
                let moved = old.place.node().is_some() && old.place != record.place;
                self.require(!moved, || {
                    format!("{uid} was moved from {:?} to {:?}", old.place, record.place)
                });
                let same = old.key == record.key
                    && old.owner == record.owner
                    && old.template == record.template;
                self.require(same, || {
                    format!("{uid} became another pod: {old:?} and {record:?}")
                });
                let withdrawn = old.stop.is_some() && record.stop.is_none();
                self.require(!withdrawn, || {
                    format!("the stop record of {uid} was withdrawn")
                });
            }
            let Some(stop) = &record.stop else { continue };
            self.referee.stopped.insert(uid.clone());
            if old.is_none_or(|old| old.stop.is_some()) {
                continue;
            }
            // During the canary wave, workloads that the commit deletes keep running as in the
            // healthy commit.
            let kept = [before, after]
                .into_iter()
                .find(|state| state.rollout.wave.is_some());
            let kept = kept.and_then(|state| state.rollout.healthy.as_ref());
            let kept = kept.and_then(|id| self.pushed.iter().find(|commit| commit.id == *id));
            let has = |commit: &Commit| commit.objects.workloads.contains_key(&record.owner);
            let owned = driven.is_some_and(has) || kept.is_some_and(|commit| has(commit));
            let is_allowed = match stop.reason {
                StopReason::OwnerRemoved => driven.is_some() && !owned,
                // Data on a disk exists on one node only: its pod stays there until a person
                // removes the node.
                StopReason::NodeLost | StopReason::Drained if self.has_disk(record) => false,
                // No pod that writes to a disk ends by itself in these histories.
                StopReason::Failed if self.has_disk(record) => false,
                StopReason::NodeLost => record
                    .place
                    .node()
                    .is_some_and(|node| self.referee.may_be_silent(self.now, node)),
                _ => owned,
            };
            self.require(is_allowed, || {
                format!(
                    "{} {uid} is stopped without reason: {stop:?}",
                    record.key.name
                )
            });
        }
        for (uid, old) in &before.pods {
            if after.pods.contains_key(uid) {
                continue;
            }
            let node = old.place.node();
            let removed = node.is_some_and(|node| after.removed.contains_key(node));
            // A pod that the adopted copy contains may be gone since.
            let gone = before.rollout.adopted.is_some() && !self.has_containers(uid);
            let is_allowed = old.stop.is_some() || removed || gone;
            self.require(is_allowed, || {
                format!("{uid} was deleted without a stop record")
            });
            let left = self.hosts.iter().any(|host| {
                !removed
                    && host.engine.containers.values().any(|container| {
                        container.identity.uid == *uid && container.state.is_alive()
                    })
            });
            self.require(!left, || format!("{uid} was deleted while it runs"));
            self.referee.record_deleted(uid);
        }
    }

    /// A node is given up only without a lease, and not if half of the nodes are gone too.
    pub(super) fn check_losses(&mut self, before: &ClusterState, after: &ClusterState) {
        let now = self.now;
        for (node, outage) in after.outages.iter().filter(|(_, outage)| outage.lost) {
            if before.outages.get(node).is_some_and(|before| before.lost) {
                continue;
            }
            let gone =
                |facts: &NodeFacts| after.removed.get(&facts.name) == Some(&facts.installation);
            // An adopted store may lack the facts of nodes that are away; the leader remembers
            // them.
            let all: Vec<&NodeName> = self
                .leaders_view()
                .facts
                .values()
                .filter(|facts| !gone(facts))
                .map(|facts| &facts.name)
                .collect();
            let dead = all
                .iter()
                .filter(|name| {
                    let since = self.referee.absent.get(**name);
                    let unreachable = self
                        .hosts
                        .iter()
                        .any(|host| host.name == ***name && host.daemon.is_none());
                    let away = self.store.contents.away.contains_key(**name);
                    let counts = since.is_some_and(|since| {
                        now - since > MAX_VIEW_AGE && now - since < OUTAGE_WINDOW
                    });
                    **name == node || counts && unreachable && !away
                })
                .count();
            let too_many_lost = dead * 2 >= all.len();
            let count = all.len();
            self.require(!too_many_lost, || {
                format!(
                    "{node} is given up ({outage:?}) though {dead} of {count} nodes vanished within a minute"
                )
            });
        }
    }
}
