//! Which nodes pull which images of a commit before it is driven, and which node replaces a node
//! that does not pull them.

mod trial;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use self::trial::{Trial, TrialShare};
use super::{ClusterDecision, ClusterInput, FAULTY_TAINT};
use crate::{
    commit::Commit,
    name::{NodeName, WorkloadKey},
    object::{Taint, TaintEffect},
    placement::{Candidate, Placer},
    plan::Next,
    state::{ImageObstacle, Phase, Preparation, Rollout, Share, Shares},
    time::later,
};

/// How long a node may be behind other nodes with its images before its pods are planned for
/// another node.
const BEHIND: Duration = Duration::from_secs(30);

/// Maximum number of pairs of a node and a workload that are stored; with more pairs every node
/// pulls all images.
const MOST_PAIRS: usize = 20_000;

impl<'a> ClusterDecision<'a> {
    /// Decides which node pulls which images of the commit that is prepared, and moves shares away
    /// from nodes that do not or cannot pull them.
    pub(super) fn share_images(&self, rollout: &mut Rollout, there: &BTreeSet<NodeName>) -> Next {
        self.forget_shares(rollout);
        let commits = self.input.commits;
        let target = rollout
            .target
            .as_ref()
            .and_then(|target| commits.get(target));
        let Some(target) = target else {
            return Next::AwaitChange;
        };
        // A single host has no other node to share images with.
        let is_alone = self.input.nodes.len() <= 1;
        if is_alone || !matches!(rollout.phase, Phase::Preparing { .. }) {
            return Next::AwaitChange;
        }

        if !rollout.is_shared_out() {
            let number = rollout
                .shares
                .as_ref()
                .map_or(1, |shares| shares.number + 1);
            rollout.shares = Some(Shares {
                commit: target.id.clone(),
                began: rollout.began,
                first: number,
                number,
                everywhere: false,
                among: BTreeSet::new(),
                nodes: BTreeMap::new(),
                off: BTreeMap::new(),
            });
        }
        let before = self.input.state.rollout.healthy.is_some() && rollout.rollback.is_none();
        let Some(shares) = rollout.shares.as_mut().filter(|shares| !shares.everywhere) else {
            return Next::AwaitChange;
        };
        let off = shares.off.clone();
        let next = self.find_late(shares);
        if shares.among == *there && shares.off == off {
            return next;
        }
        let trial = Trial::new(self, target, shares, there, before).run();
        self.enter_trial(shares, there, trial);
        next
    }

    /// Forgets the shares once every node has all images of a healthy commit: they are no longer
    /// needed.
    fn forget_shares(&self, rollout: &mut Rollout) {
        let healthy = rollout.phase == Phase::Healthy && rollout.shares_of_target().is_some();
        let Some(shares) = rollout
            .shares
            .as_mut()
            .filter(|shares| healthy && !shares.nodes.is_empty())
        else {
            return;
        };
        let has_all = |node: &NodeName| {
            let report = self
                .input
                .reports
                .get(node)
                .filter(|report| report.share.is_none());
            shares.is_ready(node, report)
        };
        if self.input.nodes.keys().all(has_all) {
            shares.nodes.clear();
            shares.off.clear();
        }
    }

    /// Records which nodes are behind the others, and which have been behind for too long.
    fn find_late(&self, shares: &mut Shares) -> Next {
        let now = self.input.now;
        let report = |node: &NodeName| self.input.reports.get(node);
        let ready: BTreeSet<NodeName> = shares
            .nodes
            .keys()
            .filter(|node| shares.is_ready(node, report(node)))
            .cloned()
            .collect();
        shares
            .off
            .retain(|node, _| !shares.nodes.contains_key(node) || !ready.contains(node));
        let waiting: Vec<(NodeName, bool)> = shares
            .nodes
            .iter()
            .filter(|(node, share)| !share.pods.is_empty() && !ready.contains(*node))
            .map(|(node, _)| {
                (
                    node.clone(),
                    shares.others_all(node, |other| ready.contains(other)),
                )
            })
            .collect();
        for (node, share) in &mut shares.nodes {
            // Spare images are not waited for, so a node cannot be behind with them.
            if share.pods.is_empty() || ready.contains(node) {
                share.behind = None;
            }
        }

        let deadline = self.input.settings.rollout.deadline;
        let mut next = Next::AwaitChange;
        for (node, others) in waiting {
            let reported = shares.reported_preparation(&node, report(&node)).cloned();
            let Some(share) = shares.nodes.get_mut(&node) else {
                continue;
            };
            share.behind = others.then(|| share.behind.unwrap_or(now));
            let has_failed = matches!(reported, Some(Preparation::Failed(_)));
            let is_failing = matches!(reported, Some(Preparation::Failing(_)));
            let until = match share.behind {
                Some(_) if has_failed => now,
                Some(behind) => later(behind, BEHIND),
                // No other node shows that the images can be pulled at all, so the deadline
                // decides.
                None if has_failed || is_failing => continue,
                None => later(share.since, deadline),
            };
            if until <= now {
                shares
                    .off
                    .entry(node.clone())
                    .or_insert_with(|| why_late(&node, reported.as_ref()).into());
            } else {
                next = next.sooner(Next::at(until, now));
            }
        }
        next
    }

