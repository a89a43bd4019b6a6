//! Which nodes are alive, from the signs that the leader receives.
//!
//! A missing lease alone does not prove that a node is down: a node is lost only when its lease is
//! gone, its daemon does not answer the leader directly, and the leader's own connection works. The
//! leader measures these times with a monotonic clock.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    name::NodeName,
    plan::Next,
    state::{Brake, NodeLife, NotReady, Silence},
};

/// Losses that are further apart than this are unrelated.
const BRAKE_WINDOW: Duration = Duration::from_secs(60);

/// How soon nodes with a late renewal are judged again.
const LATE: Duration = Duration::from_millis(300);

/// The signs of one node that the leader receives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSigns {
    /// How long the node's lease has been gone; `None` while the lease exists.
    pub silent_for: Option<Duration>,
    /// Whether the node's daemon answered the last direct request; `None` if no request could be
    /// sent.
    pub answers: Option<bool>,
    /// The time within which the node announced to be back; `None` if it announced no absence.
    pub back_within: Option<Duration>,
    /// Why the node is alive but accepts no pods; `None` if it accepts pods.
    pub unready: Option<NotReady>,
    /// Whether the node's lease, which exists as far as this leader has heard, is not known to be
    /// renewed in time: of two hosts that fail together, the lease of one expires up to one renewal
    /// interval later.
    pub late: bool,
    /// How long ago the node was given up; `None` if it was not.
    pub lost_for: Option<Duration>,
}

/// The inputs of the judgement.
#[derive(Clone, Debug)]
pub struct LifeInput<'a> {
    /// Duration of a node's lease.
    pub lease: Duration,
    /// How long this leader has led without interruption, with the store answering.
    pub leading_for: Duration,
    /// The signs of each node.
    pub signs: &'a BTreeMap<NodeName, NodeSigns>,
}

/// The judgement of all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lives {
    /// The life of each node.
    pub lives: BTreeMap<NodeName, NodeLife>,
    /// Present while unreachable nodes are not given up because too many disappeared at once.
    pub brake: Option<Brake>,
    /// When the next cycle is due.
    pub next: Next,
}

/// Judges whether each node is alive.
pub fn lives(input: &LifeInput<'_>) -> Lives {
    let mut lives: BTreeMap<NodeName, NodeLife> = BTreeMap::new();
    let mut next = Next::AwaitChange;
    // Nodes that disappeared within the window, those among them that are not given up yet, nodes
    // with a late renewal, and nodes that could have disappeared within the window.
    let (mut vanished, mut fresh, mut late, mut counted) = (0_usize, Vec::new(), 0_usize, 0_usize);
    for (name, signs) in input.signs {
        let life = life_by_itself(signs);
        let is_silent = signs.silent_for.is_some();
        let is_long_lost = signs.lost_for.is_some_and(|lost| lost >= BRAKE_WINDOW);
        counted += usize::from(!(is_silent && is_long_lost));
        late += usize::from(!is_silent && signs.late);
        if life == NodeLife::Lost && !is_long_lost {
            vanished += 1;
            if signs.lost_for.is_none() {
                fresh.push(name.clone());
            }
        }
        // An announced absence ends without an event.
        if let (NodeLife::Away, Some(within)) = (&life, signs.back_within) {
            next = next.sooner(Next::After(within));
        }
        lives.insert(name.clone(), life);
    }

    let mut brake = None;
    if !fresh.is_empty()
        && let Some((why, again)) = hold_back(input, vanished, late, counted)
    {
        if let Silence::Brake(too_many) = why {
            brake = Some(too_many);
        }
        next = next.sooner(again);
        let held = fresh.into_iter();
        lives.extend(held.map(|name| (name, NodeLife::Silent(why.clone()))));
    }
    Lives { lives, brake, next }
}

/// The life of one node, whatever the other nodes show.
fn life_by_itself(signs: &NodeSigns) -> NodeLife {
    if signs.silent_for.is_none() {
        let unready = signs.unready.clone();
        return unready.map_or(NodeLife::Ready, NodeLife::NotReady);
    }
    // Only a new lease brings a lost node back.
    if signs.lost_for.is_some() {
        return NodeLife::Lost;
    }
    if signs.back_within.is_some_and(|within| !within.is_zero()) {
        return NodeLife::Away;
    }
    if signs.answers == Some(true) {
        return NodeLife::Silent(Silence::DaemonAnswers);
    }
    NodeLife::Lost
}

