//! The store of a cluster: etcd, and this host's copy of it on disk, which goes on being believed while etcd is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use reconciler::{
    life::NodeSigns,
    name::NodeName,
    state::{Change, ClusterState, NodeFacts, NodeReport},
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{
    contents::{Contents, Member},
    etcd::{Created, Etcd, EtcdConfig, Event, Fence, SessionConfig, Write, WriteError, name_taken},
    layout::{
        self, AliveDoc, AnswerDoc, AskDoc, AwayDoc, DECIDED, Decided, Epoch, FactsDoc, IDENTITY, Identity,
        ReportDoc, SCHEMA, SEEDING,
    },
    local::{LocalStore, MARKER},
    publisher::Publisher,
};
use crate::state_file;

/// How long a node lives in the others' eyes without a word.
pub(crate) const NODE_LEASE: Duration = Duration::from_secs(5);
/// How long a leader leads without a word.
const LEADER_LEASE: Duration = Duration::from_secs(3);
/// How long a host that cannot decide leaves that to others.
const WITHDRAWAL: Duration = Duration::from_secs(15);
/// How long one stands aside that must be elected anew: long enough for the election to notice.
const RESPITE: Duration = Duration::from_secs(1);
/// A longer absence is not believed.
const LONGEST_AWAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What an MTU may be.
const MTUS: std::ops::RangeInclusive<u32> = 576..=65535;
/// How often, at most, etcd is asked who is late.
const LATE_PACE: Duration = Duration::from_millis(500);
/// From so many pods of other hosts on they are put on disk at a pace.
const MANY_PODS: usize = 500;
/// How often, at most, what the others say is put on disk. After a reboot without etcd it is what the services lead to.
const PEERS_PACE: Duration = Duration::from_secs(2);
/// How often a new host that must wait for the store says so.
const PATIENCE: Duration = Duration::from_secs(10);
const MARKER_SCHEMA: u32 = 1;

/// What a host brings to a cluster.
#[derive(Clone)]
pub(crate) struct Joining {
    /// How to reach etcd.
    pub(crate) etcd: EtcdConfig,
    /// The host's name.
    pub(crate) node: NodeName,
    /// What all hosts must agree on, by this host's configuration.
    pub(crate) agreed: Agreed,
    /// The subnet that the configuration names.
    pub(crate) subnet: Option<Ipv4Net>,
    /// The subnet it had as long as it was alone.
    pub(crate) subnet_alone: Ipv4Net,
    /// Networks that other hosts' addresses must lie in; none is any.
    pub(crate) node_ranges: Vec<Ipv4Net>,
}

/// What all hosts of a cluster must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// Addresses of all pods.
    pub(crate) pod_range: Ipv4Net,
    /// Length of each node's part of it.
    pub(crate) subnet_length: u8,
    /// Addresses of Services.
    pub(crate) service_range: Ipv4Net,
    /// The cluster's DNS.
    pub(crate) dns: std::net::Ipv4Addr,
    /// Its zone.
    pub(crate) zone: String,
}

/// `store.json`: what this host must not forget of the store, so that another one is not believed in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Marker {
    cluster: String,
    incarnation: u64,
    etcd_cluster: u64,
    revision: i64,
    epoch: Epoch,
    /// When the records that are always there were last changed.
    #[serde(default)]
    decided: i64,
    /// Why the store is not believed until a person says that it is to be, across restarts.
    #[serde(default)]
    doubt: Option<String>,
    subnet: Ipv4Net,
    /// What the other hosts said last.
    #[serde(default)]
    peers: BTreeMap<NodeName, Heard>,
}

/// What another host said last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Heard {
    facts: Option<FactsDoc>,
    report: NodeReport,
}

/// Why a store is not believed.
struct Doubt {
    why: String,
    /// Whether it holds, whatever the store looks like later, until a person adopts it.
    lasts: bool,
}

/// How this host stands with the store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing {
    /// What is known is what it says.
    Current,
    /// It does not answer; what was known last goes on.
    Lost {
        /// Since when.
        since: Timestamp,
        /// Why.
        why: String,
    },
    /// It is not the store this host knows: nothing of it is believed.
    Frozen {
        /// Since when.
        since: Timestamp,
        /// Why.
        why: String,
    },
    /// Another machine has this host's name.
    Conflict {
        /// Who.
        why: String,
    },
}

/// The store of a cluster.
#[derive(Debug)]
pub(crate) struct ReplicatedStore {
    local: LocalStore,
    etcd: Etcd,
    publisher: Publisher,
    contents: Contents,
    marker: Marker,
    marker_path: PathBuf,
    saved_marker: Option<Marker>,
    node: NodeName,
    agreed: Agreed,
    node_ranges: Vec<Ipv4Net>,
    standing: Standing,
    fence: Option<Fence>,
    /// Since when this host leads and the store answers it.
    led_since: Option<Instant>,
    /// When so many nodes were silent last that none was given up.
    braked: Option<Instant>,
    /// The first own list since the election was read: nothing of an earlier leader is missing.
    caught_up: bool,
    facts: Option<FactsDoc>,
    ask: Option<AskDoc>,
    others: Others,
    /// Only a list that was asked for at least so often counts as this leader's own.
    awaited: u64,
    /// What the store says has changed since it was last heard.
    changed: bool,
    /// What was decided is on this host's disk.
    copied: bool,
    /// This host leaves leading to others until then.
    withdrawn_until: Option<Instant>,
    /// Since when each lost node is known to be lost here.
    lost_since: BTreeMap<NodeName, Instant>,
    /// Who was late when etcd was asked last.
    late: Option<(Instant, BTreeSet<NodeName>)>,
    /// What the others say is newer than what is on disk.
    unsaved: bool,
    /// When what the others say was last put on disk.
    peers_saved: Option<Instant>,
    /// etcd's own id of its cluster, as it was last listed.
    listed: Option<u64>,
    /// Who else has this host's name.
    name_taken: Option<String>,
    started: Instant,
}

