//! The other hosts: their reports, which of them live, and what this host remembers of them on its
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

/// A host that announces a longer absence is treated as absent for this time.
const LONGEST_AWAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The values that an MTU may have.
const MTUS: std::ops::RangeInclusive<u32> = 576..=65535;
/// The shortest time between two requests to etcd for the leases that are late.
const LATE_PACE: Duration = Duration::from_millis(500);
/// From this number of other hosts' pods on, `others.json` is written at intervals.
const MANY_PODS: usize = 500;
/// The shortest time between two writes of the file from that number on.
const PACE: Duration = Duration::from_secs(2);
const SCHEMA: u32 = 1;

/// `others.json`: the last reports of the other hosts. After a reboot without etcd this host's
/// Services lead to the pods in this file.
#[derive(Debug)]
pub(super) struct OthersFile {
    path: PathBuf,
    heard: BTreeMap<NodeName, LastReport>,
    /// Whether a newer report was received than the file has.
    stale: bool,
    written: Option<Instant>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct OthersDocument {
    hosts: BTreeMap<NodeName, LastReport>,
}

/// The last report of another host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LastReport {
    facts: Option<FactsDoc>,
    report: NodeReport,
}

impl OthersFile {
    /// Reads `others.json`; no file means no reports.
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

    /// The time until the file must be written; `None` if it is up to date. Zero, except where the
    /// number of pods makes a write slow: then writes keep an interval.
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

/// The other hosts as the core needs them; computed again when a report is received.
#[derive(Debug, Default)]
pub(super) struct Others {
    pub(super) facts: BTreeMap<NodeName, NodeFacts>,
    pub(super) reports: BTreeMap<NodeName, NodeReport>,
}

/// For how long nodes have been away, by this host's monotonic clock.
#[derive(Debug)]
pub(super) struct Absences {
    /// When this process started: a node of which the store shows nothing has been silent since
    /// then at the latest.
    started: Instant,
    /// Since when this host has known each lost node as lost.
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

/// The nodes that were late when etcd was asked last.
#[derive(Debug)]
struct Late {
    asked: Instant,
    /// The nodes that were about to be given up at that time.
    parting: BTreeSet<NodeName>,
    late: BTreeSet<NodeName>,
}

impl ReplicatedStore {
    /// Takes over the last reports of the other hosts from the disk.
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

    /// The time until received reports must be written to the disk; `None` if they have been.
    pub(crate) fn next_save(&self) -> Option<Duration> {
        self.others_file.due()
    }

    /// Writes received reports to the disk, if the time for that has come.
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

    /// The signs of life of the other nodes, from which their state is judged.
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

    /// Marks the nodes that seem alive and did not renew their lease in time. Etcd is asked only
    /// while another node is about to be given up: at once for each new such node, and otherwise at
    /// an interval.
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
        // A living host renews its lease after a third of its time, so more than half of the time
        // remains.
        let late = remaining
            .into_iter()
            .filter(|(_, left)| *left < NODE_LEASE / 2);
        late.filter_map(|(key, _)| keys.get(&key).map(|name| (*name).clone()))
            .collect()
    }

    /// The reports of the other hosts, for the core: of the members that have addresses of their
    /// own. If the store has no report of a host, as after it was filled anew, the host's last
    /// report holds until `node rm`.
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