/// Why nodes that have just disappeared are not given up, and when they are judged again; `None` if
/// they are given up.
fn hold_back(
    input: &LifeInput<'_>,
    vanished: usize,
    late: usize,
    counted: usize,
) -> Option<(Silence, Next)> {
    // Half of the nodes: more probably this leader is cut off from them.
    if vanished * 2 >= counted {
        let brake = Brake { vanished, counted };
        return Some((Silence::Brake(brake), Next::After(Duration::from_secs(1))));
    }
    if (vanished + late) * 2 >= counted {
        // The lease of a late node will soon be renewed or expire.
        return Some((Silence::OthersLate, Next::After(LATE)));
    }
    // A node whose lease expired while there was no leader renews it within a third of the lease.
    // Twice a leader's own lease, which is three fifths of a node's lease, leaves time for three
    // attempts.
    let quarantine = (input.lease * 6 / 5).saturating_sub(input.leading_for);
    if !quarantine.is_zero() {
        return Some((Silence::NewLeader, Next::After(quarantine)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(seconds: u64) -> NodeSigns {
        NodeSigns {
            silent_for: Some(Duration::from_secs(seconds)),
            answers: Some(false),
            ..NodeSigns::default()
        }
    }

    fn judge(leading: u64, signs: &[(&str, NodeSigns)]) -> Lives {
        let signs = signs
            .iter()
            .map(|(name, signs)| (NodeName::new(*name), signs.clone()))
            .collect();
        lives(&LifeInput {
            lease: Duration::from_secs(5),
            leading_for: Duration::from_secs(leading),
            signs: &signs,
        })
    }

    fn life<'a>(lives: &'a Lives, name: &str) -> &'a NodeLife {
        &lives.lives[&NodeName::new(name)]
    }

    fn alive() -> NodeSigns {
        NodeSigns::default()
    }

    #[test]
    fn one_of_three_is_lost_at_once_under_a_settled_leader() {
        let judged = judge(60, &[("a", alive()), ("b", alive()), ("c", silent(0))]);
        assert_eq!(*life(&judged, "c"), NodeLife::Lost);
        assert_eq!(judged.brake, None);
    }

    #[test]
    fn a_new_leader_waits_for_those_that_nobody_heard_meanwhile() {
        let judged = judge(4, &[("a", alive()), ("b", alive()), ("c", silent(4))]);
        assert_eq!(*life(&judged, "c"), NodeLife::Silent(Silence::NewLeader));
        assert_eq!(judged.next, Next::After(Duration::from_secs(2)));
    }

    #[test]
    fn whoever_answers_or_will_be_back_is_not_lost() {
        let answers = NodeSigns {
            answers: Some(true),
            ..silent(30)
        };
        let away = NodeSigns {
            back_within: Some(Duration::from_secs(20)),
            ..silent(30)
        };
        let judged = judge(60, &[("a", alive()), ("b", answers), ("c", away)]);
        assert_eq!(
            *life(&judged, "b"),
            NodeLife::Silent(Silence::DaemonAnswers)
        );
        assert_eq!(*life(&judged, "c"), NodeLife::Away);
        assert_eq!(judged.next, Next::After(Duration::from_secs(20)));
    }

    #[test]
    fn two_of_three_at_once_are_the_brake() {
        let judged = judge(60, &[("a", alive()), ("b", silent(6)), ("c", silent(3))]);
        let brake = Brake {
            vanished: 2,
            counted: 3,
        };
        assert_eq!(judged.brake, Some(brake));
        assert_eq!(*life(&judged, "b"), NodeLife::Silent(Silence::Brake(brake)));
        // The first node was given up before the second became unreachable: the second is held back
        // all the same.
        let given_up = NodeSigns {
            lost_for: Some(Duration::from_secs(9)),
            ..silent(15)
        };
        let judged = judge(
            60,
            &[("a", alive()), ("b", given_up.clone()), ("c", silent(3))],
        );
        assert_eq!(*life(&judged, "b"), NodeLife::Lost);
        assert!(matches!(life(&judged, "c"), NodeLife::Silent(_)));
    }

    #[test]
    fn nobody_is_given_up_while_another_is_late() {
        let late = NodeSigns {
            late: true,
            ..NodeSigns::default()
        };
        let judged = judge(60, &[("a", alive()), ("b", silent(0)), ("c", late.clone())]);
        assert_eq!(*life(&judged, "b"), NodeLife::Silent(Silence::OthersLate));
        assert_eq!(*life(&judged, "c"), NodeLife::Ready, "its lease is there");
        assert_eq!((judged.brake, judged.next), (None, Next::After(LATE)));
        let judged = judge(60, &[("a", alive()), ("b", alive()), ("c", late)]);
        assert_eq!((judged.brake, judged.next), (None, Next::AwaitChange));
    }

    #[test]
    fn a_loss_of_long_ago_does_not_brake_the_next_one() {
        let long_ago = NodeSigns {
            lost_for: Some(Duration::from_secs(600)),
            ..silent(600)
        };
        let judged = judge(
            60,
            &[
                ("a", alive()),
                ("b", alive()),
                ("c", long_ago),
                ("d", silent(1)),
            ],
        );
        assert_eq!(*life(&judged, "d"), NodeLife::Lost);
    }
}
