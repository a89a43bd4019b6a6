//! The store is lost: somebody wipes it, or puts an older backup in its place. Hosts freeze, and a
//! person says which host's copy is to be believed from then on.

use std::{cmp::Reverse, collections::BTreeSet};

use reconciler::state::{Change, ClusterState, Record, RecordKey};

use crate::{
    clock::Time,
    faults::{Fault, Whom},
    store::{Put, Sabotage},
    view::News,
    world::{Event, World},
};

impl World {
    pub(crate) fn wipe(&mut self) {
        if self.store.up && self.store.contents.identity.is_some() {
            self.store.write(vec![Put::Wiped]);
            self.leases_changed();
            self.written();
        }
    }

    pub(crate) fn restore(&mut self, down: Time) {
        if self.store.up && self.store.backups() > 0 {
            self.store.up = false;
            self.restoring = true;
            self.after(
                down,
                Event::Fault(Fault::Restored {
                    long: down >= 2_000,
                }),
            );
        }
    }

    /// `long`: for so long that whoever led has noticed, and reads everything before he decides
    /// anything.
    pub(crate) fn restored(&mut self, long: bool) {
        if !std::mem::take(&mut self.restoring) {
            return;
        }
        let lost = self.store.contents.clone();
        let backup = self.random.index(self.store.backups());
        let same_etcd = self.random.percent(70);
        self.store.restore(backup, same_etcd, self.now);
        self.went_back(&lost);
        let daemons = self
            .hosts
            .iter_mut()
            .filter_map(|host| host.daemon.as_mut());
        for leading in daemons.filter_map(|daemon| daemon.leading.as_mut()) {
            leading.must_relist |= long;
        }
        let revision = self.store.revision;
        self.note(|| {
            format!("the store is as it was at revision {revision}, same etcd: {same_etcd}")
        });
        self.leases_changed();
        self.store_answers();
    }

    /// What reading the store brought, beyond what is looked at anyway.
    pub(crate) fn take_news(&mut self, index: usize, news: News) {
        let host = &self.hosts[index];
        let (name, generation, facts) = (host.name.clone(), host.generation, host.facts.clone());
        if news.doubts {
            self.note(|| format!("{name} does not believe the store"));
            self.resign(index);
            self.call_for_adoption();
        }
        if news.believes {
            self.note(|| format!("{name} believes the store again"));
        }
        if news.doubts || news.believes {
            self.tell_alive(index);
            self.leases_changed();
            self.written();
        }
        let host = &mut self.hosts[index];
        if (news.listed || news.believes) && host.view.believes() {
            // What it says of itself may be gone with the store of before.
            if let Some(daemon) = &mut host.daemon {
                daemon.told = None;
            }
            let before = self.store.revision;
            self.store.facts(&facts);
            if self.store.revision != before {
                self.written();
            }
            self.after(1, Event::Send(index, generation));
            self.look_after(index, 1);
        }
    }

    /// A person hears of it.
    pub(crate) fn call_for_adoption(&mut self) {
        if !std::mem::replace(&mut self.adopting, true) {
            let wait = self.random.within(500, 40_000);
            self.after(wait, Event::Fault(Fault::Adopt));
        }
    }

    /// A host stands for leader no more.
    pub(crate) fn resign(&mut self, index: usize) {
        let leading = self.hosts[index]
            .daemon
            .as_mut()
            .and_then(|daemon| daemon.leading.take());
        if let Some(leading) = leading
            && self.is_connected(index)
        {
            self.store.resign(index, leading.epoch);
            self.written();
        }
    }

    /// Whether some host that runs does not believe the store.
    pub(crate) fn is_frozen(&self) -> bool {
        let joined = self
            .hosts
            .iter()
            .filter(|host| host.view.marker.is_some() && !host.removed);
        joined
            .filter(|host| host.daemon.is_some())
            .any(|host| !host.view.believes())
    }

