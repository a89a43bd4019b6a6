//! Which nodes get which images of a commit before it is driven: its pods are placed on trial.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{ClusterInput, Decision, FAULTY_TAINT};
use crate::{
    commit::Commit,
    controller::OwnedPod,
    name::{NodeName, WorkloadKey},
    object::{Control, Taint, TaintEffect, Workload},
    placement::{Candidate, Placer, candidates, eligible_for_daemon, unfit_by_itself},
    plan::Next,
    rollout::{Phase, Rollout, Share, Shares},
    state::Preparation,
    time::later,
};

/// So long a node may be behind others with its images before its pods are given to another.
const BEHIND: Duration = Duration::from_secs(30);

/// So many pairs of a node and a workload are written down at most; with more every node pulls everything.
const MOST_PAIRS: usize = 20_000;

/// So many pods of one owner are placed on trial at most.
const MOST_PODS: usize = 5000;

impl<'a> Decision<'a> {
    /// Shares out the images of what is being prepared, and gives to others what a node does not get or cannot have.
    pub(super) fn share_images(&self, rollout: &mut Rollout, there: &BTreeSet<NodeName>) -> Next {
        let commits = self.input.commits;
        let target = rollout.target.as_ref().and_then(|target| commits.get(target));
        let preparing = matches!(rollout.phase, Phase::Preparing { .. });
        // One host alone has nobody to give anything to.
        let Some(target) = target.filter(|_| preparing && self.input.nodes.len() > 1) else {
            return Next::AwaitChange;
        };
        if !rollout.is_shared_out() {
            let number = rollout.shares.as_ref().map_or(1, |shares| shares.number + 1);
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

    /// Takes down which nodes are behind the others, and which have been for too long.
    fn find_late(&self, shares: &mut Shares) -> Next {
        let now = self.input.now;
        let report = |node: &NodeName| self.input.reports.get(node);
        let ready: BTreeSet<NodeName> =
            shares.nodes.keys().filter(|node| shares.is_ready(node, report(node))).cloned().collect();
        shares.off.retain(|node, _| !shares.nodes.contains_key(node) || !ready.contains(node));
        let waiting: Vec<(NodeName, bool)> = shares
            .nodes
            .iter()
            .filter(|(node, share)| !share.pods.is_empty() && !ready.contains(*node))
            .map(|(node, _)| (node.clone(), shares.others_all(node, |other| ready.contains(other))))
            .collect();
        for (node, share) in &mut shares.nodes {
            share.behind = share.behind.filter(|_| !share.pods.is_empty() && !ready.contains(node));
        }
        let deadline = self.input.settings.rollout.deadline;
        let mut next = Next::AwaitChange;
        for (node, others) in waiting {
            let said = shares.said(&node, report(&node)).cloned();
            let Some(share) = shares.nodes.get_mut(&node) else { continue };
            share.behind = others.then(|| share.behind.unwrap_or(now));
            let failing = matches!(said, Some(Preparation::Failing(_)));
            let until = match share.behind {
                Some(_) if matches!(said, Some(Preparation::Failed(_))) => now,
                Some(behind) => later(behind, BEHIND),
                // Nobody else shows that the images can be had at all: that is a matter of the dead line.
                None if failing || matches!(said, Some(Preparation::Failed(_))) => continue,
                None => later(share.since, deadline),
            };
            if until <= now {
                shares.off.entry(node.clone()).or_insert_with(|| why_late(&node, said.as_ref()));
            } else {
                next = next.sooner(Next::After(wait(until, now)));
            }
        }
        next
    }

    /// Writes down what a trial found. What a node was to have already it keeps: it may have pulled it.
    fn enter_trial(
        &self,
        shares: &mut Shares,
        there: &BTreeSet<NodeName>,
        trial: BTreeMap<NodeName, Wanted<'a>>,
    ) {
        // The number of a first trial is new by itself.
        let next = shares.number + u64::from(!shares.among.is_empty());
        shares.among.clone_from(there);
        let pairs: usize = trial.values().map(|wanted| wanted.pods.len() + wanted.spare.len()).sum();
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
            let none = Share { pods, spare, number: next, since: now, behind: None };
            let share = shares.nodes.entry(node).or_insert(none);
            let grows = wanted.pods.iter().chain(&wanted.spare).any(|workload| !share.has(workload));
            if grows {
                (share.number, share.since, share.behind, grown) = (next, now, None, true);
            }
            share.pods = wanted.pods.into_iter().cloned().collect();
            share.spare.extend(wanted.spare.into_iter().cloned());
            share.spare.retain(|workload| !share.pods.contains(workload));
        }
        if grown {
            shares.number = next;
        }
    }

    /// Prefers nodes that have the images of what is driven, where not all of them may have.
    pub(super) fn prefer_warm(&self, driving: &'a Commit, placer: &mut Placer<'a>) {
        let rollout = &self.input.state.rollout;
        let Some(shares) = rollout.shares_of_target().filter(|shares| shares.commit == driving.id) else {
            return;
        };
        let workloads: BTreeSet<&WorkloadKey> =
            shares.nodes.values().flat_map(|share| share.pods.iter().chain(&share.spare)).collect();
        if workloads.is_empty() {
            return;
        }
        let all = self.input.nodes.keys().filter(|node| {
            let report = self.input.reports.get(*node).filter(|report| report.share.is_none());
            shares.is_ready(node, report)
        });
        let all: BTreeSet<&NodeName> = all.collect();
        let ready: Vec<(&NodeName, &Share)> =
            shares.nodes.iter().filter(|(node, _)| shares.is_ready(node, self.input.reports.get(*node))).collect();
        for key in workloads {
            let Some(workload) = driving.objects.workloads.get(key) else { continue };
            let shared = ready.iter().filter(|(_, share)| share.has(key)).map(|(node, _)| *node);
            placer.prefer(workload, all.iter().copied().chain(shared));
        }
    }

}

/// The nodes that did not get the images of what is driven, and have not got them yet.
pub(super) fn off<'a>(input: &ClusterInput<'a>) -> BTreeSet<&'a NodeName> {
    let rollout = &input.state.rollout;
    let is_driven = |shares: &&Shares| rollout.driving.as_ref() == Some(&shares.commit);
    let Some(shares) = rollout.shares_of_target().filter(is_driven) else { return BTreeSet::new() };
    shares.off.keys().filter(|node| !shares.is_ready(node, input.reports.get(*node))).collect()
}

