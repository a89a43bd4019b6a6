//! The keys of a cluster in etcd, and what each holds. `docs/store.md` shows them to people.
//!
//! ```text
//! cluster                    which cluster this is
//! election/...               etcd's own election
//! decided/...                the leader's: the content of ClusterState, one key a record
//! subnets/NETWORK-LENGTH     which node's pods have these addresses
//! nodes/NAME/...             that node's own: nobody else may write there
//! ```

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use jiff::Timestamp;
use reconciler::{
    name::{CommitId, NodeName, ObjectKey, PodUid, WorkloadKey},
    state::{
        Change, ClusterState, NodeFacts, NodeReport, Outage, PodRecord, Rollout, ServiceAllocation,
        WorkloadProgress,
    },
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

/// A record of the leader, with its own name: a key only has to be unique.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Decided {
    Epoch(Epoch),
    Rollout(Box<Rollout>),
    Serial(u64),
    Pod(Box<PodRecord>),
    Workload(WorkloadKey, WorkloadProgress),
    Service(ObjectKey, ServiceAllocation),
    Outage(NodeName, Outage),
    Removed(NodeName, String),
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

impl Decided {
    pub(super) fn key(&self) -> String {
        match self {
            Self::Epoch(_) => format!("{DECIDED}epoch"),
            Self::Rollout(_) => format!("{DECIDED}rollout"),
            Self::Serial(_) => format!("{DECIDED}serial"),
            Self::Pod(record) => pod_key(&record.uid),
            Self::Workload(key, _) => workload_key(key),
            Self::Service(key, _) => service_key(key),
            Self::Outage(node, _) => outage_key(node),
            Self::Removed(node, _) => removed_key(node),
            Self::Answer(node, _) => format!("{ANSWERS}{node}"),
        }
    }

    pub(super) fn write(&self) -> Write {
        Write::Put {
            key: self.key(),
            value: text(self),
        }
    }
}

fn pod_key(uid: &PodUid) -> String {
    format!("{DECIDED}pods/{uid}")
}

fn workload_key(key: &WorkloadKey) -> String {
    format!("{DECIDED}workloads/{key}")
}

fn service_key(key: &ObjectKey) -> String {
    format!("{DECIDED}services/{}/{}", key.namespace, key.name)
}

fn outage_key(node: &NodeName) -> String {
    format!("{DECIDED}outages/{node}")
}

fn removed_key(node: &NodeName) -> String {
    format!("{DECIDED}removed/{node}")
}

/// A decision as writes. How many names were given comes first: half of a decision must not give
/// one twice.
pub(super) fn writes(changes: &[Change]) -> Vec<Write> {
    let delete = |key: String| Write::Delete { key };
    let one = |change: &Change| match change {
        Change::Pod(record) => Decided::Pod(record.clone()).write(),
        Change::Forget(uid) => delete(pod_key(uid)),
        Change::Rollout(rollout) => Decided::Rollout(rollout.clone()).write(),
        Change::Progress(key, progress) => Decided::Workload(key.clone(), progress.clone()).write(),
        Change::DropProgress(key) => delete(workload_key(key)),
        Change::Service(key, given) => Decided::Service(key.clone(), given.clone()).write(),
        Change::DropService(key) => delete(service_key(key)),
        Change::Serial(serial) => Decided::Serial(*serial).write(),
        Change::Out(node, outage) => Decided::Outage(node.clone(), outage.clone()).write(),
        Change::Back(node) => delete(outage_key(node)),
        Change::Remove(node, installation) => {
            Decided::Removed(node.clone(), installation.clone()).write()
        }
        Change::Readmit(node) => delete(removed_key(node)),
    };
    let (first, others): (Vec<&Change>, Vec<&Change>) = changes
        .iter()
        .partition(|change| matches!(change, Change::Serial(_)));
    first.into_iter().chain(others).map(one).collect()
}

/// A whole state as records: what a new or adopted store is filled with.
pub(super) fn records(state: &ClusterState) -> Vec<Decided> {
    let ClusterState {
        cluster: _,
        serial,
        rollout,
        pods,
        workloads,
        services,
        outages,
        removed,
    } = state.clone();
    let mut records = vec![Decided::Serial(serial), Decided::Rollout(Box::new(rollout))];
    records.extend(
        pods.into_values()
            .map(|record| Decided::Pod(Box::new(record))),
    );
    records.extend(
        workloads
            .into_iter()
            .map(|(key, progress)| Decided::Workload(key, progress)),
    );
    records.extend(
        services
            .into_iter()
            .map(|(key, given)| Decided::Service(key, given)),
    );
    records.extend(
        outages
            .into_iter()
            .map(|(node, outage)| Decided::Outage(node, outage)),
    );
    records.extend(
        removed
            .into_iter()
            .map(|(node, installation)| Decided::Removed(node, installation)),
    );
    records
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

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use reconciler::fault::FaultKind;

    use super::*;

    #[test]
    fn what_the_engine_says_of_a_pod_that_stops_is_not_written() {
        let mut status = PodStatus::pending();
        status.terminating = true;
        status.fault = Some(FaultKind::Other);
        status.message = Some("unlinkat /var/lib/docker: operation not permitted".to_owned());
        let written = String::from_utf8(pod_status_text(&status)).unwrap_or_default();
        assert!(!written.contains("unlinkat"), "{written}");
        let read: PodStatus =
            serde_json::from_str(&written).unwrap_or_else(|_| PodStatus::pending());
        assert_eq!(
            read,
            PodStatus {
                message: None,
                ..status
            }
        );
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let node = NodeName::new("n1");
        let subnet = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 3, 0), 24);
        assert_eq!(KeyKind::of(&subnet_key(subnet)), KeyKind::Subnet(subnet));
        assert_eq!(
            KeyKind::of(&node_key(&node, "facts")),
            KeyKind::Facts(node.clone())
        );
        assert_eq!(
            KeyKind::of(&pod_status_key(&node, &PodUid::new("u"))),
            KeyKind::Pod(node, PodUid::new("u"))
        );
        assert_eq!(KeyKind::of(SEEDING), KeyKind::Unknown);
        assert_eq!(KeyKind::of("subnets/10.244.3.1-24"), KeyKind::Unknown);
        assert_eq!(KeyKind::of("nodes/n1"), KeyKind::Unknown);
    }

    #[test]
    fn the_count_of_names_is_written_first() {
        let changes = [Change::Forget(PodUid::new("a")), Change::Serial(3)];
        let Some(Write::Put { key, .. }) = writes(&changes).into_iter().next() else {
            panic!("no write")
        };
        assert_eq!(key, "decided/serial");
    }
}
