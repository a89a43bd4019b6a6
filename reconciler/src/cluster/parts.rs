//! Which commit each workload follows: while only the canaries follow the new commit, all other
//! nodes continue with the one before.

use std::collections::BTreeSet;

use super::{ClusterDecision, Note};
use crate::{
    commit::Commit,
    controller::{CanaryView, NodeConditions, OwnedPod, OwnerView},
    name::{CommitId, NodeName, WorkloadKey},
    object::{Control, DaemonSetUpdate, Workload},
    placement::{Candidate, eligible_for_daemon},
    rollout::judged_workloads,
};

/// A workload as one commit has it, or the part of a workload's pods that follows that commit.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) commit: &'a Commit,
    pub(super) workload: &'a Workload,
    /// Whether the part follows the driving commit.
    pub(super) moves: bool,
    /// The pods of the part; `None` means all pods of the owner.
    pub(super) pods: Option<Vec<OwnedPod<'a>>>,
    nodes: Option<Vec<Candidate>>,
    canary: Option<Canary<'a>>,
}

#[derive(Debug)]
struct Canary<'a> {
    nodes: BTreeSet<NodeName>,
    before: Option<(&'a CommitId, &'a Workload)>,
    down_elsewhere: usize,
}

/// A number larger than any number of nodes: no limit on nodes that are down.
const ALL: usize = u32::MAX as usize;

impl<'a> Part<'a> {
    pub(super) fn whole(commit: &'a Commit, workload: &'a Workload, moves: bool) -> Self {
        Self {
            commit,
            workload,
            moves,
            pods: None,
            nodes: None,
            canary: None,
        }
    }
}

/// How many pods of a Deployment may be down while its canary pods are made; `None` for a workload
/// that is not such a Deployment.
fn may_be_down(workload: &Workload, old: Option<&Workload>) -> Option<u32> {
    // An unchanged template needs no canary: only the number of pods or the strategy changes.
    if old.is_some_and(|old| old.template.hash == workload.template.hash) {
        return None;
    }
    workload.control.rolling_unavailable()
}

impl<'a> ClusterDecision<'a> {
    /// The canaries that are members of the cluster.
    pub(super) fn canaries(&self) -> BTreeSet<NodeName> {
        let wave = self
            .input
            .state
            .rollout
            .wave
            .iter()
            .flat_map(|wave| &wave.nodes);
        wave.filter(|node| {
            !self.conditions.absent.contains(*node) && self.input.nodes.contains_key(*node)
        })
        .cloned()
        .collect()
    }

    /// Determines which canaries cannot run a Deployment's new pod because of pods on them or near
    /// them. A canary where only the Deployment's own old pod is in the way counts as able if an
    /// old pod may be stopped. A Deployment without a usable canary follows the new commit together
    /// with the other nodes.
    pub(super) fn find_barred_canaries(&mut self) {
        let canaries = self.canaries();
        let Some(driving) = self.driving() else {
            return;
        };
        if canaries.is_empty() {
            return;
        }

        let (before, changed) = (self.before(), self.changed(driving));
        let removed = self.removed(driving);
        let mut placer = self.placer(driving, &removed);
        for workload in driving
            .objects
            .workloads
            .values()
            .filter(|one| changed.contains(&one.key))
        {
            let old = before.and_then(|before| before.objects.workloads.get(&workload.key));
            let Some(unavailable) = may_be_down(workload, old) else {
                continue;
            };
            let pods = self.owned.get(&workload.key).map_or(&[][..], Vec::as_slice);
            for node in &canaries {
                let here = pods
                    .iter()
                    .filter(|pod| pod.is_active() && pod.record.place.node() == Some(node));
                let is_new = |pod: &&OwnedPod<'_>| pod.record.template == workload.template.hash;
                let (new, old): (Vec<&OwnedPod<'_>>, _) = here.partition(is_new);
                // The canary has its new pod already, or an old pod may be stopped for it.
                if !new.is_empty() || unavailable > 0 && !old.is_empty() {
                    continue;
                }
                if let Some(unfit) = placer.unfit(node, workload) {
                    let key = &workload.key;
                    self.notes.push(Note::CanaryBarred {
                        workload: key.clone(),
                        node: node.clone(),
                        unfit,
                    });
                    self.barred.entry(key).or_default().insert(node.clone());
                }
            }
        }
    }

    /// The commit that runs on the nodes that are not canaries.
    fn before(&self) -> Option<&'a Commit> {
        let healthy = self.input.state.rollout.healthy.as_ref();
        healthy
            .and_then(|id| self.input.commits.get(id))
            .map(AsRef::as_ref)
    }

