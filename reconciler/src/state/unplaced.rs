//! Why no node takes a pod, as data.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why one node does not take a pod; the first reason found is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unfit {
    /// `spec.nodeName` names another one.
    OtherNodeName,
    /// Its labels do not satisfy `nodeSelector`.
    Selector,
    /// It does not satisfy `affinity.nodeAffinity`.
    NodeAffinity,
    /// It is cordoned.
    Cordoned,
    /// It is not ready.
    NotReady,
    /// It has a taint that the pod does not tolerate.
    Taint(String),
    /// A pod on it holds this host port.
    HostPort(u16),
    /// It does not begin pods of the template.
    Refuses,
    /// It has as many pods as it may have.
    Full,
    /// The pod asks for more processor time than is left.
    Cpu,
    /// The pod asks for more memory than is left.
    Memory,
    /// None of the pods that `affinity.podAffinity` asks for is in its domain.
    PodAffinity,
    /// One of the pods that `affinity.podAntiAffinity` forbids is in its domain.
    PodAntiAffinity,
    /// A pod in its domain forbids this one by its own `podAntiAffinity`.
    ExistingPodAntiAffinity,
    /// It has not the label that `topologySpreadConstraints` goes by.
    SpreadLabel,
    /// One more pod in its domain would break `topologySpreadConstraints`.
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

/// Why no node takes a pod: "0 of 3 nodes: 1 cordoned, 2 have taint gpu".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Refusal {
    /// Each node counted once, under the first reason found.
    Counted {
        /// How many nodes there are.
        nodes: usize,
        /// How many of them have which reason, sorted by reason.
        reasons: Vec<(Unfit, usize)>,
    },
    /// As a version before typed reasons wrote it; the next cycle puts a counted one in its place.
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
