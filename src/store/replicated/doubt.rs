//! Why a host does not trust a store.

use crate::store::agreed::{Disagreement, UnknownSchema};

const ADVICE: &str = "nothing of it is accepted, and running pods are kept running; if this is the store to use from \
                      now on, run `windlass cluster adopt-store` on a host that knows better";

/// Why a host does not trust the store that it reads. `stored` is what the store has, `known` what
/// this host remembers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Doubt {
    /// Nothing is under the prefix.
    #[error(
        "the store has no cluster under its prefix, where cluster {known} was: it was wiped, or the prefix is another \
         one; {ADVICE}"
    )]
    NoCluster { known: String },
    /// The store has a layout that this version cannot read.
    #[error("{0}; nothing of the store is accepted, and running pods are kept running")]
    Schema(UnknownSchema),
    /// The store is another cluster's.
    #[error(
        "the store holds cluster {stored}, and this host belongs to {known}: its prefix in [store] is another \
         cluster's; nothing of it is accepted, and running pods are kept running"
    )]
    OtherCluster { stored: String, known: String },
    /// The store was adopted fewer times than this host has seen.
    #[error(
        "the store is of an earlier time: it was adopted {stored} times, and this host knows of {known}; {ADVICE}"
    )]
    EarlierIncarnation { stored: u64, known: u64 },
    /// An earlier doubt, which lasts until a person adopts a store.
    #[error("{0}")]
    Remembered(String),
    /// The store is in an etcd with another id.
    #[error(
        "etcd is another one than before (its own cluster id has changed): it was restored or replaced; {ADVICE}"
    )]
    OtherEtcd,
    /// Etcd's revision is lower than it was.
    #[error(
        "etcd has gone back in time, from revision {known} to {stored}: it was restored from a backup; {ADVICE}"
    )]
    EarlierRevision { stored: i64, known: i64 },
    /// A record that no leader deletes is not in the store.
    #[error("the store lacks {0}, which is always there; {ADVICE}")]
    Lacks(&'static str),
    /// The records that every cluster has were changed later than the store shows.
    #[error(
        "the store's last decision is of revision {stored}, and this host knows of one of {known}: etcd was restored \
         from a backup; {ADVICE}"
    )]
    EarlierDecision { stored: i64, known: i64 },
    /// A later leader than the store's decided before.
    #[error(
        "the store was written by a leader of epoch {stored}, and this host knows of {known}; {ADVICE}"
    )]
    EarlierEpoch { stored: i64, known: i64 },
    /// The cluster has other settings than this host's configuration.
    #[error("{0}")]
    Configuration(Disagreement),
}

impl Doubt {
    /// Whether the doubt lasts, whatever the store looks like later, until a person adopts a store.
    pub(super) fn lasts(&self) -> bool {
        matches!(
            self,
            Self::EarlierRevision { .. } | Self::EarlierDecision { .. }
        )
    }

    /// Whether the reason lies on this host, in its version or its configuration, so that other
    /// hosts need not doubt the store.
    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Schema(_) | Self::Configuration(_))
    }
}
