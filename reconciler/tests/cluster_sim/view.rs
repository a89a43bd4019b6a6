//! What one host has read of the store, and whether the host trusts it.

use std::collections::BTreeMap;

use reconciler::state::{Change, RecordKey};

use crate::store::{Contents, Epoch, Put, Revision, Sabotage, Store};

/// A revision without other changes is saved to disk only after this many revisions.
const MAX_UNSAVED: Revision = 50;

/// What a host remembers of the store on its disk, so that it trusts no other store in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) incarnation: u64,
    etcd: u64,
    pub(crate) revision: Revision,
    epoch: Epoch,
    /// When the records that are always there were last written.
    pub(crate) decided: Revision,
    /// The store went back in time: the host distrusts it until a person adopts a copy.
    distrusted: bool,
}

impl Default for Marker {
    fn default() -> Self {
        Self {
            incarnation: 1,
            etcd: 1,
            revision: 0,
            epoch: (0, 0),
            decided: 0,
            distrusted: false,
        }
    }
}

/// The judgement of a host on a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreTrust {
    Trusted,
    /// A person has adopted the store.
    Adopted,
    Distrusted {
        permanent: bool,
    },
}

impl Marker {
    fn trust(&self, contents: &Contents, revision: Revision, etcd: u64) -> StoreTrust {
        let Some(incarnation) = contents.identity else {
            return StoreTrust::Distrusted { permanent: false };
        };
        if incarnation > self.incarnation {
            return StoreTrust::Adopted;
        }
        let other = incarnation < self.incarnation || self.distrusted || etcd != self.etcd;
        let earlier = revision < self.revision || contents.decided < self.decided;
        match other || earlier || contents.epoch < self.epoch {
            true => StoreTrust::Distrusted {
                permanent: earlier && !other,
            },
            false => StoreTrust::Trusted,
        }
    }
}

/// What one host has read of the store; saved on its disk.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) revision: Revision,
    /// The store's content, as far as the host has read it.
    pub(crate) contents: Contents,
    /// The content that the host keeps to while it distrusts the store.
    kept: Option<Box<Contents>>,
    /// `None` while the host has not joined the cluster.
    pub(crate) marker: Option<Marker>,
    /// The revision that is saved on the host's disk.
    saved: Revision,
    /// Which life of the store the host is connected to: each restore begins another one.
    life: u64,
    /// Keys that this host has written itself, with the revision: values of earlier revisions that
    /// a watch delivers later are outdated.
    own: BTreeMap<RecordKey, Revision>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            revision: 0,
            contents: Contents::default(),
            kept: None,
            marker: Some(Marker::default()),
            saved: 0,
            life: 0,
            own: BTreeMap::new(),
        }
    }
}

/// What a read of the store showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadResult {
    /// A decision of a leader.
    pub(crate) decided: bool,
    /// A report or a lease of a node.
    pub(crate) reported: bool,
    /// The whole store was read.
    pub(crate) listed: bool,
    /// The host distrusts the store from now on.
    pub(crate) distrusts: bool,
    /// The host trusts the store again.
    pub(crate) trusts: bool,
}

impl View {
    /// The view of a host that was never a member.
    pub(crate) fn new() -> Self {
        Self {
            marker: None,
            ..Self::default()
        }
    }

    /// Whether the host trusts the store, and so follows it.
    pub(crate) fn trusts(&self) -> bool {
        self.marker.is_some() && self.kept.is_none()
    }

    /// The content that the host follows.
    pub(crate) fn trusted(&self) -> &Contents {
        self.kept.as_deref().unwrap_or(&self.contents)
    }

    /// Whether the host is connected to this life of the store.
    pub(crate) fn reads(&self, store: &Store) -> bool {
        self.life == store.life
    }

    /// Whether the host may publish its facts and reports in this store.
    pub(crate) fn may_publish(&self) -> bool {
        self.contents.identity.is_some()
    }

    /// A new member remembers the store that it has read.
    pub(crate) fn join(&mut self, store: &Store) {
        self.marker = Some(Marker {
            incarnation: self.contents.identity.unwrap_or(1),
            etcd: store.etcd,
            revision: self.revision,
            epoch: self.contents.epoch,
            decided: self.contents.decided,
            distrusted: false,
        });
    }

