//! What prevents a part of the daemon from working, as data.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use reconciler::{
    cluster::HeldDeletions,
    foreign::ForeignText,
    name::{CommitId, NodeName},
    state::Brake,
};

/// A part of the daemon that fails and recovers by itself. The order is the one in which troubles
/// are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The deletion budget of the leader's decisions.
    Budget,
    /// The clocks of the other hosts.
    Clocks,
    /// `detour.json`.
    Detour,
    /// Records of the store whose content no host may decide.
    Disputed,
    /// The DNS server of the cluster.
    Dns,
    /// The container engine.
    Engine,
    /// `node.json`.
    Memory,
    /// The check of this host's network for changes by others.
    Network,
    /// The judgement of the nodes by the leader.
    Nodes,
    /// The routes to the pods of other hosts.
    Peers,
    /// The pinned images of commits on this host's disk.
    Pins,
    /// This host's own keys in the store.
    Publish,
    /// The membership of this host.
    Removed,
    /// The network table of the Services.
    Services,
    /// The writing of decisions.
    State,
    /// The store of the cluster.
    Store,
    /// The copy of the store on this host's disk.
    StoreCopy,
    /// The pod subnet of this host.
    Subnet,
    /// The trust directory on this host's disk.
    Trust,
    /// Records of the store that cannot be read.
    Unreadable,
}

/// What prevents a part of the daemon from working.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostTrouble {
    /// An operation failed; the text is the error with its causes.
    Failed(ForeignText),
    /// A commit that is needed cannot be read.
    Unreadable {
        /// The commit.
        commit: CommitId,
        /// The error with its causes.
        error: ForeignText,
    },
    /// The DNS server of the cluster has ended.
    DnsEnded,
    /// Too many nodes disappeared at once for any of them to be given up.
    Brake(Brake),
    /// Workloads that no commit removed are not stopped.
    Held(HeldDeletions),
    /// The store does not answer.
    StoreLost {
        /// When the outage began.
        since: Timestamp,
        /// What failed, and what to do.
        why: ForeignText,
    },
    /// The store is not the one that this host knows.
    StoreFrozen {
        /// When the doubt began.
        since: Timestamp,
        /// Why this host does not trust the store.
        why: ForeignText,
    },
    /// This host's report could not be written to the store.
    NotPublished(ForeignText),
    /// A person removed this host from the cluster.
    Removed,
    /// The clocks of other hosts differ from this host's clock, each by this time; a positive time
    /// is ahead.
    Skews(Vec<(NodeName, SignedDuration)>),
    /// Records of the store are in doubt, one sentence each.
    Records(Vec<ForeignText>),
}

impl HostTrouble {
    /// The trouble of a failed operation.
    pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(ForeignText::sentence(&format!("{:#}", error.into())))
    }
}

impl fmt::Display for HostTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Unreadable { commit, error } => {
                write!(f, "commit {} cannot be read: {error}", commit.short())
            }
            Self::DnsEnded => f.write_str("the cluster's DNS has ended: restart the daemon"),
            Self::Brake(brake) => brake.fmt(f),
            Self::Held(held) => held.fmt(f),
            Self::StoreLost { since, why } => write!(
                f,
                "the store does not answer since {since:.0}, and the decisions of that time stay in effect: {why}"
            ),
            Self::StoreFrozen { since, why } => write!(f, "frozen since {since:.0}: {why}"),
            Self::NotPublished(why) => write!(
                f,
                "the report of this host could not be written to the store: {why}"
            ),
            Self::Removed => f.write_str(
                "this host was taken out of the cluster by `windlass node rm`: its pods run elsewhere by now and are \
                 stopped here; `windlass uninstall` cleans up, and a new installation may join",
            ),
            Self::Skews(skews) => write_all(f, skews.iter().map(|(node, skew)| Skew(node, *skew))),
            Self::Records(sentences) => write_all(f, sentences),
        }
    }
}

/// The difference of one host's clock.
struct Skew<'a>(&'a NodeName, SignedDuration);

impl fmt::Display for Skew<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(node, skew) = self;
        let side = if skew.is_negative() {
            "behind"
        } else {
            "ahead of"
        };
        let size = skew.abs();
        write!(f, "the clock of node {node} is {size:#} {side} this host's")
    }
}

/// Writes sentences with semicolons between them.
fn write_all(
    f: &mut fmt::Formatter<'_>,
    sentences: impl IntoIterator<Item = impl fmt::Display>,
) -> fmt::Result {
    for (index, sentence) in sentences.into_iter().enumerate() {
        let separator = if index == 0 { "" } else { "; " };
        write!(f, "{separator}{sentence}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_of_several_hosts_are_one_trouble() {
        let minutes = |minutes| SignedDuration::from_mins(minutes);
        let skews = HostTrouble::Skews(vec![
            (NodeName::new("n1"), minutes(60)),
            (NodeName::new("n2"), minutes(-2)),
        ]);
        assert_eq!(
            skews.to_string(),
            "the clock of node n1 is 1h ahead of this host's; the clock of node n2 is 2m behind this host's"
        );
    }

    #[test]
    fn a_failed_operation_is_shown_with_its_causes_on_one_line() {
        let error = anyhow::anyhow!("no space left\non device").context("writing node.json");
        assert_eq!(
            HostTrouble::failed(error).to_string(),
            r"writing node.json: no space left\non device"
        );
    }
}
