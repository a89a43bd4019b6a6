//! Why a pod is where it is, and why it is nowhere, as data.

use std::fmt;

use crate::name::NodeName;

/// The node that takes a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The node.
    pub node: NodeName,
    /// Why this one.
    pub why: Choice,
}

/// Why a node was chosen: it is the least of these, compared in this order, and then by load and
/// name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many of them names, labels, cordons and taints allow.
    pub allowed: usize,
    /// How many of its PreferNoSchedule taints the pod does not tolerate.
    pub avoided: u32,
    /// The weight of the preferred rules that do not hold there.
    pub unmet: u32,
    /// The weight of all preferred rules.
    pub preferred: u32,
    /// By how many pods its domains are above what ScheduleAnyway constraints wish.
    pub excess: u32,
    /// How many pods of the same owner it had.
    pub owned: u32,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "one of {} of {} nodes that may take it",
            self.allowed, self.nodes
        )?;
        if self.avoided > 0 {
            write!(f, "; has {} taints to be avoided", self.avoided)?;
        }
        if self.preferred > 0 {
            write!(
                f,
                "; preferred {} of {}",
                self.preferred.saturating_sub(self.unmet),
                self.preferred
            )?;
        }
        if self.excess > 0 {
            write!(f, "; {} above the wished spread", self.excess)?;
        }
        write!(f, "; had {} of the same owner", self.owned)
    }
}

/// Why a pod must leave the node it is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leave {
    /// The node has a NoExecute taint with this key that the pod does not tolerate.
    NoExecute(String),
}

impl fmt::Display for Leave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoExecute(key) => write!(f, "its node has the NoExecute taint {key}"),
        }
    }
}
