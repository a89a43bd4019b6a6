//! A simulated etcd: one linear history of transactions, leases, an election key; a person may wipe
//! it, or put an older backup in its place.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use reconciler::{
    name::NodeName,
    state::{Change, ClusterState, NodeFacts, NodeReport, NotReady, Record, RecordKey},
};

use crate::clock::Time;

pub(crate) type Revision = u64;
/// Who led: incarnation of the store, and creation revision of the election key.
pub(crate) type Epoch = (u64, Revision);

/// What tests break on purpose to see that it is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sabotage {
    #[default]
    None,
    /// The leader's transactions do not compare the creation revision of its key.
    Unfenced,
    /// A stop record loses its way into the store: the pod is forgotten instead.
    ForgetStops,
    /// A leader calls every silent node lost at once, whoever else is silent.
    Hasty,
    /// A leader goes on from what it believes after a write whose outcome it does not know.
    NoRelist,
    /// Hosts take every commit for verified.
    Credulous,
    /// A leader makes anew elsewhere what wrote to the disk of a lost node.
    Uproots,
    /// A leader makes the next pods of a Deployment that recreates before the last are gone.
    Overlaps,
    /// A daemon that is killed has written nothing down of its pods.
    Forgets,
    /// Hosts believe whatever store there is.
    Believes,
    /// Nobody asks what runs after a store was adopted.
    NoStock,
}

/// How long a node's lease lasts, and the leader's.
pub(crate) const NODE_LEASE: Time = 5_000;
pub(crate) const LEADER_LEASE: Time = 3_000;
/// So many transactions stay readable for watchers that were away.
const KEPT: usize = 400;
/// So many backups are kept.
const BACKUPS: usize = 8;

/// One key's new value.
#[derive(Clone, Debug)]
pub(crate) enum Put {
    /// What the leader decided.
    Decided(Change),
    /// What a node says of itself once.
    Facts(NodeFacts),
    /// A node's lease is there.
    Present(NodeName, Presence),
    /// A node's lease is gone.
    Absent(NodeName),
    /// What a node says of its pods.
    Report(NodeName, Arc<NodeReport>),
    /// A node said that it comes back within so long.
    Away(NodeName, Option<Time>),
    /// Who leads, and the creation revision of its key.
    Leader(Option<(usize, Revision)>),
    /// Who led when something was last decided.
    Epoch(Epoch),
    /// How often a person has said that this store is to be believed.
    Identity(u64),
    /// Everything under the prefix is deleted.
    Wiped,
}

/// What a node says by being there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    /// Why it takes no pods.
    pub(crate) unready: Option<NotReady>,
    /// It does not believe this store.
    pub(crate) doubts: bool,
}

/// Everything under the prefix.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    /// How often a person has said that this store is to be believed; `None` where there is no
    /// cluster.
    pub(crate) identity: Option<u64>,
    /// Who led when something was last decided.
    pub(crate) epoch: Epoch,
    /// When the records that are always there were last written.
    pub(crate) decided: Revision,
    pub(crate) state: ClusterState,
    pub(crate) facts: BTreeMap<NodeName, NodeFacts>,
    pub(crate) present: BTreeMap<NodeName, Presence>,
    pub(crate) reports: BTreeMap<NodeName, NodeReport>,
    pub(crate) away: BTreeMap<NodeName, Time>,
    pub(crate) leader: Option<(usize, Revision)>,
}

impl Contents {
    pub(crate) fn apply(&mut self, put: &Put, revision: Revision) {
        match put {
            Put::Decided(change) => self.decide(change, revision),
            Put::Facts(facts) => {
                self.facts.insert(facts.name.clone(), facts.clone());
            }
            Put::Present(node, presence) => {
                self.present.insert(node.clone(), presence.clone());
            }
            Put::Absent(node) => {
                self.present.remove(node);
            }
            Put::Report(node, report) => {
                self.reports.insert(node.clone(), NodeReport::clone(report));
            }
            Put::Away(node, Some(within)) => {
                self.away.insert(node.clone(), *within);
            }
            Put::Away(node, None) => {
                self.away.remove(node);
            }
            Put::Leader(leader) => self.leader = *leader,
            Put::Epoch(epoch) => self.epoch = *epoch,
            Put::Identity(incarnation) => self.identity = Some(*incarnation),
            Put::Wiped => {
                // The cluster's id is on every host's disk.
                let state = ClusterState {
                    cluster: self.state.cluster.clone(),
                    ..ClusterState::default()
                };
                *self = Self {
                    state,
                    ..Self::default()
                };
            }
        }
    }

