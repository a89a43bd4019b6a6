//! Records: the units in which the state is decided, stored and compared. The parts of a state are
//! listed here once; a store maps [`RecordKey`] to a key of its own, and [`Record`] to a value.

use serde::{Deserialize, Serialize};

use super::{ClusterState, Outage, PodRecord, Rollout, ServiceAllocation, WorkloadProgress};
use crate::name::{Installation, NodeName, ObjectKey, PodUid, WorkloadKey};

/// The key of one record of a state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    /// [`ClusterState::serial`].
    Serial,
    /// [`ClusterState::rollout`].
    Rollout,
    /// One of [`ClusterState::pods`].
    Pod(PodUid),
    /// One of [`ClusterState::workloads`].
    Workload(WorkloadKey),
    /// One of [`ClusterState::services`].
    Service(ObjectKey),
    /// One of [`ClusterState::outages`].
    Outage(NodeName),
    /// One of [`ClusterState::removed`].
    Removed(NodeName),
}

/// One record of a state with its key. The serialized form is the one that existing clusters have
/// in etcd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// See [`ClusterState::serial`].
    Serial(u64),
    /// See [`ClusterState::rollout`].
    Rollout(Box<Rollout>),
    /// A pod that must exist or still exists.
    Pod(Box<PodRecord>),
    /// Progress of a workload's rollout.
    Workload(WorkloadKey, WorkloadProgress),
    /// Addresses and ports allocated to a Service.
    Service(ObjectKey, ServiceAllocation),
    /// A node that is unreachable or lost.
    Outage(NodeName, Outage),
    /// A node that was removed from the cluster, with its installation.
    Removed(NodeName, Installation),
}

/// One change of the state; a leader's decision is a list of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A record is added, or replaced by one with another value.
    Put(Record),
    /// A record is deleted; a missing record is no error.
    Delete(RecordKey),
}

impl Record {
    /// The key of this record.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Serial(_) => RecordKey::Serial,
            Self::Rollout(_) => RecordKey::Rollout,
            Self::Pod(record) => RecordKey::Pod(record.uid.clone()),
            Self::Workload(key, _) => RecordKey::Workload(key.clone()),
            Self::Service(key, _) => RecordKey::Service(key.clone()),
            Self::Outage(node, _) => RecordKey::Outage(node.clone()),
            Self::Removed(node, _) => RecordKey::Removed(node.clone()),
        }
    }
}

impl From<Rollout> for Record {
    fn from(rollout: Rollout) -> Self {
        Self::Rollout(Box::new(rollout))
    }
}

impl From<PodRecord> for Record {
    fn from(record: PodRecord) -> Self {
        Self::Pod(Box::new(record))
    }
}

impl Change {
    /// A change that adds or replaces a record.
    pub fn put(record: impl Into<Record>) -> Self {
        Self::Put(record.into())
    }

    /// The key of the record that changes.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Put(record) => record.key(),
            Self::Delete(key) => key.clone(),
        }
    }
}

