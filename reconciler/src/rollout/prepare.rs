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
    /// Number of nodes that have all their images.
    ready: usize,
    /// Nodes that cannot run the commit, with the message of the fault.
    failed: BTreeMap<&'a NodeName, &'a ForeignText>,
    /// Nodes whose pulls are held up.
    waiting: BTreeMap<&'a NodeName, ImageObstacle>,
    /// Nodes that do not report about the target: they have not received the commit or not read it
    /// yet.
    unread: BTreeSet<&'a NodeName>,
    /// Nodes whose pulls fail for an unknown reason, with the message of the last fault.
    failing: BTreeMap<&'a NodeName, &'a ForeignText>,
    /// The first pull that makes progress, and is waited for.
    pulling: Option<AwaitedImages>,
    /// The nodes that count as ready or may still become ready.
    able: BTreeSet<&'a NodeName>,
    /// The nodes that have all their images.
    has_images: BTreeSet<&'a NodeName>,
}

pub(super) enum Verdict {
    /// All nodes that count have the images; these nodes do not count, with the reason.
    Ready(BTreeMap<NodeName, ImageObstacle>),
    /// Images are missing on nodes that count.
    Waiting {
        /// What is waited for.
        awaited: AwaitedImages,
        /// When the verdict changes although nothing is reported.
        until: Option<Timestamp>,
    },
    /// The commit is at fault.
    Failed(Failure),
    /// The cluster has no node that counts.
    Nobody,
}

impl<'a> Prepared<'a> {
    /// Sorts the nodes by what each reports about its images of the target.
    pub(super) fn collect(input: &StepInput<'a>, rollout: &Rollout, target: &CommitId) -> Self {
        let mut prepared = Self::default();
        let shares = rollout.shares_of_target();
        for (node, report) in &input.nodes {
            let Some(shares) = shares else {
                let reported = report.and_then(|report| report.prepared.get(target));
                prepared.add(node, reported, NodeShare::ALL);
                continue;
            };
            let reported = shares.reported_preparation(node, *report);
            let share = shares.nodes.get(*node);
            let behind = share.and_then(|share| share.behind);
            let node_share = NodeShare {
                counts: share.is_some_and(|share| !share.pods.is_empty()),
                is_off: shares.off.contains_key(*node),
                is_late: behind.is_some_and(|since| later(since, PREPARE_GRACE) <= input.now),
            };
            prepared.add(node, reported, node_share);
        }
        prepared
    }

    fn add(&mut self, node: &'a NodeName, reported: Option<&'a Preparation>, share: NodeShare) {
        let Some(reported) = reported else {
            self.unread.insert(node);
            self.able.insert(node);
            return;
        };
        match reported {
            Preparation::Ready => {
                self.ready += 1;
                self.has_images.insert(node);
            }
            Preparation::Failed(reason) if share.counts || share.is_off => {
                self.failed.insert(node, reason);
            }
            Preparation::Waiting(reason) if share.counts => {
                self.waiting
                    .insert(node, ImageObstacle::Reported(reason.clone()));
            }
            Preparation::Failing(reason) if share.counts => {
                self.waiting
                    .insert(node, ImageObstacle::Reported(reason.clone()));
                self.failing.insert(node, reason);
            }
            &Preparation::Pulling { done, of } if share.counts && share.is_late => {
                let node_name = node.clone();
                let obstacle = ImageObstacle::SlowPull {
                    node: node_name,
                    done,
                    of,
                };
                self.waiting.insert(node, obstacle);
            }
            &Preparation::Pulling { done, of } if share.counts => {
                self.pulling
                    .get_or_insert(AwaitedImages::Pulling { done, of });
            }
            // Spare images are not waited for.
            Preparation::Failed(_)
            | Preparation::Waiting(_)
            | Preparation::Failing(_)
            | Preparation::Pulling { .. } => {}
        }
        if !matches!(reported, Preparation::Failed(_)) {
            self.able.insert(node);
        }
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
        let deadline = rollout
            .failing
            .map(|since| later(since, input.settings.deadline));
        if let Some(failure) = self.failure(input, rollout, deadline) {
            return Verdict::Failed(failure);
        }

        let may_go_without = self.may_go_without_the_rest(input, rollout);
        let grace_ends = later(rollout.since.unwrap_or(input.now), PREPARE_GRACE);
        let is_grace_over = grace_ends <= input.now;
        if is_grace_over {
            let unread = self.unread.iter().copied();
            self.waiting
                .extend(unread.map(|node| (node, ImageObstacle::NotReceived(node.clone()))));
        } else if !self.unread.is_empty() {
            self.pulling.get_or_insert(AwaitedImages::Reports);
        }

        let awaited = match (self.waiting.values().next(), self.pulling.take()) {
            (Some(_), None) if may_go_without && is_grace_over => None,
            (Some(obstacle), _) => Some(AwaitedImages::Node(obstacle.clone())),
            (None, pulling) => pulling,
        };
        let Some(awaited) = awaited else {
            return Verdict::Ready(self.into_faulty());
        };
        let grace = (may_go_without && !is_grace_over).then_some(grace_ends);
        let until = [grace, deadline].into_iter().flatten().min();
        Verdict::Waiting { awaited, until }
    }

