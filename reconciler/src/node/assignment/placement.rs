//! Whether the rules of placement allow a pod on this host, from the host's own knowledge: its
//! labels, taints and resources, its verified commits, and where the other pods are.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    commit::{Commit, locate_kept},
    name::{CommitId, PodUid, WorkloadKind},
    node::NodeInput,
    object::Workload,
    placement::{
        Candidate, Neighbour, ResourceAmounts, Surroundings, allocatable, candidates,
        eligible_for_daemon, host_ports, relates, repels, requests, unfit_by_itself,
    },
    plan::PodIdentity,
    state::{KnownNode, NodeFacts, NodeLife, PodRecord, Refused, Unfit, UnfitReason},
};

/// The nodes and commits against which the rules of placement are checked.
pub(super) struct Placement<'a> {
    input: &'a NodeInput<'a>,
    /// Identities of running pods, from the labels of their containers: a record may have changed
    /// since.
    identities: BTreeMap<&'a PodUid, &'a PodIdentity>,
    commits: Vec<&'a Commit>,
    /// All nodes as candidates, once for each commit.
    nodes: Vec<Vec<Candidate>>,
    /// Whether any workload forbids other pods near its own, by `podAntiAffinity`.
    repels: bool,
}

/// Checks the new pods of this host against the rules, one after another.
pub(super) struct AssignmentRules<'a> {
    of: &'a Placement<'a>,
    /// Pods of this host that stay: running pods, and new pods that passed the rules.
    here: BTreeMap<&'a PodUid, (&'a PodRecord, Option<&'a Workload>)>,
    /// Positions of the other pods by each commit; computed when first needed.
    around: Vec<OnceCell<Surroundings<'a>>>,
}

impl<'a> Placement<'a> {
    /// Prepares the check by each commit that is driven, may be the goal of a rollback, or has one
    /// of these pods.
    pub(super) fn new(input: &'a NodeInput<'a>, fresh: &[&'a PodRecord]) -> Self {
        let rollout = &input.state.rollout;
        let pointers = [&rollout.driving, &rollout.target, &rollout.healthy]
            .into_iter()
            .flatten();
        let ids: BTreeSet<&CommitId> = pointers
            .chain(fresh.iter().map(|record| &record.commit))
            .collect();
        let commits: Vec<&Commit> = ids
            .into_iter()
            .filter_map(|id| input.commits.get(id))
            .map(AsRef::as_ref)
            .collect();

        let known = |facts: &NodeFacts| {
            (
                facts.name.clone(),
                KnownNode {
                    facts: facts.clone(),
                    life: NodeLife::Ready,
                },
            )
        };
        let known: BTreeMap<_, _> = input
            .peers
            .values()
            .chain([input.facts])
            .map(known)
            .collect();
        let nodes = commits
            .iter()
            .map(|commit| candidates(&known, &commit.objects.nodes))
            .collect();

        let identities = input
            .observed
            .containers
            .values()
            .map(|one| (&one.identity.uid, &one.identity));
        let repels = input
            .commits
            .values()
            .any(|commit| commit.objects.workloads.values().any(repels));
        Self {
            input,
            identities: identities.collect(),
            commits,
            nodes,
            repels,
        }
    }

    /// The rules, with these pods counted as running here.
    pub(super) fn rules(
        &'a self,
        begun: impl Iterator<Item = &'a PodRecord>,
    ) -> AssignmentRules<'a> {
        let here = begun.filter(|record| !self.has_ended(record));
        let here = here
            .map(|record| (&record.uid, (record, self.workload(record))))
            .collect();
        AssignmentRules {
            of: self,
            here,
            around: self.commits.iter().map(|_| OnceCell::new()).collect(),
        }
    }

    /// The workload of a pod, in the commit of its record or origin; `None` if that is not known.
    fn workload(&self, record: &PodRecord) -> Option<&'a Workload> {
        if let Some(identity) = self.identities.get(&record.uid)
            && let Some(commit) = self.input.readable(&identity.commit)
            && let Some(running) = commit.resolve(&identity.owner, &identity.template)
        {
            return Some(running);
        }
        let (_, workload) = locate_kept(self.input.commits, self.input.kept, record)?;
        Some(workload)
    }

    /// Whether a pod no longer uses its ports and resources.
    fn has_ended(&self, record: &PodRecord) -> bool {
        if let Some(node) = record.place.node()
            && node != self.input.node
            && let Some(report) = self.input.reports.get(node)
            && let Some(status) = report.pods.get(&record.uid)
        {
            return status.phase.is_final();
        }
        let memory = self.input.memory.pods.get(&record.uid);
        memory.is_some_and(|memory| memory.ended.is_some())
    }

    fn surroundings(&'a self, number: usize) -> Surroundings<'a> {
        // Whether a pod is unknown, which may be related to the placed one.
        let mut blind = false;
        let unfinished = self
            .input
            .state
            .pods
            .values()
            .filter(|record| !self.has_ended(record));
        let pods = unfinished.filter_map(|record| {
            let (node, stopping) = (record.place.node()?, record.stop.is_some());
            let workload = self.workload(record);
            blind |= workload.is_none() && !stopping;
            Some(Neighbour {
                uid: &record.uid,
                node,
                workload: workload?,
                stopping,
            })
        });
        let pods: Vec<Neighbour<'_>> = pods.collect();
        Surroundings::new(
            &self.nodes[number],
            &self.commits[number].objects.namespaces,
            pods,
            blind,
        )
    }
}

