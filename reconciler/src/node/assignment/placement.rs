//! Whether the rules of placement let a pod run on this host, by what this host knows itself: its
//! own labels, taints and size, its verified commits, and where the other pods are.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use crate::state::Refused;
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
    state::{KnownNode, NodeFacts, NodeLife, PodRecord, Unfit},
};

/// What the rules of placement are held against.
pub(super) struct Placement<'a> {
    input: &'a NodeInput<'a>,
    /// What runs here says what it is by itself, whatever its record says by now.
    identities: BTreeMap<&'a PodUid, &'a PodIdentity>,
    commits: Vec<&'a Commit>,
    /// All nodes as each of these commits has them.
    nodes: Vec<Vec<Candidate>>,
    /// Whether any workload keeps others off.
    repels: bool,
}

/// The rules for the pods that are new here, one after another.
pub(super) struct AssignmentRules<'a> {
    of: &'a Placement<'a>,
    /// Pods of this host that stay: those that were begun before, and the new ones that nothing
    /// speaks against.
    here: BTreeMap<&'a PodUid, (&'a PodRecord, Option<&'a Workload>)>,
    /// Where the other pods are by each commit, found out when first asked for.
    around: Vec<OnceCell<Surroundings<'a>>>,
}

impl<'a> Placement<'a> {
    /// By each commit that is followed, may be gone back to, or has one of these pods.
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

    /// The rules, with these pods begun.
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

    /// What a pod is.
    fn workload(&self, record: &PodRecord) -> Option<&'a Workload> {
        let runs = self.identities.get(&record.uid);
        let (commits, kept) = (self.input.commits, self.input.kept);
        let runs = runs.and_then(|one| {
            let commit = self.input.readable(&one.commit)?;
            commit.resolve(&one.owner, &one.template)
        });
        runs.or_else(|| locate_kept(commits, kept, record).map(|(_, workload)| workload))
    }

    /// Whether nothing holds its ports and its requests any more.
    fn has_ended(&self, record: &PodRecord) -> bool {
        let memory = &self.input.memory.pods;
        let own = || {
            memory
                .get(&record.uid)
                .is_some_and(|memory| memory.ended.is_some())
        };
        let node = record.place.node().filter(|node| *node != self.input.node);
        let said = node.and_then(|node| self.input.reports.get(node)?.pods.get(&record.uid));
        said.map_or_else(own, |status| status.phase.is_final())
    }

    fn surroundings(&'a self, number: usize) -> Surroundings<'a> {
        let mut blind = false;
        let there = self
            .input
            .state
            .pods
            .values()
            .filter(|record| !self.has_ended(record));
        let pods = there.filter_map(|record| {
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
    /// Why this host cannot have been given the pod, if it cannot.
    pub(super) fn refuse(&self, record: &PodRecord, workload: &Workload) -> Option<Refused> {
        self.unfit(record, workload)
            .or_else(|| self.too_little(workload))
            .map(|unfit| Refused::Unfit(unfit.to_string()))
            .or_else(|| self.port_taken(record, workload))
            .or_else(|| self.full())
    }

    /// Counts a new pod that is begun.
    pub(super) fn begin(&mut self, record: &'a PodRecord) {
        self.here
            .insert(&record.uid, (record, self.of.workload(record)));
    }

    /// Whether no commit in use lets the pod run here.
    fn unfit(&self, record: &PodRecord, workload: &Workload) -> Option<Unfit> {
        let mut why = None;
        for number in 0..self.of.commits.len() {
            why = Some(self.unfit_by(number, record, workload)?);
        }
        why
    }

    /// Cordons and readiness are the leader's business.
    fn unfit_by(&self, number: usize, record: &PodRecord, workload: &Workload) -> Option<Unfit> {
        let own = self.of.input.node;
        let mut node = self.of.nodes[number]
            .iter()
            .find(|node| node.name == *own)?
            .clone();
        node.cordoned = false;
        let spec = &workload.template.spec;
        let unfit = unfit_by_itself(spec, &node);
        // A DaemonSet's pods are on every node that takes them, whatever else is there.
        if workload.key.kind == WorkloadKind::DaemonSet {
            return unfit.filter(|_| !eligible_for_daemon(spec, &node));
        }
        unfit.or_else(|| {
            if !self.of.repels && !relates(workload) {
                return None;
            }
            let around = self.around[number].get_or_init(|| self.of.surroundings(number));
            // Of this host's own new ones those count that come before it.
            let before = |other: &Neighbour<'_>| {
                other.node != own || other.stopping || self.here.contains_key(other.uid)
            };
            around.forbid(workload, &record.uid, own, &before)
        })
    }

    /// Whether the pods that are here leave too little of what this host has. What stops makes
    /// room.
    fn too_little(&self, workload: &Workload) -> Option<Unfit> {
        let most = allocatable(&self.of.input.facts.system)?;
        let asked = requests(&workload.template.spec);
        if asked == ResourceAmounts::default() || workload.key.kind == WorkloadKind::DaemonSet {
            return None;
        }
        let here = self.here.values().filter_map(|(_, other)| *other);
        let used = here
            .map(|other| requests(&other.template.spec))
            .fold(ResourceAmounts::default(), ResourceAmounts::plus);
        asked.too_much(used, most)
    }

    fn port_taken(&self, record: &PodRecord, workload: &Workload) -> Option<Refused> {
        let ports = host_ports(&workload.template.spec);
        if ports.is_empty() {
            return None;
        }
        // A DaemonSet's pod may take the place of the one before it.
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
        (self.here.len() >= most).then_some(Refused::Full { most })
    }
}
