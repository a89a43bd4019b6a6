//! Whether the nodes have the images of the target, and what is at fault where a node has not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::StepInput;
use crate::{
    foreign::ForeignText,
    name::{CommitId, NodeName},
    state::{
        AwaitedImages, Failure, FailureClass, FailureReason, ImageObstacle, Preparation, Rollout,
    },
    time::later,
};

/// How long a node may wait for an obstacle outside of the commit, or for the commit itself, before
/// the rollout continues without the node.
const PREPARE_GRACE: Duration = Duration::from_secs(30);

/// The nodes by the state of the target's images on them.
#[derive(Default)]
pub(super) struct Prepared<'a> {
    ready: usize,
    failed: BTreeMap<&'a NodeName, &'a ForeignText>,
    waiting: BTreeMap<&'a NodeName, ImageObstacle>,
    /// Nodes that do not report about the target: they have not received the commit or not read it
    /// yet.
    unread: BTreeSet<&'a NodeName>,
    /// Nodes whose pulls fail for an unknown reason.
    failing: BTreeMap<&'a NodeName, &'a ForeignText>,
    pulling: Option<AwaitedImages>,
    /// The nodes that count as ready or may still become ready, by name.
    able: BTreeSet<&'a NodeName>,
    has_images: BTreeSet<&'a NodeName>,
}

pub(super) enum Verdict {
    /// All nodes that count have the images; these nodes do not count, with the reason.
    Ready(BTreeMap<NodeName, ImageObstacle>),
    Waiting {
        awaited: AwaitedImages,
        until: Option<Timestamp>,
    },
    Failed(Failure),
    /// The cluster has no node that counts.
    Nobody,
}

impl<'a> Prepared<'a> {
    pub(super) fn collect(input: &StepInput<'a>, rollout: &Rollout, target: &CommitId) -> Self {
        let mut prepared = Self::default();
        let shares = rollout.shares_of_target();
        for (node, report) in &input.nodes {
            let said = match shares {
                Some(shares) => shares.reported_preparation(node, *report),
                None => report.and_then(|report| report.prepared.get(target)),
            };
            let share = shares.map(|shares| shares.nodes.get(*node));
            let late = share.flatten().and_then(|share| share.behind);
            let late = late.is_some_and(|behind| later(behind, PREPARE_GRACE) <= input.now);
            let is_off = shares.is_some_and(|shares| shares.off.contains_key(*node));
            // Spare images are not waited for, but the node must have received the commit.
            let counts =
                share.is_none_or(|share| share.is_some_and(|share| !share.pods.is_empty()));
            match said {
                Some(Preparation::Ready) => prepared.ready += 1,
                Some(Preparation::Failed(reason)) if counts || is_off => {
                    prepared.failed.insert(*node, reason);
                }
                Some(Preparation::Waiting(reason)) if counts => {
                    let obstacle = ImageObstacle::Reported(reason.clone());
                    prepared.waiting.insert(*node, obstacle);
                }
                Some(Preparation::Failing(reason)) if counts => {
                    let obstacle = ImageObstacle::Reported(reason.clone());
                    prepared.waiting.insert(*node, obstacle);
                    prepared.failing.insert(*node, reason);
                }
                Some(&Preparation::Pulling { done, of }) if counts && late => {
                    let node_name = (*node).clone();
                    let obstacle = ImageObstacle::SlowPull {
                        node: node_name,
                        done,
                        of,
                    };
                    prepared.waiting.insert(*node, obstacle);
                }
                Some(&Preparation::Pulling { done, of }) if counts => {
                    prepared
                        .pulling
                        .get_or_insert(AwaitedImages::Pulling { done, of });
                }
                Some(_) => {}
                None => {
                    prepared.unread.insert(*node);
                }
            }
            match said {
                Some(Preparation::Ready) => drop(prepared.has_images.insert(*node)),
                Some(Preparation::Failed(_)) => continue,
                _ => {}
            }
            prepared.able.insert(*node);
        }
        prepared
    }

    /// Since when pulls fail for an unknown reason.
    pub(super) fn failing_since(
        &self,
        before: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        (!self.failing.is_empty()).then(|| before.unwrap_or(now))
    }

    /// A node that cannot pull images that other nodes have pulled is itself at fault, up to a
    /// maximum number of nodes.
    pub(super) fn verdict(mut self, input: &StepInput<'_>, rollout: &Rollout) -> Verdict {
        if input.nodes.is_empty() {
            return Verdict::Nobody;
        }
        // With shares, only a node with the same share can show that the images can be pulled.
        let shares = rollout.shares_of_target();
        let shown = |node: &NodeName, by: &BTreeSet<&NodeName>| match shares {
            Some(shares) => shares.others_all(node, |other| by.contains(other)),
            None => !by.is_empty(),
        };
        let nobody_else = self.failed.keys().any(|node| !shown(node, &self.able));
        if let Some(reason) = self.failed.values().next()
            && (self.failed.len() > input.max_faulty || nobody_else)
        {
            return Verdict::Failed(Failure {
                class: FailureClass::Image,
                reason: FailureReason::Images((*reason).clone()),
            });
        }
        let deadline = rollout
            .failing
            .map(|since| later(since, input.settings.deadline));
        if let Some(reason) = self.failing.values().next()
            && deadline.is_some_and(|deadline| deadline <= input.now)
        {
            return Verdict::Failed(Failure {
                class: FailureClass::Deadline,
                reason: FailureReason::ImagesLate {
                    seconds: input.settings.deadline.as_secs(),
                    error: (*reason).clone(),
                },
            });
        }
        let grace = later(rollout.since.unwrap_or(input.now), PREPARE_GRACE);
        let without = self.failed.len() + self.waiting.len() + self.unread.len();
        let lacking = self
            .failed
            .keys()
            .chain(self.waiting.keys())
            .chain(&self.unread);
        let few = without <= input.max_faulty
            && self.ready > 0
            && lacking.copied().all(|node| shown(node, &self.has_images));
        if grace <= input.now {
            let unread = self.unread.iter().copied();
            self.waiting
                .extend(unread.map(|node| (node, ImageObstacle::NotReceived(node.clone()))));
        } else if !self.unread.is_empty() {
            self.pulling.get_or_insert(AwaitedImages::Reports);
        }
        let awaited = match (self.waiting.values().next(), self.pulling) {
            (Some(_), None) if few && grace <= input.now => None,
            (Some(obstacle), _) => Some(AwaitedImages::Node(obstacle.clone())),
            (None, Some(pulling)) => Some(pulling),
            (None, None) => None,
        };
        match awaited {
            Some(awaited) => {
                let grace = (few && grace > input.now).then_some(grace);
                let until = [grace, deadline].into_iter().flatten().min();
                Verdict::Waiting { awaited, until }
            }
            None => {
                let failed = self
                    .failed
                    .into_iter()
                    .map(|(node, reason)| (node, ImageObstacle::Reported(reason.clone())));
                let faulty = failed.chain(self.waiting);
                Verdict::Ready(
                    faulty
                        .map(|(node, obstacle)| (node.clone(), obstacle))
                        .collect(),
                )
            }
        }
    }
}
