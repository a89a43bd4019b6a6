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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        commit::Commits,
        ids::commit_id,
        name::{ObjectKey, WorkloadKey, WorkloadKind},
        rollout::{Head, Judgement},
        settings::RolloutSettings,
        state::{NodeReport, Share, Shares},
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    /// What a node reports, by a letter; `-` for a node that reports nothing.
    fn reported(letter: char) -> Option<Preparation> {
        match letter {
            'R' => Some(Preparation::Ready),
            'P' => Some(Preparation::Pulling { done: 1, of: 2 }),
            'W' => Some(Preparation::Waiting(ForeignText::new("registry down"))),
            'X' => Some(Preparation::Failing(ForeignText::new("unknown fault"))),
            'F' => Some(Preparation::Failed(ForeignText::new("no such image"))),
            _ => None,
        }
    }

    fn text(verdict: Verdict) -> String {
        let (awaited, until) = match verdict {
            Verdict::Nobody => return "nobody".to_owned(),
            Verdict::Failed(failure) => return format!("failed: {:?}", failure.class),
            Verdict::Ready(without) => {
                let names: Vec<&str> = without.keys().map(NodeName::as_str).collect();
                return format!("ready without [{}]", names.join(" "));
            }
            Verdict::Waiting { awaited, until } => (awaited, until),
        };
        let awaited = match awaited {
            AwaitedImages::Reports => "reports".to_owned(),
            AwaitedImages::Pulling { done, of } => format!("pull {done}/{of}"),
            AwaitedImages::Node(ImageObstacle::Reported(reason)) => reason.to_string(),
            AwaitedImages::Node(ImageObstacle::NotReceived(node)) => format!("{node} lacks it"),
            AwaitedImages::Node(ImageObstacle::SlowPull { node, .. }) => format!("{node} is slow"),
        };
        match until {
            Some(until) => format!("{awaited} until {}", until.as_second()),
            None => awaited,
        }
    }

    /// The verdict about the nodes a, b, c and so on, which report these letters, at these seconds.
    /// One node may be at fault.
    fn verdict(letters: &str, now: i64, rollout: &Rollout) -> String {
        let reports: BTreeMap<NodeName, NodeReport> = ('a'..)
            .zip(letters.chars())
            .map(|(node, letter)| {
                let prepared = reported(letter).map(|prepared| (commit_id("c1"), prepared));
                let report = NodeReport {
                    prepared: prepared.into_iter().collect(),
                    ..NodeReport::default()
                };
                (NodeName::new(node), report)
            })
            .collect();
        let nodes = reports.iter();
        let input = StepInput {
            now: at(now),
            settings: &RolloutSettings::default(),
            rollout,
            head: &Head::Unknown,
            commits: &Commits::new(),
            kept: &Commits::new(),
            nodes: nodes.map(|(node, report)| (node, Some(report))).collect(),
            max_faulty: 1,
            faulty: BTreeMap::new(),
            failing: BTreeSet::new(),
            judgement: Judgement::Settled,
            progressed: None,
        };
        text(Prepared::collect(&input, rollout, &commit_id("c1")).verdict(&input, rollout))
    }

    /// A rollout that prepares `c1` since these seconds; pulls fail since `failing`.
    fn preparing(since: i64, failing: Option<i64>) -> Rollout {
        Rollout {
            target: Some(commit_id("c1")),
            began: Some(at(0)),
            since: Some(at(since)),
            failing: failing.map(at),
            ..Rollout::default()
        }
    }

    #[test]
    fn one_node_without_images_is_left_out_after_the_grace_if_another_has_them() {
        let cases = [
            ("", 10, "nobody"),
            ("RRR", 10, "ready without []"),
            ("RRF", 10, "ready without [c]"),
            ("RFF", 10, "failed: Image"),
            ("F", 10, "failed: Image"),
            ("FW", 40, "registry down"),
            ("W", 40, "registry down"),
            ("RRW", 29, "registry down until 30"),
            ("RRW", 30, "ready without [c]"),
            ("RWW", 10, "registry down"),
            ("RWW", 40, "registry down"),
            ("RFW", 40, "registry down"),
            ("RWP", 40, "registry down"),
            ("P", 10, "pull 1/2"),
            ("RPR", 10, "pull 1/2 until 30"),
            ("RPR", 40, "pull 1/2"),
            ("RR-", 10, "reports until 30"),
            ("RR-", 30, "ready without [c]"),
            ("R--", 10, "reports"),
            ("R--", 30, "b lacks it"),
        ];
        for (letters, now, expected) in cases {
            let verdict = verdict(letters, now, &preparing(0, None));
            assert_eq!(verdict, expected, "{letters} at {now}");
        }
    }

    #[test]
    fn pulls_that_fail_for_an_unknown_reason_fail_the_commit_at_the_deadline() {
        let cases = [
            ("RXX", 10, "unknown fault until 605"),
            ("RXR", 10, "unknown fault until 30"),
            ("RXX", 604, "unknown fault until 605"),
            ("RXX", 605, "failed: Deadline"),
            ("RRW", 605, "ready without [c]"),
        ];
        for (letters, now, expected) in cases {
            let verdict = verdict(letters, now, &preparing(0, Some(5)));
            assert_eq!(verdict, expected, "{letters} at {now}");
        }

        let (node, reason) = (NodeName::new("a"), ForeignText::new("unknown fault"));
        let mut prepared = Prepared::default();
        assert_eq!(prepared.failing_since(Some(at(5)), at(9)), None);
        prepared.failing.insert(&node, &reason);
        assert_eq!(prepared.failing_since(Some(at(5)), at(9)), Some(at(5)));
        assert_eq!(prepared.failing_since(None, at(9)), Some(at(9)));
    }

    /// Shares of one workload a node, with whether the images are spare ones.
    fn shared(workloads: &[(&str, &str, bool)]) -> Shares {
        let nodes = workloads.iter().map(|(node, workload, is_spare)| {
            let key = WorkloadKey {
                kind: WorkloadKind::Deployment,
                object: ObjectKey::new("default", *workload),
            };
            let keys = BTreeSet::from([key]);
            let (pods, spare) = if *is_spare {
                (BTreeSet::new(), keys)
            } else {
                (keys, BTreeSet::new())
            };
            let share = Share {
                pods,
                spare,
                number: 1,
                since: at(0),
                behind: None,
            };
            (NodeName::new(*node), share)
        });
        Shares {
            commit: commit_id("c1"),
            began: Some(at(0)),
            first: 1,
            number: 1,
            everywhere: false,
            among: BTreeSet::new(),
            nodes: nodes.collect(),
            off: BTreeMap::new(),
        }
    }

    #[test]
    fn spare_images_are_not_waited_for_and_the_same_share_shows_that_images_can_be_pulled() {
        let mut rollout = preparing(20, None);
        let nodes = [("a", "web", false), ("b", "web", false), ("c", "web", true)];
        rollout.shares = Some(shared(&nodes));
        for letters in ["RRP", "RRW", "RRX", "RRF"] {
            assert_eq!(
                verdict(letters, 25, &rollout),
                "ready without []",
                "{letters}"
            );
        }
        assert_eq!(verdict("RFR", 25, &rollout), "ready without [b]");
        assert_eq!(verdict("RWR", 25, &rollout), "registry down until 50");
        assert_eq!(verdict("RR-", 25, &rollout), "reports until 50");

        if let Some(shares) = &mut rollout.shares {
            let reason = ImageObstacle::NotReceived(NodeName::new("c"));
            shares.off.insert(NodeName::new("c"), reason.into());
            let late = shares.nodes.get_mut(&NodeName::new("b"));
            late.expect("the share of b").behind = Some(at(0));
        }
        assert_eq!(verdict("RRF", 25, &rollout), "ready without [c]");
        assert_eq!(verdict("RRW", 25, &rollout), "ready without []");
        assert_eq!(verdict("RPR", 29, &rollout), "pull 1/2 until 50");
        assert_eq!(verdict("RPR", 30, &rollout), "b is slow until 50");
        assert_eq!(verdict("RPR", 50, &rollout), "ready without [b]");

        rollout.shares = Some(shared(&[("a", "web", false), ("b", "db", false)]));
        assert_eq!(verdict("RF", 25, &rollout), "failed: Image");
        assert_eq!(verdict("RW", 60, &rollout), "registry down");
    }
}
