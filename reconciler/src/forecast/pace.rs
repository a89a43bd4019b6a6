//! How a workload replaces its pods when its template changes, in words.

use std::fmt;

use crate::object::{Control, DaemonSetUpdate, IntOrPercent, Workload};

/// How a workload replaces its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Old and new pods run at the same time, within limits.
    Rolling {
        /// The wanted number of pods.
        replicas: u32,
        /// How many pods more than that may exist.
        surge: u32,
        /// How many pods fewer than that may be available.
        unavailable: u32,
    },
    /// A DaemonSet's pods are replaced node by node, within limits.
    NodeByNode {
        /// On how many nodes an old and a new pod may run at the same time.
        surge: IntOrPercent,
        /// On how many nodes no pod may be available.
        unavailable: IntOrPercent,
    },
    /// All old pods stop before the first new pod starts.
    Recreate,
    /// A paused Deployment replaces no pod.
    Paused,
    /// A pod is replaced only after it has ended or was removed for another reason.
    OnDelete,
    /// A bare Pod is stopped, and then made anew.
    Single,
}

impl Pace {
    /// The pace of a workload.
    pub fn of(workload: &Workload) -> Self {
        match &workload.control {
            Control::Pod => Self::Single,
            Control::Replicas { .. } => Self::OnDelete,
            Control::Deployment { paused: true, .. } => Self::Paused,
            Control::Deployment {
                replicas, strategy, ..
            } => match strategy.bounds(*replicas) {
                None => Self::Recreate,
                Some((surge, unavailable)) => Self::Rolling {
                    replicas: *replicas,
                    surge,
                    unavailable,
                },
            },
            Control::DaemonSet {
                update: DaemonSetUpdate::OnDelete,
                ..
            } => Self::OnDelete,
            Control::DaemonSet {
                update:
                    DaemonSetUpdate::RollingUpdate {
                        max_unavailable,
                        max_surge,
                    },
                ..
            } => Self::NodeByNode {
                surge: *max_surge,
                unavailable: *max_unavailable,
            },
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rolling {
                replicas,
                surge,
                unavailable,
            } => write!(
                f,
                "rolling update to {replicas} replicas: {} more, and {} fewer available",
                at_most(*surge),
                at_most(*unavailable)
            ),
            Self::NodeByNode {
                surge: IntOrPercent::Int(0) | IntOrPercent::Percent(0),
                unavailable,
            } => write!(
                f,
                "rolling update: the old pod stops before the new pod starts, on at most {} at a time",
                nodes(*unavailable)
            ),
            Self::NodeByNode { surge, .. } => write!(
                f,
                "rolling update: the old pod stops when the new pod is ready, on at most {} at a time",
                nodes(*surge)
            ),
            Self::Recreate => {
                f.write_str("Recreate: all old pods stop before the first new pod starts")
            }
            Self::Paused => f.write_str("paused: no pod is replaced"),
            Self::OnDelete => {
                f.write_str("running pods keep the old template until they end or are restarted")
            }
            Self::Single => f.write_str("the old pod stops before the new pod starts"),
        }
    }
}

fn at_most(pods: u32) -> String {
    match pods {
        0 => "no pod".to_owned(),
        1 => "at most 1 pod".to_owned(),
        pods => format!("at most {pods} pods"),
    }
}

fn nodes(number: IntOrPercent) -> String {
    match number {
        IntOrPercent::Int(1) => "1 node".to_owned(),
        IntOrPercent::Int(number) => format!("{number} nodes"),
        IntOrPercent::Percent(percent) => format!("{percent} % of the nodes"),
    }
}