/// The other hosts, as the core wants them; made anew when something is heard.
#[derive(Debug, Default)]
struct Others {
    facts: BTreeMap<NodeName, NodeFacts>,
    reports: BTreeMap<NodeName, NodeReport>,
}

impl ReplicatedStore {
    /// Opens the store. A host that was in this cluster before starts without etcd; a new one waits for it.
    pub(crate) async fn open(
        data: &Path,
        joining: Joining,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>)> {
        let local = LocalStore::open(data, &joining.node)?;
        let marker_path = data.join(MARKER);
        let marker = state_file::read::<Marker>(&marker_path, MARKER_SCHEMA)?;
        let installation = local.installation().to_owned();
        let session = SessionConfig {
            node: joining.node.clone(),
            alive: layout::text(&AliveDoc { installation: installation.clone() }),
            installation,
            candidate: marker.is_some(),
            node_ttl: NODE_LEASE,
            leader_ttl: LEADER_LEASE,
        };
        let (etcd, mut events) = Etcd::start(joining.etcd.clone(), session)?;
        let mut contents = Contents::default();
        let (marker, standing) = match marker {
            Some(marker) => {
                let since = Timestamp::now();
                // A record that this version cannot read says what it said before.
                contents.remember(layout::records(local.snapshot()));
                (
                    marker,
                    Standing::Lost { since, why: "it has not answered since this daemon's start".to_owned() },
                )
            }
            None => {
                let etcd_cluster = next_list(&mut events, &mut contents, 0).await?;
                let marker = join(&etcd, &mut events, &mut contents, &local, &joining, etcd_cluster).await?;
                etcd.set_candidate(true);
                (marker, Standing::Current)
            }
        };
        let publisher = Publisher::start(etcd.clone());
        let mut store = Self {
            local,
            etcd,
            publisher,
            contents,
            marker,
            marker_path,
            saved_marker: None,
            node: joining.node,
            agreed: joining.agreed,
            node_ranges: joining.node_ranges,
            standing,
            fence: None,
            led_since: None,
            braked: None,
            caught_up: false,
            facts: None,
            ask: None,
            others: Others::default(),
            awaited: 0,
            changed: true,
            copied: true,
            withdrawn_until: None,
            lost_since: BTreeMap::new(),
            unsaved: false,
            peers_saved: None,
            late: None,
            listed: None,
            name_taken: None,
            started: Instant::now(),
        };
        store.recall();
        if store.standing == Standing::Current {
            store.republish();
            store.take_over()?;
        }
        store.save()?;
        Ok((store, events))
    }

    /// What the other hosts said last, from the disk.
    fn recall(&mut self) {
        for (node, heard) in &self.marker.peers {
            if let Some(doc) = &heard.facts {
                self.others.facts.insert(node.clone(), doc.facts.clone());
            }
            self.others.reports.insert(node.clone(), heard.report.clone());
            self.contents.expect(node.clone());
        }
    }

    /// The link to etcd.
    pub(crate) fn etcd(&self) -> Etcd {
        self.etcd.clone()
    }

    /// This host's part of the pods' addresses.
    pub(crate) fn subnet(&self) -> Ipv4Net {
        self.marker.subnet
    }

    /// What is decided, as far as this host knows.
    pub(crate) fn snapshot(&self) -> &ClusterState {
        self.local.snapshot()
    }

    /// Which installation this is.
    pub(crate) fn installation(&self) -> &str {
        self.local.installation()
    }

    /// How it stands with the store.
    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The other hosts.
    pub(crate) fn peers(&self) -> &BTreeMap<NodeName, NodeFacts> {
        &self.others.facts
    }

    /// What the other hosts say.
    pub(crate) fn reports(&self) -> &BTreeMap<NodeName, NodeReport> {
        &self.others.reports
    }

