//! The store of a cluster: etcd, and this host's copy of it on disk, which stays in force while
//! etcd does not answer.

mod doubt;
mod join;
mod last_write;
mod leadership;
mod marker;
mod others;
mod own_keys;
mod subnets;
mod versions;
mod writer;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use reconciler::{
    name::{Installation, NodeName},
    state::{ClusterState, NodeFacts, NodeReport},
};
use tokio::sync::{mpsc, watch};

use self::{
    join::Newcomer,
    last_write::LastWrite,
    leadership::Leadership,
    marker::{Marker, MarkerFile},
    others::{Absences, Others, OthersFile},
    own_keys::OwnKeys,
};
use super::{
    agreed::Agreed,
    contents::{Contents, Member},
    etcd::{Etcd, EtcdConfig, KeyChange, SessionConfig, StoreEvent, StoredValue},
    layout::{self, AliveDoc, AskDoc},
    local::LocalStore,
    presence::Presence,
};
use crate::state_file::StateFileError;

/// The time to live of a node's lease: without a renewal the node counts as gone after it.
pub(crate) const NODE_LEASE: Duration = Duration::from_secs(5);
/// The time to live of the leader's lease.
const LEADER_LEASE: Duration = Duration::from_secs(3);
/// For how long a host that cannot decide leaves leading to other hosts.
const WITHDRAWAL: Duration = Duration::from_secs(15);
/// For how long a host does not stand for election before it is elected anew: the election must
/// notice.
const RESPITE: Duration = Duration::from_secs(1);
/// The most unauthorized records that a message names.
const DISPUTED: usize = 3;

/// What a host needs to become a member of a cluster.
#[derive(Clone)]
pub(crate) struct Joining {
    /// How to reach etcd.
    pub(crate) etcd: EtcdConfig,
    /// The host's name.
    pub(crate) node: NodeName,
    /// The settings that all hosts must agree on, by this host's configuration.
    pub(crate) agreed: Agreed,
    /// The subnet in the configuration; `None` if it names none.
    pub(crate) subnet: Option<Ipv4Net>,
    /// The subnet of the time when the host was alone.
    pub(crate) subnet_alone: Ipv4Net,
    /// Networks that other hosts' addresses must lie in; an empty list allows any address.
    pub(crate) node_ranges: Vec<Ipv4Net>,
}

/// The state of this host's relation to the store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StoreStatus {
    /// This host's copy is up to date.
    Current,
    /// The store does not answer; the last known content stays in force.
    Lost {
        /// When the outage began.
        since: Timestamp,
        /// What failed, and what to do.
        why: String,
    },
    /// The store is not the one that this host knows: nothing of it is accepted.
    Frozen {
        /// When the doubt began.
        since: Timestamp,
        /// Why this host does not trust the store.
        why: String,
    },
    /// Another machine has this host's name.
    Conflict {
        /// Which machine, and what to do.
        why: String,
    },
}

/// The store of a cluster.
#[derive(Debug)]
pub(crate) struct ReplicatedStore {
    local: LocalStore,
    etcd: Etcd,
    presence: Presence,
    contents: Contents,
    marker: Marker,
    marker_file: MarkerFile,
    node: NodeName,
    agreed: Agreed,
    node_ranges: Vec<Ipv4Net>,
    status: StoreStatus,
    leadership: Leadership,
    last_write: LastWrite,
    own_keys: OwnKeys,
    others: Others,
    others_file: OthersFile,
    /// Whether the content has changed since the last [`ReplicatedStore::take_over`].
    changed: bool,
    /// Whether the decisions are on this host's disk.
    copied: bool,
    absences: Absences,
    /// Etcd's own id of its cluster, from the last list.
    listed: Option<u64>,
    /// Which other machine has this host's name; `None` if none has.
    name_taken: Option<String>,
}

/// What this host publishes while its lease holds, by what it remembers of the store.
fn alive_doc(local: &LocalStore, marker: Option<&Marker>) -> AliveDoc {
    AliveDoc {
        installation: local.installation().clone(),
        cluster: marker.map(|marker| marker.cluster.clone()),
        doubts: marker.is_some_and(|marker| marker.doubt.is_some()),
        hangs: false,
    }
}

