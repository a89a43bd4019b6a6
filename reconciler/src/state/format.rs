//! The format of the leader's records, by which daemons of two versions run in one cluster.
//!
//! Each node publishes the newest format that it reads. The leader decides no record that a node of
//! the cluster cannot read, so a new kind of record waits until all daemons are upgraded.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Change, RecordKey};
use crate::name::NodeName;

/// A version of the set of records that [`RecordKey`] lists. Each version of Windlass that adds a
/// kind of record increases [`RecordFormat::NEWEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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

/// A format that is older than any counts as the first one: every version reads that, and a node
/// could otherwise stop all decisions by what it publishes.
impl<'de> Deserialize<'de> for RecordFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        Ok(Self(number).max(Self::FIRST))
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

/// The node that reads the oldest format of all nodes that may follow the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldestReader {
    /// The name of the node; of several nodes with the same format the first by name.
    pub node: NodeName,
    /// The newest format that the node reads.
    pub format: RecordFormat,
}

impl OldestReader {
    /// The oldest reader of these nodes; `None` if there are none.
    pub fn of<'a>(nodes: impl Iterator<Item = (&'a NodeName, RecordFormat)>) -> Option<Self> {
        nodes
            .min_by_key(|(name, format)| (*format, *name))
            .map(|(name, format)| Self {
                node: name.clone(),
                format,
            })
    }

    /// Checks that the node can read every record that these changes add, replace or delete. `since`
    /// is [`RecordKey::since`], but for tests of formats that do not exist yet.
    ///
    /// # Errors
    ///
    /// The newest kind of record in the changes is newer than the node's format.
    pub fn check(
        &self,
        changes: &[Change],
        since: fn(&RecordKey) -> RecordFormat,
    ) -> Result<(), TooNewForNode> {
        let needed = changes.iter().map(|change| since(&change.key())).max();
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
    use super::*;
    use crate::state::{ClusterState, Record};

    fn oldest(nodes: &[(&str, u32)]) -> Option<(String, u32)> {
        let nodes: Vec<(NodeName, RecordFormat)> = nodes
            .iter()
            .map(|(name, format)| (NodeName::new(*name), RecordFormat::new(*format)))
            .collect();
        let oldest = OldestReader::of(nodes.iter().map(|(name, format)| (name, *format)))?;
        Some((oldest.node.to_string(), oldest.format.0))
    }

    /// A kind of record that came with format 2.
    fn removals_since_two(key: &RecordKey) -> RecordFormat {
        match key {
            RecordKey::Removed(_) => RecordFormat::new(2),
            _ => RecordFormat::FIRST,
        }
    }

    #[test]
    fn the_oldest_reader_is_the_first_node_with_the_oldest_format() {
        let nodes = [("c", 3), ("b", 3), ("a", 5)];
        assert_eq!(oldest(&nodes), Some(("b".to_owned(), 3)));
        assert_eq!(oldest(&[]), None);
    }

    #[test]
    fn a_decision_with_a_record_that_a_node_cannot_read_names_the_node() {
        let name = NodeName::new("b");
        let check = |format, changes: &[Change]| {
            let reader = OldestReader {
                node: name.clone(),
                format: RecordFormat::new(format),
            };
            reader.check(changes, removals_since_two)
        };
        let serial = Change::Put(Record::Serial(7));
        let removed = Change::Delete(RecordKey::Removed(name.clone()));
        assert_eq!(check(1, &[]), Ok(()), "nothing is decided");
        assert_eq!(check(1, std::slice::from_ref(&serial)), Ok(()));
        assert_eq!(check(2, &[removed.clone(), serial.clone()]), Ok(()));

        let error = check(1, &[removed, serial]).unwrap_err();
        assert_eq!(error.needed, RecordFormat::new(2));
        let message = error.to_string();
        assert!(
            message.contains("node b reads records up to format 1"),
            "{message}"
        );
        assert!(message.contains("`windlass node rm b`"), "{message}");
    }

    #[test]
    fn this_version_reads_every_kind_of_record_that_it_has() {
        for record in ClusterState::default().records() {
            assert!(record.key().since() <= RecordFormat::NEWEST, "{record:?}");
        }
    }

    #[test]
    fn a_format_is_a_number_and_none_is_older_than_the_first() {
        let read = |text| serde_json::from_str::<RecordFormat>(text).unwrap();
        assert_eq!(serde_json::to_string(&read("7")).unwrap(), "7");
        assert_eq!(read("0"), RecordFormat::FIRST);
        assert_eq!(RecordFormat::default(), RecordFormat::FIRST);
    }
}
