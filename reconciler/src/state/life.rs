//! Whether a node is alive, as the leader judges it, with the reason as data. Nothing of it is
//! stored.

use std::fmt;

use super::NodeFacts;
use crate::foreign::ForeignText;

/// A node with its facts and its life.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownNode {
    /// What the node published about itself.
    pub facts: NodeFacts,
    /// Whether the node is alive.
    pub life: NodeLife,
}

/// Whether a node is alive, as the leader observes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeLife {
    /// The node reports, and accepts new pods.
    Ready,
    /// The node reports, but accepts no new pods.
    NotReady(NotReady),
    /// The node announced a short absence: it accepts no new pods, and its pods are not moved.
    Away,
    /// The node does not report and is not given up yet.
    Silent(Silence),
    /// The node is given up: pods that can run elsewhere are replaced there.
    Lost,
}

impl NodeLife {
    /// The name of the variant, as one word for people.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::NotReady(_) => "NotReady",
            Self::Away => "Away",
            Self::Silent(_) => "Silent",
            Self::Lost => "Lost",
        }
    }

    /// Whether the node accepts new pods.
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }

    /// Whether the node is unreachable or lost.
    pub fn is_out(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::Lost)
    }
}

/// Why a node that reports accepts no new pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// The node's own reason, for example that its engine does not answer.
    Reported(ForeignText),
    /// The daemon renews its lease, but its control loop does not run, as on a disk that does not
    /// answer.
    DaemonHangs,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reported(reason) => reason.fmt(f),
            Self::DaemonHangs => f.write_str("its daemon hangs: is its disk well?"),
        }
    }
}

/// Why a node that does not report is not given up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The node's lease is gone, but its daemon answers the leader directly.
    DaemonAnswers,
    /// Too many nodes disappeared at once.
    Brake(Brake),
    /// Other nodes have not renewed their lease in time, and may be gone as well.
    OthersLate,
    /// The leader has led for too short a time to judge.
    NewLeader,
    /// The leader recorded an outage of the node: what a host that does not lead knows of it.
    Outage,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DaemonAnswers => f.write_str("its lease is gone, but its daemon answers"),
            Self::Brake(brake) => brake.fmt(f),
            Self::OthersLate => f.write_str("others are late, too, and may be gone as well"),
            Self::NewLeader => f.write_str("this leader has only just begun to lead"),
            Self::Outage => f.write_str("it does not report"),
        }
    }
}

/// So many nodes disappeared at once that the fault is probably on the leader's side, so that no
/// node is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brake {
    /// Number of nodes that disappeared.
    pub vanished: usize,
    /// Number of nodes that could have disappeared.
    pub counted: usize,
}

impl fmt::Display for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vanished, counted } = self;
        write!(
            f,
            "{vanished} of {counted} nodes vanished within a minute: the network is likelier at fault than the nodes, so \
             nothing is moved; `windlass node rm NAME` gives one up for good"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_not_ready_says_why() {
        let reported = ForeignText::sentence("its engine hangs");
        let brake = Brake {
            vanished: 3,
            counted: 4,
        };
        let lives = [
            (NodeLife::Ready, "Ready", [true, false]),
            (
                NodeLife::NotReady(NotReady::DaemonHangs),
                "NotReady",
                [false, false],
            ),
            (NodeLife::Away, "Away", [false, false]),
            (
                NodeLife::Silent(Silence::NewLeader),
                "Silent",
                [false, true],
            ),
            (NodeLife::Lost, "Lost", [false, true]),
        ];
        for (life, word, expected) in lives {
            assert_eq!(life.as_str(), word);
            assert_eq!([life.is_ready(), life.is_out()], expected, "{life:?}");
        }
        let reasons = [
            NotReady::Reported(reported).to_string(),
            NotReady::DaemonHangs.to_string(),
            Silence::DaemonAnswers.to_string(),
            Silence::Brake(brake).to_string(),
            Silence::OthersLate.to_string(),
            Silence::NewLeader.to_string(),
            Silence::Outage.to_string(),
        ];
        insta::assert_snapshot!(reasons.join("\n"), @r"
        its engine hangs
        its daemon hangs: is its disk well?
        its lease is gone, but its daemon answers
        3 of 4 nodes vanished within a minute: the network is likelier at fault than the nodes, so nothing is moved; `windlass node rm NAME` gives one up for good
        others are late, too, and may be gone as well
        this leader has only just begun to lead
        it does not report
        ");
    }
}
