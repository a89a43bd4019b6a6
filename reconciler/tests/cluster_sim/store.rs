//! A simulated etcd: one linear history of transactions, leases, an election key, watches that come late.

use std::{collections::BTreeMap, sync::Arc};

use reconciler::{
    name::NodeName,
    state::{Change, ClusterState, NodeFacts, NodeReport},
};

use crate::clock::Time;

pub(crate) type Revision = u64;

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
}

/// How long a node's lease lasts, and the leader's.
pub(crate) const NODE_LEASE: Time = 5_000;
pub(crate) const LEADER_LEASE: Time = 3_000;
/// So many transactions stay readable for watchers that were away.
const KEPT: usize = 400;

/// One key's new value.
#[derive(Clone, Debug)]
pub(crate) enum Put {
    /// What the leader decided.
    Decided(Change),
    /// What a node says of itself once.
    Facts(NodeFacts),
    /// A node's lease is there: whether it takes pods.
    Present(NodeName, Option<String>),
    /// A node's lease is gone.
    Absent(NodeName),
    /// What a node says of its pods.
    Report(NodeName, Arc<NodeReport>),
    /// A node said that it comes back within so long.
    Away(NodeName, Option<Time>),
    /// Who leads, and the creation revision of its key.
    Leader(Option<(usize, Revision)>),
}

/// Everything under the prefix.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) state: ClusterState,
    pub(crate) facts: BTreeMap<NodeName, NodeFacts>,
    pub(crate) present: BTreeMap<NodeName, Option<String>>,
    pub(crate) reports: BTreeMap<NodeName, NodeReport>,
    pub(crate) away: BTreeMap<NodeName, Time>,
    pub(crate) leader: Option<(usize, Revision)>,
}

