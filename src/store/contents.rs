//! What etcd holds under the prefix, as this host knows it: keys become the cluster's state and its members.

use std::{collections::BTreeMap, time::Instant};

use ipnet::Ipv4Net;
use jiff::{SignedDuration, Timestamp};
use reconciler::{
    name::{NodeName, PodUid},
    state::{ClusterState, PodPlace, PodRecord},
    status::PodStatus,
};
use serde::de::DeserializeOwned;

use super::{
    etcd::{KeyChange, Pair, Write},
    layout::{AliveDoc, AnswerDoc, AskDoc, AwayDoc, Decided, Epoch, FactsDoc, Identity, KeyKind, ReportDoc},
};

/// Records that no leader deletes.
const LASTING: [&str; 2] = ["decided/rollout", "decided/serial"];
/// Clocks that differ by more than this are worth a word.
const SKEW: SignedDuration = SignedDuration::from_secs(30);

/// A node, by what it wrote.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    /// What it said when it started.
    pub(crate) facts: Option<FactsDoc>,
    /// Its lease, while it lives.
    pub(crate) alive: Option<AliveDoc>,
    /// Since when its lease is gone, for this host.
    pub(crate) silent: Option<Instant>,
    /// What it says; the pods are filled in from their own keys.
    pub(crate) report: ReportDoc,
    /// Whether it has said anything at all.
    pub(crate) reported: bool,
    /// It comes back soon.
    pub(crate) away: Option<AwayDoc>,
    /// What it wants of the leader.
    pub(crate) ask: Option<AskDoc>,
    /// What its clock said when this host heard it last, and when that was by the clock that never jumps.
    pub(crate) clock: Option<(Timestamp, Instant)>,
}

impl Member {
    /// By how much its clock is ahead of this host's, if that is worth a word: as both go now, also when this host's was
    /// set since.
    pub(crate) fn skew(&self) -> Option<SignedDuration> {
        let (told, heard) = self.clock?;
        let ahead = skew(told, heard);
        (ahead.abs() > SKEW).then_some(ahead)
    }
}

/// By how much a clock is ahead of this host's that said this then.
pub(super) fn skew(told: Timestamp, heard: Instant) -> SignedDuration {
    let since = SignedDuration::try_from(heard.elapsed()).unwrap_or(SignedDuration::MAX);
    told.duration_since(Timestamp::now()).saturating_add(since)
}