impl ClusterState {
    /// All records of the state, in the order of [`RecordKey`]. The cluster's id is not a record:
    /// it is never decided again.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let Self {
            cluster: _,
            serial,
            rollout,
            pods,
            workloads,
            services,
            outages,
            removed,
        } = self.clone();

        let mut records = vec![Record::Serial(serial), Record::from(rollout)];
        records.extend(pods.into_values().map(Record::from));
        records.extend(
            workloads
                .into_iter()
                .map(|(key, progress)| Record::Workload(key, progress)),
        );
        records.extend(
            services
                .into_iter()
                .map(|(key, given)| Record::Service(key, given)),
        );
        records.extend(
            outages
                .into_iter()
                .map(|(node, outage)| Record::Outage(node, outage)),
        );
        records.extend(
            removed
                .into_iter()
                .map(|(node, installation)| Record::Removed(node, installation)),
        );
        records
    }

    /// Adds a record; it replaces the record with the same key.
    pub fn put(&mut self, record: Record) {
        match record {
            Record::Serial(serial) => self.serial = serial,
            Record::Rollout(rollout) => self.rollout = *rollout,
            Record::Pod(record) => {
                self.pods.insert(record.uid.clone(), *record);
            }
            Record::Workload(key, progress) => {
                self.workloads.insert(key, progress);
            }
            Record::Service(key, given) => {
                self.services.insert(key, given);
            }
            Record::Outage(node, outage) => {
                self.outages.insert(node, outage);
            }
            Record::Removed(node, installation) => {
                self.removed.insert(node, installation);
            }
        }
    }

    /// Deletes the record with this key, if there is one.
    pub fn delete(&mut self, key: &RecordKey) {
        match key {
            // Serial and rollout must always exist: the last known value stays.
            RecordKey::Serial | RecordKey::Rollout => {}
            RecordKey::Pod(uid) => {
                self.pods.remove(uid);
            }
            RecordKey::Workload(key) => {
                self.workloads.remove(key);
            }
            RecordKey::Service(key) => {
                self.services.remove(key);
            }
            RecordKey::Outage(node) => {
                self.outages.remove(node);
            }
            RecordKey::Removed(node) => {
                self.removed.remove(node);
            }
        }
    }

    /// Applies changes in their order.
    pub fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(record) => self.put(record),
                Change::Delete(key) => self.delete(&key),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use proptest::{collection::btree_map, prelude::*};

    use super::*;
    use crate::{
        ids::commit_id,
        name::{TemplateHash, WorkloadKind},
        object::{PortKey, Protocol},
        state::PodPlace,
    };

    fn pod(uid: &str, serial: u64) -> PodRecord {
        PodRecord {
            uid: PodUid::new(uid),
            key: ObjectKey::new("default", format!("web-{uid}")),
            owner: workload("web"),
            place: PodPlace::Node(NodeName::new("n1")),
            commit: commit_id("c"),
            template: TemplateHash::new("1-0"),
            created: Timestamp::UNIX_EPOCH,
            serial,
            stop: None,
        }
    }

    fn workload(name: &str) -> WorkloadKey {
        WorkloadKey {
            kind: WorkloadKind::Deployment,
            object: ObjectKey::new("default", name),
        }
    }

    fn progress(updated: u32) -> WorkloadProgress {
        WorkloadProgress {
            updated,
            available: 0,
            since: Timestamp::UNIX_EPOCH,
            template: TemplateHash::new("1-0"),
        }
    }

    fn service(port: u16) -> ServiceAllocation {
        ServiceAllocation {
            cluster_ip: None,
            node_ports: BTreeMap::from([(PortKey::new(Protocol::Tcp, 80), port)]),
        }
    }

    fn outage(lost: bool) -> Outage {
        Outage {
            since: Timestamp::UNIX_EPOCH,
            lost,
        }
    }

    fn state() -> impl Strategy<Value = ClusterState> {
        let names = || "[a-c]";
        let few = 0..3_usize;
        (
            any::<u64>(),
            proptest::option::of(names()),
            btree_map(names(), any::<u64>(), few.clone()),
            btree_map(names(), any::<u32>(), few.clone()),
            btree_map(names(), any::<u16>(), few.clone()),
            btree_map(names(), any::<bool>(), few.clone()),
            btree_map(names(), names(), few),
        )
            .prop_map(
                |(serial, target, pods, workloads, services, outages, removed)| ClusterState {
                    cluster: "c".to_owned(),
                    serial,
                    rollout: Rollout {
                        target: target.as_deref().map(commit_id),
                        ..Rollout::default()
                    },
                    pods: pods
                        .iter()
                        .map(|(uid, serial)| (PodUid::new(uid.as_str()), pod(uid, *serial)))
                        .collect(),
                    workloads: workloads
                        .iter()
                        .map(|(name, updated)| (workload(name), progress(*updated)))
                        .collect(),
                    services: services
                        .iter()
                        .map(|(name, port)| (ObjectKey::new("default", name), service(*port)))
                        .collect(),
                    outages: outages
                        .iter()
                        .map(|(node, lost)| (NodeName::new(node.as_str()), outage(*lost)))
                        .collect(),
                    removed: removed
                        .into_iter()
                        .map(|(node, installation)| {
                            (NodeName::new(node), Installation::new(installation))
                        })
                        .collect(),
                },
            )
    }

    proptest! {
        #[test]
        fn the_records_of_a_state_make_the_state(state in state()) {
            let mut anew = ClusterState {
                cluster: state.cluster.clone(),
                ..ClusterState::default()
            };
            anew.apply(state.records().into_iter().map(Change::Put).collect());
            prop_assert_eq!(anew, state);
        }

        #[test]
        fn a_state_becomes_another_by_deleting_and_putting_what_differs(
            before in state(), after in state(),
        ) {
            let wanted = after.records();
            let stale = before
                .records()
                .iter()
                .map(Record::key)
                .filter(|key| !wanted.iter().any(|record| record.key() == *key))
                .map(Change::Delete)
                .collect::<Vec<_>>();
            let mut anew = before;
            anew.apply(stale);
            anew.apply(wanted.into_iter().map(Change::Put).collect());
            prop_assert_eq!(anew, after);
        }

        #[test]
        fn records_come_in_the_order_of_their_keys_and_each_key_once(state in state()) {
            let keys: Vec<RecordKey> = state.records().iter().map(Record::key).collect();
            prop_assert!(keys.is_sorted_by(|one, other| one < other), "{:?}", keys);
        }
    }

    #[test]
    fn the_count_of_names_and_the_rollout_cannot_be_deleted() {
        let rollout = Rollout {
            target: Some(commit_id("c")),
            ..Rollout::default()
        };
        let before = ClusterState {
            serial: 7,
            rollout,
            ..ClusterState::default()
        };
        let mut state = before.clone();
        state.delete(&RecordKey::Serial);
        state.delete(&RecordKey::Rollout);
        assert_eq!(state, before);
    }
}
