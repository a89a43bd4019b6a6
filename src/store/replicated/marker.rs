//! Whether the store is the one that this host knows, and what this host does if it is not.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ReplicatedStore, StoreStatus, doubt::Doubt, subnets::Reservations};
use crate::{
    state_file::{self, StateFileError},
    store::{
        agreed::{Agreed, known_schema},
        contents::Contents,
        layout::Epoch,
        local::MARKER,
    },
};

const SCHEMA: u32 = 1;
/// A marker whose revision is behind by less is not written again: the restored backups that the
/// revision guards against go back further.
const REVISIONS: i64 = 50;

/// `store.json`: what this host must remember of the store, so that no other store is trusted in
/// its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Marker {
    pub(super) cluster: String,
    pub(super) incarnation: u64,
    pub(super) etcd_cluster: u64,
    pub(super) revision: i64,
    pub(super) epoch: Epoch,
    /// The revision at which the records that every cluster has were last changed.
    #[serde(default)]
    pub(super) decided: i64,
    /// Why the store is not trusted until a person adopts one, across restarts; absent while it is
    /// trusted.
    #[serde(default)]
    pub(super) doubt: Option<String>,
    pub(super) subnet: Ipv4Net,
    /// Which nodes' pods have which addresses, as far as that was observed.
    #[serde(default)]
    pub(super) subnets: Reservations,
}

/// The marker as it is on this host's disk.
#[derive(Debug)]
pub(super) struct MarkerFile {
    path: PathBuf,
    /// The marker that this process wrote last.
    saved: Option<Marker>,
}

impl MarkerFile {
    /// Reads the marker; `None` on a host that was never in a cluster.
    pub(super) fn open(data: &Path) -> Result<(Self, Option<Marker>), StateFileError> {
        let path = data.join(MARKER);
        let marker = state_file::read(&path, SCHEMA)?;
        Ok((Self { path, saved: None }, marker))
    }

    /// Writes the marker, if more than its revision has changed.
    pub(super) fn save(&mut self, marker: &Marker) -> Result<(), StateFileError> {
        let same = self.saved.as_ref().is_some_and(|saved| {
            let revision = saved.revision;
            let unmoved = Marker {
                revision,
                ..marker.clone()
            };
            unmoved == *saved && marker.revision - revision < REVISIONS
        });
        if same {
            return Ok(());
        }
        state_file::write(&self.path, SCHEMA, marker)?;
        self.saved = Some(marker.clone());
        Ok(())
    }
}

impl Marker {
    /// Checks that the store is the one that this host knows, and not older than what it knows.
    pub(super) fn check(
        &self,
        contents: &Contents,
        agreed: &Agreed,
        listed: Option<u64>,
    ) -> Result<(), Doubt> {
        let identity = contents.identity.as_ref().ok_or_else(|| Doubt::NoCluster {
            known: self.cluster.clone(),
        })?;
        known_schema(identity).map_err(Doubt::Schema)?;
        if identity.id != self.cluster {
            return Err(Doubt::OtherCluster {
                stored: identity.id.clone(),
                known: self.cluster.clone(),
            });
        }

        if identity.incarnation < self.incarnation {
            return Err(Doubt::EarlierIncarnation {
                stored: identity.incarnation,
                known: self.incarnation,
            });
        }
        // A person has adopted this store on another host: nothing that this host remembers of the
        // store before counts any more.
        if identity.incarnation == self.incarnation {
            self.check_age(contents, listed)?;
        }
        agreed.check(identity).map_err(Doubt::Configuration)
    }

    /// Checks that a store of the known incarnation is not a restored backup.
    fn check_age(&self, contents: &Contents, listed: Option<u64>) -> Result<(), Doubt> {
        if let Some(why) = &self.doubt {
            // The store's revision goes up again, by leases alone, until it looks like one that was
            // never restored.
            return Err(Doubt::Remembered(why.clone()));
        }
        if listed.is_some_and(|id| id != self.etcd_cluster) {
            return Err(Doubt::OtherEtcd);
        }
        if contents.revision < self.revision {
            return Err(Doubt::EarlierRevision {
                stored: contents.revision,
                known: self.revision,
            });
        }

        let decided = contents.lasting().map_err(Doubt::Lacks)?;
        if decided < self.decided && !contents.lacks_lasting() {
            return Err(Doubt::EarlierDecision {
                stored: decided,
                known: self.decided,
            });
        }
        if contents.epoch < self.epoch {
            return Err(Doubt::EarlierEpoch {
                stored: contents.epoch.revision,
                known: self.epoch.revision,
            });
        }
        Ok(())
    }
}

