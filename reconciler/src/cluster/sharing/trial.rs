//! Places the pods that a commit would make, on trial: the only result is the nodes on which these
//! pods would be.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::keep_off;
use crate::{
    cluster::ClusterDecision,
    commit::Commit,
    controller::OwnedPod,
    name::{NodeName, WorkloadKey},
    object::{Control, Workload},
    placement::{Candidate, Placer, candidates, eligible_for_daemon, unfit_by_itself},
    state::Shares,
};

/// Maximum number of pods of one owner that are placed on trial.
const MOST_PODS: usize = 5000;

/// The share of one node, as the trial results in it.
#[derive(Debug, Default)]
pub(super) struct TrialShare<'a> {
    pub(super) pods: BTreeSet<&'a WorkloadKey>,
    pub(super) spare: BTreeSet<&'a WorkloadKey>,
}

/// The trial of one commit.
pub(super) struct Trial<'a, 'd> {
    decision: &'d ClusterDecision<'a>,
    target: &'a Commit,
    shares: &'d Shares,
    there: &'d BTreeSet<NodeName>,
    nodes: Arc<[Candidate]>,
    /// Places beside all pods that run now, as for the first new pods of the rollout.
    beside: Placer<'a>,
    /// Places beside the pods that stay, as for the last new pods of the rollout.
    after: Placer<'a>,
    /// Whether canaries follow the commit first.
    canaries: bool,
    wanted: BTreeMap<NodeName, TrialShare<'a>>,
}

impl<'a, 'd> Trial<'a, 'd> {
    pub(super) fn new(
        decision: &'d ClusterDecision<'a>,
        target: &'a Commit,
        shares: &'d Shares,
        there: &'d BTreeSet<NodeName>,
        canaries: bool,
    ) -> Self {
        let input = decision.input;
        let mut nodes = candidates(input.nodes, &target.objects.nodes);
        keep_off(&mut nodes, |node| shares.off.contains_key(node));
        let nodes: Arc<[Candidate]> = nodes.into();
        let placer = || {
            Placer::new(
                Arc::clone(&nodes),
                input.settings.max_pods,
                &target.objects.namespaces,
            )
        };
        let (mut beside, mut after) = (placer(), placer());
        for pod in decision
            .owned
            .values()
            .flatten()
            .filter(|pod| !pod.is_final())
        {
            let record = pod.record;
            let resolve = || {
                input
                    .readable(&record.commit)?
                    .resolve(&record.owner, &record.template)
            };
            beside.add(record, resolve);
            if !pod.is_stopping() && target.resolve(&record.owner, &record.template).is_some() {
                after.add(record, resolve);
            }
        }
        Self {
            decision,
            target,
            shares,
            there,
            nodes,
            beside,
            after,
            canaries,
            wanted: BTreeMap::new(),
        }
    }

    pub(super) fn run(mut self) -> BTreeMap<NodeName, TrialShare<'a>> {
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
                self.wanted
                    .entry(node)
                    .or_default()
                    .pods
                    .insert(&workload.key);
            }
            for node in spare {
                self.wanted
                    .entry(node)
                    .or_default()
                    .spare
                    .insert(&workload.key);
            }
        }
        self.wanted
    }

    /// The nodes of a workload's pods that stay, one entry for each pod.
    fn running(&self, workload: &Workload) -> Vec<NodeName> {
        let pods = self
            .decision
            .owned
            .get(&workload.key)
            .map_or(&[][..], Vec::as_slice);
        let stays = |pod: &&OwnedPod<'_>| {
            !pod.is_stopping() && pod.record.template == workload.template.hash
        };
        let nodes = pods
            .iter()
            .filter(stays)
            .filter_map(|pod| pod.record.place.node());
        nodes
            .filter(|node| !self.decision.conditions.lost.contains(*node))
            .cloned()
            .collect()
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

    fn place(
        &mut self,
        workload: &'a Workload,
        replicas: usize,
        running: &[NodeName],
    ) -> BTreeSet<NodeName> {
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
            // Old pods that are to go may still be in the way of new ones.
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
            // All nodes are known already: further pods add nothing.
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
        self.nodes
            .iter()
            .filter(takes)
            .map(|node| node.name.clone())
            .collect()
    }

    /// The nodes of the previous trial that have the images of a workload; where no node has them,
    /// the nodes that pull them.
    fn warm(&self, workload: &WorkloadKey) -> Vec<NodeName> {
        let shared = || {
            self.shares
                .nodes
                .iter()
                .filter(|(_, share)| share.has(workload))
        };
        let report = |node: &NodeName| self.decision.input.reports.get(node);
        let ready: Vec<NodeName> = shared()
            .filter(|(node, _)| self.shares.is_ready(node, report(node)))
            .map(|(node, _)| node.clone())
            .collect();
        if ready.is_empty() {
            shared().map(|(node, _)| node.clone()).collect()
        } else {
            ready
        }
    }

    /// Spare nodes for the images of a workload: nodes without pods of the workload first, then
    /// those with the smallest shares. Nodes with running pods that stay are such nodes already.
    fn spare(
        &self,
        workload: &Workload,
        on: &BTreeSet<NodeName>,
        running: &[NodeName],
    ) -> Vec<NodeName> {
        // Spare nodes are chosen once: later trials keep those of the first trial.
        let known = self
            .shares
            .nodes
            .values()
            .any(|share| share.has(&workload.key));
        let running: BTreeSet<&NodeName> =
            running.iter().filter(|node| !on.contains(*node)).collect();
        let most = self
            .decision
            .input
            .settings
            .rollout
            .spare_images
            .saturating_sub(running.len());
        if known || most == 0 {
            return Vec::new();
        }
        let share = |node: &NodeName| {
            self.wanted
                .get(node)
                .map_or(0, |wanted| wanted.pods.len() + wanted.spare.len())
        };
        // Placement prefers nodes without pods of the same owner.
        let owned = self
            .decision
            .owned
            .get(&workload.key)
            .map_or(&[][..], Vec::as_slice);
        let has_pods = |node: &NodeName| {
            owned
                .iter()
                .any(|pod| pod.is_active() && pod.record.place.node() == Some(node))
        };
        let mut nodes: Vec<(bool, usize, &NodeName)> = self
            .nodes
            .iter()
            .filter(|node| unfit_by_itself(&workload.template.spec, node).is_none())
            .map(|node| &node.name)
            .filter(|node| !on.contains(*node) && !running.contains(*node))
            .filter(|node| !self.shares.off.contains_key(*node))
            .map(|node| (has_pods(node), share(node), node))
            .collect();
        nodes.sort_unstable();
        nodes
            .into_iter()
            .take(most)
            .map(|(.., node)| node.clone())
            .collect()
    }
}
