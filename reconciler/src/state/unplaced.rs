//! Why no node takes a pod, as data.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why one node does not accept a pod; only the first reason that applies is reported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unfit {
    /// `spec.nodeName` names another node.
    OtherNodeName,
    /// The node's labels do not match `nodeSelector`.
    Selector,
    /// The node does not match `affinity.nodeAffinity`.
    NodeAffinity,
    /// The node is cordoned.
    Cordoned,
    /// The node is not ready.
    NotReady,
    /// The node has a taint that the pod does not tolerate.
    Taint(String),
    /// A pod on the node uses this host port.
    HostPort(u16),
    /// The node refuses pods of the template.
    Refuses,
    /// The node runs its maximum number of pods.
    Full,
    /// The pod requests more CPU than the node has left.
    Cpu,
    /// The pod requests more memory than the node has left.
    Memory,
    /// None of the pods that `affinity.podAffinity` requires is in the node's topology domain.
    PodAffinity,
    /// One of the pods that `affinity.podAntiAffinity` forbids is in the node's topology domain.
    PodAntiAffinity,
    /// A pod in the node's topology domain forbids the new pod by its own `podAntiAffinity`.
    ExistingPodAntiAffinity,
    /// The node lacks the label that `topologySpreadConstraints` names as topology key.
    SpreadLabel,
    /// One more pod in the node's topology domain would violate `topologySpreadConstraints`.
    Spread,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherNodeName => f.write_str("not the one of spec.nodeName"),
            Self::Selector => f.write_str("do not match spec.nodeSelector"),
            Self::NodeAffinity => f.write_str("do not match spec.affinity.nodeAffinity"),
            Self::NotReady => f.write_str("not ready"),
            Self::Cordoned => f.write_str("cordoned"),
            Self::Taint(key) => write!(f, "have taint {key}"),
            Self::HostPort(port) => write!(f, "have host port {port} in use"),
            Self::Refuses => f.write_str("refuse it"),
            Self::Full => f.write_str("full"),
            Self::Cpu => f.write_str("have too little cpu left"),
            Self::Memory => f.write_str("have too little memory left"),
            Self::PodAffinity => {
                f.write_str("have no pod near that spec.affinity.podAffinity asks for")
            }
            Self::PodAntiAffinity => {
                f.write_str("have a pod near that spec.affinity.podAntiAffinity forbids")
            }
            Self::ExistingPodAntiAffinity => {
                f.write_str("have a pod near whose podAntiAffinity forbids this one")
            }
            Self::SpreadLabel => f.write_str("have no label of spec.topologySpreadConstraints"),
            Self::Spread => f.write_str("would break spec.topologySpreadConstraints"),
        }
    }
}

/// Why no node accepts a pod, for example "0 of 3 nodes: 1 cordoned, 2 have taint gpu".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Refusal {
    /// Each node is counted once, under the first reason that applies.
    Counted {
        /// Number of nodes in the cluster.
        nodes: usize,
        /// Number of nodes for each reason, sorted by reason.
        reasons: Vec<(Unfit, usize)>,
    },
    /// A text that a version before typed reasons wrote; the next cycle replaces it by `Counted`.
    Text(String),
}

impl Default for Refusal {
    fn default() -> Self {
        Self::Counted {
            nodes: 0,
            reasons: Vec::new(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counted { nodes, reasons } => {
                write!(f, "0 of {nodes} nodes: ")?;
                if reasons.is_empty() {
                    return f.write_str("there are none");
                }
                for (index, (unfit, count)) in reasons.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{count} {unfit}")?;
                }
                Ok(())
            }
            Self::Text(text) => f.write_str(text),
        }
    }
}