    /// The workloads that change with the driving commit, and are therefore subject to the
    /// canaries.
    fn changed(&self, driving: &'a Commit) -> BTreeSet<&'a WorkloadKey> {
        let judged = judged_workloads(&self.input.state.rollout, self.input.commits, driving);
        judged.into_iter().map(|workload| &workload.key).collect()
    }

    /// The parts on which the controllers work.
    pub(super) fn parts(&self, driving: &'a Commit) -> Vec<Part<'a>> {
        let rollout = &self.input.state.rollout;
        let whole = |workload| Part::whole(driving, workload, true);
        let Some(wave) = &rollout.wave else {
            return driving.objects.workloads.values().map(whole).collect();
        };
        let (before, changed) = (self.before(), self.changed(driving));
        let removed = self.removed(driving);
        let mut parts = Vec::new();
        for workload in driving.objects.workloads.values() {
            if !changed.contains(&workload.key) {
                parts.push(whole(workload));
                continue;
            }
            let old = before
                .and_then(|before| Some((before, before.objects.workloads.get(&workload.key)?)));
            match &workload.control {
                // A workload that needs something which a removed workload holds until the second
                // step must wait for that step.
                Control::DaemonSet { .. } if !self.nodes_held(&removed, workload).is_empty() => {}
                Control::DaemonSet {
                    update: DaemonSetUpdate::RollingUpdate { .. },
                    ..
                } => {
                    parts.extend(self.split(driving, workload, old, &wave.nodes));
                }
                _ if may_be_down(workload, old.map(|(_, old)| old)).is_some() => {
                    let before = old.map(|(commit, old)| (&commit.id, old));
                    let mut nodes = self.canaries();
                    let barred = self.barred.get(&workload.key);
                    nodes.retain(|node| barred.is_none_or(|barred| !barred.contains(node)));
                    let canary = Canary {
                        nodes,
                        before,
                        down_elsewhere: 0,
                    };
                    parts.push(Part {
                        canary: Some(canary),
                        ..whole(workload)
                    });
                }
                // Workloads that cannot be updated in two steps are updated in the second step.
                _ => parts.extend(old.map(|(commit, old)| Part::whole(commit, old, false))),
            }
        }
        if let Some(before) = before {
            let gone = |old: &&'a Workload| !driving.objects.workloads.contains_key(&old.key);
            let gone = before.objects.workloads.values().filter(gone);
            parts.extend(gone.map(|old| Part::whole(before, old, false)));
        }
        parts
    }

    /// A DaemonSet in two parts: the canaries follow the new commit, all other nodes the old one.
    fn split(
        &self,
        driving: &'a Commit,
        workload: &'a Workload,
        old: Option<(&'a Commit, &'a Workload)>,
        canaries: &BTreeSet<NodeName>,
    ) -> Vec<Part<'a>> {
        let (first, others): (Vec<Candidate>, Vec<Candidate>) = self
            .nodes
            .iter()
            .cloned()
            .partition(|node| canaries.contains(&node.name));
        let pods = self.owned.get(&workload.key).map_or(&[][..], Vec::as_slice);
        let (on_first, elsewhere): (Vec<OwnedPod<'a>>, Vec<OwnedPod<'a>>) =
            pods.iter().copied().partition(|pod| {
                pod.record
                    .place
                    .node()
                    .is_some_and(|node| canaries.contains(node))
            });
        let min_ready = workload.control.min_ready();
        let is_up = |node: &&Candidate| {
            elsewhere.iter().any(|pod| {
                pod.record.place.node() == Some(&node.name) && pod.is_available(min_ready)
            })
        };
        // On nodes that follow a commit which was superseded before it was healthy, that commit's
        // pods count, though no new ones are made.
        let has_any = |node: &&Candidate| {
            elsewhere
                .iter()
                .any(|pod| pod.is_active() && pod.record.place.node() == Some(&node.name))
        };
        let wave = self.input.state.rollout.wave.as_ref();
        let broken: BTreeSet<NodeName> = wave.map(|wave| wave.broken.clone()).unwrap_or_default();
        let down_elsewhere = others
            .iter()
            .filter(|node| eligible_for_daemon(&workload.template.spec, node))
            .filter(|node| {
                !self.conditions.faulty.contains(&node.name) && !broken.contains(&node.name)
            })
            .filter(|node| match self.conditions.absent.contains(&node.name) {
                true => self.conditions.left_down(&node.name, &elsewhere),
                false => (old.is_some() || has_any(node)) && !is_up(node),
            })
            .count();
        let canary = Canary {
            nodes: canaries.clone(),
            before: None,
            down_elsewhere,
        };
        let new = Part {
            pods: Some(on_first),
            nodes: Some(first),
            canary: Some(canary),
            ..Part::whole(driving, workload, true)
        };
        let rest = old.map(|(commit, old)| Part {
            pods: Some(elsewhere),
            nodes: Some(others),
            // Two parts that count separately would take down two nodes at a time: only the
            // canaries' part may take pods down.
            canary: Some(Canary {
                nodes: canaries.clone(),
                before: None,
                down_elsewhere: ALL,
            }),
            ..Part::whole(commit, old, false)
        });
        std::iter::once(new).chain(rest).collect()
    }

    /// The pods of a part.
    pub(super) fn part_pods<'v>(&'v self, part: &'v Part<'a>) -> &'v [OwnedPod<'a>] {
        let all = || {
            self.owned
                .get(&part.workload.key)
                .map_or(&[][..], Vec::as_slice)
        };
        part.pods.as_ref().map_or_else(all, Vec::as_slice)
    }

    pub(super) fn part_view<'v>(
        &'v self,
        part: &'v Part<'a>,
        conditions: &'v NodeConditions,
    ) -> OwnerView<'v> {
        OwnerView {
            now: self.input.now,
            workload: part.workload,
            pods: self.part_pods(part),
            nodes: part.nodes.as_ref().map_or(&self.nodes[..], Vec::as_slice),
            restarted: self
                .input
                .state
                .rollout
                .restarts
                .get(&part.workload.key)
                .copied(),
            conditions,
            canary: part.canary.as_ref().map(|canary| CanaryView {
                nodes: &canary.nodes,
                before: canary.before,
                down_elsewhere: canary.down_elsewhere,
            }),
        }
    }
}
