//! The content of etcd under the prefix, as this host knows it: keys become the cluster's state and
//! its members.

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
    state::{ClusterState, PodPlace, PodRecord, Record},
    status::PodStatus,
};
use serde::de::DeserializeOwned;

use super::{
    etcd::{KeyChange, StoredValue, Write},
    layout::{
        AnswerDoc, DECIDED, Decided, Epoch, FactsDoc, KeyKind, OwnRecord, ReportDoc, StoreIdentity,
    },
};

/// Records that no leader deletes.
const LASTING: [&str; 2] = ["decided/rollout", "decided/serial"];
/// The size limit of the reason why a record cannot be read: the reason quotes the record.
const REASON_BYTES: usize = 300;

/// The content under the prefix.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The revision of the last list or change.
    pub(crate) revision: i64,
    /// The identity of the cluster by the store; `None` in an empty store.
    pub(crate) identity: Option<StoreIdentity>,
    /// The leader of the last decision.
    pub(crate) epoch: Epoch,
    /// The decisions. The field `cluster` is not in the store; the caller knows it.
    pub(crate) state: ClusterState,
    /// The nodes, with their own keys.
    pub(crate) members: BTreeMap<NodeName, Member>,
    /// The subnets that nodes have reserved for their pods.
    pub(crate) subnets: BTreeMap<Ipv4Net, NodeName>,
    /// The leader's answers, by the node that asked.
    pub(crate) answers: BTreeMap<NodeName, AnswerDoc>,
    /// The candidates of the election, by their keys, each with the creation revision: the lowest
    /// revision leads.
    pub(crate) candidates: BTreeMap<String, (i64, NodeName)>,
    /// Records that cannot be read, with the reason.
    pub(crate) unreadable: BTreeMap<String, String>,
    /// Whether deletions are recorded among the known keys.
    graves: bool,
    /// Whether something was decided since the last [`Contents::take_decided`].
    redecided: bool,
    /// Whether a clock with a large difference was observed since the last
    /// [`Contents::take_strange`].
    strange: bool,
    /// The last known change of each key, including deletions that the watch has not shown yet.
    known: BTreeMap<String, Known>,
    /// Records that somebody other than a leader deleted: they still hold, and the leader writes
    /// them again.
    missing: BTreeMap<String, Decided>,
    /// The accepted places of pods. A pod that has a node keeps it for its life.
    places: BTreeMap<PodUid, NodeName>,
    /// Records that give a pod another node than its own, as they are in the store: the pod keeps
    /// its place, and the leader writes the record again.
    moved: BTreeMap<String, PodRecord>,
}

#[derive(Debug)]
struct Known {
    revision: i64,
    decided: Option<Decided>,
    gone: bool,
}

