//! The store is lost: a person wipes it, or puts an older backup in its place. Hosts that know
//! better freeze, and a person chooses the host whose copy becomes the store's content.

use std::{cmp::Reverse, collections::BTreeSet};

use reconciler::state::{Change, ClusterState, Record, RecordKey};

use crate::{
    clock::Time,
    faults::{Fault, FaultTarget},
    store::{Put, Sabotage},
    view::ReadResult,
    world::{Event, World},
};

impl World {
    pub(crate) fn wipe(&mut self) {
        if self.store.up && self.store.contents.identity.is_some() {
            self.store.write(vec![Put::Wiped]);
            self.leases_changed();
            self.after_write();
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

    /// `long`: the store was down so long that the leader noticed, and reads everything before it
    /// decides.
    pub(crate) fn restored(&mut self, long: bool) {
        if !std::mem::take(&mut self.restoring) {
            return;
        }
        let lost = self.store.contents.clone();
        let backup = self.random.index(self.store.backups());
        let same_etcd = self.random.percent(70);
        self.store.restore(backup, same_etcd, self.now);
        self.was_restored(&lost);
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

    /// Handles what a read of the store showed: whether the host trusts the store, and whether it
    /// must publish its reports again.
    pub(crate) fn handle_read(&mut self, index: usize, result: ReadResult) {
        let host = &self.hosts[index];
        let (name, generation, facts) = (host.name.clone(), host.generation, host.facts.clone());
        if result.distrusts {
            self.note(|| format!("{name} does not trust the store any more"));
            self.resign(index);
            self.alert_person();
        }
        if result.trusts {
            self.note(|| format!("{name} trusts the store again"));
        }
        if result.distrusts || result.trusts {
            self.publish_presence(index);
            self.leases_changed();
            self.after_write();
        }
        let host = &mut self.hosts[index];
        if (result.listed || result.trusts) && host.view.trusts() {
            // What the host published may have been lost with the store's content of before: the
            // host publishes it again.
            if let Some(daemon) = &mut host.daemon {
                daemon.sent_report = None;
            }
            let before = self.store.revision;
            self.store.facts(&facts);
            if self.store.revision != before {
                self.after_write();
            }
            self.after(1, Event::Send(index, generation));
            self.cycle_after(index, 1);
        }
    }

    /// A person is alerted and adopts a copy after a while.
    pub(crate) fn alert_person(&mut self) {
        if !std::mem::replace(&mut self.adopting, true) {
            let wait = self.random.within(500, 40_000);
            self.after(wait, Event::Fault(Fault::Adopt));
        }
    }

    /// A host gives up the leadership, if it has it.
    pub(crate) fn resign(&mut self, index: usize) {
        let leading = self.hosts[index]
            .daemon
            .as_mut()
            .and_then(|daemon| daemon.leading.take());
        if let Some(leading) = leading
            && self.is_connected(index)
        {
            self.store.resign(index, leading.epoch);
            self.after_write();
        }
    }

    /// Whether a member that runs distrusts the store.
    pub(crate) fn is_frozen(&self) -> bool {
        let joined = self
            .hosts
            .iter()
            .filter(|host| host.view.marker.is_some() && !host.removed);
        joined
            .filter(|host| host.daemon.is_some())
            .any(|host| !host.view.trusts())
    }

    /// A person adopts the copy of the host that has the newest one; now and then that of another
    /// host.
    pub(crate) fn adopt(&mut self) {
        self.adopting = false;
        if !self.is_frozen() {
            return;
        }
        let mut hosts: Vec<usize> = (0..self.hosts.len())
            .filter(|index| {
                let host = &self.hosts[*index];
                let frozen = host.view.marker.is_some() && !host.view.trusts();
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
            // The copy of a host that was cut off is outdated, and the person does not know that.
            _ => hosts.len().saturating_sub(1),
        };
        if let Some(host) = hosts.get(chosen) {
            self.adopt_copy_of(*host);
        }
        // The person comes back for hosts that are still frozen, or that could not be reached.
        self.adopting = true;
        self.after(5_000, Event::Fault(Fault::Adopt));
    }

    /// Makes one host's copy the store's content. The incarnation is written last: a host that
    /// reads it reads the rest too. It also ends the term of the leader by the store of before.
    pub(crate) fn adopt_copy_of(&mut self, index: usize) {
        let host = &self.hosts[index];
        let (view, name) = (&host.view, host.name.clone());
        let copy = view.trusted().state.clone();
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
        let at_once = match self.changes_per_write {
            Some(part) => part,
            None if self.random.percent(70) => puts.len(),
            None => 1 + self.random.index(puts.len()),
        };
        let last = puts.split_off(puts.len() - 3);
        let lost = self.store.contents.clone();
        for part in puts.chunks(at_once) {
            self.store.write(part.to_vec());
            self.after_write();
            if self.crashes_here(index, || "has written a part of its copy".to_owned()) {
                return;
            }
        }
        self.store.write(last);
        self.was_adopted(&lost);
        self.leases_changed();
        self.after_write();
        self.crashes_here(index, || "has adopted the store".to_owned());
    }
}

impl World {
    /// Puts a loss of the store into the queue, about at the time `at`: one host is cut off from
    /// the store for a while before, and commits are pushed meanwhile, so that its copy is
    /// outdated.
    pub(crate) fn lose_store(&mut self, at: Time, hosts: usize) {
        let host = FaultTarget::Number(self.random.index(hosts));
        let lag = self.random.within(8_000, 50_000);
        let peers = self.random.percent(30);
        let extra = self.random.within(0, 6_000);
        let cut_at = at.saturating_sub(lag);
        self.at(
            cut_at,
            Event::Fault(Fault::Cut {
                host,
                store: true,
                peers,
                long: lag + extra,
            }),
        );
        for _ in 0..self.random.within(1, 4) {
            let then = self.random.within(cut_at, at);
            let good = self.random.percent(80);
            self.at(then, Event::Fault(Fault::Push { good }));
        }
        let backup = self.random.within(cut_at.saturating_sub(10_000), at);
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

/// The writes that replace the records in the store with those of a copy.
fn records(stored: &ClusterState, copy: &ClusterState) -> Vec<Put> {
    let records = copy.records();
    let kept: BTreeSet<RecordKey> = records.iter().map(Record::key).collect();
    let stored_records = stored.records();
    let stored_records = stored_records.iter().map(Record::key);

    stored_records
        .filter(|key| !kept.contains(key))
        .map(Change::Delete)
        .chain(records.into_iter().map(Change::Put))
        .map(Put::Decided)
        .collect()
}