    /// All members that the store knows and that were not removed.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&NodeName, &Member)> {
        self.contents.members.iter().filter(|(name, member)| !self.is_removed(name, member))
    }

    fn is_removed(&self, name: &NodeName, member: &Member) -> bool {
        let installation = member.facts.as_ref().map(|doc| &doc.facts.installation);
        self.snapshot().removed.get(name).is_some_and(|removed| installation == Some(removed))
    }

    /// Whether this host was taken out of the cluster.
    pub(crate) fn was_removed(&self) -> bool {
        self.snapshot().removed.get(&self.node).is_some_and(|removed| removed == self.local.installation())
    }

    /// The cluster's id.
    pub(crate) fn cluster(&self) -> &str {
        &self.marker.cluster
    }

    /// Who leads, as far as is known here.
    pub(crate) fn leader(&self) -> Option<&NodeName> {
        self.contents
            .candidates
            .values()
            .min()
            .map(|(_, name)| name)
            .filter(|_| self.standing == Standing::Current)
    }

    /// Whether this host may decide now.
    pub(crate) fn leads(&self) -> bool {
        self.standing == Standing::Current
            && self.caught_up
            && self.copied
            && self.withdrawn_until.is_none_or(|until| until <= Instant::now())
            && self.fence.as_ref().is_some_and(Fence::holds)
    }

    /// For how long it has led without a break, and without so many silent nodes that it rather believed none of it.
    pub(crate) fn led_for(&self) -> Duration {
        let since = self.led_since.max(self.braked.filter(|_| self.led_since.is_some()));
        since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// So many nodes are silent that none is given up. Those that are well again come back one by one: each has the time
    /// that a new leader gives.
    pub(crate) fn braked(&mut self) {
        self.braked = Some(Instant::now());
    }

    /// What is heard of the other nodes, for the judgement of their lives.
    pub(crate) fn signs(&self) -> BTreeMap<NodeName, NodeSigns> {
        let outages = &self.snapshot().outages;
        let unheard = Member { silent: Some(self.started), ..Member::default() };
        self.others
            .facts
            .keys()
            .map(|name| {
                let member = self.contents.members.get(name).unwrap_or(&unheard);
                let silent_for = member.silent.map(|since| since.elapsed());
                let back_within = member.away.as_ref().map(|away| {
                    LONGEST_AWAY
                        .min(Duration::from_secs(away.seconds))
                        .saturating_sub(silent_for.unwrap_or_default())
                });
                let lost = outages.get(name).is_some_and(|outage| outage.lost);
                let lost_for = self.lost_since.get(name).filter(|_| lost).map(Instant::elapsed);
                let lost_for = lost_for.or_else(|| lost.then_some(Duration::ZERO));
                let signs = NodeSigns {
                    silent_for,
                    answers: None,
                    late: false,
                    back_within,
                    unready: member.report.unready.clone(),
                    lost_for,
                };
                (name.clone(), signs)
            })
            .collect()
    }

    /// Nodes that seem alive and did not renew their lease when they should have. Asked of etcd only while another node
    /// is about to be given up.
    pub(crate) async fn late(&mut self) -> BTreeSet<NodeName> {
        if let Some((asked, late)) = &self.late
            && asked.elapsed() < LATE_PACE
        {
            return late.clone();
        }
        let late = self.ask_who_is_late().await;
        self.late = Some((Instant::now(), late.clone()));
        late
    }

    async fn ask_who_is_late(&self) -> BTreeSet<NodeName> {
        let signs = self.signs();
        let parting = |signs: &NodeSigns| {
            signs.silent_for.is_some()
                && signs.lost_for.is_none()
                && signs.back_within.is_none_or(|within| within.is_zero())
        };
        if !signs.values().any(parting) {
            return BTreeSet::new();
        }
        let alive = signs.keys().filter(|name| signs[*name].silent_for.is_none());
        let keys: BTreeMap<String, &NodeName> =
            alive.map(|name| (layout::node_key(name, "alive"), name)).collect();
        let remaining = self.etcd.remaining(keys.keys().cloned().collect()).await;
        // A lease is renewed at a third of its time, so more than half of it is left to whoever lives.
        let late = remaining.into_iter().filter(|(_, left)| *left < NODE_LEASE / 2);
        late.filter_map(|(key, _)| keys.get(&key).map(|name| (*name).clone())).collect()
    }

    /// Takes in what etcd tells.
    pub(crate) fn event(&mut self, event: Event) {
        match event {
            Event::Listed { etcd_cluster, revision, asked, pairs } => {
                self.contents.list(revision, pairs);
                self.changed = true;
                self.listed = Some(etcd_cluster);
                self.judge();
                if self.standing == Standing::Current {
                    // A list that was begun before may lack what an earlier leader wrote last.
                    self.caught_up = self.fence.is_some() && asked >= self.awaited;
                    self.republish();
                }
            }
            Event::Changed { revision, changes } => {
                let leading = self.leads();
                self.contents.change(revision, changes, leading);
                self.changed = true;
                let believed = self.standing == Standing::Current;
                self.judge();
                if !believed && self.standing == Standing::Current {
                    // What this host says of itself may be gone with the store of before.
                    self.etcd.relist();
                }
            }
            Event::Lost { why } => {
                self.led_since = None;
                self.caught_up = false;
                match &mut self.standing {
                    // Who this store is was in doubt before, and that is what a person must know.
                    Standing::Frozen { .. } | Standing::Conflict { .. } => {}
                    Standing::Lost { why: before, .. } => *before = why,
                    Standing::Current => self.standing = Standing::Lost { since: Timestamp::now(), why },
                }
            }
            Event::Elected(fence) => {
                tracing::info!(epoch = fence.revision, "this host leads");
                self.fence = Some(fence);
                self.led_since = Some(Instant::now());
                self.caught_up = false;
                // What an earlier leader wrote last may still be on its way.
                self.awaited = self.etcd.relist();
            }
            Event::Demoted { why } => {
                tracing::info!("this host leads no more: {why}");
                self.fence = None;
                self.led_since = None;
                self.caught_up = false;
                // What this host would have put back is the next leader's to judge.
                self.contents.forget_missing();
            }
            Event::Conflict { why } => {
                self.name_taken = Some(why.clone());
                if !matches!(self.standing, Standing::Frozen { .. }) {
                    self.standing = Standing::Conflict { why };
                    self.follow_nobody();
                }
            }
            Event::Named => {
                self.name_taken = None;
                self.etcd.relist();
            }
        }
    }

    /// Whether the store is the one this host knows.
    fn judge(&mut self) {
        match self.verdict() {
            Ok(()) => {
                if let Some(why) = self.name_taken.clone() {
                    self.standing = Standing::Conflict { why };
                    return self.follow_nobody();
                }
                if let Standing::Lost { since, .. } | Standing::Frozen { since, .. } = &self.standing {
                    tracing::info!(%since, "the store answers again");
                    self.led_since = self.fence.as_ref().map(|_| Instant::now());
                }
                self.standing = Standing::Current;
                self.marker.etcd_cluster = self.listed.unwrap_or(self.marker.etcd_cluster);
                self.marker.revision = self.contents.revision;
                self.marker.epoch = self.marker.epoch.clone().max(self.contents.epoch.clone());
                self.marker.doubt = None;
                let decided = self.contents.lasting().unwrap_or_default();
                if let Some(identity) = &self.contents.identity {
                    let adopted = identity.incarnation > self.marker.incarnation;
                    self.marker.decided = if adopted { decided } else { self.marker.decided.max(decided) };
                    self.marker.incarnation = identity.incarnation;
                }
                self.stand();
            }
            Err(Doubt { why, lasts }) => {
                let known = matches!(&self.standing, Standing::Frozen { why: before, .. } if *before == why);
                if !known {
                    tracing::error!("{why}");
                    self.standing = Standing::Frozen { since: Timestamp::now(), why: why.clone() };
                }
                if lasts {
                    self.marker.doubt = Some(why);
                }
                self.follow_nobody();
            }
        }
    }

    /// Whoever does not believe the store does not lead by it.
    fn follow_nobody(&mut self) {
        self.etcd.set_candidate(false);
        self.caught_up = false;
        if !self.may_publish() {
            self.publisher.rest();
        }
    }

    /// Whether what this host says of itself belongs into this store: under its own name, in its own cluster.
    fn may_publish(&self) -> bool {
        match &self.standing {
            Standing::Current | Standing::Lost { .. } => !self.was_removed(),
            Standing::Frozen { .. } => {
                let identity = self.contents.identity.as_ref();
                identity.is_some_and(|identity| identity.id == self.marker.cluster) && !self.was_removed()
            }
            Standing::Conflict { .. } => false,
        }
    }

    /// Whether the store is the one that this host knows, and not older than what it knows.
    fn verdict(&self) -> Result<(), Doubt> {
        const ADVICE: &str = "nothing of it is believed and what runs is kept running; if this is the store to use from \
                              now on, run `windlass cluster adopt-store` on a host that knows better";
        let passing = |why: String| Err(Doubt { why, lasts: false });
        let Some(identity) = &self.contents.identity else {
            return passing(format!(
                "the store has no cluster under its prefix, where cluster {} was: it was wiped, or the prefix is \
                 another one; {ADVICE}",
                self.marker.cluster
            ));
        };
        if let Err(why) = known_schema(identity) {
            return passing(format!("{why}; nothing of the store is believed and what runs is kept running"));
        }
        if identity.id != self.marker.cluster {
            return passing(format!(
                "the store holds cluster {}, and this host belongs to {}: its prefix in [store] is another cluster's; \
                 nothing of it is believed and what runs is kept running",
                identity.id, self.marker.cluster
            ));
        }
        if identity.incarnation < self.marker.incarnation {
            return passing(format!(
                "the store is of an earlier time: it was adopted {} times, and this host knows of {}; {ADVICE}",
                identity.incarnation, self.marker.incarnation
            ));
        }
        if identity.incarnation > self.marker.incarnation {
            // A person has said on another host that this is the store.
            return self.agreed.check(identity).or_else(passing);
        }
        if let Some(why) = &self.marker.doubt {
            // Its revision goes up again, by leases alone, until it looks as if nothing had been.
            return passing(why.clone());
        }
        if self.listed.is_some_and(|id| id != self.marker.etcd_cluster) {
            return passing(format!(
                "etcd is another one than before (its own cluster id has changed): it was restored or replaced; {ADVICE}"
            ));
        }
        if self.contents.revision < self.marker.revision {
            let why = format!(
                "etcd has gone back in time, from revision {} to {}: it was restored from a backup; {ADVICE}",
                self.marker.revision, self.contents.revision
            );
            return Err(Doubt { why, lasts: true });
        }
        let decided = match self.contents.lasting() {
            Ok(decided) => decided,
            Err(key) => {
                return passing(format!("the store lacks {key}, which is always there; {ADVICE}"));
            }
        };
        if decided < self.marker.decided && !self.contents.lacks_lasting() {
            let why = format!(
                "the store's last decision is of revision {decided}, and this host knows of one of {}: etcd was \
                 restored from a backup; {ADVICE}",
                self.marker.decided
            );
            return Err(Doubt { why, lasts: true });
        }
        if self.contents.epoch < self.marker.epoch {
            return passing(format!(
                "the store was written by a leader of epoch {}, and this host knows of {}; {ADVICE}",
                self.contents.epoch.revision, self.marker.epoch.revision
            ));
        }
        self.agreed.check(identity).or_else(passing)
    }

    /// What the others say, for the core: of those in the cluster, with addresses of their own. Where nothing is said
    /// of a host, as in a store that was filled anew, what it said last holds until `node rm`.
    pub(crate) fn hear(&mut self) {
        if self.standing != Standing::Current {
            return;
        }
        self.stand();
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let lost: BTreeSet<NodeName> = {
            let outages = self.contents.state.outages.iter();
            outages.filter(|(_, outage)| outage.lost).map(|(name, _)| name.clone()).collect()
        };
        self.lost_since.retain(|name, _| lost.contains(name));
        for name in lost {
            self.lost_since.entry(name).or_insert_with(Instant::now);
        }
        let mut others = Others::default();
        let subnets = &self.contents.subnets;
        for (name, member) in self.members().filter(|(name, _)| **name != self.node) {
            if member.reported {
                others.reports.insert(name.clone(), member.report.report.clone());
            } else if let Some(before) = self.others.reports.get(name) {
                others.reports.insert(name.clone(), before.clone());
            }
            let said = member.facts.as_ref().map(|doc| &doc.facts);
            let silent = said.is_none();
            let Some(facts) = said.or_else(|| self.others.facts.get(name)) else { continue };
            let subnet = facts.pod_subnet;
            let holder = subnets.get(&subnet);
            let reserved = holder == Some(name) || holder.is_none() && silent;
            let inside =
                self.agreed.pod_range.contains(&subnet) && subnet.prefix_len() == self.agreed.subnet_length;
            let ranges = &self.node_ranges;
            let address = ranges.is_empty() || ranges.iter().any(|range| range.contains(&facts.address));
            let mtu = MTUS.contains(&facts.mtu);
            if reserved && inside && address && mtu {
                others.facts.insert(name.clone(), facts.clone());
            }
        }
        self.others = others;
    }

    /// Makes the store's decisions this host's own, on disk.
    pub(crate) fn take_over(&mut self) -> Result<(), state_file::StateFileError> {
        if self.standing != Standing::Current {
            return Ok(());
        }
        if !self.contents.take_decided() && self.copied {
            return Ok(());
        }
        let mut state = self.contents.state.clone();
        state.cluster.clone_from(&self.marker.cluster);
        let replaced = self.local.replace(state);
        // Whoever cannot keep what was decided must not decide by what was before.
        if replaced.is_err() && self.copied {
            self.withdraw(WITHDRAWAL);
        }
        self.copied = replaced.is_ok();
        replaced
    }

    /// Leaves leading to others for a while.
    fn withdraw(&mut self, time: Duration) {
        self.withdrawn_until = Some(Instant::now() + time);
        self.caught_up = false;
        self.etcd.set_candidate(false);
    }

    /// Stands for election, if this host is one that may lead.
    fn stand(&mut self) {
        let withdrawn = self.withdrawn_until.is_some_and(|until| until > Instant::now());
        if !withdrawn {
            self.withdrawn_until = None;
        }
        let may = self.standing == Standing::Current && self.copied && !withdrawn && !self.was_removed();
        self.etcd.set_candidate(may);
    }

    /// When what was heard must be put on disk: at once, but where the others have so many pods that it takes long.
    pub(crate) fn next_save(&self) -> Option<Duration> {
        let pods: usize = self.others.reports.values().map(|report| report.pods.len()).sum();
        let pace = if pods < MANY_PODS { Duration::ZERO } else { PEERS_PACE };
        self.peers_saved.map(|saved| pace.saturating_sub(saved.elapsed()))
    }

    /// Whether something heard is not on disk yet.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.unsaved
    }

    /// Whether this host leaves leading to others for now.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.withdrawn_until.is_some_and(|until| until > Instant::now())
    }

    /// Puts on disk what must not be forgotten.
    pub(crate) fn save(&mut self) -> Result<(), state_file::StateFileError> {
        let due = self.next_save().is_none_or(|wait| wait.is_zero());
        self.unsaved |= !due;
        if self.standing == Standing::Current && due {
            self.unsaved = false;
            self.peers_saved = Some(Instant::now());
            self.marker.peers = self
                .members()
                .filter(|(name, _)| **name != self.node)
                .map(|(name, member)| {
                    let before = self.marker.peers.get(name);
                    let facts = member.facts.clone().or_else(|| before.and_then(|heard| heard.facts.clone()));
                    let report = match (member.reported, before) {
                        (false, Some(before)) => before.report.clone(),
                        _ => member.report.report.clone(),
                    };
                    (name.clone(), Heard { facts, report })
                })
                .collect();
        }
        // The revision alone is not worth a write: what it guards against goes back further than that.
        let same = self.saved_marker.as_ref().is_some_and(|saved| {
            Marker { revision: saved.revision, ..self.marker.clone() } == *saved
                && self.marker.revision - saved.revision < 50
        });
        if same {
            return Ok(());
        }
        state_file::write(&self.marker_path, MARKER_SCHEMA, &self.marker)?;
        self.saved_marker = Some(self.marker.clone());
        Ok(())
    }

    /// Writes a decision under the fence, and believes it once it is there.
    pub(crate) async fn commit(&mut self, changes: Vec<Change>) -> Result<()> {
        let mut writes = layout::writes(&changes);
        let fence = self.fence.clone().filter(|_| self.leads()).context("this host does not lead")?;
        let epoch = Epoch { incarnation: self.marker.incarnation, revision: fence.revision };
        if self.contents.epoch != epoch {
            writes.insert(0, Decided::Epoch(epoch).write());
        }
        self.write_fenced(&fence, writes).await?;
        Ok(self.take_over()?)
    }

    /// Writes again what was deleted and not by a leader.
    pub(crate) async fn put_back(&mut self) -> Result<()> {
        let missing = self.contents.missing();
        if missing.is_empty() {
            return Ok(());
        }
        let fence = self.fence.clone().filter(|_| self.leads()).context("this host does not lead")?;
        tracing::warn!(
            records = missing.len(),
            "records that nobody may delete were deleted: they are written again"
        );
        self.write_fenced(&fence, missing).await
    }

    /// Answers what a person asked on another host.
    pub(crate) async fn answer(&mut self, node: &NodeName, answer: AnswerDoc) -> Result<()> {
        let fence = self.fence.clone().filter(|_| self.leads()).context("this host does not lead")?;
        self.write_fenced(&fence, vec![Decided::Answer(node.clone(), answer).write()]).await
    }

    async fn write_fenced(&mut self, fence: &Fence, writes: Vec<Write>) -> Result<()> {
        match self.etcd.write_fenced(fence, writes.clone()).await {
            Ok(revision) => {
                self.contents.wrote(revision, &writes);
                Ok(())
            }
            Err(WriteError::Fenced) => {
                self.fence = None;
                self.caught_up = false;
                // Also where only this host's own clock said so: a campaign anew is the way back.
                self.withdraw(RESPITE);
                bail!("the decision was not written: {}", WriteError::Fenced)
            }
            // Etcd is full, or this host's user may not: another host may do better, and nobody asks without end.
            Err(error @ WriteError::Refused(_)) => {
                self.withdraw(WITHDRAWAL);
                bail!("the decision could not be written to the store: {error}")
            }
            Err(error) => {
                // A part of it may be there: look before anything more is decided.
                self.caught_up = false;
                self.awaited = self.etcd.relist();
                bail!("the decision could not be written to the store: {error}")
            }
        }
    }

    /// What this node wants the others to know of it.
    pub(crate) fn publish(&mut self, facts: &NodeFacts, peer: Option<SocketAddr>, report: &ReportDoc) {
        let same = self.facts.as_ref().is_some_and(|doc| doc.facts == *facts && doc.peer == peer);
        if !same {
            self.facts = Some(FactsDoc { facts: facts.clone(), peer, clock: Timestamp::now() });
        }
        if !self.may_publish() {
            return;
        }
        let mut report = report.clone();
        if let Standing::Frozen { .. } = self.standing {
            // It would not take up what the leader gives it.
            report
                .unready
                .get_or_insert_with(|| "it does not believe the store: see its `windlass status`".to_owned());
        }
        if let Some(doc) = &self.facts {
            self.publisher.want(layout::own_keys(&self.node, doc, &report, self.ask.as_ref()));
        }
    }

    /// Has the publisher told what is there, after a list.
    fn republish(&mut self) {
        let prefix = layout::node_prefix(&self.node);
        let alive = layout::node_key(&self.node, "alive");
        let keys: Vec<String> = self.contents.keys(&prefix).map(str::to_owned).collect();
        // Values are not kept as they were written, so what is there is written once more; what is wanted no more goes.
        let found = keys.into_iter().filter(|key| *key != alive).map(|key| (key, Vec::new())).collect();
        // The clock is told when it is written.
        if let Some(doc) = &mut self.facts {
            doc.clock = Timestamp::now();
            self.publisher.renew(&layout::node_key(&self.node, "facts"), layout::text(doc));
        }
        self.publisher.found(found);
        let mine = self.contents.subnets.get(&self.marker.subnet);
        if mine.is_none() {
            let (etcd, key) = (self.etcd.clone(), layout::subnet_key(self.marker.subnet));
            let value = layout::text(&self.node);
            tokio::spawn(async move {
                // Should somebody have been faster, the next list says so.
                let _ = etcd.create(&key, value).await;
            });
        }
    }

    /// Who else has this host's subnet, if somebody has.
    pub(crate) fn subnet_trouble(&self) -> Option<String> {
        let holder = self.contents.subnets.get(&self.marker.subnet)?;
        (*holder != self.node).then(|| {
            format!(
                "pod subnet {} of this host is reserved for node {holder}: two hosts with one subnet cannot reach each \
                 other's pods; give one of them another `pod-subnet` in [network]",
                self.marker.subnet
            )
        })
    }

    /// Why the node's own keys could not be written last.
    pub(crate) fn publish_trouble(&self) -> Option<String> {
        self.publisher.trouble()
    }

    /// Records that could not be read.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = String> {
        let described = self.contents.unreadable.iter().take(3);
        described.map(|(key, error)| {
            format!("key {key} of the store cannot be read: {error}; what it said before holds")
        })
    }

    /// Asks the leader for something on behalf of a person here.
    pub(crate) fn ask(&mut self, ask: Option<AskDoc>) {
        self.ask = ask;
    }

    /// What nodes ask of the leader and have no answer to.
    pub(crate) fn asks(&self) -> Vec<(NodeName, AskDoc)> {
        let open = |name: &NodeName, ask: &AskDoc| {
            self.contents.answers.get(name).is_none_or(|one| one.id != ask.id)
        };
        let asks = self.members().filter_map(|(name, member)| Some((name.clone(), member.ask.clone()?)));
        asks.filter(|(name, ask)| open(name, ask)).collect()
    }

    /// The leader's answer to this host's question.
    pub(crate) fn answer_to(&self, id: &str) -> Option<Result<String, String>> {
        let answer = self.contents.answers.get(&self.node).filter(|answer| answer.id == id)?;
        Some(answer.answer.clone())
    }

    /// Says that this host comes back soon, and gives leadership up.
    pub(crate) async fn leave(&mut self, back_within: Duration) {
        let seconds = back_within.as_secs();
        let until = Timestamp::now() + back_within;
        let key = layout::node_key(&self.node, "away");
        let away = Write::Put { key, value: layout::text(&AwayDoc { until, seconds }) };
        if self.may_publish()
            && let Err(error) = self.etcd.write(vec![away]).await
        {
            tracing::warn!("the others could not be told that this host comes back: {error}");
        }
        self.etcd.end(false).await;
    }

    /// Makes this host's copy the store's content, whatever it is now, and the store the one that all believe.
    pub(crate) async fn adopt(&mut self) -> Result<String> {
        ensure!(
            !matches!(self.standing, Standing::Lost { .. }),
            "etcd does not answer; it must be there to be adopted"
        );
        if let Standing::Conflict { why } = &self.standing {
            bail!("{why}");
        }
        if self.standing == Standing::Current {
            return Ok("the store is the one this cluster uses; there is nothing to adopt".to_owned());
        }
        if let Some(identity) = &self.contents.identity {
            ensure!(
                identity.id == self.marker.cluster,
                "the store holds another cluster, {}: set the prefix of this host's cluster, {}, in [store]",
                identity.id,
                self.marker.cluster
            );
            known_schema(identity).map_err(anyhow::Error::msg)?;
            // Adopting would only make the cluster disagree with itself.
            self.agreed.check(identity).map_err(anyhow::Error::msg)?;
        }
        let state = self.local.snapshot().clone();
        let known = self.contents.identity.as_ref().map_or(0, |identity| identity.incarnation);
        let incarnation = self.marker.incarnation.max(known) + 1;
        let mut records = layout::records(&state);
        records.push(Decided::Epoch(Epoch { incarnation, revision: 0 }));
        let wanted: std::collections::BTreeSet<String> = records.iter().map(Decided::key).collect();
        let stale = self
            .contents
            .keys(DECIDED)
            .filter(|key| !wanted.contains(*key) && !key.starts_with(layout::ANSWERS));
        let mut writes: Vec<Write> = stale.map(|key| Write::Delete { key: key.to_owned() }).collect();
        writes.extend(records.iter().map(Decided::write));
        // Last: whoever sees it finds the rest.
        let identity = self.agreed.identity(&self.marker.cluster, incarnation);
        writes.push(Write::Put { key: IDENTITY.to_owned(), value: layout::text(&identity) });
        let count = state.pods.len();
        self.etcd.write(writes).await.context("write this host's copy to the store")?;
        self.etcd.relist();
        Ok(format!(
            "the store holds this host's copy now ({count} pods); all hosts of cluster {} take it up",
            self.marker.cluster
        ))
    }
}

