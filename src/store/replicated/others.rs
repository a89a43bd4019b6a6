//! The other hosts: what they say, which of them live, and what this host remembers of them on
//! disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reconciler::{
    life::NodeSigns,
    name::NodeName,
    state::{NodeFacts, NodeReport},
};
use serde::{Deserialize, Serialize};

use super::{NODE_LEASE, ReplicatedStore, StoreStatus};
use crate::{
    state_file::{self, StateFileError},
    store::{
        contents::Member,
        layout::{self, FactsDoc},
    },
};

/// A longer absence is not believed.
const LONGEST_AWAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What an MTU may be.
const MTUS: std::ops::RangeInclusive<u32> = 576..=65535;
/// How often, at most, etcd is asked who is late.
const LATE_PACE: Duration = Duration::from_millis(500);
/// From so many pods of other hosts on they are put on disk at a pace.
const MANY_PODS: usize = 500;
/// How often, at most, they are then.
const PACE: Duration = Duration::from_secs(2);
const SCHEMA: u32 = 1;

/// `others.json`: what the other hosts said last. After a reboot without etcd it is what the
/// Services lead to.
#[derive(Debug)]
pub(super) struct OthersFile {
    path: PathBuf,
    heard: BTreeMap<NodeName, LastReport>,
    /// What was heard is newer than the file.
    stale: bool,
    written: Option<Instant>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct OthersDocument {
    hosts: BTreeMap<NodeName, LastReport>,
}

/// What another host said last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LastReport {
    facts: Option<FactsDoc>,
    report: NodeReport,
}

impl OthersFile {
    /// Reads it; fine if there is none.
    pub(super) fn open(data: &Path) -> Result<Self, StateFileError> {
        let path = data.join("others.json");
        let document: OthersDocument = state_file::read(&path, SCHEMA)?.unwrap_or_default();
        Ok(Self {
            path,
            heard: document.hosts,
            stale: false,
            written: None,
        })
    }

    /// When it must be written, if it must: at once, but at a pace where there are so many pods
    /// that it takes long.
    fn due(&self) -> Option<Duration> {
        let pods: usize = self
            .heard
            .values()
            .map(|heard| heard.report.pods.len())
            .sum();
        let pace = if pods < MANY_PODS {
            Duration::ZERO
        } else {
            PACE
        };
        let wait = self.written.map_or(Duration::ZERO, |written| {
            pace.saturating_sub(written.elapsed())
        });
        self.stale.then_some(wait)
    }

    fn write(&mut self, heard: BTreeMap<NodeName, LastReport>) -> Result<(), StateFileError> {
        if heard != self.heard {
            let document = OthersDocument { hosts: heard };
            state_file::write(&self.path, SCHEMA, &document)?;
            self.heard = document.hosts;
        }
        self.stale = false;
        self.written = Some(Instant::now());
        Ok(())
    }
}

/// The other hosts, as the core wants them; made anew when something is heard.
#[derive(Debug, Default)]
pub(super) struct Others {
    pub(super) facts: BTreeMap<NodeName, NodeFacts>,
    pub(super) reports: BTreeMap<NodeName, NodeReport>,
}

/// For how long nodes have been away, by this host's monotonic clock.
#[derive(Debug)]
pub(super) struct Absences {
    /// When this process started: since then at the latest a node is silent of which the store says
    /// nothing.
    started: Instant,
    /// Since when each lost node is known to be lost here.
    lost_since: BTreeMap<NodeName, Instant>,
    late: Option<Late>,
}

impl Absences {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            lost_since: BTreeMap::new(),
            late: None,
        }
    }
}

/// Who was late when etcd was asked last.
#[derive(Debug)]
struct Late {
    asked: Instant,
    /// Who was about to be given up then.
    parting: BTreeSet<NodeName>,
    late: BTreeSet<NodeName>,
}

impl ReplicatedStore {
    /// What the other hosts said last, from the disk.
    pub(super) fn recall(&mut self) {
        for (node, heard) in &self.others_file.heard {
            if let Some(doc) = &heard.facts {
                self.others.facts.insert(node.clone(), doc.facts.clone());
            }
            self.others
                .reports
                .insert(node.clone(), heard.report.clone());
            self.contents.expect(node.clone());
        }
    }

    /// When what was heard must be put on disk, if it is not.
    pub(crate) fn next_save(&self) -> Option<Duration> {
        self.others_file.due()
    }

    /// Puts what was heard on disk, if it is time to.
    pub(super) fn save_others(&mut self) -> Result<(), StateFileError> {
        let due = self.others_file.due().is_some_and(|wait| wait.is_zero());
        if self.status != StoreStatus::Current || !due {
            return Ok(());
        }
        let heard = self
            .members()
            .filter(|(name, _)| **name != self.node)
            .map(|(name, member)| {
                let before = self.others_file.heard.get(name);
                let facts = member
                    .facts
                    .clone()
                    .or_else(|| before.and_then(|heard| heard.facts.clone()));
                let report = match (member.reported, before) {
                    (false, Some(before)) => before.report.clone(),
                    _ => member.report.report.clone(),
                };
                (name.clone(), LastReport { facts, report })
            })
            .collect();
        self.others_file.write(heard)
    }

