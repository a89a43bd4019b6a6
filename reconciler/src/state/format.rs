//! The format of the leader's records, by which daemons of two versions run in one cluster.
//!
//! Each node publishes the newest format that it reads. The leader decides no record that a node of
//! the cluster cannot read, so a new kind of record waits until all daemons are upgraded.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Change, KnownNode, NodeLife, RecordKey};
use crate::name::NodeName;

/// A version of the set of records that [`RecordKey`] lists. Each version of Windlass that adds a
/// kind of record increases [`RecordFormat::NEWEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordFormat(u32);

impl RecordFormat {
    /// The format of the versions that published no format.
    pub const FIRST: Self = Self(1);
    /// The newest format that this version reads, and the one that it publishes.
    pub const NEWEST: Self = Self(1);

    /// The format with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }
}

/// The format of a node that published none.
impl Default for RecordFormat {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for RecordFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl RecordKey {
    /// The first format that has this kind of record.
    #[must_use]
    pub const fn since(&self) -> RecordFormat {
        match self {
            Self::Serial
            | Self::Rollout
            | Self::Pod(_)
            | Self::Workload(_)
            | Self::Service(_)
            | Self::Outage(_)
            | Self::Removed(_) => RecordFormat::FIRST,
        }
    }
}

/// The node that reads the oldest format of all nodes that are not lost. A lost node receives
/// nothing; when it is back, records that it cannot read are not changed any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldestReader {
    /// The name of the node; of several nodes with the same format the first by name.
    pub node: NodeName,
    /// The newest format that the node reads.
    pub format: RecordFormat,
}

impl OldestReader {
    /// The oldest reader of these nodes; `None` if no node lives.
    #[must_use]
    pub fn of(nodes: &BTreeMap<NodeName, KnownNode>) -> Option<Self> {
        nodes
            .iter()
            .filter(|(_, node)| node.life != NodeLife::Lost)
            .min_by_key(|(_, node)| node.facts.record_format)
            .map(|(name, node)| Self {
                node: name.clone(),
                format: node.facts.record_format,
            })
    }

    /// Checks that the node can read every record that these changes add, replace or delete.
    ///
    /// # Errors
    ///
    /// The first change of a kind of record that is newer than the node's format.
    pub fn check(&self, changes: &[Change]) -> Result<(), TooNewForNode> {
        let needed = changes.iter().map(|change| change.key().since()).max();
        match needed {
            Some(needed) if needed > self.format => Err(TooNewForNode {
                reader: self.clone(),
                needed,
            }),
            _ => Ok(()),
        }
    }
}

/// A decision contains a kind of record that a node of the cluster cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the decision needs records of format {needed}, and node {} reads records up to format {}: upgrade Windlass on \
     that node, or remove the node with `windlass node rm {}`",
    reader.node,
    reader.format,
    reader.node
)]
pub struct TooNewForNode {
    /// The node, and the newest format that it reads.
    pub reader: OldestReader,
    /// The format that the decision needs.
    pub needed: RecordFormat,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        name::Installation,
        state::{NodeFacts, NodeSystem, Record, Silence},
    };

    fn node(name: &str, format: u32, life: NodeLife) -> (NodeName, KnownNode) {
        let facts = NodeFacts {
            name: NodeName::new(name),
            installation: Installation::new(name),
            address: Ipv4Addr::new(192, 0, 2, 1),
            pod_subnet: "10.244.1.0/24".parse().expect("a subnet"),
            mtu: 1450,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            record_format: RecordFormat::new(format),
            system: NodeSystem::default(),
        };
        (NodeName::new(name), KnownNode { facts, life })
    }

    fn oldest(nodes: impl IntoIterator<Item = (NodeName, KnownNode)>) -> Option<(String, u32)> {
        let oldest = OldestReader::of(&nodes.into_iter().collect())?;
        Some((oldest.node.to_string(), oldest.format.0))
    }

    #[test]
    fn the_oldest_reader_is_the_first_living_node_with_the_oldest_format() {
        let away = node("d", 4, NodeLife::Away);
        let nodes = [
            node("a", 5, NodeLife::Ready),
            node("b", 4, NodeLife::Silent(Silence::DaemonAnswers)),
            node("c", 3, NodeLife::Lost),
            away,
        ];
        assert_eq!(oldest(nodes), Some(("b".to_owned(), 4)));
        assert_eq!(oldest([node("c", 3, NodeLife::Lost)]), None);
    }

    #[test]
    fn a_decision_with_a_record_that_a_node_cannot_read_names_the_node() {
        let (name, _) = node("b", 0, NodeLife::Ready);
        let reader = |format| OldestReader {
            node: name.clone(),
            format: RecordFormat::new(format),
        };
        let changes = [
            Change::Put(Record::Serial(7)),
            Change::Delete(RecordKey::Removed(name.clone())),
        ];
        assert_eq!(reader(1).check(&changes), Ok(()));
        assert_eq!(reader(0).check(&[]), Ok(()), "nothing is decided");
        let error = reader(0).check(&changes).unwrap_err();
        assert_eq!(error.needed, RecordFormat::FIRST);
        let message = error.to_string();
        assert!(
            message.contains("node b reads records up to format 0"),
            "{message}"
        );
        assert!(message.contains("`windlass node rm b`"), "{message}");
    }

    #[test]
    fn this_version_reads_every_kind_of_record_that_it_has() {
        let state = crate::state::ClusterState::default();
        for record in state.records() {
            assert!(record.key().since() <= RecordFormat::NEWEST, "{record:?}");
        }
    }

    #[test]
    fn facts_without_a_format_are_of_the_first_format() {
        let (_, known) = node("a", 7, NodeLife::Ready);
        let mut facts = serde_json::to_value(&known.facts).unwrap();
        assert_eq!(facts["record_format"], 7);
        facts.as_object_mut().unwrap().remove("record_format");
        let facts: NodeFacts = serde_json::from_value(facts).unwrap();
        assert_eq!(facts.record_format, RecordFormat::FIRST);
    }
}
