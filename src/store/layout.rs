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
    foreign::{self, ForeignText},
    name::{CommitId, Installation, NodeName, PodUid},
    state::{Change, ClusterState, NodeFacts, NodeReport, Record, RecordKey},
    status::PodStatus,
};
use serde::{Deserialize, Serialize};

use super::etcd::Write;
use crate::command::Command;

/// The version of the layout; a store of a later version is neither read nor written.
pub(super) const SCHEMA: u32 = 1;
/// The key of the cluster's identity.
pub(super) const IDENTITY: &str = "cluster";
/// The key that a host holds while it fills a new store.
pub(super) const SEEDING: &str = "subnets/seeding";
/// The prefix of the leader's records.
pub(super) const DECIDED: &str = "decided/";
/// The prefix of the leader's answers to requests on other hosts.
pub(super) const ANSWERS: &str = "decided/answers/";
const ELECTION: &str = "election/";
const NODES: &str = "nodes/";
const SUBNETS: &str = "subnets/";

/// `cluster`: the identity of the cluster, and the settings that all of its hosts must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreIdentity {
    /// The version of the layout.
    pub(crate) schema: u32,
    /// The cluster's id.
    pub(crate) id: String,
    /// How often a person has adopted this store with `cluster adopt-store`.
    pub(crate) incarnation: u64,
    /// The range of the addresses of all pods.
    pub(crate) pod_range: Ipv4Net,
    /// The prefix length of each node's subnet in that range.
    pub(crate) subnet_length: u8,
    /// The range of the addresses of Services.
    pub(crate) service_range: Ipv4Net,
    /// The address of the cluster's DNS.
    pub(crate) dns: Ipv4Addr,
    /// The zone of the cluster's DNS.
    pub(crate) zone: String,
    /// The first and the last node port.
    #[serde(default)]
    pub(crate) node_ports: Option<(u16, u16)>,
}

/// `decided/epoch`: the leader of the last decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Epoch {
    /// The incarnation of the store.
    pub(crate) incarnation: u64,
    /// The creation revision of the leader's election key.
    pub(crate) revision: i64,
}

/// `nodes/NAME/facts`, written when the facts change and when the node's clock was set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FactsDoc {
    /// The node's facts, as it published them.
    pub(crate) facts: NodeFacts,
    /// The address at which the node's daemon answers other daemons; absent if it does not.
    #[serde(default)]
    pub(crate) peer: Option<std::net::SocketAddr>,
    /// The node's clock when it wrote this document.
    pub(crate) clock: Timestamp,
}

/// `nodes/NAME/alive`, which goes with the node's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AliveDoc {
    /// The installation that uses the name.
    pub(crate) installation: Installation,
    /// The id of the cluster that the node belongs to; absent until it has joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
    /// Whether the node does not trust this store.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) doubts: bool,
    /// Whether its control loop hangs, as on a disk that does not answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) hangs: bool,
}

/// `nodes/NAME/report`: what a node reports again and again, without its pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReportDoc {
    /// How far commits are prepared, which pods are gone, and which containers have no record.
    pub(crate) report: NodeReport,
    /// Why the node takes no pods; absent if it takes them.
    #[serde(default, deserialize_with = "foreign::optional_report")]
    pub(crate) unready: Option<ForeignText>,
    /// The newest commit that the node has verified; absent if there is none.
    #[serde(default)]
    pub(crate) head: Option<CommitId>,
    /// The earlier commit that the node runs by its own decision; absent while it follows the
    /// leader.
    #[serde(default)]
    pub(crate) local_rollback: Option<CommitId>,
}

/// `nodes/NAME/away`: the node has announced that it will be back soon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AwayDoc {
    /// When the node expects to be back, for people.
    pub(crate) until: Timestamp,
    /// The announced absence in seconds, which the leader measures by its own clock.
    pub(crate) seconds: u64,
}

/// `nodes/NAME/ask`: a request that a person made on this node and the leader must execute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AskDoc {
    /// The id of the request.
    pub(crate) id: String,
    /// The request.
    pub(crate) command: Command,
}

/// `decided/answers/NAME`: the leader's answer to that request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AnswerDoc {
    /// The id of the request.
    pub(crate) id: String,
    /// The result, as a message for the person who asked.
    pub(crate) answer: Result<String, String>,
}

/// A record of the leader, under a key of its own: the key only has to be unique.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Decided {
    /// A record of the state.
    Record(Record),
    /// A record that only a store has.
    Own(OwnRecord),
}

/// Records of the leader that are no part of the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OwnRecord {
    Epoch(Epoch),
    Answer(NodeName, AnswerDoc),
}

/// What a key holds.
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
    /// A key of a later version, or of no version.
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

/// A document as it is stored; only this crate's types are stored, and those have string keys.
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

    /// The record in a value; `None` if the value belongs to another key.
    pub(super) fn read(key: &str, value: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        let is_own = key == format!("{DECIDED}epoch") || key.starts_with(ANSWERS);
        let own = serde_json::from_slice(value).map(Self::Own);
        let record = serde_json::from_slice(value).map(Self::Record);
        // If neither kind can be read, the error is about the kind that the key is for.
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

/// The writes of a decision. The serial, which counts the names of pods, comes first: after a
/// decision that was written in part no name may be given a second time.
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

/// The report of a node as keys under its own prefix.
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

/// The status of a pod as other hosts receive it. For a terminating pod the engine's message stays
/// on the pod's host, and other hosts receive only the class of the failure.
fn pod_status_text(status: &PodStatus) -> Vec<u8> {
    match status.terminating {
        true => text(&PodStatus {
            message: None,
            ..status.clone()
        }),
        false => text(status),
    }
}
