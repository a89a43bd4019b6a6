//! The keys of a cluster in etcd, and what each holds. `docs/store.md` shows them to people.
//!
//! ```text
//! cluster                    which cluster this is
//! election/...               etcd's own election
//! decided/...                the leader's: the content of ClusterState, one key a record
//! subnets/NETWORK-LENGTH     which node's pods have these addresses
//! nodes/NAME/...             that node's own: nobody else may write there
//! ```

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use jiff::Timestamp;
use reconciler::{
    name::{CommitId, NodeName, PodUid},
    state::{Change, ClusterState, NodeFacts, NodeReport, Record, RecordKey},
    status::PodStatus,
};
use serde::{Deserialize, Serialize};

use super::etcd::Write;
use crate::command::Command;

/// The layout's version; a store of a later one is left alone.
pub(super) const SCHEMA: u32 = 1;
/// Which cluster this is.
pub(super) const IDENTITY: &str = "cluster";
/// Held by the host that fills a new store.
pub(super) const SEEDING: &str = "subnets/seeding";
/// What the leader writes.
pub(super) const DECIDED: &str = "decided/";
/// The leader's answers to what people ask elsewhere.
pub(super) const ANSWERS: &str = "decided/answers/";
const ELECTION: &str = "election/";
const NODES: &str = "nodes/";
const SUBNETS: &str = "subnets/";

/// `cluster`: which cluster this is, and what all of its hosts must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreIdentity {
    /// The layout's version.
    pub(crate) schema: u32,
    /// The cluster's id.
    pub(crate) id: String,
    /// Counts how often a person said that this store is to be believed.
    pub(crate) incarnation: u64,
    /// Addresses of all pods.
    pub(crate) pod_range: Ipv4Net,
    /// Length of each node's part of it.
    pub(crate) subnet_length: u8,
    /// Addresses of Services.
    pub(crate) service_range: Ipv4Net,
    /// The cluster's DNS.
    pub(crate) dns: Ipv4Addr,
    /// Its zone.
    pub(crate) zone: String,
    /// The first and the last node port.
    #[serde(default)]
    pub(crate) node_ports: Option<(u16, u16)>,
}

/// `decided/epoch`: who led when something was last decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Epoch {
    /// Of the store.
    pub(crate) incarnation: u64,
    /// Creation revision of the leader's election key.
    pub(crate) revision: i64,
}

/// `nodes/NAME/facts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FactsDoc {
    /// What the node says of itself.
    pub(crate) facts: NodeFacts,
    /// Where its daemon answers other daemons.
    #[serde(default)]
    pub(crate) peer: Option<std::net::SocketAddr>,
    /// Its clock when it wrote this.
    pub(crate) clock: Timestamp,
}

/// `nodes/NAME/alive`, which goes with the node's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AliveDoc {
    /// Which installation bears the name.
    pub(crate) installation: String,
    /// The cluster it belongs to; none while it has not joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
    /// Whether it does not believe this store.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) doubts: bool,
    /// Whether its control loop hangs, as on a disk that does not answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) hangs: bool,
}

/// `nodes/NAME/report`: what a node says of itself again and again, without its pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReportDoc {
    /// How far commits are prepared, what is gone, what nobody knows.
    pub(crate) report: NodeReport,
    /// Why it takes no pods.
    #[serde(default)]
    pub(crate) unready: Option<String>,
    /// The newest commit that it has verified.
    #[serde(default)]
    pub(crate) head: Option<CommitId>,
    /// It went back by itself, and follows nobody.
    #[serde(default)]
    pub(crate) local_rollback: Option<CommitId>,
}

/// `nodes/NAME/away`: it comes back soon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AwayDoc {
    /// When it expects to be back, for people.
    pub(crate) until: Timestamp,
    /// The same counted from when it left, for the leader's own clock.
    pub(crate) seconds: u64,
}

/// `nodes/NAME/ask`: what a person asked this node's daemon and the leader must do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AskDoc {
    /// Which question.
    pub(crate) id: String,
    /// What is asked.
    pub(crate) command: Command,
}

/// `decided/answers/NAME`: the leader's answer to that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AnswerDoc {
    /// To which question.
    pub(crate) id: String,
    /// What came of it.
    pub(crate) answer: Result<String, String>,
}

/// What the leader writes, with its own name: a key only has to be unique.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Decided {
    /// A record of the state.
    Record(Record),
    /// What only a store has.
    Own(OwnRecord),
}

/// What the leader writes that is no part of the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OwnRecord {
    Epoch(Epoch),
    Answer(NodeName, AnswerDoc),
}

/// What a key is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Identity,
    Decided,
    Subnet(Ipv4Net),
    Facts(NodeName),
    Alive(NodeName),
    Report(NodeName),
    Away(NodeName),
    Ask(NodeName),
    Election,
    Pod(NodeName, PodUid),
    /// A later version's, or nobody's.
    Unknown,
}