impl ReplicatedStore {
    /// Judges whether the store is the one that this host knows.
    pub(super) fn judge(&mut self) {
        let checked = self.marker.check(&self.contents, &self.agreed, self.listed);
        match checked {
            Ok(()) => {
                self.presence.belongs(&self.marker.cluster, false);
                if let Some(why) = self.name_taken.clone() {
                    self.status = StoreStatus::Conflict { why };
                    return self.follow_nobody();
                }
                if let StoreStatus::Lost { since, .. } | StoreStatus::Frozen { since, .. } =
                    &self.status
                {
                    tracing::info!(%since, "the store answers again");
                    self.leadership.store_recovered(Instant::now());
                }
                self.status = StoreStatus::Current;
                self.marker.etcd_cluster = self.listed.unwrap_or(self.marker.etcd_cluster);
                self.marker.revision = self.contents.revision;
                self.marker.epoch = self.marker.epoch.clone().max(self.contents.epoch.clone());
                self.marker.doubt = None;
                let decided = self.contents.lasting().unwrap_or_default();
                if let Some(identity) = &self.contents.identity {
                    let incarnation = identity.incarnation;
                    let adopted = incarnation > self.marker.incarnation;
                    self.marker.decided = if adopted {
                        decided
                    } else {
                        self.marker.decided.max(decided)
                    };
                    self.marker.incarnation = incarnation;
                    if adopted {
                        self.contents.accept_current();
                    }
                }
                self.stand();
            }
            Err(doubt) => {
                let why = doubt.to_string();
                self.presence.belongs(&self.marker.cluster, !doubt.is_own());
                let known = matches!(&self.status, StoreStatus::Frozen { why: before, .. } if *before == why);
                if !known {
                    tracing::error!("{why}");
                    self.status = StoreStatus::Frozen {
                        since: Timestamp::now(),
                        why: why.clone(),
                    };
                }
                if doubt.lasts() {
                    self.marker.doubt = Some(why);
                }
                self.follow_nobody();
            }
        }
    }

    /// A host that does not trust the store must not lead by it.
    pub(super) fn follow_nobody(&mut self) {
        self.etcd.set_candidate(false);
        self.leadership.distrust();
        if !self.may_publish() {
            self.own_keys.rest();
        }
    }

