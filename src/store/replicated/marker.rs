//! Whether the store is the one that this host knows, and what this host does if it is not.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ReplicatedStore, StoreStatus, subnets::Reservations};
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

/// Why a store is not trusted.
pub(super) struct Doubt {
    pub(super) why: String,
    /// Whether the doubt lasts, whatever the store looks like later, until a person adopts a store.
    pub(super) lasts: bool,
    /// Whether the reason lies in this host's configuration, so that other hosts need not doubt the
    /// store.
    pub(super) own: bool,
}

impl Marker {
    /// Whether the store is the one that this host knows, and not older than what it knows.
    pub(super) fn verdict(
        &self,
        contents: &Contents,
        agreed: &Agreed,
        listed: Option<u64>,
    ) -> Result<(), Doubt> {
        const ADVICE: &str = "nothing of it is accepted, and running pods are kept running; if this is the store to use from \
                              now on, run `windlass cluster adopt-store` on a host that knows better";
        let passing = |why: String| {
            Err(Doubt {
                why,
                lasts: false,
                own: false,
            })
        };
        let own = |why: String| {
            Err(Doubt {
                why,
                lasts: false,
                own: true,
            })
        };
        let lasting = |why: String| {
            Err(Doubt {
                why,
                lasts: true,
                own: false,
            })
        };
        let Some(identity) = &contents.identity else {
            return passing(format!(
                "the store has no cluster under its prefix, where cluster {} was: it was wiped, or the prefix is \
                 another one; {ADVICE}",
                self.cluster
            ));
        };
        if let Err(why) = known_schema(identity) {
            return own(format!(
                "{why}; nothing of the store is accepted, and running pods are kept running"
            ));
        }
        if identity.id != self.cluster {
            return passing(format!(
                "the store holds cluster {}, and this host belongs to {}: its prefix in [store] is another cluster's; \
                 nothing of it is accepted, and running pods are kept running",
                identity.id, self.cluster
            ));
        }
        if identity.incarnation < self.incarnation {
            return passing(format!(
                "the store is of an earlier time: it was adopted {} times, and this host knows of {}; {ADVICE}",
                identity.incarnation, self.incarnation
            ));
        }
        if identity.incarnation > self.incarnation {
            // A person has adopted this store on another host.
            return agreed.check(identity).or_else(own);
        }
        if let Some(why) = &self.doubt {
            // The store's revision goes up again, by leases alone, until it looks like one that was
            // never restored.
            return passing(why.clone());
        }
        if listed.is_some_and(|id| id != self.etcd_cluster) {
            return passing(format!(
                "etcd is another one than before (its own cluster id has changed): it was restored or replaced; {ADVICE}"
            ));
        }
        if contents.revision < self.revision {
            let why = format!(
                "etcd has gone back in time, from revision {} to {}: it was restored from a backup; {ADVICE}",
                self.revision, contents.revision
            );
            return lasting(why);
        }
        let decided = match contents.lasting() {
            Ok(decided) => decided,
            Err(key) => {
                return passing(format!(
                    "the store lacks {key}, which is always there; {ADVICE}"
                ));
            }
        };
        if decided < self.decided && !contents.lacks_lasting() {
            let why = format!(
                "the store's last decision is of revision {decided}, and this host knows of one of {}: etcd was \
                 restored from a backup; {ADVICE}",
                self.decided
            );
            return lasting(why);
        }
        if contents.epoch < self.epoch {
            return passing(format!(
                "the store was written by a leader of epoch {}, and this host knows of {}; {ADVICE}",
                contents.epoch.revision, self.epoch.revision
            ));
        }
        agreed.check(identity).or_else(own)
    }
}

impl ReplicatedStore {
    /// Judges whether the store is the one that this host knows.
    pub(super) fn judge(&mut self) {
        match self
            .marker
            .verdict(&self.contents, &self.agreed, self.listed)
        {
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
            Err(Doubt { why, lasts, own }) => {
                self.presence.belongs(&self.marker.cluster, !own);
                let known = matches!(&self.status, StoreStatus::Frozen { why: before, .. } if *before == why);
                if !known {
                    tracing::error!("{why}");
                    self.status = StoreStatus::Frozen {
                        since: Timestamp::now(),
                        why: why.clone(),
                    };
                }
                if lasts {
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
        let doubt = marker
            .verdict(contents, &agreed(), Some(etcd))
            .err()
            .unwrap();
        assert!(doubt.why.contains(words), "{}", doubt.why);
        assert_eq!(doubt.lasts, lasts, "{}", doubt.why);
    }

    #[test]
    fn the_store_that_is_known_is_trusted_and_no_older_or_other_one() {
        assert!(
            marker()
                .verdict(&store(2, 20, 30), &agreed(), Some(ETCD))
                .is_ok()
        );
        assert!(
            marker()
                .verdict(&store(2, 25, 31), &agreed(), Some(ETCD))
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
                .verdict(&store(3, 5, 6), &agreed(), Some(ETCD + 1))
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