    /// The failure of the commit, if nodes cannot get its images and no node shows that it is
    /// possible, or too many nodes cannot, or the deadline has passed.
    fn failure(
        &self,
        input: &StepInput<'_>,
        rollout: &Rollout,
        deadline: Option<Timestamp>,
    ) -> Option<Failure> {
        let nobody_else = self
            .failed
            .keys()
            .any(|node| !is_shown(rollout, node, &self.able));
        if let Some(reason) = self.failed.values().next()
            && (self.failed.len() > input.max_faulty || nobody_else)
        {
            return Some(Failure {
                class: FailureClass::Image,
                reason: FailureReason::Images((*reason).clone()),
            });
        }
        if let Some(reason) = self.failing.values().next()
            && deadline.is_some_and(|deadline| deadline <= input.now)
        {
            return Some(Failure {
                class: FailureClass::Deadline,
                reason: FailureReason::ImagesLate {
                    seconds: input.settings.deadline.as_secs(),
                    error: (*reason).clone(),
                },
            });
        }
        None
    }

    /// Whether the rollout may continue without the nodes that lack images: few nodes lack some,
    /// and for each of them another node shows that the images can be pulled.
    fn may_go_without_the_rest(&self, input: &StepInput<'_>, rollout: &Rollout) -> bool {
        let lacking: Vec<&NodeName> = self
            .failed
            .keys()
            .chain(self.waiting.keys())
            .chain(&self.unread)
            .copied()
            .collect();
        let all_shown = || {
            lacking
                .iter()
                .all(|node| is_shown(rollout, node, &self.has_images))
        };
        lacking.len() <= input.max_faulty && self.ready > 0 && all_shown()
    }

    /// The nodes that did not get their images, with the reason.
    fn into_faulty(self) -> BTreeMap<NodeName, ImageObstacle> {
        let failed = self
            .failed
            .into_iter()
            .map(|(node, reason)| (node, ImageObstacle::Reported(reason.clone())));
        failed
            .chain(self.waiting)
            .map(|(node, obstacle)| (node.clone(), obstacle))
            .collect()
    }
}

/// What the rollout expects of one node's images.
struct NodeShare {
    /// Whether the node's images are waited for. Spare images are not, but the node must have
    /// received the commit.
    counts: bool,
    /// Whether the node was given up for its images before.
    is_off: bool,
    /// Whether other nodes have had the same images for long enough.
    is_late: bool,
}

impl NodeShare {
    /// What is expected where every node pulls all images.
    const ALL: Self = Self {
        counts: true,
        is_off: false,
        is_late: false,
    };
}

/// Whether another node among `others` shows that a node's images can be pulled. With shares, only
/// a node with the same share shows it.
fn is_shown(rollout: &Rollout, node: &NodeName, others: &BTreeSet<&NodeName>) -> bool {
    match rollout.shares_of_target() {
        Some(shares) => shares.others_all(node, |other| others.contains(other)),
        None => !others.is_empty(),
    }
}