    /// What is heard of the other nodes, for the judgement of their lives.
    pub(crate) fn signs(&self) -> BTreeMap<NodeName, NodeSigns> {
        let outages = &self.snapshot().outages;
        let unheard = Member {
            silent: Some(self.absences.started),
            ..Member::default()
        };
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
                let lost_for = self
                    .absences
                    .lost_since
                    .get(name)
                    .filter(|_| lost)
                    .map(Instant::elapsed);
                let lost_for = lost_for.or_else(|| lost.then_some(Duration::ZERO));
                let signs = NodeSigns {
                    silent_for,
                    answers: None,
                    late: false,
                    back_within,
                    unready: member.unready(),
                    lost_for,
                };
                (name.clone(), signs)
            })
            .collect()
    }

    /// Finds the nodes that seem alive and did not renew their lease when they should have. Etcd is
    /// asked only while another node is about to be given up: anew for each such node, and
    /// otherwise at a pace.
    pub(crate) async fn find_late(&mut self, signs: &mut BTreeMap<NodeName, NodeSigns>) {
        let parting = |signs: &NodeSigns| {
            signs.silent_for.is_some()
                && signs.lost_for.is_none()
                && signs.back_within.is_none_or(|within| within.is_zero())
        };
        let parting: BTreeSet<NodeName> = signs
            .iter()
            .filter(|(_, signs)| parting(signs))
            .map(|(name, _)| name.clone())
            .collect();
        if parting.is_empty() {
            self.absences.late = None;
            return;
        }
        let known = self
            .absences
            .late
            .take()
            .filter(|known| known.parting == parting && known.asked.elapsed() < LATE_PACE);
        let late = match known {
            Some(known) => known,
            None => Late {
                late: self.ask_who_is_late(signs).await,
                asked: Instant::now(),
                parting,
            },
        };
        for name in &late.late {
            signs
                .entry(name.clone())
                .and_modify(|signs| signs.late = true);
        }
        self.absences.late = Some(late);
    }

    async fn ask_who_is_late(&self, signs: &BTreeMap<NodeName, NodeSigns>) -> BTreeSet<NodeName> {
        let alive = signs
            .keys()
            .filter(|name| signs[*name].silent_for.is_none());
        let keys: BTreeMap<String, &NodeName> = alive
            .map(|name| (layout::node_key(name, "alive"), name))
            .collect();
        let remaining = self.etcd.remaining(keys.keys().cloned().collect()).await;
        // A lease is renewed at a third of its time, so more than half of it is left to whoever
        // lives.
        let late = remaining
            .into_iter()
            .filter(|(_, left)| *left < NODE_LEASE / 2);
        late.filter_map(|(key, _)| keys.get(&key).map(|name| (*name).clone()))
            .collect()
    }

    /// What the others say, for the core: of those in the cluster, with addresses of their own.
    /// Where nothing is said of a host, as in a store that was filled anew, what it said last holds
    /// until `node rm`.
    pub(crate) fn take_reports(&mut self) {
        if self.status != StoreStatus::Current {
            return;
        }
        self.stand();
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let lost: BTreeSet<NodeName> = {
            let outages = self.contents.state.outages.iter();
            outages
                .filter(|(_, outage)| outage.lost)
                .map(|(name, _)| name.clone())
                .collect()
        };
        let lost_since = &mut self.absences.lost_since;
        lost_since.retain(|name, _| lost.contains(name));
        for name in lost {
            lost_since.entry(name).or_insert_with(Instant::now);
        }
        let removed = &self.contents.state.removed;
        self.marker
            .subnets
            .forget(|node| removed.contains_key(node));
        let mut others = Others::default();
        let (known, said) = (&self.marker.subnets, &self.contents.subnets);
        let mut used = Vec::new();
        for (name, member) in self.members().filter(|(name, _)| **name != self.node) {
            if member.reported {
                others
                    .reports
                    .insert(name.clone(), member.report.report.clone());
            } else if let Some(before) = self.others.reports.get(name) {
                others.reports.insert(name.clone(), before.clone());
            }
            let own = member.facts.as_ref().map(|doc| &doc.facts);
            let silent = own.is_none();
            let Some(facts) = own.or_else(|| self.others.facts.get(name)) else {
                continue;
            };
            let subnet = facts.pod_subnet;
            let holder = known.holder(subnet, said);
            let reserved = holder == Some(name) || holder.is_none() && silent;
            let inside = self.agreed.pod_range.contains(&subnet)
                && subnet.prefix_len() == self.agreed.subnet_length;
            let ranges = &self.node_ranges;
            let address =
                ranges.is_empty() || ranges.iter().any(|range| range.contains(&facts.address));
            let mtu = MTUS.contains(&facts.mtu);
            if reserved && inside && address && mtu {
                others.facts.insert(name.clone(), facts.clone());
                if holder.is_some() {
                    used.push((subnet, name.clone()));
                }
            }
        }
        if said.get(&self.marker.subnet) == Some(&self.node) {
            used.push((self.marker.subnet, self.node.clone()));
        }
        for (subnet, node) in used {
            self.marker.subnets.keep(subnet, &node);
        }
        self.others = others;
        self.others_file.stale = true;
    }
}
