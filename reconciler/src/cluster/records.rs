//! Records that follow from what the nodes report, whatever the commit says: outages, pods that are
//! gone, and pods that run without a record.

use super::ClusterDecision;
use crate::{
    name::NodeName,
    state::{Change, NodeLife, Outage, PodPlace, PodRecord, Record, RecordKey},
};

impl ClusterDecision<'_> {
    /// Records which nodes are unreachable or lost, so that all hosts send their pods no traffic.
    pub(super) fn note_outages(&mut self) {
        let state = self.input.state;
        for (name, node) in self.input.nodes {
            let before = state.outages.get(name);
            let lost = node.life == NodeLife::Lost;
            match before {
                Some(before) if node.life.is_out() && before.lost == lost => {}
                _ if node.life.is_out() => {
                    let since = before.map_or(self.input.now, |before| before.since);
                    self.changes.push(Change::Put(Record::Outage(
                        name.clone(),
                        Outage { since, lost },
                    )));
                }
                Some(_) => self
                    .changes
                    .push(Change::Delete(RecordKey::Outage(name.clone()))),
                None => {}
            }
        }

        // A node that was installed again under a name that was removed from the cluster before.
        let anew = self.input.nodes.iter().filter(|(name, node)| {
            state
                .removed
                .get(*name)
                .is_some_and(|installation| *installation != node.facts.installation)
        });
        self.changes
            .extend(anew.map(|(name, _)| Change::Delete(RecordKey::Removed(name.clone()))));

        let unknown = state
            .outages
            .keys()
            .filter(|name| !self.input.nodes.contains_key(*name));
        self.changes
            .extend(unknown.map(|name| Change::Delete(RecordKey::Outage(name.clone()))));
    }

    /// Deletes the records of pods of which nothing is left; adds records for pods that run without
    /// one, since a lost record is no reason to stop a pod.
    pub(super) fn forget_and_adopt(&mut self) {
        for (node, report) in self.input.reports {
            for uid in &report.gone {
                let own = |record: &PodRecord| {
                    record.place.node() == Some(node) && self.is_gone(record, report)
                };
                if self.input.state.pods.get(uid).is_some_and(own) {
                    self.changes
                        .push(Change::Delete(RecordKey::Pod(uid.clone())));
                }
            }
        }

        for (node, report) in self.input.reports {
            for orphan in &report.orphans {
                if self.input.state.pods.contains_key(&orphan.uid) {
                    continue;
                }
                self.serial += 1;
                self.observed_owners.insert(&orphan.owner);
                self.changes.push(Change::put(PodRecord {
                    uid: orphan.uid.clone(),
                    key: orphan.pod.clone(),
                    owner: orphan.owner.clone(),
                    place: PodPlace::Node(node.clone()),
                    commit: orphan.commit.clone(),
                    template: orphan.template.clone(),
                    created: self.input.now,
                    serial: self.serial,
                    stop: None,
                }));
            }
        }

        // Two kinds of stopping pods have no node that could stop them, so their records are
        // deleted at once: pods that were never assigned, and pods whose node was removed.
        let removed = |node: &NodeName| {
            self.input.state.removed.contains_key(node) && !self.input.nodes.contains_key(node)
        };
        for record in self.input.state.pods.values() {
            let nobody_has_it = match record.place.node() {
                Some(node) => removed(node),
                None => record.stop.is_some(),
            };
            if nobody_has_it {
                self.changes
                    .push(Change::Delete(RecordKey::Pod(record.uid.clone())));
            }
        }
    }
}
