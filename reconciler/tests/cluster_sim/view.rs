//! What one host knows of the store, and whether it believes it.

use std::collections::BTreeMap;

use reconciler::state::{Change, RecordKey};

use crate::store::{Contents, Epoch, Put, Revision, Sabotage, Store};

/// The revision alone is put on disk after so many.
const UNSAVED: Revision = 50;

/// What a host must not forget of the store, so that no other one is believed in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) incarnation: u64,
    etcd: u64,
    pub(crate) revision: Revision,
    epoch: Epoch,
    /// When the records that are always there were last written.
    pub(crate) decided: Revision,
    /// The store went back in time: that holds until a person says what is to be believed.
    doubt: bool,
}

impl Default for Marker {
    fn default() -> Self {
        Self {
            incarnation: 1,
            etcd: 1,
            revision: 0,
            epoch: (0, 0),
            decided: 0,
            doubt: false,
        }
    }
}

/// What a host thinks of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Believed,
    /// A person has said that it is to be believed.
    Adopted,
    Doubted {
        lasts: bool,
    },
}

impl Marker {
    fn verdict(&self, contents: &Contents, revision: Revision, etcd: u64) -> Verdict {
        let Some(incarnation) = contents.identity else {
            return Verdict::Doubted { lasts: false };
        };
        if incarnation > self.incarnation {
            return Verdict::Adopted;
        }
        let other = incarnation < self.incarnation || self.doubt || etcd != self.etcd;
        let earlier = revision < self.revision || contents.decided < self.decided;
        match other || earlier || contents.epoch < self.epoch {
            true => Verdict::Doubted {
                lasts: earlier && !other,
            },
            false => Verdict::Believed,
        }
    }
}

/// What one host knows of the store; kept on its disk.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) revision: Revision,
    /// What the store says, as far as it was read.
    pub(crate) contents: Contents,
    /// What the host goes on with while it does not believe that.
    kept: Option<Box<Contents>>,
    /// None as long as the host has not joined.
    pub(crate) marker: Option<Marker>,
    /// The revision that is on its disk.
    saved: Revision,
    /// Which life of the store it is connected to.
    life: u64,
    /// Keys that this host has written itself, with the revision: what a watch brings later is
    /// older.
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

/// What reading the store brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Something decided.
    pub(crate) decided: bool,
    /// Something that nodes say, or their leases.
    pub(crate) said: bool,
    /// Everything was listed.
    pub(crate) listed: bool,
    /// Nothing of the store is believed any more.
    pub(crate) doubts: bool,
    /// It is believed again.
    pub(crate) believes: bool,
}

impl View {
    /// Of a host that never was in the cluster.
    pub(crate) fn new() -> Self {
        Self {
            marker: None,
            ..Self::default()
        }
    }

    /// Whether the host goes by what the store says.
    pub(crate) fn believes(&self) -> bool {
        self.marker.is_some() && self.kept.is_none()
    }

    /// What the host goes by.
    pub(crate) fn believed(&self) -> &Contents {
        self.kept.as_deref().unwrap_or(&self.contents)
    }

    /// Whether it reads this store, as it is since a backup took its place.
    pub(crate) fn reads(&self, store: &Store) -> bool {
        self.life == store.life
    }

    /// Whether what the host says of itself belongs into this store.
    pub(crate) fn may_publish(&self) -> bool {
        self.contents.identity.is_some()
    }

    /// A newcomer takes up what it has read.
    pub(crate) fn join(&mut self, store: &Store) {
        self.marker = Some(Marker {
            incarnation: self.contents.identity.unwrap_or(1),
            etcd: store.etcd,
            revision: self.revision,
            epoch: self.contents.epoch,
            decided: self.contents.decided,
            doubt: false,
        });
    }

    /// The daemon is gone, and what only it knew.
    pub(crate) fn lose_connection(&mut self) {
        self.life = 0;
        if let Some(marker) = &mut self.marker {
            marker.revision = marker.revision.min(self.saved);
        }
    }

    /// Everything there is, instead of what was known.
    pub(crate) fn relist(&mut self, store: &Store) -> News {
        let before = std::mem::replace(&mut self.contents, store.contents.clone());
        self.revision = store.revision;
        self.life = store.life;
        self.own.clear();
        let mut news = News {
            decided: true,
            said: true,
            listed: true,
            ..News::default()
        };
        self.judge(store, Some(before), &mut news);
        news
    }

    /// All that has happened since, up to a revision; a list of everything where that is not kept
    /// any more.
    pub(crate) fn follow(&mut self, store: &Store, up_to: Revision) -> News {
        let mut news = News::default();
        if self.life == store.life && self.revision >= store.revision {
            return news;
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
                self.take_in(put, *revision, &mut news);
            }
            self.revision = *revision;
            self.judge(store, before, &mut news);
        }
        news
    }

    fn take_in(&mut self, put: &Put, revision: Revision, news: &mut News) {
        if let Put::Decided(change) = put {
            news.decided = true;
            let key = change.key();
            match self.own.get(&key) {
                Some(own) if *own > revision => return,
                Some(own) if *own == revision => {
                    self.own.remove(&key);
                }
                _ => {}
            }
        } else {
            news.said = true;
        }
        self.contents.apply(put, revision);
    }

    /// Whether what was read is the store that this host knows.
    fn judge(&mut self, store: &Store, before: Option<Contents>, news: &mut News) {
        let Some(marker) = &mut self.marker else {
            return;
        };
        let verdict = match store.sabotage {
            Sabotage::Believes => Verdict::Believed,
            _ => marker.verdict(&self.contents, self.revision, store.etcd),
        };
        let Verdict::Doubted { lasts } = verdict else {
            let old = self.kept.take().map(|kept| *kept);
            (news.believes, news.doubts) = (news.believes || old.is_some(), false);
            // A store that was filled anew says nothing of those who are away: what they said last
            // holds.
            if let Some(before) = old.or(before) {
                for (node, facts) in before.facts {
                    self.contents.facts.entry(node).or_insert(facts);
                }
                for (node, report) in before.reports {
                    self.contents.reports.entry(node).or_insert(report);
                }
            }
            let decided = self.contents.decided;
            let adopted = verdict == Verdict::Adopted;
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
                doubt: false,
            };
            let unsaved = self.revision.saturating_sub(self.saved);
            if (Marker {
                revision: marker.revision,
                ..after.clone()
            }) != *marker
                || unsaved >= UNSAVED
            {
                self.saved = self.revision;
            }
            *marker = after;
            return;
        };
        marker.doubt |= lasts;
        if self.kept.is_none() {
            self.kept = Some(Box::new(before.unwrap_or_else(|| self.contents.clone())));
            (news.believes, news.doubts) = (false, true);
        }
    }

    /// What this host wrote itself it knows at once.
    pub(crate) fn wrote(&mut self, revision: Revision, epoch: Epoch, changes: &[Change]) {
        self.contents.epoch = epoch;
        for change in changes {
            self.own.insert(change.key(), revision);
            self.contents.decide(change, revision);
        }
    }
}
