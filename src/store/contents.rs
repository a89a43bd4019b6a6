//! What etcd holds under the prefix, as this host knows it: keys become the cluster's state and its
//! members.

mod member;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Instant};

use ipnet::Ipv4Net;
use jiff::Timestamp;
pub(crate) use member::{Member, skew};
use reconciler::{
    foreign::ForeignText,
    name::{NodeName, PodUid},
    state::{ClusterState, PodPlace, PodRecord},
    status::PodStatus,
};
use serde::de::DeserializeOwned;

use super::{
    etcd::{KeyChange, StoredValue, Write},
    layout::{AnswerDoc, Decided, Epoch, FactsDoc, KeyKind, ReportDoc, StoreIdentity},
};

/// Records that no leader deletes.
const LASTING: [&str; 2] = ["decided/rollout", "decided/serial"];
/// Of the reason why a record cannot be read: it quotes the record.
const REASON_BYTES: usize = 300;

/// Everything under the prefix.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The revision of the last list or change.
    pub(crate) revision: i64,
    /// Which cluster it says it is.
    pub(crate) identity: Option<StoreIdentity>,
    /// Who led last.
    pub(crate) epoch: Epoch,
    /// What was decided. Its `cluster` is not in the store; the caller knows it.
    pub(crate) state: ClusterState,
    /// The nodes.
    pub(crate) members: BTreeMap<NodeName, Member>,
    /// Whose pods have which addresses.
    pub(crate) subnets: BTreeMap<Ipv4Net, NodeName>,
    /// The leader's answers.
    pub(crate) answers: BTreeMap<NodeName, AnswerDoc>,
    /// Who stands for election, by the revision of their keys: the lowest leads.
    pub(crate) candidates: BTreeMap<String, (i64, NodeName)>,
    /// Records that cannot be read, with the reason.
    pub(crate) unreadable: BTreeMap<String, String>,
    /// Some of the keys that are known are gone.
    graves: bool,
    /// Something was decided since somebody asked.
    redecided: bool,
    /// A clock that differs much was heard of since somebody asked.
    strange: bool,
    /// What is known of each key, deletions that the watch has not told yet included.
    known: BTreeMap<String, Known>,
    /// Records that somebody other than a leader deleted: they hold, and the leader writes them
    /// again.
    missing: BTreeMap<String, Decided>,
    /// Where the pods are that this host believes in. A pod that has a node keeps it for its life.
    places: BTreeMap<PodUid, NodeName>,
    /// Records that give a pod another node than it has, as they stand in the store: it is believed
    /// where it is, and the leader writes them again.
    moved: BTreeMap<String, PodRecord>,
}

#[derive(Debug)]
struct Known {
    revision: i64,
    decided: Option<Decided>,
    gone: bool,
}

impl Contents {
    /// What this host's own copy says, for records that cannot be read in the first list.
    pub(crate) fn remember(&mut self, records: Vec<Decided>) {
        for decided in &records {
            if let Decided::Pod(record) = decided
                && let Some(node) = record.place.node()
            {
                self.places.insert(record.uid.clone(), node.clone());
            }
        }
        let known = |decided: Decided| {
            (
                decided.key(),
                Known {
                    revision: 0,
                    decided: Some(decided),
                    gone: false,
                },
            )
        };
        self.known.extend(records.into_iter().map(known));
    }

    /// Everything there is, instead of what was known. Silences go on.
    pub(crate) fn list(&mut self, revision: i64, pairs: Vec<StoredValue>) {
        let mut before = std::mem::take(self);
        self.revision = revision;
        self.redecided = true;
        self.places = std::mem::take(&mut before.places);
        for pair in pairs {
            self.put(&pair.key, &pair.value, pair.revision, None);
        }
        // What cannot be read takes nothing back, and what was deleted by hand is on its way back.
        let unreadable: Vec<String> = self.unreadable.keys().cloned().collect();
        for key in unreadable {
            if let Some(decided) = before.known.remove(&key).and_then(|known| known.decided) {
                self.decide(decided.clone());
                self.known
                    .entry(key)
                    .and_modify(|known| known.decided = Some(decided));
            }
        }
        for (key, decided) in before.missing {
            if !self.known.contains_key(&key) {
                self.decide(decided.clone());
                self.missing.insert(key, decided);
            }
        }
        // A node of which the list says nothing is silent, and there.
        for name in before.members.keys() {
            self.members.entry(name.clone()).or_default();
        }
        let now = Instant::now();
        for (name, member) in &mut self.members {
            let since = before.members.get(name).and_then(|member| member.silent);
            member.silent = member.alive.is_none().then(|| since.unwrap_or(now));
            member.clock = before.members.get(name).and_then(|member| member.clock);
        }
    }

