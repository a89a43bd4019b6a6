//! Daemons of two versions in one cluster: which member reads the oldest records, and what this host
//! does with records that only a newer version reads. See `docs/decisions/0019`.

use std::collections::BTreeSet;

use reconciler::{
    name::NodeName,
    state::{OldestReader, RecordFormat},
};

use super::ReplicatedStore;
use crate::store::contents::Member;

impl ReplicatedStore {
    /// A candidate for leader with a newer version of Windlass, to which this host leaves leading:
    /// the leader's records contain some that only a newer version reads, so this host would decide
    /// without them. Without such a candidate this host leads, and what it cannot read stays.
    pub(crate) fn newer_leader(&self) -> Option<&NodeName> {
        if !self.contents.has_unreadable_decisions() {
            return None;
        }
        // A newer host that cannot lead, by its disk or its configuration, is no candidate.
        let candidates: BTreeSet<&NodeName> = self
            .contents
            .candidates
            .values()
            .map(|(_, name)| name)
            .collect();
        self.newer_members()
            .map(|(name, _)| name)
            .find(|name| candidates.contains(name))
    }

    /// The member that reads the oldest format of records, this host included. A lost node does not
    /// count. A member whose facts the store does not have counts by the facts that this host
    /// remembers, and otherwise as one of the versions that published no format.
    pub(crate) fn oldest_reader(&self, own: RecordFormat) -> Option<OldestReader> {
        let outages = &self.snapshot().outages;
        let others = self.members().filter(|(name, _)| {
            let is_lost = outages.get(*name).is_some_and(|outage| outage.lost);
            **name != self.node && !is_lost
        });
        let formats = others.map(|(name, member)| {
            let published = member.facts.as_ref().map(|doc| &doc.facts);
            let facts = published.or_else(|| self.others.facts.get(name));
            let format = facts.map(|facts| facts.record_format);
            (name, format.unwrap_or_default())
        });
        OldestReader::of(formats.chain([(&self.node, own)]))
    }

    /// The other members that read records which this version does not know.
    pub(super) fn newer_members(&self) -> impl Iterator<Item = (&NodeName, &Member)> {
        let others = self.members().filter(|(name, _)| **name != self.node);
        others.filter(|(_, member)| {
            let facts = member.facts.as_ref();
            facts.is_some_and(|doc| doc.facts.record_format > RecordFormat::NEWEST)
        })
    }

    /// Records that could not be read.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = String> {
        let described = self.contents.unreadable.iter().take(3);
        let described = described.map(|(key, error)| {
            format!(
                "key {key} of the store cannot be read: {error}; its last readable content stays in effect"
            )
        });
        let newer = self.newer_leader().map(|newer| {
            format!(
                "this host leaves leading to node {newer}, which has a newer version of Windlass: upgrade Windlass here"
            )
        });
        described.chain(newer)
    }
}