    /// Whether this host may publish its keys into this store: under its own name, and in its own
    /// cluster.
    pub(super) fn may_publish(&self) -> bool {
        match &self.status {
            StoreStatus::Current | StoreStatus::Lost { .. } => !self.was_removed(),
            StoreStatus::Frozen { .. } => {
                let identity = self.contents.identity.as_ref();
                identity.is_some_and(|identity| identity.id == self.marker.cluster)
                    && !self.was_removed()
            }
            StoreStatus::Conflict { .. } => false,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use reconciler::state::ClusterState;

    use super::*;
    use crate::store::{
        etcd::StoredValue,
        layout::{self, Decided, IDENTITY},
    };

    const ETCD: u64 = 11;

    fn agreed() -> Agreed {
        Agreed {
            pod_range: "10.244.0.0/16".parse().unwrap(),
            subnet_length: 24,
            service_range: "10.96.0.0/16".parse().unwrap(),
            dns: "10.96.0.10".parse().unwrap(),
            zone: "cluster.local".to_owned(),
            node_ports: (30000, 32767),
        }
    }

    /// What a host knows of a store whose last decision has revision 20.
    fn marker() -> Marker {
        Marker {
            cluster: "c".to_owned(),
            incarnation: 2,
            etcd_cluster: ETCD,
            revision: 30,
            epoch: Epoch {
                incarnation: 2,
                revision: 9,
            },
            decided: 20,
            doubt: None,
            subnet: "10.244.1.0/24".parse().unwrap(),
            subnets: Reservations::default(),
        }
    }

    /// A store of that cluster, with this incarnation, and with its last decision and its list at
    /// these revisions.
    fn store(incarnation: u64, decided: i64, revision: i64) -> Contents {
        let identity = agreed().identity("c", incarnation);
        let epoch = Decided::epoch(Epoch {
            incarnation,
            revision: 9,
        });
        let records = layout::records(&ClusterState::default())
            .into_iter()
            .chain([epoch]);
        let pair = |key: String, value, revision| StoredValue {
            key,
            value,
            revision,
        };
        let mut pairs: Vec<StoredValue> = records
            .map(|record| pair(record.key(), layout::text(&record), decided))
            .collect();
        pairs.push(pair(IDENTITY.to_owned(), layout::text(&identity), 1));
        let mut contents = Contents::default();
        contents.list(revision, pairs);
        contents
    }

    #[track_caller]
    fn doubted(marker: &Marker, contents: &Contents, etcd: u64, words: &str, lasts: bool) {
        let doubt = marker.check(contents, &agreed(), Some(etcd)).err().unwrap();
        let why = doubt.to_string();
        assert!(why.contains(words), "{why}");
        assert_eq!(doubt.lasts(), lasts, "{why}");
    }

    #[test]
    fn the_store_that_is_known_is_trusted_and_no_older_or_other_one() {
        assert!(
            marker()
                .check(&store(2, 20, 30), &agreed(), Some(ETCD))
                .is_ok()
        );
        assert!(
            marker()
                .check(&store(2, 25, 31), &agreed(), Some(ETCD))
                .is_ok()
        );
        doubted(&marker(), &Contents::default(), ETCD, "it was wiped", false);
        doubted(
            &marker(),
            &store(2, 20, 29),
            ETCD,
            "gone back in time, from revision 30 to 29",
            true,
        );
        doubted(
            &marker(),
            &store(2, 20, 30),
            ETCD + 1,
            "another one than before",
            false,
        );
        doubted(
            &marker(),
            &store(1, 20, 30),
            ETCD,
            "of an earlier time",
            false,
        );
        let other = Marker {
            cluster: "d".to_owned(),
            ..marker()
        };
        doubted(
            &other,
            &store(2, 20, 30),
            ETCD,
            "holds cluster c, and this host belongs to d",
            false,
        );
        let later = Marker {
            epoch: Epoch {
                incarnation: 2,
                revision: 10,
            },
            ..marker()
        };
        doubted(
            &later,
            &store(2, 20, 30),
            ETCD,
            "epoch 9, and this host knows of 10",
            false,
        );
    }

    #[test]
    fn leases_that_count_the_revision_up_do_not_make_a_restored_store_good() {
        // The last decision is older than the known one, however high the revision has become.
        doubted(
            &marker(),
            &store(2, 15, 400),
            ETCD,
            "last decision is of revision 15",
            true,
        );
        // A doubt lasts over a restart, until a person adopts a store.
        let doubting = Marker {
            doubt: Some("restored from a backup".to_owned()),
            ..marker()
        };
        doubted(
            &doubting,
            &store(2, 20, 400),
            ETCD,
            "restored from a backup",
            false,
        );
        assert!(
            doubting
                .check(&store(3, 5, 6), &agreed(), Some(ETCD + 1))
                .is_ok()
        );
    }

    #[test]
    fn a_newer_layout_and_another_configuration_are_named() {
        let mut newer = store(2, 20, 30);
        newer.identity.as_mut().unwrap().schema = 99;
        doubted(&marker(), &newer, ETCD, "run a newer Windlass here", false);
        let mut other = store(2, 20, 30);
        other.identity.as_mut().unwrap().zone = "other.local".to_owned();
        doubted(
            &marker(),
            &other,
            ETCD,
            "the cluster has zone other.local",
            false,
        );
    }
}