    /// A person looks for the host that knows most, and adopts the store there; now and then on
    /// another one.
    pub(crate) fn adopt(&mut self) {
        self.adopting = false;
        if !self.is_frozen() {
            return;
        }
        let mut hosts: Vec<usize> = (0..self.hosts.len())
            .filter(|index| {
                let host = &self.hosts[*index];
                let frozen = host.view.marker.is_some() && !host.view.believes();
                frozen
                    && host.is_awake()
                    && self.is_connected(*index)
                    && host.view.reads(&self.store)
            })
            .collect();
        hosts.sort_by_key(|index| {
            let marker = self.hosts[*index].view.marker.as_ref();
            Reverse(marker.map(|marker| (marker.incarnation, marker.decided, marker.revision)))
        });
        let chosen = match self.random.within(0, 10) {
            0..5 if self.store.sabotage != Sabotage::NoStock => 0,
            5..7 => self.random.index(hosts.len()),
            // Whoever was cut off is behind, and the person does not know.
            _ => hosts.len().saturating_sub(1),
        };
        if let Some(host) = hosts.get(chosen) {
            self.adopt_on(*host);
        }
        // Who is frozen still, or was not to be reached, is asked for again.
        self.adopting = true;
        self.after(5_000, Event::Fault(Fault::Adopt));
    }

    /// Makes one host's copy the store's content. Whoever sees the incarnation, which is written
    /// last, finds the rest; and with it the term of whoever led by the store as it was is over.
    pub(crate) fn adopt_on(&mut self, index: usize) {
        let host = &self.hosts[index];
        let (view, name) = (&host.view, host.name.clone());
        let copy = view.believed().state.clone();
        let copy = match self.store.sabotage {
            Sabotage::NoStock => copy,
            _ => copy.adopted(host.wall(self.now)),
        };
        let known = view.contents.identity.unwrap_or_default();
        let incarnation = view
            .marker
            .as_ref()
            .map_or(0, |marker| marker.incarnation)
            .max(known)
            + 1;
        let mut puts = records(&view.contents.state, &copy);
        puts.extend([
            Put::Epoch((incarnation, 0)),
            Put::Leader(None),
            Put::Identity(incarnation),
        ]);
        self.note(|| {
            format!("{name} makes its copy the store's content, incarnation {incarnation}")
        });
        let at_once = match self.part {
            Some(part) => part,
            None if self.random.percent(70) => puts.len(),
            None => 1 + self.random.index(puts.len()),
        };
        let last = puts.split_off(puts.len() - 3);
        let lost = self.store.contents.clone();
        for part in puts.chunks(at_once) {
            self.store.write(part.to_vec());
            self.written();
            if self.is_cut(index, || "has written a part of its copy".to_owned()) {
                return;
            }
        }
        self.store.write(last);
        self.was_adopted(&lost);
        self.leases_changed();
        self.written();
        self.is_cut(index, || "has adopted the store".to_owned());
    }
}

impl World {
    /// The store is lost while one host has not heard of it for a while, and something was decided
    /// meanwhile. `at`: about when.
    pub(crate) fn lose_store(&mut self, at: Time, hosts: usize) {
        let host = Whom::Number(self.random.index(hosts));
        let lag = self.random.within(8_000, 50_000);
        let peers = self.random.percent(30);
        let back = self.random.within(0, 6_000);
        let cut = at.saturating_sub(lag);
        self.at(
            cut,
            Event::Fault(Fault::Cut {
                host,
                store: true,
                peers,
                long: lag + back,
            }),
        );
        for _ in 0..self.random.within(1, 4) {
            let then = self.random.within(cut, at);
            let good = self.random.percent(80);
            self.at(then, Event::Fault(Fault::Push { good }));
        }
        let backup = self.random.within(cut.saturating_sub(10_000), at);
        self.at(backup, Event::Fault(Fault::Backup));
        let down = self.random.within(100, 4_000);
        let lost = if self.random.percent(40) {
            Fault::Wipe
        } else {
            Fault::Restore(down)
        };
        self.at(at, Event::Fault(lost));
    }
}

/// The records of a copy, and the end of those that are there and not in it.
fn records(there: &ClusterState, copy: &ClusterState) -> Vec<Put> {
    let records = copy.records();
    let kept: BTreeSet<RecordKey> = records.iter().map(Record::key).collect();
    let stale = there.records();
    let stale = stale.iter().map(Record::key);

    stale
        .filter(|key| !kept.contains(key))
        .map(Change::Delete)
        .chain(records.into_iter().map(Change::Put))
        .map(Put::Decided)
        .collect()
}
