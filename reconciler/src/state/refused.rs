//! Why a node does not do what was decided for it, as it reports that.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::{NodeName, ObjectKey};

/// Why this host does not do what a record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refused {
    /// The commit is here, and does not have the owner with that template.
    Unresolved,
    /// No commit allows it here: for labels, taints or `nodeName`, for what this host has, or for
    /// what pods say of each other.
    Unfit(String),
    /// Another pod of this host has the port.
    HostPort {
        /// The port.
        port: u16,
        /// The pod.
        pod: ObjectKey,
    },
    /// Another host says that it runs it: a pod is in one place for its life.
    Elsewhere {
        /// That host.
        node: NodeName,
    },
    /// This host has as many pods as it may have.
    Full {
        /// So many.
        most: usize,
    },
    /// The owner has more pods than its commit can explain.
    Surplus {
        /// So many there are.
        pods: usize,
        /// So many there may be.
        most: usize,
    },
    /// It must stop because its owner is gone, and its owner is not gone.
    OwnerStays,
    /// More owners of this host must go at once than the budget allows, and no commit took them
    /// away.
    Budget {
        /// So many must go.
        owners: usize,
        /// Of so many.
        of: usize,
        /// So many may.
        allowed: usize,
    },
}

impl Refused {
    /// Whether another node may take the pod.
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

    /// Whether no other pod of the template may come here either.
    pub fn is_for_the_template(&self) -> bool {
        self.is_for_this_node() && !matches!(self, Self::Elsewhere { .. })
    }

    /// Whether it is a stop that is not believed.
    pub fn is_of_a_stop(&self) -> bool {
        matches!(self, Self::OwnerStays | Self::Budget { .. })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved => {
                f.write_str("not started: its commit does not have its owner with this template")
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
                write!(f, "not started: node {node} says that it runs there")
            }
            Self::Full { most } => {
                write!(f, "not started: this node takes {most} pods and has them")
            }
            Self::Surplus { pods, most } => write!(
                f,
                "not started: its owner was given {pods} pods here, and no commit in use asks for more than {most}"
            ),
            Self::OwnerStays => f.write_str(
                "not stopped: it is said that its owner left the commit, and its owner is in it",
            ),
            Self::Budget {
                owners,
                of,
                allowed,
            } => write!(
                f,
                "not stopped: {owners} of the {of} workloads of this node are said to have left the commit, no commit \
                 took them away, and the budget is {allowed}"
            ),
        }
    }
}