fn wait(until: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or_default().max(Duration::from_millis(1))
}

fn why_late(node: &NodeName, said: Option<&Preparation>) -> String {
    match said {
        Some(Preparation::Failed(reason) | Preparation::Waiting(reason) | Preparation::Failing(reason)) => {
            reason.clone()
        }
        Some(Preparation::Pulling { done, of }) => {
            format!("node {node} is still pulling: {done} of {of} images are there")
        }
        Some(Preparation::Ready) | None => {
            format!("node {node} has not got the commit: see `windlass status` there")
        }
    }
}

/// Taints nodes so that pods go there only where no other node takes them.
pub(super) fn keep_off(nodes: &mut [Candidate], is_off: impl Fn(&NodeName) -> bool) {
    for node in nodes.iter_mut().filter(|node| is_off(&node.name)) {
        let (key, effect) = (FAULTY_TAINT.to_owned(), TaintEffect::PreferNoSchedule);
        node.taints.push(Taint { key, value: String::new(), effect });
    }
}

/// What one node is to have.
#[derive(Debug, Default)]
struct Wanted<'a> {
    pods: BTreeSet<&'a WorkloadKey>,
    spare: BTreeSet<&'a WorkloadKey>,
}

/// Placing the pods that a commit would make.
struct Trial<'a, 'd> {
    decision: &'d Decision<'a>,
    target: &'a Commit,
    shares: &'d Shares,
    there: &'d BTreeSet<NodeName>,
    nodes: Arc<[Candidate]>,
    /// Beside all that runs, as the first of the new pods are placed.
    beside: Placer<'a>,
    /// Beside what stays, as the last of them are.
    after: Placer<'a>,
    /// Whether canaries come first.
    canaries: bool,
    wanted: BTreeMap<NodeName, Wanted<'a>>,
}

impl<'a, 'd> Trial<'a, 'd> {
    fn new(
        decision: &'d Decision<'a>,
        target: &'a Commit,
        shares: &'d Shares,
        there: &'d BTreeSet<NodeName>,
        canaries: bool,
    ) -> Self {
        let input = decision.input;
        let mut nodes = candidates(input.nodes, &target.objects.nodes);
        keep_off(&mut nodes, |node| shares.off.contains_key(node));
        let nodes: Arc<[Candidate]> = nodes.into();
        let placer = || Placer::new(Arc::clone(&nodes), input.settings.max_pods, &target.objects.namespaces);
        let (mut beside, mut after) = (placer(), placer());
        for pod in decision.owned.values().flatten().filter(|pod| !pod.is_final()) {
            let record = pod.record;
            let resolve = || input.commits.get(&record.commit)?.resolve(&record.owner, &record.template);
            beside.add(record, resolve);
            if !pod.is_stopping() && target.resolve(&record.owner, &record.template).is_some() {
                after.add(record, resolve);
            }
        }
        Self { decision, target, shares, there, nodes, beside, after, canaries, wanted: BTreeMap::new() }
    }