/// Everything under the prefix.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The revision of the last list or change.
    pub(crate) revision: i64,
    /// Which cluster it says it is.
    pub(crate) identity: Option<Identity>,
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
    /// Records that somebody other than a leader deleted: they hold, and the leader writes them again.
    missing: BTreeMap<String, Decided>,
    /// Where the pods are that this host believes in. A pod that has a node keeps it for its life.
    places: BTreeMap<PodUid, NodeName>,
    /// Records that give a pod another node than it has, as they stand in the store: it is believed where it is, and the
    /// leader writes them again.
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
        let known =
            |decided: Decided| (decided.key(), Known { revision: 0, decided: Some(decided), gone: false });
        self.known.extend(records.into_iter().map(known));
    }

    /// Everything there is, instead of what was known. Silences go on.
    pub(crate) fn list(&mut self, revision: i64, pairs: Vec<Pair>) {
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
                self.known.entry(key).and_modify(|known| known.decided = Some(decided));
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

    /// What has changed, in order. A leader's own writes are known by then, so that what is deleted besides was
    /// deleted by nobody who may.
    pub(crate) fn change(&mut self, revision: i64, changes: Vec<KeyChange>, leading: bool) {
        for change in changes {
            match change {
                KeyChange::Put(pair) => {
                    self.put(&pair.key, &pair.value, pair.revision, Some(Timestamp::now()))
                }
                KeyChange::Delete { key, revision } => {
                    if let Some(decided) = self.wrongly_deleted(&key, revision, leading) {
                        tracing::warn!("{key} was deleted from the store, and not by its leader: it holds");
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
            self.known.retain(|_, known| !known.gone || known.revision > told);
            self.graves = self.known.values().any(|known| known.gone);
        }
    }

    /// What a key says that was deleted without right. A leader forgets a pod only after its stop record, or with its
    /// node.
    fn wrongly_deleted(&self, key: &str, revision: i64, leading: bool) -> Option<Decided> {
        let known = self.known.get(key).filter(|known| !known.gone && known.revision < revision)?;
        let decided = known.decided.as_ref()?;
        let wrong = match decided {
            Decided::Pod(record) => {
                let node_removed =
                    record.place.node().is_some_and(|node| self.state.removed.contains_key(node));
                leading || record.stop.is_none() && record.place.node().is_some() && !node_removed
            }
            Decided::Answer(..) => false,
            _ => leading,
        };
        wrong.then(|| decided.clone())
    }

    /// A decision as it is believed: a pod that has a node keeps it, whatever a record says.
    fn in_place(&mut self, key: &str, decided: Decided) -> Decided {
        self.moved.remove(key);
        let Decided::Pod(record) = decided else { return decided };
        let Some(node) = self.places.get(&record.uid).filter(|node| record.place.node() != Some(node)) else {
            return Decided::Pod(record);
        };
        let kept = PodRecord { place: PodPlace::Node(node.clone()), ..(*record).clone() };
        self.moved.insert(key.to_owned(), *record);
        Decided::Pod(Box::new(kept))
    }

    /// What is believed now: from here on each pod has its node for its life.
    pub(crate) fn settle(&mut self) {
        let placed = self.state.pods.iter();
        let placed = placed.filter_map(|(uid, record)| Some((uid.clone(), record.place.node()?.clone())));
        self.places = placed.collect();
    }

    /// Takes everything as it stands in the store: a person has said that it is to be believed.
    pub(crate) fn believe_anew(&mut self) {
        self.places.clear();
        for (key, record) in std::mem::take(&mut self.moved) {
            let decided = Decided::Pod(Box::new(record));
            self.decide(decided.clone());
            self.known.entry(key).and_modify(|known| known.decided = Some(decided));
        }
    }

    /// Records that give a pod another node than it has: their keys, where the pod is, and where it is said to be.
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

    /// Whether a node was heard for the first time since this was last asked whose clock differs much.
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
        let moved = self.moved.values().filter_map(|record| self.state.pods.get(&record.uid));
        let moved = moved.map(|record| Decided::Pod(Box::new(record.clone())).write());
        self.missing.values().map(Decided::write).chain(moved).collect()
    }

    /// The newest revision of the records that are always there once there is a cluster, or which of them is not.
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
        if self.known.get(key).is_some_and(|known| known.revision >= revision) {
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
                self.unreadable.insert(key.to_owned(), error.to_string());
                self.known.remove(key).and_then(|known| known.decided)
            }
        };
        self.missing.remove(key);
        self.known.insert(key.to_owned(), Known { revision, decided, gone: false });
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
                status.ready = status.ready.map(|since| since.min(heard.unwrap_or_else(Timestamp::now)));
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
        if self.known.get(key).is_some_and(|known| known.revision >= revision) {
            return;
        }
        self.missing.remove(key);
        self.moved.remove(key);
        self.graves = true;
        let known = Known { revision, decided: None, gone: true };
        let before = self.known.insert(key.to_owned(), known).and_then(|known| known.decided);
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
                let pods: BTreeMap<PodUid, PodStatus> = std::mem::take(&mut member.report.report.pods);
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
            Some(Decided::Pod(record)) => {
                state.pods.remove(&record.uid);
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use reconciler::{
        name::{CommitId, ObjectKey, TemplateHash},
        placement::Refusal,
        state::{Change, NodeFacts, NodeSystem, StopReason, StopRecord},
    };

    use super::*;
    use crate::store::layout;

    fn pair(key: &str, value: &[u8], revision: i64) -> Pair {
        Pair { key: key.to_owned(), value: value.to_vec(), revision }
    }

    #[test]
    fn a_record_that_cannot_be_read_says_what_the_copy_says_also_after_a_start() {
        let mut copy = ClusterState::default();
        copy.apply(vec![Change::Serial(7)]);
        let mut contents = Contents::default();
        contents.remember(layout::records(&copy));
        contents.list(5, vec![pair("decided/serial", b"{\"of-a-later-version\":1}", 4)]);
        assert_eq!(contents.state.serial, 7);
        assert!(contents.unreadable.contains_key("decided/serial"));
        // What is not in the list at all is not brought back.
        assert!(contents.keys("decided/").eq(["decided/serial"]));
    }

    fn pod(node: Option<&str>) -> PodRecord {
        let place = match node {
            Some(node) => PodPlace::Node(NodeName::new(node)),
            None => PodPlace::Unplaced(Refusal::default()),
        };
        PodRecord {
            uid: PodUid::new("u"),
            key: ObjectKey::new("default", "web-1"),
            owner: "Deployment/default/web".parse().unwrap(),
            place,
            commit: CommitId::new("c"),
            template: TemplateHash::new("1-0"),
            created: Timestamp::UNIX_EPOCH,
            serial: 1,
            stop: None,
        }
    }

    const POD: &str = "decided/pods/u";

    fn put(record: &PodRecord, revision: i64) -> KeyChange {
        let decided = Decided::Pod(Box::new(record.clone()));
        KeyChange::Put(pair(POD, &layout::text(&decided), revision))
    }

    fn place(contents: &Contents) -> Option<&str> {
        contents.state.pods[&PodUid::new("u")].place.node().map(NodeName::as_str)
    }

    #[test]
    fn a_pod_that_has_a_node_keeps_it_whatever_its_record_says() {
        let mut contents = Contents::default();
        contents.change(2, vec![put(&pod(None), 2)], false);
        contents.settle();
        contents.change(3, vec![put(&pod(Some("n1")), 3)], false);
        assert_eq!((place(&contents), contents.moved().count()), (Some("n1"), 0), "the leader has placed it");
        contents.settle();
        for other in [Some("n2"), None] {
            contents.change(4, vec![put(&pod(other), 4)], false);
            assert_eq!(place(&contents), Some("n1"));
            let said: Vec<_> = contents.moved().map(|(key, node, _)| (key, node.as_str())).collect();
            assert_eq!(said, [(POD, "n1")]);
            contents.list(5, vec![pair(POD, &layout::text(&Decided::Pod(Box::new(pod(other)))), 4)]);
            assert_eq!((place(&contents), contents.moved().count()), (Some("n1"), 1), "listed anew");
            // The leader writes what is believed, after which nothing is wrong.
            let writes = contents.wronged();
            assert_eq!(writes, [Decided::Pod(Box::new(pod(Some("n1")))).write()]);
            contents.wrote(6, &writes);
            assert_eq!((place(&contents), contents.wronged()), (Some("n1"), Vec::new()));
            contents.list(3, vec![pair(POD, &layout::text(&Decided::Pod(Box::new(pod(Some("n1"))))), 3)]);
        }
        // All else of a record is believed: it can be stopped.
        let at = Timestamp::UNIX_EPOCH;
        let stop = Some(StopRecord { at, reason: StopReason::ScaledDown });
        contents.change(7, vec![put(&PodRecord { stop: stop.clone(), ..pod(Some("n2")) }, 7)], false);
        let believed = &contents.state.pods[&PodUid::new("u")];
        assert_eq!((believed.place.node().unwrap().as_str(), &believed.stop), ("n1", &stop));
        // A person's word counts for more.
        contents.believe_anew();
        assert_eq!((place(&contents), contents.moved().count()), (Some("n2"), 0));
    }

    #[test]
    fn a_pod_is_not_moved_by_way_of_being_deleted_unplaced_or_of_a_restart() {
        let delete = |revision| KeyChange::Delete { key: POD.to_owned(), revision };
        let moves = [
            vec![delete(5), put(&pod(Some("n2")), 6)],
            vec![put(&pod(None), 5), delete(6), put(&pod(Some("n2")), 7)],
        ];
        for changes in moves {
            let mut copy = ClusterState::default();
            copy.apply(vec![Change::Pod(Box::new(pod(Some("n1"))))]);
            let mut contents = Contents::default();
            contents.remember(layout::records(&copy));
            contents.list(4, vec![pair(POD, &layout::text(&Decided::Pod(Box::new(pod(None)))), 4)]);
            assert_eq!(place(&contents), Some("n1"), "as the copy on the disk says");
            contents.change(7, changes, false);
            assert_eq!(place(&contents), Some("n1"));
            assert_eq!(contents.wronged(), [Decided::Pod(Box::new(pod(Some("n1")))).write()]);
        }
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_make_a_pod_ready_in_time_to_come() {
        let hour = SignedDuration::from_hours(1);
        let (now, node) = (Timestamp::now(), NodeName::new("n1"));
        let status = PodStatus { ready: Some(now + hour), ..PodStatus::pending() };
        let key = layout::pod_status_key(&node, &PodUid::new("u"));
        let mut contents = Contents::default();
        let put = KeyChange::Put(pair(&key, &layout::text(&status), 3));
        contents.change(3, vec![put], false);
        let heard = contents.members[&node].report.report.pods[&PodUid::new("u")].ready.unwrap();
        assert!(heard <= Timestamp::now());
    }

    #[test]
    fn a_clock_that_differs_much_is_told_as_it_differs_now_and_news_once() {
        let (node, hour) = (NodeName::new("n1"), SignedDuration::from_hours(1));
        let facts = |clock: Timestamp| {
            let facts = NodeFacts {
                name: node.clone(),
                installation: "i1".to_owned(),
                address: "192.0.2.11".parse().unwrap(),
                pod_subnet: "10.244.1.0/24".parse().unwrap(),
                mtu: 1450,
                labels: BTreeMap::new(),
                taints: Vec::new(),
                system: NodeSystem::default(),
            };
            layout::text(&FactsDoc { facts, peer: None, clock })
        };
        let key = layout::node_key(&node, "facts");
        let mut contents = Contents::default();
        // What was written at some time says nothing of clocks.
        contents.list(3, vec![pair(&key, &facts(Timestamp::now() + hour), 2)]);
        assert_eq!((contents.members[&node].skew(), contents.take_strange()), (None, false));

        let mut hear = |revision, ahead| {
            let put = KeyChange::Put(pair(&key, &facts(Timestamp::now() + ahead), revision));
            contents.change(revision, vec![put], false);
            let skew = contents.members[&node].skew();
            (skew.map(|skew| skew.as_hours()), contents.take_strange())
        };
        let little = SignedDuration::from_secs(5);
        assert_eq!(hear(4, little), (None, false));
        assert_eq!(hear(5, hour + little), (Some(1), true));
        assert_eq!(hear(6, hour + little), (Some(1), false), "the news of before");
        assert_eq!(hear(7, -hour - little), (Some(-1), false));
        assert_eq!(hear(8, little), (None, false));
        // A new list says nothing new of clocks, and takes nothing back.
        assert_eq!(hear(9, hour + little), (Some(1), true));
        contents.list(10, vec![pair(&key, &facts(Timestamp::now()), 10)]);
        assert!(contents.members[&node].skew().is_some());
    }
}