impl ReplicatedStore {
    /// Opens the store. A host that was in this cluster before starts without etcd; a new host
    /// waits for etcd and reports what it waits for.
    pub(crate) async fn open(
        data: &Path,
        joining: Joining,
        waiting: &watch::Sender<String>,
    ) -> Result<(Self, mpsc::UnboundedReceiver<StoreEvent>)> {
        let local = LocalStore::open(data, &joining.node)?;
        let (marker_file, marker) = MarkerFile::open(data)?;
        let alive = alive_doc(&local, marker.as_ref());
        let session = SessionConfig {
            node: joining.node.clone(),
            alive: layout::text(&alive),
            installation: local.installation().clone(),
            // A new host is a candidate only once it has joined.
            candidate: marker.is_some(),
            node_ttl: NODE_LEASE,
            leader_ttl: LEADER_LEASE,
        };
        let (etcd, mut events) = Etcd::start(joining.etcd.clone(), session)?;
        let presence = Presence::new(etcd.clone(), alive);

        let mut contents = Contents::default();
        let (marker, status) = match marker {
            Some(marker) => {
                let since = Timestamp::now();
                // A record that this version cannot read keeps its former content.
                contents.remember(layout::records(local.snapshot()));
                (
                    marker,
                    StoreStatus::Lost {
                        since,
                        why: "it has not answered since this daemon's start".to_owned(),
                    },
                )
            }
            None => {
                let newcomer =
                    Newcomer::new(&etcd, &mut events, &mut contents, &local, &joining, waiting);
                let marker = newcomer.join().await?;
                etcd.set_candidate(true);
                presence.belongs(&marker.cluster, false);
                (marker, StoreStatus::Current)
            }
        };
        let own_keys = OwnKeys::new(joining.node.clone(), etcd.clone());
        let mut store = Self {
            local,
            etcd,
            presence,
            contents,
            marker,
            marker_file,
            node: joining.node,
            agreed: joining.agreed,
            node_ranges: joining.node_ranges,
            status,
            leadership: Leadership::default(),
            last_write: LastWrite::default(),
            own_keys,
            others: Others::default(),
            others_file: OthersFile::open(data)?,
            changed: true,
            copied: true,
            absences: Absences::new(Instant::now()),
            listed: None,
            name_taken: None,
        };
        store.recall();
        if store.status == StoreStatus::Current {
            store.republish();
            store.take_over()?;
        }
        store.save()?;
        Ok((store, events))
    }

    /// The link to etcd.
    pub(crate) fn etcd(&self) -> Etcd {
        self.etcd.clone()
    }

    /// What other hosts see of this host while its lease holds.
    pub(crate) fn presence(&self) -> Presence {
        self.presence.clone()
    }

    /// The subnet of this host's pods.
    pub(crate) fn subnet(&self) -> Ipv4Net {
        self.marker.subnet
    }

    /// What is decided, as far as this host knows.
    pub(crate) fn snapshot(&self) -> &ClusterState {
        self.local.snapshot()
    }

    /// The id of this installation, which its containers carry as a label.
    pub(crate) fn installation(&self) -> &Installation {
        self.local.installation()
    }

    /// When this installation was made; `None` if its version did not record that.
    pub(crate) fn installed(&self) -> Option<Timestamp> {
        self.local.installed()
    }

    /// The state of this host's relation to the store.
    pub(crate) fn status(&self) -> &StoreStatus {
        &self.status
    }

    /// The facts of the other hosts.
    pub(crate) fn peers(&self) -> &BTreeMap<NodeName, NodeFacts> {
        &self.others.facts
    }

    /// The reports of the other hosts.
    pub(crate) fn reports(&self) -> &BTreeMap<NodeName, NodeReport> {
        &self.others.reports
    }