    /// What has changed, in order. A leader's own writes are known by then, so that what is deleted
    /// besides was deleted by nobody who may.
    pub(crate) fn change(&mut self, revision: i64, changes: Vec<KeyChange>, leading: bool) {
        for change in changes {
            match change {
                KeyChange::Put(pair) => self.put(
                    &pair.key,
                    &pair.value,
                    pair.revision,
                    Some(Timestamp::now()),
                ),
                KeyChange::Delete { key, revision } => {
                    if let Some(decided) = self.wrongly_deleted(&key, revision, leading) {
                        tracing::warn!(
                            "{key} was deleted from the store, and not by its leader: it holds"
                        );
                        self.known.remove(&key);
                        self.moved.remove(&key);
                        self.missing.insert(key, decided);
                    } else {
                        self.delete(&key, revision);
                    }
                }
            }
        }
        self.revision = self.revision.max(revision);
        let told = self.revision;
        if self.graves {
            self.known
                .retain(|_, known| !known.gone || known.revision > told);
            self.graves = self.known.values().any(|known| known.gone);
        }
    }

    /// What a key says that was deleted without right. A leader forgets a pod only after its stop
    /// record, with its node, or where its node has nothing of it in an adopted store.
    fn wrongly_deleted(&self, key: &str, revision: i64, leading: bool) -> Option<Decided> {
        let known = self
            .known
            .get(key)
            .filter(|known| !known.gone && known.revision < revision)?;
        let decided = known.decided.as_ref()?;
        let wrong = match decided {
            Decided::Pod(record) => {
                let forgotten = |node: &NodeName| {
                    let report = self.members.get(node).map(|member| &member.report.report);
                    let adopted = self.state.rollout.adopted.as_ref().zip(report);
                    self.state.removed.contains_key(node)
                        || adopted
                            .is_some_and(|(adopted, report)| adopted.is_without(record, report))
                };
                let runs = |node: &NodeName| record.stop.is_none() && !forgotten(node);
                leading || record.place.node().is_some_and(runs)
            }
            Decided::Answer(..) => false,
            _ => leading,
        };
        wrong.then(|| decided.clone())
    }

    /// A decision as it is believed: a pod that has a node keeps it, whatever a record says.
    fn in_place(&mut self, key: &str, decided: Decided) -> Decided {
        self.moved.remove(key);
        let Decided::Pod(record) = decided else {
            return decided;
        };
        let Some(node) = self
            .places
            .get(&record.uid)
            .filter(|node| record.place.node() != Some(node))
        else {
            return Decided::Pod(record);
        };
        let kept = PodRecord {
            place: PodPlace::Node(node.clone()),
            ..(*record).clone()
        };
        self.moved.insert(key.to_owned(), *record);
        Decided::Pod(Box::new(kept))
    }

    /// What is believed now: from here on each pod has its node for its life.
    pub(crate) fn settle(&mut self) {
        let placed = self.state.pods.iter();
        let placed =
            placed.filter_map(|(uid, record)| Some((uid.clone(), record.place.node()?.clone())));
        self.places = placed.collect();
    }

    /// Takes everything as it stands in the store: a person has said that it is to be believed.
    pub(crate) fn accept_current(&mut self) {
        self.places.clear();
        for decided in std::mem::take(&mut self.missing).into_values() {
            self.undecide(Some(decided));
        }
        for (key, record) in std::mem::take(&mut self.moved) {
            let decided = Decided::Pod(Box::new(record));
            self.decide(decided.clone());
            self.known
                .entry(key)
                .and_modify(|known| known.decided = Some(decided));
        }
    }

    /// Records that give a pod another node than it has: their keys, where the pod is, and where it
    /// is said to be.
    pub(crate) fn moved(&self) -> impl Iterator<Item = (&str, &NodeName, &PodPlace)> {
        self.moved.iter().filter_map(|(key, record)| {
            let node = self.state.pods.get(&record.uid)?.place.node()?;
            Some((key.as_str(), node, &record.place))
        })
    }

    /// Whether something was decided since this was last asked.
    pub(crate) fn take_decided(&mut self) -> bool {
        std::mem::take(&mut self.redecided)
    }