    fn run(mut self) -> BTreeMap<NodeName, Wanted<'a>> {
        for workload in self.target.objects.workloads.values() {
            let there: Vec<NodeName> = self.running(workload);
            let on = match &workload.control {
                Control::DaemonSet { .. } => self.daemon(workload, &there),
                Control::Pod => self.place(workload, 1, &there),
                Control::Replicas { replicas, .. } | Control::Deployment { replicas, .. } => {
                    self.place(workload, *replicas as usize, &there)
                }
            };
            let spare = match &workload.control {
                Control::DaemonSet { .. } => Vec::new(),
                _ if on.is_empty() => Vec::new(),
                _ => self.spare(workload, &on, &there),
            };
            for node in on {
                self.wanted.entry(node).or_default().pods.insert(&workload.key);
            }
            for node in spare {
                self.wanted.entry(node).or_default().spare.insert(&workload.key);
            }
        }
        self.wanted
    }

    /// Where pods of a workload are that stay, one for each.
    fn running(&self, workload: &Workload) -> Vec<NodeName> {
        let pods = self.decision.owned.get(&workload.key).map_or(&[][..], Vec::as_slice);
        let stays = |pod: &&OwnedPod<'_>| {
            !pod.is_stopping() && pod.record.template == workload.template.hash
        };
        let nodes = pods.iter().filter(stays).filter_map(|pod| pod.record.place.node());
        nodes.filter(|node| !self.decision.standing.lost.contains(*node)).cloned().collect()
    }

    fn daemon(&mut self, workload: &'a Workload, running: &[NodeName]) -> BTreeSet<NodeName> {
        let nodes = Arc::clone(&self.nodes);
        let eligible = nodes
            .iter()
            .filter(|node| eligible_for_daemon(&workload.template.spec, node))
            .map(|node| &node.name)
            .filter(|node| self.there.contains(*node) && !running.contains(node));
        let on: BTreeSet<NodeName> = eligible.cloned().collect();
        for node in &on {
            self.beside.pin(node, workload);
            self.after.pin(node, workload);
        }
        on
    }

    fn place(&mut self, workload: &'a Workload, replicas: usize, running: &[NodeName]) -> BTreeSet<NodeName> {
        let mut missing = replicas.saturating_sub(running.len()).min(MOST_PODS);
        let mut on = BTreeSet::new();
        if missing == 0 {
            return on;
        }
        if self.canaries && workload.control.rolling_unavailable().is_some() {
            for node in self.canaries_for(workload) {
                self.beside.pin(&node, workload);
                self.after.pin(&node, workload);
                on.insert(node);
                missing = missing.saturating_sub(1);
            }
        }
        let warm = self.warm(&workload.key);
        if !warm.is_empty() {
            self.beside.prefer(workload, &warm);
            self.after.prefer(workload, &warm);
        }
        for _ in 0..missing {
            // What is to go may be in the way of what comes.
            let node = match self.beside.place(workload) {
                Ok(chosen) => {
                    self.after.pin(&chosen.node, workload);
                    chosen.node
                }
                Err(_) => match self.after.place(workload) {
                    Ok(chosen) => chosen.node,
                    Err(_) => break,
                },
            };
            on.insert(node);
            // There is nothing more to learn.
            if on.len() == self.nodes.len() {
                break;
            }
        }
        on
    }

    fn canaries_for(&self, workload: &Workload) -> Vec<NodeName> {
        let canaries = &self.decision.input.settings.rollout.canary_nodes;
        let takes = |node: &&Candidate| {
            canaries.contains(&node.name)
                && self.there.contains(&node.name)
                && unfit_by_itself(&workload.template.spec, node).is_none()
        };
        self.nodes.iter().filter(takes).map(|node| node.name.clone()).collect()
    }

    /// The nodes of a trial before that have the images of a workload; where none has, those that pull them.
    fn warm(&self, workload: &WorkloadKey) -> Vec<NodeName> {
        let shared = || self.shares.nodes.iter().filter(|(_, share)| share.has(workload));
        let report = |node: &NodeName| self.decision.input.reports.get(node);
        let ready: Vec<NodeName> = shared()
            .filter(|(node, _)| self.shares.is_ready(node, report(node)))
            .map(|(node, _)| node.clone())
            .collect();
        if ready.is_empty() { shared().map(|(node, _)| node.clone()).collect() } else { ready }
    }

    /// Further nodes for the images of a workload, those with the smallest shares first. Where its pods run already, they
    /// are.
    fn spare(&self, workload: &Workload, on: &BTreeSet<NodeName>, running: &[NodeName]) -> Vec<NodeName> {
        // Spares are chosen once: the second time there are those of the first.
        let known = self.shares.nodes.values().any(|share| share.has(&workload.key));
        let running: BTreeSet<&NodeName> = running.iter().filter(|node| !on.contains(*node)).collect();
        let most = self.decision.input.settings.rollout.spare_images.saturating_sub(running.len());
        if known || most == 0 {
            return Vec::new();
        }
        let share = |node: &NodeName| {
            self.wanted.get(node).map_or(0, |wanted| wanted.pods.len() + wanted.spare.len())
        };
        let mut nodes: Vec<(usize, &NodeName)> = self
            .nodes
            .iter()
            .filter(|node| unfit_by_itself(&workload.template.spec, node).is_none())
            .map(|node| &node.name)
            .filter(|node| !on.contains(*node) && !running.contains(*node))
            .filter(|node| !self.shares.off.contains_key(*node))
            .map(|node| (share(node), node))
            .collect();
        nodes.sort_unstable();
        nodes.into_iter().take(most).map(|(_, node)| node.clone()).collect()
    }
}
