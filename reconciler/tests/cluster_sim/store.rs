//! A simulated etcd: one linear history of transactions, leases and an election key. A person may
//! wipe it, or replace its content by an older backup.

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
/// The term of a leader: the incarnation of the store, and the creation revision of the election
/// key.
pub(crate) type Epoch = (u64, Revision);

/// A defect that a test adds, to check that the referee detects it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sabotage {
    #[default]
    None,
    /// Transactions of a leader do not depend on the creation revision of its election key.
    Unfenced,
    /// A stop record is lost: the record of the pod is deleted instead.
    LosesStops,
    /// A leader gives up each silent node at once, even if most nodes are silent.
    GivesUpAtOnce,
    /// A leader does not read the store again after a write of unknown outcome.
    NoRelist,
    /// Hosts take every commit for verified.
    SkipsVerification,
    /// A leader replaces pods that wrote to the disk of a lost node.
    IgnoresDisks,
    /// A leader makes the new pods of a Deployment with `strategy: Recreate` before the old ones
    /// are gone.
    RecreateOverlaps,
    /// A killed daemon has not saved the memory of its pods.
    ForgetsMemory,
    /// Hosts trust every store.
    TrustsEveryStore,
    /// After an adoption the leader decides before it has the reports of all nodes.
    NoStock,
}

/// How long the lease of a node lasts, and that of the leader.
pub(crate) const NODE_LEASE: Time = 5_000;
pub(crate) const LEADER_LEASE: Time = 3_000;
/// How many transactions are kept for watchers that were away.
const MAX_LOG: usize = 400;
/// How many backups are kept.
const MAX_BACKUPS: usize = 8;

/// The new value of one key.
#[derive(Clone, Debug)]
pub(crate) enum Put {
    /// A decision of the leader.
    Decided(Change),
    /// The facts of a node.
    Facts(NodeFacts),
    /// The lease of a node exists.
    Present(NodeName, Presence),
    /// The lease of a node has ended.
    Absent(NodeName),
    /// A report of a node.
    Report(NodeName, Arc<NodeReport>),
    /// A node published within which time it will be back.
    Away(NodeName, Option<Time>),
    /// The leader, and the creation revision of its election key.
    Leader(Option<(usize, Revision)>),
    /// The term of the last decision.
    Epoch(Epoch),
    /// The incarnation of the store.
    Identity(u64),
    /// All keys under the prefix are deleted.
    Wiped,
}

/// What a node publishes with its lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    /// Why the node takes no pods, if it does not.
    pub(crate) unready: Option<NotReady>,
    /// Whether the node distrusts this store.
    pub(crate) distrusts: bool,
}

/// All keys under the prefix.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    /// The incarnation of the store; `None` if the store has no cluster.
    pub(crate) identity: Option<u64>,
    /// The term of the last decision.
    pub(crate) epoch: Epoch,
    /// The revision at which a record that every cluster has was last written.
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
                // The cluster's id is also on the disk of every host.
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

    /// Whether a live node distrusts this store.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.present.values().any(|presence| presence.distrusts)
    }
}

/// The outcome of a leader's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Done(Revision),
    /// Another leader has the election key.
    Fenced,
}

#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) up: bool,
    pub(crate) revision: Revision,
    pub(crate) contents: Contents,
    pub(crate) sabotage: Sabotage,
    /// The id of the etcd cluster; a backup may be restored into a new one.
    pub(crate) etcd: u64,
    /// Counts the restores: each of them ends every connection.
    pub(crate) life: u64,
    backups: VecDeque<(Revision, Contents)>,
    pub(crate) log: BTreeMap<Revision, Arc<Vec<Put>>>,
    /// When the lease of each node ends.
    leases: BTreeMap<NodeName, Time>,
    leader_lease: Time,
    /// The number of the newest report of each node: an older report that arrives later is dropped.
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
        if self.log.len() > MAX_LOG {
            self.log.pop_first();
        }
        self.revision
    }

    /// A transaction of a leader: all changes are written if the leader still has the election key
    /// of its epoch.
    pub(crate) fn commit(&mut self, leader: usize, epoch: Epoch, changes: &[Change]) -> Written {
        let leads = self.contents.leader == Some((leader, epoch.1));
        if !leads && self.sabotage != Sabotage::Unfenced {
            return Written::Fenced;
        }
        let sabotage = self.sabotage;
        let puts = changes.iter().map(|change| match change {
            Change::Put(Record::Pod(record))
                if record.stop.is_some() && sabotage == Sabotage::LosesStops =>
            {
                Put::Decided(Change::Delete(RecordKey::Pod(record.uid.clone())))
            }
            change => Put::Decided(change.clone()),
        });
        let begins = (self.contents.epoch != epoch).then_some(Put::Epoch(epoch));
        Written::Done(self.write(begins.into_iter().chain(puts).collect()))
    }

    /// Deletes the keys of expired leases. Returns which leases have ended.
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

    /// When the next lease expires.
    pub(crate) fn next_expiry(&self) -> Option<Time> {
        if !self.up {
            return None;
        }
        let leader = self.contents.leader.map(|_| self.leader_lease);
        self.leases.values().copied().chain(leader).min()
    }

    /// Renews the lease of a node, or makes a new one. Returns true if a key was written.
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

    /// A daemon that shuts down ends its lease and publishes within which time it will be back.
    pub(crate) fn leave(&mut self, node: &NodeName, within: Option<Time>) {
        self.leases.remove(node);
        let away = within.map(|within| Put::Away(node.clone(), Some(within)));
        self.write(
            away.into_iter()
                .chain([Put::Absent(node.clone())])
                .collect(),
        );
    }

    /// Renews the lease of a leader that still has the election key.
    pub(crate) fn keep_leader(&mut self, leader: usize, epoch: Revision, now: Time) -> bool {
        let own = self.contents.leader == Some((leader, epoch));
        if own {
            self.leader_lease = now + LEADER_LEASE;
        }
        own
    }

    /// Makes a host the leader if there is none.
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

    /// A store that has a quorum again extends every lease by its full time, as etcd does.
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

    /// A person keeps a copy of the store's content.
    pub(crate) fn back_up(&mut self) {
        if self.backups.len() == MAX_BACKUPS {
            self.backups.pop_front();
        }
        self.backups
            .push_back((self.revision, self.contents.clone()));
    }

    /// The number of backups.
    pub(crate) fn backups(&self) -> usize {
        self.backups.len()
    }

    /// Replaces the content by that of a backup: revisions continue from the backup's, leases in it
    /// get their full time, and the history of transactions is lost.
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
