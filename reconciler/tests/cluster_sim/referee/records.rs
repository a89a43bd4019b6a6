//! What must hold of the records of pods: none changes into another, none stops or goes without a
//! reason.

use reconciler::{
    commit::Commit,
    name::NodeName,
    state::{ClusterState, NodeFacts, StopReason},
};

use super::{BLIND, BRAKE};
use crate::world::World;

impl World {
    pub(super) fn judge_records(
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
            // While only the canaries move, what the commit leaves out goes on as the healthy one
            // has it.
            let kept = [before, after]
                .into_iter()
                .find(|state| state.rollout.wave.is_some());
            let kept = kept.and_then(|state| state.rollout.healthy.as_ref());
            let kept = kept.and_then(|id| self.pushed.iter().find(|commit| commit.id == *id));
            let has = |commit: &Commit| commit.objects.workloads.contains_key(&record.owner);
            let owned = driven.is_some_and(has) || kept.is_some_and(|commit| has(commit));
            let sound = match stop.reason {
                StopReason::OwnerRemoved => driven.is_some() && !owned,
                // What lies on a disk is nowhere else: its pod stays with its node until that is
                // given up by hand.
                StopReason::NodeLost | StopReason::Drained if self.has_disk(record) => false,
                // Pods that write to a disk never end by themselves in these stories.
                StopReason::Failed if self.has_disk(record) => false,
                StopReason::NodeLost => record
                    .place
                    .node()
                    .is_some_and(|node| self.referee.may_be_silent(self.now, node)),
                _ => owned,
            };
            self.require(sound, || {
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
            // What the adopted copy has and what is gone since.
            let gone = before.rollout.adopted.is_some() && !self.has_containers(uid);
            let sound = old.stop.is_some() || removed || gone;
            self.require(sound, || {
                format!("{uid} was forgotten without a stop record")
            });
            let left = self.hosts.iter().any(|host| {
                !removed
                    && host
                        .engine
                        .containers
                        .values()
                        .any(|one| one.identity.uid == *uid && one.state.is_alive())
            });
            self.require(!left, || format!("{uid} was forgotten while it runs"));
            self.referee.has_gone(uid);
        }
    }

    /// A node is given up only without a lease, and not with half of the others.
    pub(super) fn judge_losses(&mut self, before: &ClusterState, after: &ClusterState) {
        let now = self.now;
        for (node, outage) in after.outages.iter().filter(|(_, outage)| outage.lost) {
            if before.outages.get(node).is_some_and(|before| before.lost) {
                continue;
            }
            let gone =
                |facts: &NodeFacts| after.removed.get(&facts.name) == Some(&facts.installation);
            // A store that was filled anew may not know who is away; the leader does.
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
                    let counts =
                        since.is_some_and(|since| now - since > BLIND && now - since < BRAKE);
                    **name == node || counts && unreachable && !away
                })
                .count();
            let braked = dead * 2 >= all.len();
            let count = all.len();
            self.require(!braked, || {
                format!(
                    "{node} is given up ({outage:?}) though {dead} of {count} nodes vanished within a minute"
                )
            });
        }
    }
}