impl KeyKind {
    pub(super) fn of(key: &str) -> Self {
        if key == IDENTITY {
            return Self::Identity;
        }
        if key.starts_with(ELECTION) {
            return Self::Election;
        }
        if key.starts_with(DECIDED) {
            return Self::Decided;
        }
        if let Some(subnet) = key.strip_prefix(SUBNETS) {
            let subnet = subnet
                .rsplit_once('-')
                .and_then(|(net, length)| format!("{net}/{length}").parse().ok());
            // One subnet has one key: `10.244.3.1-24` is not a second one of 10.244.3.0/24.
            return subnet
                .filter(|subnet| subnet_key(*subnet) == key)
                .map_or(Self::Unknown, Self::Subnet);
        }
        let Some((node, rest)) = key
            .strip_prefix(NODES)
            .and_then(|rest| rest.split_once('/'))
        else {
            return Self::Unknown;
        };
        let node = NodeName::new(node);
        match (rest, rest.strip_prefix("pods/")) {
            ("facts", _) => Self::Facts(node),
            ("alive", _) => Self::Alive(node),
            ("report", _) => Self::Report(node),
            ("away", _) => Self::Away(node),
            ("ask", _) => Self::Ask(node),
            (_, Some(uid)) => Self::Pod(node, PodUid::new(uid)),
            _ => Self::Unknown,
        }
    }
}

pub(super) fn node_key(node: &NodeName, what: &str) -> String {
    format!("{NODES}{node}/{what}")
}

pub(super) fn node_prefix(node: &NodeName) -> String {
    format!("{NODES}{node}/")
}

pub(super) fn pod_status_key(node: &NodeName, pod: &PodUid) -> String {
    format!("{NODES}{node}/pods/{pod}")
}

pub(super) fn subnet_key(subnet: Ipv4Net) -> String {
    format!("{SUBNETS}{}-{}", subnet.network(), subnet.prefix_len())
}

/// A document as it is stored; only our own types are stored, and those have string keys.
pub(super) fn text<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

/// The key of a record of the state. `docs/store.md` lists them.
fn record_key(key: &RecordKey) -> String {
    match key {
        RecordKey::Serial => format!("{DECIDED}serial"),
        RecordKey::Rollout => format!("{DECIDED}rollout"),
        RecordKey::Pod(uid) => format!("{DECIDED}pods/{uid}"),
        RecordKey::Workload(key) => format!("{DECIDED}workloads/{key}"),
        RecordKey::Service(key) => format!("{DECIDED}services/{}/{}", key.namespace, key.name),
        RecordKey::Outage(node) => format!("{DECIDED}outages/{node}"),
        RecordKey::Removed(node) => format!("{DECIDED}removed/{node}"),
    }
}

impl Decided {
    pub(super) fn record(record: impl Into<Record>) -> Self {
        Self::Record(record.into())
    }

    pub(super) fn epoch(epoch: Epoch) -> Self {
        Self::Own(OwnRecord::Epoch(epoch))
    }

    pub(super) fn answer(node: NodeName, answer: AnswerDoc) -> Self {
        Self::Own(OwnRecord::Answer(node, answer))
    }

    /// What a value says; `None` where that belongs to another key.
    pub(super) fn read(key: &str, value: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        let is_own = key == format!("{DECIDED}epoch") || key.starts_with(ANSWERS);
        let own = serde_json::from_slice(value).map(Self::Own);
        let record = serde_json::from_slice(value).map(Self::Record);
        // Where neither can be read, the error is about what the key is for.
        let decided = if is_own {
            record.or(own)?
        } else {
            own.or(record)?
        };

        Ok((decided.key() == key).then_some(decided))
    }

    pub(super) fn key(&self) -> String {
        match self {
            Self::Record(record) => record_key(&record.key()),
            Self::Own(OwnRecord::Epoch(_)) => format!("{DECIDED}epoch"),
            Self::Own(OwnRecord::Answer(node, _)) => format!("{ANSWERS}{node}"),
        }
    }

    pub(super) fn write(&self) -> Write {
        Write::Put {
            key: self.key(),
            value: text(self),
        }
    }
}

/// A decision as writes. How many names were given comes first: half of a decision must not give
/// one twice.
pub(super) fn writes(changes: &[Change]) -> Vec<Write> {
    let (first, others): (Vec<&Change>, Vec<&Change>) = changes
        .iter()
        .partition(|change| change.key() == RecordKey::Serial);
    let changes = first.into_iter().chain(others);

    changes
        .map(|change| match change {
            Change::Put(record) => Decided::record(record.clone()).write(),
            Change::Delete(key) => Write::Delete {
                key: record_key(key),
            },
        })
        .collect()
}

/// A whole state as records: what a new or adopted store is filled with.
pub(super) fn records(state: &ClusterState) -> Vec<Decided> {
    state.records().into_iter().map(Decided::Record).collect()
}

/// What a node says of its pods and itself, as the keys it wants under its own prefix.
pub(super) fn own_keys(
    node: &NodeName,
    facts: &FactsDoc,
    report: &ReportDoc,
    ask: Option<&AskDoc>,
) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut keys = std::collections::BTreeMap::new();
    keys.insert(node_key(node, "facts"), text(facts));
    let mut bare = report.clone();
    let pods = std::mem::take(&mut bare.report.pods);
    keys.insert(node_key(node, "report"), text(&bare));
    for (uid, status) in &pods {
        keys.insert(pod_status_key(node, uid), pod_status_text(status));
    }
    if let Some(ask) = ask {
        keys.insert(node_key(node, "ask"), text(ask));
    }
    keys
}

/// What the engine says of a pod that does not go stays on its host; others learn what sort of
/// failure it is.
fn pod_status_text(status: &PodStatus) -> Vec<u8> {
    match status.terminating {
        true => text(&PodStatus {
            message: None,
            ..status.clone()
        }),
        false => text(status),
    }
}