    pub(crate) fn decide(&mut self, change: &Change, revision: Revision) {
        if matches!(change.key(), RecordKey::Rollout | RecordKey::Serial) {
            self.decided = self.decided.max(revision);
        }
        self.state.apply(vec![change.clone()]);
    }

    /// Whether somebody who lives does not believe this store.
    pub(crate) fn is_doubted(&self) -> bool {
        self.present.values().any(|presence| presence.doubts)
    }
}

/// What became of a leader's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Done(Revision),
    /// The election key is not the writer's any more.
    Fenced,
}

/// The store.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) up: bool,
    pub(crate) revision: Revision,
    pub(crate) contents: Contents,
    pub(crate) sabotage: Sabotage,
    /// etcd's own id: another one where it was made anew from a backup.
    pub(crate) etcd: u64,
    /// Counts the backups that were put in place: every connection ends with that.
    pub(crate) life: u64,
    backups: VecDeque<(Revision, Contents)>,
    pub(crate) log: BTreeMap<Revision, Arc<Vec<Put>>>,
    /// When each node's lease ends.
    leases: BTreeMap<NodeName, Time>,
    leader_lease: Time,
    /// The number of the newest report of each node: an older one that comes late counts for
    /// nothing.
    reported: BTreeMap<NodeName, u64>,
}

impl Store {
    pub(crate) fn new(sabotage: Sabotage) -> Self {
        let state = ClusterState {
            cluster: "sim".to_owned(),
            ..ClusterState::default()
        };
        Self {
            up: true,
            revision: 1,
            contents: Contents {
                identity: Some(1),
                decided: 1,
                state,
                ..Contents::default()
            },
            sabotage,
            etcd: 1,
            life: 1,
            backups: VecDeque::new(),
            log: BTreeMap::new(),
            leases: BTreeMap::new(),
            leader_lease: 0,
            reported: BTreeMap::new(),
        }
    }

    pub(crate) fn write(&mut self, puts: Vec<Put>) -> Revision {
        self.revision += 1;
        for put in &puts {
            self.contents.apply(put, self.revision);
        }
        self.log.insert(self.revision, Arc::new(puts));
        if self.log.len() > KEPT {
            self.log.pop_first();
        }
        self.revision
    }

    /// A transaction of a leader: all of its changes, if its election key is still the one of its
    /// epoch.
    pub(crate) fn commit(&mut self, leader: usize, epoch: Epoch, changes: &[Change]) -> Written {
        let leads = self.contents.leader == Some((leader, epoch.1));
        if !leads && self.sabotage != Sabotage::Unfenced {
            return Written::Fenced;
        }
        let sabotage = self.sabotage;
        let puts = changes.iter().map(|change| match change {
            Change::Put(Record::Pod(record))
                if record.stop.is_some() && sabotage == Sabotage::ForgetStops =>
            {
                Put::Decided(Change::Delete(RecordKey::Pod(record.uid.clone())))
            }
            change => Put::Decided(change.clone()),
        });
        let begins = (self.contents.epoch != epoch).then_some(Put::Epoch(epoch));
        Written::Done(self.write(begins.into_iter().chain(puts).collect()))
    }