impl Contents {
    fn apply(&mut self, put: &Put) {
        match put {
            Put::Decided(change) => self.state.apply(vec![change.clone()]),
            Put::Facts(facts) => {
                self.facts.insert(facts.name.clone(), facts.clone());
            }
            Put::Present(node, unready) => {
                self.present.insert(node.clone(), unready.clone());
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
        }
    }
}

/// The key a decision is written to.
fn key(change: &Change) -> String {
    match change {
        Change::Pod(record) => format!("pod/{}", record.uid),
        Change::Forget(uid) => format!("pod/{uid}"),
        Change::Rollout(_) => "rollout".to_owned(),
        Change::Progress(owner, _) | Change::DropProgress(owner) => format!("progress/{owner}"),
        Change::Service(service, _) | Change::DropService(service) => format!("service/{service}"),
        Change::Serial(_) => "serial".to_owned(),
        Change::Out(node, _) | Change::Back(node) => format!("outage/{node}"),
        Change::Remove(node, _) | Change::Readmit(node) => format!("removed/{node}"),
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
    log: BTreeMap<Revision, Arc<Vec<Put>>>,
    /// When each node's lease ends.
    leases: BTreeMap<NodeName, Time>,
    leader_lease: Time,
    /// The number of the newest report of each node: an older one that comes late counts for nothing.
    reported: BTreeMap<NodeName, u64>,
}

impl Store {
    pub(crate) fn new(sabotage: Sabotage) -> Self {
        let state = ClusterState { cluster: "sim".to_owned(), ..ClusterState::default() };
        Self {
            up: true,
            revision: 1,
            contents: Contents { state, ..Contents::default() },
            sabotage,
            log: BTreeMap::new(),
            leases: BTreeMap::new(),
            leader_lease: 0,
            reported: BTreeMap::new(),
        }
    }

    fn write(&mut self, puts: Vec<Put>) -> Revision {
        self.revision += 1;
        for put in &puts {
            self.contents.apply(put);
        }
        self.log.insert(self.revision, Arc::new(puts));
        if self.log.len() > KEPT {
            self.log.pop_first();
        }
        self.revision
    }

    /// A transaction of a leader: all of its changes, if its election key is still the one of its epoch.
    pub(crate) fn commit(&mut self, epoch: Revision, changes: &[Change]) -> Written {
        let leads = self.contents.leader.is_some_and(|(_, created)| created == epoch);
        if !leads && self.sabotage != Sabotage::Unfenced {
            return Written::Fenced;
        }
        let sabotage = self.sabotage;
        let puts = changes.iter().map(|change| match change {
            Change::Pod(record) if record.stop.is_some() && sabotage == Sabotage::ForgetStops => {
                Put::Decided(Change::Forget(record.uid.clone()))
            }
            change => Put::Decided(change.clone()),
        });
        Written::Done(self.write(puts.collect()))
    }

    /// Leases that have run out take their keys along; true if one has.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<String> {
        if !self.up {
            return Vec::new();
        }
        let mut ended = Vec::new();
        let gone: Vec<NodeName> =
            self.leases.iter().filter(|(_, ends)| **ends <= now).map(|(node, _)| node.clone()).collect();
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
        self.leases.values().copied().chain(leader).min().filter(|_| self.up)
    }

    /// A node keeps its lease, or has a new one; true if something was written.
    pub(crate) fn keep_node(&mut self, node: &NodeName, unready: Option<&str>, now: Time) -> bool {
        self.leases.insert(node.clone(), now + NODE_LEASE);
        let unready = unready.map(ToOwned::to_owned);
        let mut puts = Vec::new();
        if self.contents.present.get(node) != Some(&unready) {
            puts.push(Put::Present(node.clone(), unready));
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
    pub(crate) fn leave(&mut self, node: &NodeName, within: Time) {
        self.leases.remove(node);
        self.write(vec![Put::Away(node.clone(), Some(within)), Put::Absent(node.clone())]);
    }

    /// The leader's lease, if the key is still its own.
    pub(crate) fn keep_leader(&mut self, epoch: Revision, now: Time) -> bool {
        let own = self.contents.leader.is_some_and(|(_, created)| created == epoch);
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

    pub(crate) fn resign(&mut self, epoch: Revision) {
        if self.contents.leader.is_some_and(|(_, created)| created == epoch) {
            self.write(vec![Put::Leader(None)]);
        }
    }

    pub(crate) fn report(&mut self, node: &NodeName, number: u64, report: &Arc<NodeReport>) -> bool {
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
}

/// What one host knows of the store; kept on its disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) revision: Revision,
    pub(crate) contents: Contents,
    /// Keys that this host has written itself, with the revision: what a watch brings later is older.
    own: BTreeMap<String, Revision>,
}

/// What a look at the store brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Something decided.
    pub(crate) decided: bool,
    /// Something that nodes say, or their leases.
    pub(crate) said: bool,
}

impl View {
    pub(crate) fn relist(&mut self, store: &Store) {
        *self = Self { revision: store.revision, contents: store.contents.clone(), own: BTreeMap::new() };
    }

    /// All that has happened since, up to a revision; a list of everything where that is not kept any more.
    pub(crate) fn follow(&mut self, store: &Store, up_to: Revision) -> News {
        let mut news = News::default();
        if self.revision >= store.revision {
            return news;
        }
        let kept = store.log.first_key_value().is_some_and(|(first, _)| *first <= self.revision + 1);
        if !kept {
            self.relist(store);
            return News { decided: true, said: true };
        }
        for (revision, puts) in store.log.range(self.revision + 1..=up_to) {
            for put in puts.iter() {
                match put {
                    Put::Decided(change) => {
                        news.decided = true;
                        let key = key(change);
                        match self.own.get(&key) {
                            Some(own) if own > revision => continue,
                            Some(own) if own == revision => {
                                self.own.remove(&key);
                            }
                            _ => {}
                        }
                    }
                    _ => news.said = true,
                }
                self.contents.apply(put);
            }
            self.revision = *revision;
        }
        news
    }

    /// What this host wrote itself it knows at once.
    pub(crate) fn wrote(&mut self, revision: Revision, changes: &[Change]) {
        for change in changes {
            self.own.insert(key(change), revision);
        }
        self.contents.state.apply(changes.to_vec());
    }
}