    /// The daemon was killed: what it had not saved is lost.
    pub(crate) fn lose_connection(&mut self) {
        self.life = 0;
        if let Some(marker) = &mut self.marker {
            marker.revision = marker.revision.min(self.saved);
        }
    }

    /// Reads the whole store in place of the content so far.
    pub(crate) fn relist(&mut self, store: &Store) -> ReadResult {
        let before = std::mem::replace(&mut self.contents, store.contents.clone());
        self.revision = store.revision;
        self.life = store.life;
        self.own.clear();
        let mut result = ReadResult {
            decided: true,
            reported: true,
            listed: true,
            ..ReadResult::default()
        };
        self.check_store(store, Some(before), &mut result);
        result
    }

    /// Reads the changes up to a revision; the whole store if the changes are not kept any more.
    pub(crate) fn follow(&mut self, store: &Store, up_to: Revision) -> ReadResult {
        let mut result = ReadResult::default();
        if self.life == store.life && self.revision >= store.revision {
            return result;
        }
        let kept = store
            .log
            .first_key_value()
            .is_some_and(|(first, _)| *first <= self.revision + 1);
        if !kept || self.life != store.life {
            return self.relist(store);
        }
        for (revision, puts) in store.log.range(self.revision + 1..=up_to) {
            let wiped = puts.iter().any(|put| matches!(put, Put::Wiped));
            let before = wiped.then(|| self.contents.clone());
            for put in puts.iter() {
                self.apply_put(put, *revision, &mut result);
            }
            self.revision = *revision;
            self.check_store(store, before, &mut result);
        }
        result
    }

    fn apply_put(&mut self, put: &Put, revision: Revision, result: &mut ReadResult) {
        if let Put::Decided(change) = put {
            result.decided = true;
            let key = change.key();
            match self.own.get(&key) {
                Some(own) if *own > revision => return,
                Some(own) if *own == revision => {
                    self.own.remove(&key);
                }
                _ => {}
            }
        } else {
            result.reported = true;
        }
        self.contents.apply(put, revision);
    }

    /// Judges whether the store is the one that this host remembers.
    fn check_store(&mut self, store: &Store, before: Option<Contents>, result: &mut ReadResult) {
        let Some(marker) = &mut self.marker else {
            return;
        };
        let trust = match store.sabotage {
            Sabotage::TrustsEveryStore => StoreTrust::Trusted,
            _ => marker.trust(&self.contents, self.revision, store.etcd),
        };
        let StoreTrust::Distrusted { permanent } = trust else {
            let old = self.kept.take().map(|kept| *kept);
            (result.trusts, result.distrusts) = (result.trusts || old.is_some(), false);
            // An adopted store has no facts and reports of nodes that are away: the last ones that
            // this host has read still hold.
            if let Some(before) = old.or(before) {
                for (node, facts) in before.facts {
                    self.contents.facts.entry(node).or_insert(facts);
                }
                for (node, report) in before.reports {
                    self.contents.reports.entry(node).or_insert(report);
                }
            }
            let decided = self.contents.decided;
            let adopted = trust == StoreTrust::Adopted;
            let after = Marker {
                incarnation: self.contents.identity.unwrap_or(marker.incarnation),
                etcd: store.etcd,
                revision: self.revision,
                epoch: marker.epoch.max(self.contents.epoch),
                decided: if adopted {
                    decided
                } else {
                    marker.decided.max(decided)
                },
                distrusted: false,
            };
            let unsaved = self.revision.saturating_sub(self.saved);
            if (Marker {
                revision: marker.revision,
                ..after.clone()
            }) != *marker
                || unsaved >= MAX_UNSAVED
            {
                self.saved = self.revision;
            }
            *marker = after;
            return;
        };
        marker.distrusted |= permanent;
        if self.kept.is_none() {
            self.kept = Some(Box::new(before.unwrap_or_else(|| self.contents.clone())));
            (result.trusts, result.distrusts) = (false, true);
        }
    }

    /// Takes over what this host wrote itself, without waiting for the watch.
    pub(crate) fn wrote(&mut self, revision: Revision, epoch: Epoch, changes: &[Change]) {
        self.contents.epoch = epoch;
        for change in changes {
            self.own.insert(change.key(), revision);
            self.contents.decide(change, revision);
        }
    }
}