impl Agreed {
    fn identity(&self, id: &str, incarnation: u64) -> Identity {
        Identity {
            schema: SCHEMA,
            id: id.to_owned(),
            incarnation,
            pod_range: self.pod_range,
            subnet_length: self.subnet_length,
            service_range: self.service_range,
            dns: self.dns,
            zone: self.zone.clone(),
        }
    }

    fn check(&self, identity: &Identity) -> Result<(), String> {
        let Identity { pod_range, subnet_length, service_range, dns, zone, .. } = identity;
        let pairs = [
            ("pod-range", pod_range.to_string(), self.pod_range.to_string()),
            ("the length of pod-subnet", subnet_length.to_string(), self.subnet_length.to_string()),
            ("service-range", service_range.to_string(), self.service_range.to_string()),
            ("dns", dns.to_string(), self.dns.to_string()),
            ("zone", zone.clone(), self.zone.clone()),
        ];
        match pairs.into_iter().find(|(_, theirs, ours)| theirs != ours) {
            None => Ok(()),
            Some((what, theirs, ours)) => Err(format!(
                "the cluster has {what} {theirs}, and this host's configuration {ours}: all hosts must have the same in \
                 [network]"
            )),
        }
    }
}

/// Waits for a list that was begun after `awaited` requests for one, saying what is waited for.
async fn next_list(
    events: &mut mpsc::UnboundedReceiver<Event>,
    contents: &mut Contents,
    awaited: u64,
) -> Result<u64> {
    let mut why = "it has not answered yet".to_owned();
    loop {
        match tokio::time::timeout(PATIENCE, events.recv()).await {
            Ok(Some(Event::Listed { etcd_cluster, revision, asked, pairs })) if asked >= awaited => {
                contents.list(revision, pairs);
                return Ok(etcd_cluster);
            }
            Ok(Some(Event::Lost { why: now })) => {
                tracing::warn!("waiting for the store: {now}");
                why = now;
            }
            Ok(Some(Event::Conflict { why })) => bail!("{why}"),
            Ok(Some(_)) => {}
            Ok(None) => bail!("the connection to etcd has ended"),
            Err(_) => tracing::warn!("a host that joins a cluster needs its store; still waiting: {why}"),
        }
    }
}

