//! Why a node refuses an assignment or a stop record, as the node reports it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Stored, Unfit};
use crate::name::{CommitId, NodeName, ObjectKey};

/// Why this host refuses an assignment or a stop record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refused {
    /// The host has the commit, and the commit has no such owner with that template, or the owner
    /// has no pod of that name and uid.
    Unresolved,
    /// No commit in use allows the pod on this host.
    Unfit(Stored<UnfitReason>),
    /// Another pod on this host uses the host port.
    HostPort {
        /// The host port that both pods ask for.
        port: u16,
        /// The pod that uses it.
        pod: ObjectKey,
    },
    /// Another host reports the pod as its own: a pod stays on one node for its whole life.
    Elsewhere {
        /// The host that reports the pod.
        node: NodeName,
    },
    /// The host runs its maximum number of pods.
    Full {
        /// The maximum number of pods.
        most: usize,
    },
    /// The owner has more pods than any commit in use explains.
    Surplus {
        /// Number of the owner's pods.
        pods: usize,
        /// Maximum number that a commit in use explains.
        most: usize,
    },
    /// The stop record names the owner's removal as its reason, and the commit still contains the
    /// owner.
    OwnerStays,
    /// The stop records would remove more owners from this host at once than the deletion budget
    /// allows, and no commit removed those owners.
    Budget {
        /// Number of owners that would be removed.
        owners: usize,
        /// Number of owners on this host.
        of: usize,
        /// Maximum number that the budget allows.
        allowed: usize,
    },
}

impl Refused {
    /// Whether the reason only concerns this node, so that another node may run the pod.
    pub fn is_for_this_node(&self) -> bool {
        match self {
            Self::Unfit(_) | Self::HostPort { .. } | Self::Elsewhere { .. } | Self::Full { .. } => {
                true
            }
            Self::Unresolved | Self::Surplus { .. } | Self::OwnerStays | Self::Budget { .. } => {
                false
            }
        }
    }

    /// Whether the reason applies to every pod of the template on this node.
    pub fn is_for_the_template(&self) -> bool {
        self.is_for_this_node() && !matches!(self, Self::Elsewhere { .. })
    }

    /// Whether a stop record is refused, rather than an assignment.
    pub fn is_of_a_stop(&self) -> bool {
        matches!(self, Self::OwnerStays | Self::Budget { .. })
    }
}

/// Why no commit in use allows a pod on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnfitReason {
    /// Labels, taints, `nodeName`, resources or affinity between pods.
    Placement(Unfit),
    /// The pod's commit is not eligible on the host.
    Ineligible(CommitId),
}

impl fmt::Display for UnfitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Placement(unfit) => unfit.fmt(f),
            Self::Ineligible(commit) => {
                write!(f, "commit {} may not run on this node", commit.short())
            }
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved => {
                f.write_str(
                "not started: its commit does not have its owner with this template and a pod of this name",
            )
            }
            Self::Unfit(why) => {
                write!(
                    f,
                    "not started: no commit in use lets it run on this node ({why})"
                )
            }
            Self::HostPort { port, pod } => {
                write!(
                    f,
                    "not started: pod {pod} of this node has host port {port}"
                )
            }
            Self::Elsewhere { node } => {
                write!(f, "not started: node {node} reports that the pod runs there")
            }
            Self::Full { most } => {
                write!(f, "not started: this node takes {most} pods and has them")
            }
            Self::Surplus { pods, most } => write!(
                f,
                "not started: its owner was given {pods} pods here, and no commit in use asks for more than {most}"
            ),
            Self::OwnerStays => f.write_str(
                "not stopped: by the stop record its owner left the commit, and the commit contains its owner",
            ),
            Self::Budget {
                owners,
                of,
                allowed,
            } => write!(
                f,
                "not stopped: by the stop records {owners} of the {of} workloads of this node left the commit, no \
                 commit removed them, and the budget is {allowed}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_concerns_the_node_the_template_or_a_stop() {
        let unfit = UnfitReason::Placement(Unfit::Taint("gpu".to_owned()));
        let pod = ObjectKey::new("default", "web");
        let node = NodeName::new("n1");
        let (owners, of, allowed) = (3, 4, 1);
        let cases = [
            (Refused::Unresolved, [false, false, false]),
            (Refused::Unfit(unfit.into()), [true, true, false]),
            (Refused::HostPort { port: 80, pod }, [true, true, false]),
            // Another pod of the template may run on this node.
            (Refused::Elsewhere { node }, [true, false, false]),
            (Refused::Full { most: 1 }, [true, true, false]),
            (Refused::Surplus { pods: 2, most: 1 }, [false, false, false]),
            (Refused::OwnerStays, [false, false, true]),
            (
                Refused::Budget {
                    owners,
                    of,
                    allowed,
                },
                [false, false, true],
            ),
        ];
        for (refused, expected) in cases {
            let concerns = [
                refused.is_for_this_node(),
                refused.is_for_the_template(),
                refused.is_of_a_stop(),
            ];
            assert_eq!(concerns, expected, "{refused}");
        }
    }

    #[test]
    fn an_unfit_pod_is_reported_with_the_text_that_other_versions_read() {
        let reasons = [
            (
                UnfitReason::Placement(Unfit::Taint("gpu".to_owned())),
                r#"{"Unfit":"have taint gpu"}"#,
            ),
            (
                UnfitReason::Ineligible(CommitId::from([0x12; 20])),
                r#"{"Unfit":"commit 1212121212 may not run on this node"}"#,
            ),
        ];
        for (reason, reported) in reasons {
            let refused = Refused::Unfit(reason.into());
            assert_eq!(
                serde_json::to_string(&refused).expect("a refusal"),
                reported
            );
            let read: Refused = serde_json::from_str(reported).expect("a refusal");
            assert_eq!(read, refused);
        }
    }
}
