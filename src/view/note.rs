//! Notes that `status` shows although nothing prevents the rollout, as data.

use std::fmt;

use jiff::Timestamp;
use netfilter::OutsideSource;
use reconciler::{
    cluster::Note,
    foreign::ForeignText,
    name::{CommitId, NodeName, ObjectKey},
    state::{ImageObstacle, NodeFault, Refused, Stored},
};

/// A note of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostNote {
    /// Signatures are not verified.
    VerificationOff,
    /// The followed branch may be rewritten.
    RewriteAllowed,
    /// What manifests may ask for on this host.
    Allowed {
        /// The directories that pods may mount; `None` allows any.
        host_paths: Option<Vec<String>>,
        /// Whether privileged containers are allowed.
        privileged: bool,
        /// Whether the namespaces of the host are allowed.
        host_namespaces: bool,
    },
    /// A firewall of this host may drop the traffic of pods.
    Firewall(netfilter::Obstacle),
    /// Pods, Services and DNS are open to the host's network, because the installation is older
    /// than the setting that decides it.
    NetworkOpen {
        /// The senders that use it, those with the most packets first.
        sources: Vec<OutsideSource>,
    },
    /// A note about the leader's decision.
    Decided(Note),
    /// This host runs an earlier commit by its own decision.
    Detour {
        /// The commit that this host runs.
        commit: CommitId,
        /// When the person asked for it.
        since: Timestamp,
    },
    /// Another host runs an earlier commit by its own decision.
    DetourElsewhere {
        /// The other host.
        node: NodeName,
        /// The commit that the host runs.
        commit: CommitId,
    },
    /// A commit may not run here, while pods of it run or the rollout follows it.
    Ineligible {
        /// The commit.
        commit: CommitId,
        /// Why the commit may not run.
        why: ForeignText,
        /// Number of this host's pods of the commit.
        pods: usize,
    },
    /// A node is itself at fault.
    Faulty {
        /// The node.
        node: NodeName,
        /// Why the rollout does not wait for the node.
        why: Stored<NodeFault>,
    },
    /// This host refuses an assignment or a stop record.
    Refused {
        /// The pod of the record.
        pod: ObjectKey,
        /// Why this host refuses.
        why: Refused,
    },
    /// A node did not get the images of the target in time.
    WithoutImages {
        /// The node.
        node: NodeName,
        /// Why the node has not got the images.
        why: Stored<ImageObstacle>,
    },
    /// This host cannot pull an image that none of its pods needs yet.
    SpareImage(ForeignText),
}

impl fmt::Display for HostNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VerificationOff => f.write_str(
                "verification is off: whoever can push to the repository is root on this host",
            ),
            Self::RewriteAllowed => {
                f.write_str("allow-rewrite is on: history may be replaced by another one")
            }
            Self::Allowed {
                host_paths,
                privileged,
                host_namespaces,
            } => {
                f.write_str("Git may ask for: ")?;
                match host_paths {
                    None => f.write_str("any hostPath")?,
                    Some(paths) => write!(f, "hostPaths under {}", paths.join(", "))?,
                }
                let word = |allowed: &bool| if *allowed { "allowed" } else { "refused" };
                write!(
                    f,
                    "; privileged containers {}; host namespaces {}",
                    word(privileged),
                    word(host_namespaces)
                )
            }
            Self::Firewall(obstacle) => obstacle.fmt(f),
            Self::NetworkOpen { sources } => f.write_str(&network_open(sources)),
            Self::Decided(note) => note.fmt(f),
            Self::Detour { commit, since } => write!(
                f,
                "this host went back to {} by itself at {since:.0}: `windlass resume --local` ends that",
                commit.short()
            ),
            Self::DetourElsewhere { node, commit } => {
                write!(f, "node {node} went back to {} by itself", commit.short())
            }
            Self::Ineligible { commit, why, pods } => write!(
                f,
                "commit {} may not run here: {why}; {pods} of its pods run here and are kept up in place, and \
                 nothing new of it is started: push a signed commit; see `windlass trust audit`",
                commit.short()
            ),
            Self::Faulty { node, why } => write!(f, "node {node} is at fault itself: {why}"),
            Self::Refused { pod, why } => write!(f, "pod {pod} is {why}"),
            Self::WithoutImages { node, why } => {
                write!(f, "node {node} gets pods last, for want of images: {why}")
            }
            Self::SpareImage(error) => write!(
                f,
                "no pod needs it here yet, and it is tried again: {error}"
            ),
        }
    }
}

/// The most outside senders that are named.
const NAMED_SOURCES: usize = 5;

/// The sentence about what an installation keeps open, for `status` and `doctor`.
pub(crate) fn network_open(sources: &[OutsideSource]) -> String {
    format!(
        "the host's network can reach pods, Services and DNS until `expose` is written in [network] of the \
         configuration; {}",
        counted(sources)
    )
}

/// The senders with their counts.
pub(crate) fn counted(sources: &[OutsideSource]) -> String {
    if sources.is_empty() {
        return "no packets from other machines were counted".to_owned();
    }
    let named = sources.iter().take(NAMED_SOURCES);
    let mut words: Vec<String> = named
        .map(|source| format!("{} ({})", source.address, source.packets))
        .collect();
    let more = sources.len().saturating_sub(NAMED_SOURCES);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    format!("packets from other machines: {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_senders_that_use_an_open_network_are_named_with_counts() {
        let sources: Vec<OutsideSource> = (1..=7)
            .map(|last| OutsideSource {
                address: [192, 0, 2, last].into(),
                packets: 10 - u64::from(last),
            })
            .collect();
        let text = HostNote::NetworkOpen { sources }.to_string();
        assert!(
            text.ends_with(
                "from other machines: 192.0.2.1 (9), 192.0.2.2 (8), 192.0.2.3 (7), 192.0.2.4 (6), 192.0.2.5 (5), 2 more"
            ),
            "{text}"
        );
        let unused = network_open(&[]);
        assert!(
            unused.ends_with("no packets from other machines were counted"),
            "{unused}"
        );
    }

    #[test]
    fn what_git_may_ask_for_is_one_note() {
        let note = |host_paths| HostNote::Allowed {
            host_paths,
            privileged: true,
            host_namespaces: false,
        };
        assert_eq!(
            note(None).to_string(),
            "Git may ask for: any hostPath; privileged containers allowed; host namespaces refused"
        );
        assert_eq!(
            note(Some(vec!["/srv".to_owned(), "/data".to_owned()])).to_string(),
            "Git may ask for: hostPaths under /srv, /data; privileged containers allowed; host namespaces refused"
        );
    }
}