impl<'a> AssignmentRules<'a> {
    /// Why this host cannot have been assigned the pod; `None` if it can.
    pub(super) fn refuse(&self, record: &PodRecord, workload: &Workload) -> Option<Refused> {
        self.unfit(record, workload)
            .or_else(|| self.too_little(workload))
            .map(|unfit| Refused::Unfit(UnfitReason::Placement(unfit).into()))
            .or_else(|| self.port_taken(record, workload))
            .or_else(|| self.full())
    }

    /// Counts a new pod that is started.
    pub(super) fn begin(&mut self, record: &'a PodRecord) {
        self.here
            .insert(&record.uid, (record, self.of.workload(record)));
    }

    /// The first rule that forbids the pod here under every commit in use; `None` if one commit
    /// allows the pod.
    fn unfit(&self, record: &PodRecord, workload: &Workload) -> Option<Unfit> {
        let mut why = None;
        for number in 0..self.of.commits.len() {
            why = Some(self.unfit_by(number, record, workload)?);
        }
        why
    }

    /// The same under one commit. Cordons and readiness are ignored: only the leader judges them.
    fn unfit_by(&self, number: usize, record: &PodRecord, workload: &Workload) -> Option<Unfit> {
        let own = self.of.input.node;
        let mut node = self.of.nodes[number]
            .iter()
            .find(|node| node.name == *own)?
            .clone();
        node.cordoned = false;

        let spec = &workload.template.spec;
        let unfit = unfit_by_itself(spec, &node);
        // A DaemonSet's pods run on every node that accepts them, whatever other pods are there.
        if workload.key.kind == WorkloadKind::DaemonSet {
            return if eligible_for_daemon(spec, &node) {
                None
            } else {
                unfit
            };
        }

        unfit.or_else(|| {
            if !self.of.repels && !relates(workload) {
                return None;
            }
            let around = self.around[number].get_or_init(|| self.of.surroundings(number));
            // Of the new pods of this host, only those earlier in order count.
            let before = |other: &Neighbour<'_>| {
                other.node != own || other.stopping || self.here.contains_key(other.uid)
            };
            around.forbid(workload, &record.uid, own, &before)
        })
    }

    /// Whether the pods that stay here leave too few resources for the pod. A stopping pod's
    /// resources count as free.
    fn too_little(&self, workload: &Workload) -> Option<Unfit> {
        let most = allocatable(&self.of.input.facts.system)?;
        let requested = requests(&workload.template.spec);
        if requested == ResourceAmounts::default() || workload.key.kind == WorkloadKind::DaemonSet {
            return None;
        }
        let here = self.here.values().filter_map(|(_, other)| *other);
        let used = here
            .map(|other| requests(&other.template.spec))
            .fold(ResourceAmounts::default(), ResourceAmounts::plus);
        requested.too_much(used, most)
    }

    fn port_taken(&self, record: &PodRecord, workload: &Workload) -> Option<Refused> {
        let ports = host_ports(&workload.template.spec);
        if ports.is_empty() {
            return None;
        }
        // A DaemonSet's new pod may replace the old one of the same owner.
        let daemon = workload.key.kind == WorkloadKind::DaemonSet;
        let mut others = self
            .here
            .values()
            .filter(|(other, _)| !daemon || other.owner != record.owner);
        others.find_map(|(other, workload)| {
            let taken = host_ports(&(*workload)?.template.spec);
            let (_, port) = taken.into_iter().find(|port| ports.contains(port))?;
            Some(Refused::HostPort {
                port,
                pod: other.key.clone(),
            })
        })
    }

    fn full(&self) -> Option<Refused> {
        let most = self.of.input.settings.max_pods;
        if self.here.len() >= most {
            Some(Refused::Full { most })
        } else {
            None
        }
    }
}
