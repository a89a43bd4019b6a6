//! Whether the rules of placement let a pod run on this host, by what this host knows itself: its own labels, taints and
//! size, its verified commits, and where the other pods are.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use super::Refused;
use crate::{
    commit::{Commit, locate},
    name::{CommitId, WorkloadKind},
    node::NodeInput,
    object::Workload,
    placement::{
        Candidate, Neighbour, Resources, Surroundings, Unfit, allocatable, candidates, eligible_for_daemon,
        host_ports, requests, unfit_by_itself,
    },
    state::{KnownNode, NodeFacts, NodeLife, PodRecord},
};

/// The rules of placement for pods that are new here.
pub(super) struct Placement<'a> {
    input: &'a NodeInput<'a>,
    /// Pods of this host that stay.
    active: &'a [&'a PodRecord],
    commits: Vec<&'a Commit>,
    /// All nodes as each of these commits has them.
    nodes: Vec<Vec<Candidate>>,
}

/// The rules with where the other pods are, found out when first asked for.
pub(super) struct Rules<'a> {
    of: &'a Placement<'a>,
    around: Vec<OnceCell<Surroundings<'a>>>,
}

impl<'a> Placement<'a> {
    /// By each commit that is followed, may be gone back to, or has one of these pods.
    pub(super) fn new(
        input: &'a NodeInput<'a>,
        active: &'a [&'a PodRecord],
        fresh: &[&'a PodRecord],
    ) -> Self {
        let rollout = &input.state.rollout;
        let pointers = [&rollout.driving, &rollout.target, &rollout.healthy].into_iter().flatten();
        let ids: BTreeSet<&CommitId> = pointers.chain(fresh.iter().map(|record| &record.commit)).collect();
        let commits: Vec<&Commit> =
            ids.into_iter().filter_map(|id| input.commits.get(id)).map(AsRef::as_ref).collect();
        let known = |facts: &NodeFacts| {
            (facts.name.clone(), KnownNode { facts: facts.clone(), life: NodeLife::Ready })
        };
        let known: BTreeMap<_, _> = input.peers.values().chain([input.facts]).map(known).collect();
        let nodes = commits.iter().map(|commit| candidates(&known, &commit.objects.nodes)).collect();
        Self { input, active, commits, nodes }
    }

    pub(super) fn rules(&'a self) -> Rules<'a> {
        Rules { of: self, around: self.commits.iter().map(|_| OnceCell::new()).collect() }
    }

    /// Whether nothing holds its ports and its requests any more.
    fn has_ended(&self, record: &PodRecord) -> bool {
        let memory = &self.input.memory.pods;
        let own = || memory.get(&record.uid).is_some_and(|memory| memory.ended.is_some());
        let node = record.place.node().filter(|node| *node != self.input.node);
        let said = node.and_then(|node| self.input.reports.get(node)?.pods.get(&record.uid));
        said.map_or_else(own, |status| status.phase.is_final())
    }

    /// The pods of this host that were decided before one, and what they are.
    fn before(&self, record: &PodRecord) -> impl Iterator<Item = (&'a PodRecord, &'a Workload)> {
        let serial = record.serial;
        let before = self.active.iter().filter(move |other| other.serial < serial && !self.has_ended(other));
        before.filter_map(|other| Some((*other, locate(self.input.commits, other)?.1)))
    }

    fn pods(&self) -> Vec<Neighbour<'a>> {
        let there = self.input.state.pods.values().filter(|record| !self.has_ended(record));
        let pods = there.filter_map(|record| {
            let (node, (_, workload)) = (record.place.node()?, locate(self.input.commits, record)?);
            Some(Neighbour { node, workload, serial: record.serial, stopping: record.stop.is_some() })
        });
        pods.collect()
    }
}

impl Rules<'_> {
    /// Why this host cannot have been given the pod, if it cannot.
    pub(super) fn refuse(&self, record: &PodRecord, workload: &Workload) -> Option<Refused> {
        self.unfit(record, workload)
            .or_else(|| self.too_little(record, workload))
            .map(|unfit| Refused::Unfit(unfit.to_string()))
            .or_else(|| self.port_taken(record, workload))
            .or_else(|| self.full(record))
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
        let Placement { input, commits, nodes, .. } = self.of;
        let mut node = nodes[number].iter().find(|node| node.name == *input.node)?.clone();
        node.cordoned = false;
        let spec = &workload.template.spec;
        let unfit = unfit_by_itself(spec, &node);
        // A DaemonSet's pods are on every node that takes them, whatever else is there.
        if workload.key.kind == WorkloadKind::DaemonSet {
            return unfit.filter(|_| !eligible_for_daemon(spec, &node));
        }
        unfit.or_else(|| {
            let namespaces = &commits[number].objects.namespaces;
            let around = self.around[number]
                .get_or_init(|| Surroundings::new(&nodes[number], namespaces, self.of.pods()));
            around.forbid(workload, record.serial, input.node)
        })
    }

    /// Whether the pods that were decided before leave too little of what this host has. What stops makes room.
    fn too_little(&self, record: &PodRecord, workload: &Workload) -> Option<Unfit> {
        let most = allocatable(&self.of.input.facts.system)?;
        let asked = requests(&workload.template.spec);
        if asked == Resources::default() || workload.key.kind == WorkloadKind::DaemonSet {
            return None;
        }
        let before = self.of.before(record).map(|(_, other)| requests(&other.template.spec));
        asked.too_much(before.fold(Resources::default(), Resources::plus), most)
    }

    fn full(&self, record: &PodRecord) -> Option<Refused> {
        let most = self.of.input.settings.max_pods;
        let before = self.of.active.iter().filter(|other| other.serial < record.serial).count();
        (before >= most).then_some(Refused::Full { most })
    }

    fn port_taken(&self, record: &PodRecord, workload: &Workload) -> Option<Refused> {
        let ports = host_ports(&workload.template.spec);
        if ports.is_empty() {
            return None;
        }
        // A DaemonSet's pod may take the place of the one before it.
        let daemon = workload.key.kind == WorkloadKind::DaemonSet;
        let mut others = self.of.before(record).filter(|(other, _)| !daemon || other.owner != record.owner);
        others.find_map(|(other, workload)| {
            let taken = host_ports(&workload.template.spec).into_iter().find(|port| ports.contains(port))?;
            Some(Refused::HostPort { port: taken.1, pod: other.key.clone() })
        })
    }
}
