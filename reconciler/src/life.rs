//! Which nodes live, from what the leader hears of them.
//!
//! Silence is not death: a node is lost only when its lease is gone, its daemon does not answer the
//! leader either, and the silence is not the leader's own. Times here are measured by the leader on
//! a clock that never jumps.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{name::NodeName, plan::Next, state::NodeLife};

/// Losses further apart than this have nothing to do with each other.
const BRAKE_WINDOW: Duration = Duration::from_secs(60);

/// How soon to look again at nodes that are late.
const LATE: Duration = Duration::from_millis(300);

/// What the leader hears of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSigns {
    /// For how long its lease has been gone; `None` while it is there.
    pub silent_for: Option<Duration>,
    /// Whether its daemon answered when it was last asked directly; `None` when nobody could ask.
    pub answers: Option<bool>,
    /// It said that it comes back within this time.
    pub back_within: Option<Duration>,
    /// It lives and takes no pods: why.
    pub unready: Option<String>,
    /// Its lease is there, and was not renewed when it should have been: a host that goes together
    /// with another falls silent up to one renewal later.
    pub late: bool,
    /// For how long it has been given up; `None` where it was not.
    pub lost_for: Option<Duration>,
}

/// What the judgement of lives is made from.
#[derive(Clone, Debug)]
pub struct LifeInput<'a> {
    /// How long a node's lease lasts.
    pub lease: Duration,
    /// For how long this leader has led, and the store has answered it, without a break.
    pub leading_for: Duration,
    /// What is heard of each node.
    pub signs: &'a BTreeMap<NodeName, NodeSigns>,
}

/// Which nodes live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lives {
    /// Each node's.
    pub lives: BTreeMap<NodeName, NodeLife>,
    /// Why nodes that seem lost are not given up, if so many vanished that the fault is likely
    /// here.
    pub brake: Option<String>,
    /// When the next cycle is due.
    pub next: Next,
}

/// Judges all nodes.
pub fn lives(input: &LifeInput<'_>) -> Lives {
    // A node whose lease ran out while nobody led has renewed it within a third of one; twice a
    // leader's own lease, which is three fifths of a node's, leaves time for three tries.
    let quarantine = (input.lease * 6 / 5).saturating_sub(input.leading_for);
    let mut next = Next::AwaitChange;
    let mut lives: BTreeMap<NodeName, NodeLife> = BTreeMap::new();
    let mut vanished: BTreeSet<&NodeName> = BTreeSet::new();
    let mut late = 0_usize;
    let mut counted = 0_usize;
    for (name, signs) in input.signs {
        let long_lost = signs.lost_for.is_some_and(|lost| lost >= BRAKE_WINDOW);
        counted += usize::from(!(signs.silent_for.is_some() && long_lost));
        late += usize::from(signs.silent_for.is_none() && signs.late);
        let life = match signs {
            NodeSigns {
                silent_for: None,
                unready: None,
                ..
            } => NodeLife::Ready,
            NodeSigns {
                silent_for: None,
                unready: Some(why),
                ..
            } => NodeLife::NotReady(why.clone()),
            NodeSigns {
                lost_for: Some(_), ..
            } => {
                if !long_lost {
                    vanished.insert(name);
                }
                NodeLife::Lost
            }
            NodeSigns {
                back_within: Some(within),
                ..
            } if !within.is_zero() => {
                next = next.sooner(Next::After(*within));
                NodeLife::Away
            }
            NodeSigns {
                answers: Some(true),
                ..
            } => NodeLife::Silent("its lease is gone, but its daemon answers".to_owned()),
            NodeSigns { .. } => {
                vanished.insert(name);
                NodeLife::Lost
            }
        };
        lives.insert(name.clone(), life);
    }
    let fresh: Vec<NodeName> = vanished
        .iter()
        .filter(|name| {
            input
                .signs
                .get(**name)
                .is_some_and(|signs| signs.lost_for.is_none())
        })
        .map(|name| (*name).clone())
        .collect();
    let mut brake = None;
    if !fresh.is_empty() {
        let why = if vanished.len() * 2 >= counted {
            let words = format!(
                "{} of {counted} nodes vanished within a minute: the network is likelier at fault than the nodes, so \
                 nothing is moved; `windlass node rm NAME` gives one up for good",
                vanished.len()
            );
            brake = Some(words.clone());
            next = next.sooner(Next::After(Duration::from_secs(1)));
            Some(words)
        } else if (vanished.len() + late) * 2 >= counted {
            // In a moment they are gone or well.
            next = next.sooner(Next::After(LATE));
            Some("others are late, too, and may be gone as well".to_owned())
        } else if !quarantine.is_zero() {
            next = next.sooner(Next::After(quarantine));
            Some("this leader has only just begun to lead".to_owned())
        } else {
            None
        };
        if let Some(why) = why {
            lives.extend(
                fresh
                    .into_iter()
                    .map(|name| (name, NodeLife::Silent(why.clone()))),
            );
        }
    }
    Lives { lives, brake, next }
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
        assert!(matches!(life(&judged, "c"), NodeLife::Silent(_)));
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
        assert!(matches!(life(&judged, "b"), NodeLife::Silent(_)));
        assert_eq!(*life(&judged, "c"), NodeLife::Away);
        assert_eq!(judged.next, Next::After(Duration::from_secs(20)));
    }

    #[test]
    fn two_of_three_at_once_are_the_brake() {
        let judged = judge(60, &[("a", alive()), ("b", silent(6)), ("c", silent(3))]);
        assert!(judged.brake.is_some());
        assert!(matches!(life(&judged, "b"), NodeLife::Silent(_)));
        // The first was given up before the second fell silent: the second is braked all the same.
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
        assert!(matches!(life(&judged, "b"), NodeLife::Silent(_)));
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