/// Reads everything anew: what another host has written by now is in it.
async fn refresh(
    etcd: &Etcd,
    events: &mut mpsc::UnboundedReceiver<Event>,
    contents: &mut Contents,
) -> Result<()> {
    let awaited = etcd.relist();
    next_list(events, contents, awaited).await.map(drop)
}

/// Becomes part of the cluster in the store, or makes it.
async fn join(
    etcd: &Etcd,
    events: &mut mpsc::UnboundedReceiver<Event>,
    contents: &mut Contents,
    local: &LocalStore,
    joining: &Joining,
    etcd_cluster: u64,
) -> Result<Marker> {
    await_name(etcd, events, contents, local, joining).await?;
    while contents.identity.is_none() {
        match etcd.create(SEEDING, layout::text(&local.installation())).await {
            Ok(Created::Exists(pair)) if pair.value != layout::text(&local.installation()) => {
                tracing::warn!(
                    "another host is filling the new store; if it is gone, delete {SEEDING} under the prefix"
                );
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            // Whoever held it before may have filled the store since this host looked.
            Ok(_) => {
                refresh(etcd, events, contents).await?;
                match contents.identity {
                    None => seed(etcd, local, joining).await?,
                    Some(_) => {
                        let done = Write::Delete { key: SEEDING.to_owned() };
                        etcd.write(vec![done]).await.context("let go of the filled store")?;
                    }
                }
            }
            Err(error) => {
                tracing::warn!("waiting to fill the new store: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        refresh(etcd, events, contents).await?;
    }
    let Some(identity) = contents.identity.clone() else { bail!("the store has no cluster") };
    known_schema(&identity).map_err(anyhow::Error::msg)?;
    joining.agreed.check(&identity).map_err(anyhow::Error::msg)?;
    let subnet = reserve(etcd, events, contents, local, joining).await?;
    Ok(Marker {
        cluster: identity.id,
        incarnation: identity.incarnation,
        etcd_cluster,
        revision: contents.revision,
        epoch: contents.epoch.clone(),
        decided: contents.lasting().unwrap_or_default(),
        doubt: None,
        subnet,
        peers: BTreeMap::new(),
    })
}

/// Waits until the name is this host's: until then it writes nothing, and takes up nothing.
async fn await_name(
    etcd: &Etcd,
    events: &mut mpsc::UnboundedReceiver<Event>,
    contents: &mut Contents,
    local: &LocalStore,
    joining: &Joining,
) -> Result<()> {
    let since = Instant::now();
    let mut told = false;
    loop {
        let alive = contents.members.get(&joining.node).and_then(|own| own.alive.as_ref());
        match alive {
            Some(alive) if alive.installation == local.installation() => return Ok(()),
            Some(alive) => bail!("{}", name_taken(&joining.node, &alive.installation, local.installation())),
            None => {}
        }
        if since.elapsed() > PATIENCE && !std::mem::replace(&mut told, true) {
            tracing::warn!(
                "waiting for the name {} in the store: this host's user must be allowed to write under {}",
                joining.node,
                layout::node_prefix(&joining.node)
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        refresh(etcd, events, contents).await?;
    }
}

/// Whether this version can read a store.
fn known_schema(identity: &Identity) -> Result<(), String> {
    match identity.schema {
        1..=SCHEMA => Ok(()),
        0 => Err("the store has schema 0, which no version wrote".to_owned()),
        newer => Err(format!(
            "the store has schema {newer}, and this version knows schemas up to {SCHEMA}: run a newer Windlass here"
        )),
    }
}

/// Fills an empty store with what this host has decided as long as it was alone.
async fn seed(etcd: &Etcd, local: &LocalStore, joining: &Joining) -> Result<()> {
    let state = local.snapshot();
    let identity = joining.agreed.identity(&state.cluster, 1);
    let mut writes: Vec<Write> = layout::records(state).iter().map(Decided::write).collect();
    writes.push(Write::Put { key: IDENTITY.to_owned(), value: layout::text(&identity) });
    writes.push(Write::Delete { key: SEEDING.to_owned() });
    etcd.write(writes).await.context("fill the new store")?;
    tracing::info!(cluster = %state.cluster, pods = state.pods.len(), "the store is new: it holds this host's state now");
    Ok(())
}

/// Reserves this node's subnet.
async fn reserve(
    etcd: &Etcd,
    events: &mut mpsc::UnboundedReceiver<Event>,
    contents: &mut Contents,
    local: &LocalStore,
    joining: &Joining,
) -> Result<Ipv4Net> {
    let Agreed { pod_range, subnet_length, .. } = &joining.agreed;
    loop {
        let own = contents.subnets.iter().find(|(_, node)| **node == joining.node).map(|(subnet, _)| *subnet);
        let has_pods =
            local.snapshot().pods.values().any(|record| record.place.node() == Some(&joining.node));
        let wanted = joining.subnet.or_else(|| has_pods.then_some(joining.subnet_alone));
        let subnet = match (wanted, own) {
            (Some(wanted), _) => wanted,
            (None, Some(own)) => return Ok(own),
            (None, None) => pod_range
                .subnets(*subnet_length)
                .ok()
                .and_then(|mut subnets| subnets.find(|subnet| !contents.subnets.contains_key(subnet)))
                .with_context(|| {
                    format!("no /{subnet_length} is free in pod-range {pod_range} for this host's pods")
                })?,
        };
        ensure!(
            pod_range.contains(&subnet) && subnet.prefix_len() == *subnet_length,
            "pod-subnet {subnet} must be a /{subnet_length} of pod-range {pod_range}, as on the other hosts"
        );
        match etcd.create(&layout::subnet_key(subnet), layout::text(&joining.node)).await {
            Ok(Created::Made(_)) => return Ok(subnet),
            Ok(Created::Exists(pair)) if pair.value == layout::text(&joining.node) => return Ok(subnet),
            Ok(Created::Exists(pair)) if wanted.is_some() => bail!(
                "pod subnet {subnet} overlaps: it is reserved for node {}; give this host another `pod-subnet` in \
                 [network]{}",
                String::from_utf8_lossy(&pair.value),
                if has_pods { ", after its pods are gone: they have addresses of this one" } else { "" }
            ),
            Ok(Created::Exists(_)) => {}
            Err(error) => {
                tracing::warn!("waiting to reserve pod subnet {subnet}: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        refresh(etcd, events, contents).await?;
    }
}