    /// Leases that have run out take their keys along; true if one has.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<String> {
        if !self.up {
            return Vec::new();
        }
        let mut ended = Vec::new();
        let gone: Vec<NodeName> = self
            .leases
            .iter()
            .filter(|(_, ends)| **ends <= now)
            .map(|(node, _)| node.clone())
            .collect();
        for node in gone {
            self.leases.remove(&node);
            ended.push(format!("the lease of {node} ends"));
            self.write(vec![Put::Absent(node)]);
        }
        if self.contents.leader.is_some() && self.leader_lease <= now {
            ended.push("the leader's lease ends".to_owned());
            self.write(vec![Put::Leader(None)]);
        }
        ended
    }

    /// When the next lease runs out.
    pub(crate) fn next_expiry(&self) -> Option<Time> {
        let leader = self.contents.leader.map(|_| self.leader_lease);
        self.leases
            .values()
            .copied()
            .chain(leader)
            .min()
            .filter(|_| self.up)
    }

    /// A node keeps its lease, or has a new one; true if something was written.
    pub(crate) fn keep_node(&mut self, node: &NodeName, presence: Presence, now: Time) -> bool {
        self.leases.insert(node.clone(), now + NODE_LEASE);
        let mut puts = Vec::new();
        if self.contents.present.get(node) != Some(&presence) {
            puts.push(Put::Present(node.clone(), presence));
        }
        if self.contents.away.contains_key(node) {
            puts.push(Put::Away(node.clone(), None));
        }
        let written = !puts.is_empty();
        if written {
            self.write(puts);
        }
        written
    }

    pub(crate) fn facts(&mut self, facts: &NodeFacts) {
        if self.contents.facts.get(&facts.name) != Some(facts) {
            self.write(vec![Put::Facts(facts.clone())]);
        }
    }

    /// A daemon that stops in order gives its lease back and says when it will be here again.
    pub(crate) fn leave(&mut self, node: &NodeName, within: Option<Time>) {
        self.leases.remove(node);
        let away = within.map(|within| Put::Away(node.clone(), Some(within)));
        self.write(
            away.into_iter()
                .chain([Put::Absent(node.clone())])
                .collect(),
        );
    }

    /// The leader's lease, if the key is still its own.
    pub(crate) fn keep_leader(&mut self, leader: usize, epoch: Revision, now: Time) -> bool {
        let own = self.contents.leader == Some((leader, epoch));
        if own {
            self.leader_lease = now + LEADER_LEASE;
        }
        own
    }

    /// Whoever comes first when nobody leads.
    pub(crate) fn campaign(&mut self, host: usize, now: Time) -> Option<Revision> {
        if self.contents.leader.is_some() {
            return None;
        }
        let epoch = self.revision + 1;
        self.leader_lease = now + LEADER_LEASE;
        self.write(vec![Put::Leader(Some((host, epoch)))]);
        Some(epoch)
    }

    pub(crate) fn resign(&mut self, leader: usize, epoch: Revision) {
        if self.contents.leader == Some((leader, epoch)) {
            self.write(vec![Put::Leader(None)]);
        }
    }

    pub(crate) fn report(
        &mut self,
        node: &NodeName,
        number: u64,
        report: &Arc<NodeReport>,
    ) -> bool {
        let newest = self.reported.entry(node.clone()).or_default();
        if number < *newest {
            return false;
        }
        *newest = number;
        if self.contents.reports.get(node) == Some(report) {
            return false;
        }
        self.write(vec![Put::Report(node.clone(), Arc::clone(report))]);
        true
    }

    /// A store that has a quorum again gives every lease its whole time, as etcd does.
    pub(crate) fn come_back(&mut self, now: Time) {
        self.up = true;
        for ends in self.leases.values_mut() {
            *ends = now + NODE_LEASE;
        }
        self.leader_lease = now + LEADER_LEASE;
    }

    pub(crate) fn compact(&mut self) {
        self.log.clear();
    }

    /// Somebody keeps a copy of everything.
    pub(crate) fn back_up(&mut self) {
        if self.backups.len() == BACKUPS {
            self.backups.pop_front();
        }
        self.backups
            .push_back((self.revision, self.contents.clone()));
    }

    /// How many backups there are.
    pub(crate) fn backups(&self) -> usize {
        self.backups.len()
    }

    /// A backup takes the store's place: revisions go on from there, leases that were in it have
    /// their whole time, and all history is gone.
    pub(crate) fn restore(&mut self, backup: usize, same_etcd: bool, now: Time) {
        let Some((revision, contents)) = self.backups.get(backup).cloned() else {
            return;
        };
        self.backups.truncate(backup + 1);
        (self.revision, self.contents) = (revision, contents);
        self.log.clear();
        self.life += 1;
        self.etcd += u64::from(!same_etcd);
        self.leases = self
            .contents
            .present
            .keys()
            .map(|node| (node.clone(), now))
            .collect();
        self.come_back(now);
    }
}