    /// Whether a node was heard for the first time since this was last asked whose clock differs
    /// much.
    pub(crate) fn take_strange(&mut self) -> bool {
        std::mem::take(&mut self.strange)
    }

    /// Whether a record that is always there is on its way back.
    pub(crate) fn lacks_lasting(&self) -> bool {
        LASTING.iter().any(|key| self.missing.contains_key(*key))
    }

    /// Forgets what was deleted by hand: it is another leader's to judge.
    pub(crate) fn forget_missing(&mut self) {
        self.missing.clear();
    }

    /// What the leader must write again: what was deleted, and what was given another node.
    pub(crate) fn wronged(&self) -> Vec<Write> {
        let moved = self
            .moved
            .values()
            .filter_map(|record| self.state.pods.get(&record.uid));
        let moved = moved.map(|record| Decided::Pod(Box::new(record.clone())).write());
        self.missing
            .values()
            .map(Decided::write)
            .chain(moved)
            .collect()
    }

    /// The newest revision of the records that are always there once there is a cluster, or which
    /// of them is not.
    pub(crate) fn lasting(&self) -> Result<i64, &'static str> {
        let mut newest = 0;
        for key in LASTING {
            match self.known.get(key).filter(|known| known.decided.is_some()) {
                Some(known) => newest = newest.max(known.revision),
                None if self.missing.contains_key(key) => {}
                None => return Err(key),
            }
        }
        Ok(newest)
    }

    /// What this host wrote itself, before the watch tells it.
    pub(crate) fn wrote(&mut self, revision: i64, writes: &[Write]) {
        for write in writes {
            match write {
                Write::Put { key, value } => self.put(key, value, revision, None),
                Write::Delete { key } => self.delete(key, revision),
            }
        }
    }

    /// The keys under a prefix.
    pub(crate) fn keys<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let from = self.known.range(prefix.to_owned()..);
        from.take_while(move |(key, _)| key.starts_with(prefix))
            .filter(|(_, known)| !known.gone)
            .map(|(key, _)| key.as_str())
    }

    fn put(&mut self, key: &str, value: &[u8], revision: i64, heard: Option<Timestamp>) {
        if self
            .known
            .get(key)
            .is_some_and(|known| known.revision >= revision)
        {
            return;
        }
        if KeyKind::of(key) == KeyKind::Election {
            let name = NodeName::new(String::from_utf8_lossy(value).into_owned());
            self.candidates.insert(key.to_owned(), (revision, name));
        }
        let decided = match self.take_in(key, value, heard) {
            Ok(decided) => {
                self.unreadable.remove(key);
                decided
            }
            Err(error) => {
                // What was known before is kept: half a sentence takes nothing back.
                let why = ForeignText::bounded(&error.to_string(), REASON_BYTES);
                self.unreadable.insert(key.to_owned(), why.into());
                self.known.remove(key).and_then(|known| known.decided)
            }
        };
        self.missing.remove(key);
        self.known.insert(
            key.to_owned(),
            Known {
                revision,
                decided,
                gone: false,
            },
        );
    }

    fn take_in(
        &mut self,
        key: &str,
        value: &[u8],
        heard: Option<Timestamp>,
    ) -> Result<Option<Decided>, serde_json::Error> {
        match KeyKind::of(key) {
            KeyKind::Identity => self.identity = Some(read(value)?),
            KeyKind::Decided => {
                let decided: Decided = read(value)?;
                if decided.key() == key {
                    let decided = self.in_place(key, decided);
                    self.decide(decided.clone());
                    return Ok(Some(decided));
                }
            }
            KeyKind::Subnet(subnet) => {
                self.subnets.insert(subnet, read(value)?);
            }
            KeyKind::Facts(node) => {
                let facts: FactsDoc = read(value)?;
                let member = self.member(node.clone());
                if heard.is_some() {
                    let known = member.skew().is_some();
                    member.clock = Some((facts.clock, Instant::now()));
                    self.strange |= !known && member.skew().is_some();
                }
                let member = self.member(node.clone());
                member.facts = Some(facts).filter(|doc| doc.facts.name == node);
            }
            KeyKind::Alive(node) => {
                let alive = read(value)?;
                let member = self.member(node);
                member.alive = Some(alive);
                member.silent = None;
            }
            KeyKind::Report(node) => {
                let report: ReportDoc = read(value)?;
                let member = self.member(node);
                let pods = std::mem::take(&mut member.report.report.pods);
                member.report = report;
                member.report.report.pods = pods;
                member.reported = true;
            }
            KeyKind::Away(node) => {
                let away = read(value)?;
                self.member(node).away = Some(away);
            }
            KeyKind::Ask(node) => {
                let ask = read(value)?;
                self.member(node).ask = Some(ask);
            }
            KeyKind::Pod(node, uid) => {
                let mut status: PodStatus = read(value)?;
                // Ready since a time to come, by a clock that is ahead: since now, then.
                status.ready = status
                    .ready
                    .map(|since| since.min(heard.unwrap_or_else(Timestamp::now)));
                self.member(node).report.report.pods.insert(uid, status);
            }
            KeyKind::Election | KeyKind::Unknown => {}
        }
        Ok(None)
    }

    fn decide(&mut self, decided: Decided) {
        self.redecided = true;
        let state = &mut self.state;
        match decided {
            Decided::Epoch(epoch) => self.epoch = epoch,
            Decided::Rollout(rollout) => state.rollout = *rollout,
            Decided::Serial(serial) => state.serial = serial,
            Decided::Pod(record) => {
                state.pods.insert(record.uid.clone(), *record);
            }
            Decided::Workload(key, progress) => {
                state.workloads.insert(key, progress);
            }
            Decided::Service(key, given) => {
                state.services.insert(key, given);
            }
            Decided::Outage(node, outage) => {
                state.outages.insert(node, outage);
            }
            Decided::Removed(node, installation) => {
                state.removed.insert(node, installation);
            }
            Decided::Answer(node, answer) => {
                self.answers.insert(node, answer);
            }
        }
    }

    fn delete(&mut self, key: &str, revision: i64) {
        if self
            .known
            .get(key)
            .is_some_and(|known| known.revision >= revision)
        {
            return;
        }
        self.missing.remove(key);
        self.moved.remove(key);
        self.graves = true;
        let known = Known {
            revision,
            decided: None,
            gone: true,
        };
        let before = self
            .known
            .insert(key.to_owned(), known)
            .and_then(|known| known.decided);
        self.unreadable.remove(key);
        match KeyKind::of(key) {
            KeyKind::Identity => self.identity = None,
            KeyKind::Decided => self.undecide(before),
            KeyKind::Subnet(subnet) => {
                self.subnets.remove(&subnet);
            }
            KeyKind::Facts(node) => self.member(node).facts = None,
            KeyKind::Alive(node) => {
                let member = self.member(node);
                member.alive = None;
                member.silent.get_or_insert_with(Instant::now);
            }
            KeyKind::Report(node) => {
                let member = self.member(node);
                let pods: BTreeMap<PodUid, PodStatus> =
                    std::mem::take(&mut member.report.report.pods);
                member.report = ReportDoc::default();
                member.report.report.pods = pods;
                member.reported = false;
            }
            KeyKind::Away(node) => self.member(node).away = None,
            KeyKind::Ask(node) => self.member(node).ask = None,
            KeyKind::Pod(node, uid) => {
                self.member(node).report.report.pods.remove(&uid);
            }
            KeyKind::Election => {
                self.candidates.remove(key);
            }
            KeyKind::Unknown => {}
        }
    }

    fn undecide(&mut self, before: Option<Decided>) {
        self.redecided = true;
        let state = &mut self.state;
        match before {
            // Without these there is no state: what was last known holds.
            None | Some(Decided::Epoch(_) | Decided::Rollout(_) | Decided::Serial(_)) => {}
            // Whoever finds it running later says where.
            Some(Decided::Pod(record)) => {
                state.pods.remove(&record.uid);
                self.places.remove(&record.uid);
            }
            Some(Decided::Workload(key, _)) => {
                state.workloads.remove(&key);
            }
            Some(Decided::Service(key, _)) => {
                state.services.remove(&key);
            }
            Some(Decided::Outage(node, _)) => {
                state.outages.remove(&node);
            }
            Some(Decided::Removed(node, _)) => {
                state.removed.remove(&node);
            }
            Some(Decided::Answer(node, _)) => {
                self.answers.remove(&node);
            }
        }
    }

    /// A node that is known from before, whatever the store says of it.
    pub(crate) fn expect(&mut self, node: NodeName) {
        self.member(node).silent.get_or_insert_with(Instant::now);
    }

    fn member(&mut self, node: NodeName) -> &mut Member {
        self.members.entry(node).or_default()
    }
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(value)
}
