//! Why a pod is on its node, and why no node accepts it, as data.

use std::fmt;

use crate::name::NodeName;

/// The node that was chosen for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Name of the chosen node.
    pub node: NodeName,
    /// Why this node was chosen.
    pub why: Choice,
}

/// Why a node was chosen: the node has the least values, compared in this order, then by load and
/// name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Number of nodes in the cluster.
    pub nodes: usize,
    /// Number of nodes that `nodeName`, labels, cordons and taints allow.
    pub allowed: usize,
    /// Number of the node's PreferNoSchedule taints that the pod does not tolerate.
    pub avoided: u32,
    /// Sum of the weights of those preferred rules that the node does not satisfy.
    pub unmet: u32,
    /// Sum of the weights of all preferred rules.
    pub preferred: u32,
    /// Number of pods by which the node's domains exceed what ScheduleAnyway constraints prefer.
    pub excess: u32,
    /// Number of pods of the same owner on the node before.
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

/// Why a pod must leave the node on which it runs.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_names_only_what_applies() {
        let plain = Choice {
            nodes: 5,
            allowed: 3,
            avoided: 0,
            unmet: 0,
            preferred: 0,
            excess: 0,
            owned: 1,
        };
        insta::assert_snapshot!(plain, @"one of 3 of 5 nodes that may take it; had 1 of the same owner");
        let all = Choice {
            avoided: 2,
            unmet: 30,
            preferred: 100,
            excess: 4,
            ..plain
        };
        insta::assert_snapshot!(all, @"one of 3 of 5 nodes that may take it; has 2 taints to be avoided; preferred 70 of 100; 4 above the wished spread; had 1 of the same owner");
    }
}
