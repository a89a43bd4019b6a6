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
    hosts: BTreeMap<NodeName, LastReport>,
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
            hosts: document.hosts,
            stale: false,
            written: None,
        })
    }

    /// The time until the file must be written; `None` if it is up to date. Zero, except where the
    /// number of pods makes a write slow: then writes keep an interval.
    fn due(&self) -> Option<Duration> {
        let pods: usize = self.hosts.values().map(|last| last.report.pods.len()).sum();
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

    fn write(&mut self, hosts: BTreeMap<NodeName, LastReport>) -> Result<(), StateFileError> {
        if hosts != self.hosts {
            let document = OthersDocument { hosts };
            state_file::write(&self.path, SCHEMA, &document)?;
            self.hosts = document.hosts;
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
        for (node, last) in &self.others_file.hosts {
            if let Some(doc) = &last.facts {
                self.others.facts.insert(node.clone(), doc.facts.clone());
            }
            self.others
                .reports
                .insert(node.clone(), last.report.clone());
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
        let hosts = self
            .members()
            .filter(|(name, _)| **name != self.node)
            .map(|(name, member)| {
                let before = self.others_file.hosts.get(name);
                let facts = member
                    .facts
                    .clone()
                    .or_else(|| before.and_then(|last| last.facts.clone()));
                let report = match (member.reported, before) {
                    (false, Some(before)) => before.report.clone(),
                    _ => member.report.report.clone(),
                };
                (name.clone(), LastReport { facts, report })
            })
            .collect();
        self.others_file.write(hosts)
    }

    /// The signs of life of the other nodes, from which their state is judged.
    pub(crate) fn signs(&self) -> BTreeMap<NodeName, NodeSigns> {
        let without_keys = Member {
            silent: Some(self.absences.started),
            ..Member::default()
        };
        let names = self.others.facts.keys();
        names
            .map(|name| {
                let member = self.contents.members.get(name).unwrap_or(&without_keys);
                (name.clone(), self.signs_of(name, member))
            })
            .collect()
    }

    fn signs_of(&self, name: &NodeName, member: &Member) -> NodeSigns {
        let silent_for = member.silent.map(|since| since.elapsed());
        let back_within = member.away.as_ref().map(|away| {
            // The announced time counts from the end of the lease, by this host's own clock.
            let announced = LONGEST_AWAY.min(Duration::from_secs(away.seconds));
            announced.saturating_sub(silent_for.unwrap_or_default())
        });
        let outage = self.snapshot().outages.get(name);
        let lost_for = if outage.is_some_and(|outage| outage.lost) {
            let lost_since = self.absences.lost_since.get(name);
            Some(lost_since.map_or(Duration::ZERO, Instant::elapsed))
        } else {
            None
        };

        NodeSigns {
            silent_for,
            answers: None,
            late: false,
            back_within,
            unready: member.unready(),
            lost_for,
        }
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
        // A living host renews its lease after a third of its time, so more than half of the time
        // remains.
        let asked = keys.keys().cloned().collect();
        let late = self.etcd.late(asked, NODE_LEASE / 2).await;
        late.into_iter()
            .filter_map(|key| keys.get(&key).copied().cloned())
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
        self.note_lost_nodes();
        let removed = &self.contents.state.removed;
        self.marker
            .subnets
            .forget(|node| removed.contains_key(node));

        let mut others = Others::default();
        let mut used_subnets = Vec::new();
        for (name, member) in self.members().filter(|(name, _)| **name != self.node) {
            let report = if member.reported {
                Some(&member.report.report)
            } else {
                self.others.reports.get(name)
            };
            if let Some(report) = report {
                others.reports.insert(name.clone(), report.clone());
            }
            if let Some((facts, reserved)) = self.accepted_facts(name, member) {
                others.facts.insert(name.clone(), facts.clone());
                if reserved {
                    used_subnets.push((facts.pod_subnet, name.clone()));
                }
            }
        }

        let own_subnet = self.marker.subnet;
        if self.contents.subnets.get(&own_subnet) == Some(&self.node) {
            used_subnets.push((own_subnet, self.node.clone()));
        }
        for (subnet, node) in used_subnets {
            self.marker.subnets.keep(subnet, &node);
        }
        self.others = others;
        self.others_file.stale = true;
    }

    /// Records since when each lost node has been known as lost.
    fn note_lost_nodes(&mut self) {
        let outages = self.contents.state.outages.iter();
        let lost: BTreeSet<NodeName> = outages
            .filter(|(_, outage)| outage.lost)
            .map(|(name, _)| name.clone())
            .collect();

        let lost_since = &mut self.absences.lost_since;
        lost_since.retain(|name, _| lost.contains(name));
        for name in lost {
            lost_since.entry(name).or_insert_with(Instant::now);
        }
    }

    /// The facts of a member with which this host sets up routes, and whether the store reserves the
    /// subnet in them for the member; `None` if the addresses are not the member's own, or not
    /// allowed here: anybody who can write the member's keys can publish any facts.
    fn accepted_facts<'a>(
        &'a self,
        name: &NodeName,
        member: &'a Member,
    ) -> Option<(&'a NodeFacts, bool)> {
        let published = member.facts.as_ref().map(|doc| &doc.facts);
        let facts = published.or_else(|| self.others.facts.get(name))?;
        let subnet = facts.pod_subnet;

        // In a store that was filled anew a silent member has neither facts nor a reservation: its
        // last facts stay in effect.
        let holder = self.marker.subnets.holder(subnet, &self.contents.subnets);
        let is_reserved = holder == Some(name) || holder.is_none() && published.is_none();
        let in_pod_range = self.agreed.pod_range.contains(&subnet)
            && subnet.prefix_len() == self.agreed.subnet_length;
        let ranges = &self.node_ranges;
        let in_node_ranges =
            ranges.is_empty() || ranges.iter().any(|range| range.contains(&facts.address));
        let is_accepted =
            is_reserved && in_pod_range && in_node_ranges && MTUS.contains(&facts.mtu);

        is_accepted.then_some((facts, holder.is_some()))
    }
}