    /// All members that the store knows and that were not removed.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&NodeName, &Member)> {
        self.contents
            .members
            .iter()
            .filter(|(name, member)| !self.is_removed(name, member))
    }

    fn is_removed(&self, name: &NodeName, member: &Member) -> bool {
        let facts = member
            .facts
            .as_ref()
            .map(|doc| &doc.facts)
            .or_else(|| self.others.facts.get(name));
        let installation = facts.map(|facts| &facts.installation);
        self.snapshot()
            .removed
            .get(name)
            .is_some_and(|removed| installation == Some(removed))
    }

    /// Whether this host was removed from the cluster.
    pub(crate) fn was_removed(&self) -> bool {
        self.snapshot()
            .removed
            .get(&self.node)
            .is_some_and(|removed| removed == self.local.installation())
    }

    /// The cluster's id.
    pub(crate) fn cluster(&self) -> &str {
        &self.marker.cluster
    }

    /// The leader, as far as this host knows; `None` while this host does not follow the store.
    pub(crate) fn leader(&self) -> Option<&NodeName> {
        if self.status != StoreStatus::Current {
            return None;
        }
        // Etcd's election: the candidate whose key was created first leads.
        let oldest = self.contents.candidates.values().min();
        oldest.map(|(_, name)| name)
    }

    /// Whether this host may decide now.
    pub(crate) fn leads(&self) -> bool {
        self.status == StoreStatus::Current && self.copied && self.leadership.leads(Instant::now())
    }

    /// Whether this host's election still holds, whatever else prevents a decision.
    pub(crate) fn is_in_office(&self) -> bool {
        self.leadership.is_in_office(Instant::now())
    }

    /// For how long this host has led without an interruption, and without so many silent nodes
    /// that their silence does not count.
    pub(crate) fn led_for(&self) -> Duration {
        self.leadership.led_for(Instant::now())
    }

    /// Notes that too many nodes are silent for any of them to be given up. Nodes that recover come
    /// back one by one: each has the time that a new leader grants.
    pub(crate) fn braked(&mut self) {
        self.leadership.brake(Instant::now());
    }

    /// Handles an event of etcd.
    pub(crate) fn event(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Listed {
                etcd_cluster,
                revision,
                asked,
                pairs,
            } => self.take_list(etcd_cluster, revision, asked, pairs),
            StoreEvent::Changed { revision, changes } => self.take_changes(revision, changes),
            StoreEvent::Lost { why } => self.note_lost(why),
            StoreEvent::Resumed => {
                self.judge();
                // A leader decides only by content that it has read again: changes made during the
                // outage arrive only later.
                if self.leadership.is_elected() {
                    self.leadership.catch_up(self.etcd.relist());
                }
            }
            StoreEvent::Elected(fence) => {
                tracing::info!(epoch = fence.revision, "this host leads");
                self.leadership
                    .elected(fence, self.etcd.relist(), Instant::now());
            }
            StoreEvent::Demoted { why } => {
                tracing::info!("this host leads no more: {why}");
                self.leadership.demoted();
                // The next leader judges the records that this host would have written again.
                self.contents.forget_missing();
            }
            StoreEvent::Conflict { why } => {
                self.name_taken = Some(why.clone());
                if !matches!(self.status, StoreStatus::Frozen { .. }) {
                    self.status = StoreStatus::Conflict { why };
                    self.follow_nobody();
                }
            }
            StoreEvent::Named => {
                self.name_taken = None;
                self.etcd.relist();
            }
        }
    }

    fn take_list(&mut self, etcd_cluster: u64, revision: i64, asked: u64, pairs: Vec<StoredValue>) {
        if self.last_write.is_missing_in(revision, asked) {
            self.leadership.distrust();
            self.last_write.recheck(|| self.etcd.relist());
            return;
        }

        self.last_write.listed();
        self.contents.list(revision, pairs);
        self.changed = true;
        self.listed = Some(etcd_cluster);
        self.judge();
        if self.status == StoreStatus::Current {
            self.leadership.listed(asked);
            self.republish();
        }
    }

    fn take_changes(&mut self, revision: i64, changes: Vec<KeyChange>) {
        let leading = self.leads();
        self.contents.change(revision, changes, leading);
        self.changed = true;
        // A large clock difference must be reported on the host whose clock is wrong, too.
        if self.contents.take_strange() {
            self.own_keys.publish_clock();
        }

        let was_current = self.status == StoreStatus::Current;
        self.judge();
        if !was_current && self.status == StoreStatus::Current {
            // This host's own keys may be gone with the store's former content.
            self.etcd.relist();
        }
    }

    fn note_lost(&mut self, why: String) {
        self.leadership.store_lost();
        match &mut self.status {
            // The identity of the store was in doubt before, and that is what a person must know.
            StoreStatus::Frozen { .. } | StoreStatus::Conflict { .. } => {}
            StoreStatus::Lost { why: before, .. } => *before = why,
            StoreStatus::Current => {
                self.status = StoreStatus::Lost {
                    since: Timestamp::now(),
                    why,
                }
            }
        }
    }

    /// Copies the store's decisions to this host's disk.
    pub(crate) fn take_over(&mut self) -> Result<(), StateFileError> {
        if self.status != StoreStatus::Current {
            return Ok(());
        }
        if !self.contents.take_decided() && self.copied {
            return Ok(());
        }
        let mut state = self.contents.state.clone();
        state.cluster.clone_from(&self.marker.cluster);
        let replaced = self.local.replace(state);
        // A host that cannot store new decisions must not decide by the old ones.
        if replaced.is_err() && self.copied {
            self.withdraw(WITHDRAWAL);
        }
        self.copied = replaced.is_ok();
        if self.copied {
            self.contents.settle();
        }
        replaced
    }

    /// Leaves leading to hosts that can write, then stands for election again behind them.
    pub(crate) fn step_aside(&mut self) {
        self.withdraw(WITHDRAWAL);
    }

    /// Leaves leading to other hosts for a while.
    fn withdraw(&mut self, time: Duration) {
        self.leadership.withdraw(time, Instant::now());
        self.etcd.set_candidate(false);
    }

    /// Stands for election, if this host may lead.
    fn stand(&mut self) {
        let may = self.status == StoreStatus::Current
            && self.copied
            && !self.is_withdrawn()
            && !self.was_removed()
            && self.newer_leader().is_none();
        self.etcd.set_candidate(may);
    }

    /// Whether this host leaves leading to others for now.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.leadership.is_withdrawn(Instant::now())
    }

    /// Writes to the disk what this host must remember of the store.
    pub(crate) fn save(&mut self) -> Result<(), StateFileError> {
        self.save_others()?;
        self.marker_file.save(&self.marker)
    }

    /// The message that another host has this host's subnet, if one has.
    pub(crate) fn subnet_trouble(&self) -> Option<String> {
        let holder = self.contents.subnets.get(&self.marker.subnet)?;
        let facts = self.contents.members.get(holder)?.facts.as_ref()?;
        (*holder != self.node && facts.facts.pod_subnet == self.marker.subnet).then(|| {
            format!(
                "pod subnet {} of this host is reserved for node {holder}: two hosts with one subnet cannot reach each \
                 other's pods; give one of them another `pod-subnet` in [network]",
                self.marker.subnet
            )
        })
    }

    /// Why the node's own keys could not be written; `None` if the last write succeeded.
    pub(crate) fn publish_trouble(&self) -> Option<String> {
        self.own_keys.trouble()
    }

    /// Records with content that no host may decide.
    pub(crate) fn disputed(&self) -> Vec<String> {
        if self.status != StoreStatus::Current {
            return Vec::new();
        }
        let moved = self.contents.moved().map(|(key, node, place)| {
            let place = place.node().map_or("no node".to_owned(), |node| format!("node {node}"));
            format!("key {key} of the store gives {place} to a pod of node {node}: the pod stays on node {node}")
        });
        let rewritten = self.marker.subnets.rewritten(&self.contents.subnets).map(|(subnet, node, other)| {
            let key = layout::subnet_key(subnet);
            format!(
                "key {key} of the store gives node {other} the addresses of node {node}: they stay with node {node}"
            )
        });
        moved
            .take(DISPUTED)
            .chain(rewritten.take(DISPUTED))
            .collect()
    }

    /// Passes on to the leader a request of a person on this host.
    pub(crate) fn ask(&mut self, ask: Option<AskDoc>) {
        self.own_keys.set_ask(ask);
    }

    /// The requests of nodes that the leader has not answered.
    pub(crate) fn asks(&self) -> Vec<(NodeName, AskDoc)> {
        let open = |name: &NodeName, ask: &AskDoc| {
            self.contents
                .answers
                .get(name)
                .is_none_or(|one| one.id != ask.id)
        };
        let asks = self
            .members()
            .filter_map(|(name, member)| Some((name.clone(), member.ask.clone()?)));
        asks.filter(|(name, ask)| open(name, ask)).collect()
    }

    /// The leader's answer to this host's question.
    pub(crate) fn answer_to(&self, id: &str) -> Option<Result<String, String>> {
        let answer = self
            .contents
            .answers
            .get(&self.node)
            .filter(|answer| answer.id == id)?;
        Some(answer.answer.clone())
    }
}