    /// Adds the result of a trial to the shares. Images that were already in a node's share stay
    /// there: the node may have pulled them.
    fn enter_trial(
        &self,
        shares: &mut Shares,
        there: &BTreeSet<NodeName>,
        trial: BTreeMap<NodeName, TrialShare<'a>>,
    ) {
        // The first number of new shares is already new.
        let next = shares.number + u64::from(!shares.among.is_empty());
        shares.among.clone_from(there);
        let pairs: usize = trial
            .values()
            .map(|wanted| wanted.pods.len() + wanted.spare.len())
            .sum();
        if pairs > MOST_PAIRS {
            shares.everywhere = true;
            shares.nodes.clear();
            return;
        }
        let mut grown = false;
        for share in shares.nodes.values_mut() {
            share.spare.append(&mut share.pods);
        }
        for (node, wanted) in trial {
            let now = self.input.now;
            let (pods, spare) = (BTreeSet::new(), BTreeSet::new());
            let none = Share {
                pods,
                spare,
                number: next,
                since: now,
                behind: None,
            };
            let share = shares.nodes.entry(node).or_insert(none);
            let grows = wanted
                .pods
                .iter()
                .chain(&wanted.spare)
                .any(|workload| !share.has(workload));
            if grows {
                (share.number, share.since, share.behind, grown) = (next, now, None, true);
            }
            share.pods = wanted.pods.into_iter().cloned().collect();
            share.spare.extend(wanted.spare.into_iter().cloned());
            share
                .spare
                .retain(|workload| !share.pods.contains(workload));
        }
        if grown {
            shares.number = next;
        }
    }

    /// Prefers nodes that have the images of the driving commit, where some nodes may lack them.
    pub(super) fn prefer_warm(&self, driving: &'a Commit, placer: &mut Placer<'a>) {
        let rollout = &self.input.state.rollout;
        let Some(shares) = rollout
            .shares_of_target()
            .filter(|shares| shares.commit == driving.id)
        else {
            return;
        };
        let workloads: BTreeSet<&WorkloadKey> = shares
            .nodes
            .values()
            .flat_map(|share| share.pods.iter().chain(&share.spare))
            .collect();
        if workloads.is_empty() {
            return;
        }
        let all = self.input.nodes.keys().filter(|node| {
            let report = self
                .input
                .reports
                .get(*node)
                .filter(|report| report.share.is_none());
            shares.is_ready(node, report)
        });
        let all: BTreeSet<&NodeName> = all.collect();
        let ready: Vec<(&NodeName, &Share)> = shares
            .nodes
            .iter()
            .filter(|(node, _)| shares.is_ready(node, self.input.reports.get(*node)))
            .collect();
        for key in workloads {
            let Some(workload) = driving.objects.workloads.get(key) else {
                continue;
            };
            let shared = ready
                .iter()
                .filter(|(_, share)| share.has(key))
                .map(|(node, _)| *node);
            placer.prefer(workload, all.iter().copied().chain(shared));
        }
    }
}

/// The nodes that could not pull the images of the driving commit, and still have not.
pub(super) fn off<'a>(input: &ClusterInput<'a>) -> BTreeSet<&'a NodeName> {
    let rollout = &input.state.rollout;
    let is_driven = |shares: &&Shares| rollout.driving.as_ref() == Some(&shares.commit);
    let Some(shares) = rollout.shares_of_target().filter(is_driven) else {
        return BTreeSet::new();
    };
    shares
        .off
        .keys()
        .filter(|node| !shares.is_ready(node, input.reports.get(*node)))
        .collect()
}

fn why_late(node: &NodeName, reported: Option<&Preparation>) -> ImageObstacle {
    match reported {
        Some(
            Preparation::Failed(reason)
            | Preparation::Waiting(reason)
            | Preparation::Failing(reason),
        ) => ImageObstacle::Reported(reason.clone()),
        Some(&Preparation::Pulling { done, of }) => ImageObstacle::SlowPull {
            node: node.clone(),
            done,
            of,
        },
        Some(Preparation::Ready) | None => ImageObstacle::NotReceived(node.clone()),
    }
}

/// Taints nodes so that pods are placed there only where no other node accepts them.
pub(super) fn keep_off(nodes: &mut [Candidate], is_off: impl Fn(&NodeName) -> bool) {
    for node in nodes.iter_mut().filter(|node| is_off(&node.name)) {
        let (key, effect) = (FAULTY_TAINT.to_owned(), TaintEffect::PreferNoSchedule);
        node.taints.push(Taint {
            key,
            value: String::new(),
            effect,
        });
    }
}