impl Contents {
    /// Takes in this host's own copy, for records of the first list that cannot be read.
    pub(crate) fn remember(&mut self, records: Vec<Decided>) {
        for decided in &records {
            if let Decided::Record(Record::Pod(record)) = decided
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

    /// Replaces the content by a list. The times since when nodes are silent stay.
    pub(crate) fn list(&mut self, revision: i64, pairs: Vec<StoredValue>) {
        let mut before = std::mem::take(self);
        self.revision = revision;
        self.redecided = true;
        self.places = std::mem::take(&mut before.places);
        for pair in pairs {
            self.put(&pair.key, &pair.value, pair.revision, None);
        }
        // A record that cannot be read keeps its former value, and a record that was deleted by
        // hand is to be written again.
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
        // A node that is missing in the list stays a member and counts as silent.
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

    /// Takes in changes, in order. A leader's own writes are known by then, so the leader knows any
    /// other deletion of a decision as unauthorized.
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
        let up_to = self.revision;
        if self.graves {
            self.known
                .retain(|_, known| !known.gone || known.revision > up_to);
            self.graves = self.known.values().any(|known| known.gone);
        }
    }

    /// The record of a key that was deleted without authority. A leader deletes a pod's record only
    /// after its stop record, with its node, or if its node has nothing of the pod in an adopted
    /// store.
    fn wrongly_deleted(&self, key: &str, revision: i64, leading: bool) -> Option<Decided> {
        let known = self
            .known
            .get(key)
            .filter(|known| !known.gone && known.revision < revision)?;
        let decided = known.decided.as_ref()?;
        let wrong = match decided {
            Decided::Record(Record::Pod(record)) => {
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
            Decided::Own(OwnRecord::Answer(..)) => false,
            _ => leading,
        };
        wrong.then(|| decided.clone())
    }

    /// A decision as it is accepted: a pod that has a node keeps it, whatever a record contains.
    fn in_place(&mut self, key: &str, decided: Decided) -> Decided {
        self.moved.remove(key);
        let Decided::Record(Record::Pod(record)) = decided else {
            return decided;
        };
        let Some(node) = self
            .places
            .get(&record.uid)
            .filter(|node| record.place.node() != Some(node))
        else {
            return Decided::Record(Record::Pod(record));
        };
        let kept = PodRecord {
            place: PodPlace::Node(node.clone()),
            ..(*record).clone()
        };
        self.moved.insert(key.to_owned(), *record);
        Decided::record(kept)
    }

    /// Fixes the present places of pods: from here on each pod has its node for its life.
    pub(crate) fn settle(&mut self) {
        let placed = self.state.pods.iter();
        let placed =
            placed.filter_map(|(uid, record)| Some((uid.clone(), record.place.node()?.clone())));
        self.places = placed.collect();
    }

    /// Accepts the whole store as it is: a person has adopted it.
    pub(crate) fn accept_current(&mut self) {
        self.places.clear();
        for decided in std::mem::take(&mut self.missing).into_values() {
            self.undecide(Some(decided));
        }
        for (key, record) in std::mem::take(&mut self.moved) {
            let decided = Decided::record(record);
            self.decide(decided.clone());
            self.known
                .entry(key)
                .and_modify(|known| known.decided = Some(decided));
        }
    }

    /// Records that give a pod another node than its own: their keys, the pod's node, and the place
    /// in the record.
    pub(crate) fn moved(&self) -> impl Iterator<Item = (&str, &NodeName, &PodPlace)> {
        self.moved.iter().filter_map(|(key, record)| {
            let node = self.state.pods.get(&record.uid)?.place.node()?;
            Some((key.as_str(), node, &record.place))
        })
    }

    /// Whether something was decided since the last call.
    pub(crate) fn take_decided(&mut self) -> bool {
        std::mem::take(&mut self.redecided)
    }

    /// Whether since the last call a node was observed for the first time whose clock differs by
    /// more than the limit.
    pub(crate) fn take_strange(&mut self) -> bool {
        std::mem::take(&mut self.strange)
    }

    /// Whether a record that no leader deletes is missing and is to be written again.
    pub(crate) fn lacks_lasting(&self) -> bool {
        LASTING.iter().any(|key| self.missing.contains_key(*key))
    }

    /// Forgets records that were deleted by hand: the next leader judges them.
    pub(crate) fn forget_missing(&mut self) {
        self.missing.clear();
    }

    /// Whether some of the leader's records cannot be read.
    pub(crate) fn has_unreadable_decisions(&self) -> bool {
        self.unreadable.keys().any(|key| key.starts_with(DECIDED))
    }

    /// What the leader must write again: deleted records, and records that give a pod another node.
    pub(crate) fn wronged(&self) -> Vec<Write> {
        let moved = self
            .moved
            .values()
            .filter_map(|record| self.state.pods.get(&record.uid));
        let moved = moved.map(|record| Decided::record(record.clone()).write());
        self.missing
            .values()
            .map(Decided::write)
            .chain(moved)
            .collect()
    }

    /// The newest revision of the records that every cluster has, or the key of a missing one.
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

    /// Takes in this host's own writes before the watch shows them.
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

    fn put(&mut self, key: &str, value: &[u8], revision: i64, received: Option<Timestamp>) {
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
        let decided = match self.take_in(key, value, received) {
            Ok(decided) => {
                self.unreadable.remove(key);
                decided
            }
            Err(error) => {
                // The value that was known before is kept: an unreadable record must not delete
                // anything.
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
        received: Option<Timestamp>,
    ) -> Result<Option<Decided>, serde_json::Error> {
        match KeyKind::of(key) {
            KeyKind::Identity => self.identity = Some(read(value)?),
            KeyKind::Decided => {
                if let Some(decided) = Decided::read(key, value)? {
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
                if received.is_some() {
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
                // A status may be ready since a future time, by a clock that is ahead: this host's
                // present time is used instead.
                status.ready = status
                    .ready
                    .map(|since| since.min(received.unwrap_or_else(Timestamp::now)));
                self.member(node).report.report.pods.insert(uid, status);
            }
            KeyKind::Election | KeyKind::Unknown => {}
        }
        Ok(None)
    }

    fn decide(&mut self, decided: Decided) {
        self.redecided = true;
        match decided {
            Decided::Record(record) => self.state.put(record),
            Decided::Own(OwnRecord::Epoch(epoch)) => self.epoch = epoch,
            Decided::Own(OwnRecord::Answer(node, answer)) => {
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
        match before {
            // Without an epoch there is no leader: the last known one stays.
            None | Some(Decided::Own(OwnRecord::Epoch(_))) => {}
            Some(Decided::Own(OwnRecord::Answer(node, _))) => {
                self.answers.remove(&node);
            }
            Some(Decided::Record(record)) => {
                // A node that later reports the pod as running determines the place.
                if let Record::Pod(record) = &record {
                    self.places.remove(&record.uid);
                }
                self.state.delete(&record.key());
            }
        }
    }

    /// Adds a node that this host knows from before, whether or not the store has it.
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
