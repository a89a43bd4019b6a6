//! Places pods one after another; each placement counts for the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Candidate, Choice, Chosen,
    class::{Classes, Owned, Rank},
    load::Load,
    names::Names,
    relation::{Relations, Sources},
    session::{Plain, Related, Sight},
    shape::Shapes,
    topology::Topologies,
};
use crate::{
    name::{NodeName, TemplateHash, WorkloadKey},
    object::{Meta, PodSpec, Workload},
    state::{PodRecord, Refusal, Unfit},
};

/// The pods that are placed so far. Placing a pod counts it at once, so that it affects the next
/// placement.
///
/// The result equals that of checking every node for every pod (see `Rank` for the order), but is
/// computed without doing so.
#[derive(Debug)]
pub struct Placer<'a> {
    nodes: Arc<[Candidate]>,
    names: Names,
    load: Load,
    shapes: Shapes<'a>,
    classes: Classes<'a>,
    topologies: Topologies,
    /// Number of pods that were counted.
    counted: u64,
    /// The shape of the record that was counted last: records usually come owner by owner.
    last_record: Option<(&'a PodRecord, u32)>,
    last_workload: Option<(&'a Workload, u32)>,
    session: Option<Session>,
    /// Pods of the session's owner on each node.
    owned: Vec<Owned>,
    /// The nodes that refuse pods of a template.
    turned_away: BTreeMap<(&'a WorkloadKey, &'a TemplateHash), BTreeSet<u32>>,
    /// The nodes that have the images of a template, where some nodes may lack them.
    warm: BTreeMap<(&'a WorkloadKey, &'a TemplateHash), BTreeSet<u32>>,
}

#[derive(Debug)]
struct Session {
    shape: u32,
    queue: u32,
    /// Sum of the weights of all preferred rules.
    preferred: u32,
    kind: SessionKind,
}

#[derive(Debug)]
enum SessionKind {
    Plain(Plain),
    Related(Box<Related>),
}

impl<'a> Placer<'a> {
    /// A placer without pods. `nodes` must be sorted by name; `namespaces` are those that Git
    /// declares.
    pub fn new(
        nodes: Arc<[Candidate]>,
        max_pods: usize,
        namespaces: &'a BTreeMap<String, Meta>,
    ) -> Self {
        debug_assert!(
            nodes.is_sorted_by(|a, b| a.name < b.name),
            "nodes are sorted by name"
        );
        Self {
            names: Names::new(&nodes),
            load: Load::new(&nodes, max_pods),
            shapes: Shapes::new(namespaces),
            classes: Classes::default(),
            topologies: Topologies::default(),
            counted: 0,
            last_record: None,
            last_workload: None,
            session: None,
            owned: vec![Owned::default(); nodes.len()],
            turned_away: BTreeMap::new(),
            warm: BTreeMap::new(),
            nodes,
        }
    }

    /// All nodes, sorted by name.
    pub fn nodes(&self) -> &[Candidate] {
        &self.nodes
    }

    /// Counts an existing pod that has not ended; `workload` resolves the pod's template, and is
    /// called once for each template. Calls ordered by owner are fastest.
    pub fn add(&mut self, record: &'a PodRecord, workload: impl FnOnce() -> Option<&'a Workload>) {
        let Some(node) = record.place.node() else {
            return;
        };
        let Some(node) = self.names.find(&self.nodes, node) else {
            return;
        };
        let same =
            |last: &&PodRecord| last.owner == record.owner && last.template == record.template;
        let shape = match self.last_record.filter(|(last, _)| same(last)) {
            Some((_, shape)) => shape,
            None => self.shape(&record.owner, &record.template, workload),
        };
        self.last_record = Some((record, shape));
        self.end_session();
        if record.stop.is_some() {
            self.shapes.all[shape as usize].stopping.push(node);
        } else {
            self.shapes.all[shape as usize].placed.push(node);
        }
        self.load.add(node, &self.shapes.all[shape as usize].ask);
        self.counted += 1;
    }

    /// Keeps pods of the record's template off a node that refuses them.
    pub fn turn_away(&mut self, node: &NodeName, record: &'a PodRecord) {
        if let Some(node) = self.names.find(&self.nodes, node) {
            self.end_session();
            self.turned_away
                .entry((&record.owner, &record.template))
                .or_default()
                .insert(node);
        }
    }

    /// Keeps new pods of a workload off a node.
    pub fn keep_off(&mut self, node: &NodeName, workload: &'a Workload) {
        if let Some(node) = self.names.find(&self.nodes, node) {
            self.end_session();
            let template = (&workload.key, &workload.template.hash);
            self.turned_away.entry(template).or_default().insert(node);
        }
    }

    /// Sets which nodes have the images of a workload: among nodes that are equal otherwise, one of
    /// these is chosen.
    pub fn prefer<'n>(
        &mut self,
        workload: &'a Workload,
        nodes: impl IntoIterator<Item = &'n NodeName>,
    ) {
        let warm = nodes
            .into_iter()
            .filter_map(|node| self.names.find(&self.nodes, node))
            .collect();
        self.end_session();
        self.warm
            .insert((&workload.key, &workload.template.hash), warm);
    }

    /// Counts a pod that must run on a given node.
    pub fn pin(&mut self, node: &NodeName, workload: &'a Workload) {
        let Some(node) = self.names.find(&self.nodes, node) else {
            return;
        };
        let shape = self.shape_of(workload);
        self.end_session();
        self.count(node, shape);
    }

    /// Chooses a node for a pod, and counts the pod there.
    pub fn place(&mut self, workload: &'a Workload) -> Result<Chosen, Refusal> {
        let mut session = self.session_of(workload);
        let chosen = self.take(&mut session);
        let answer = match chosen {
            Some(rank) => {
                let class =
                    &self.classes.all[self.classes.queues[session.queue as usize].class as usize];
                Ok(Chosen {
                    node: self.nodes[rank.node as usize].name.clone(),
                    why: Choice {
                        nodes: self.nodes.len(),
                        allowed: class.eligible.len(),
                        avoided: rank.avoided,
                        unmet: rank.unmet,
                        preferred: session.preferred,
                        excess: rank.excess,
                        owned: rank.owned.all,
                    },
                })
            }
            None => Err(self.refusal(&session)),
        };
        self.session = Some(session);
        answer
    }

    /// Why a node that by itself accepts such pods does not accept one more, because of pods on the
    /// node or near it; `None` if it accepts the pod.
    pub fn unfit(&mut self, node: &NodeName, workload: &'a Workload) -> Option<Unfit> {
        let node = self.names.find(&self.nodes, node)?;
        let session = self.session_of(workload);
        let ask = &self.shapes.all[session.shape as usize].ask;
        let unfit = self.load.unfit(node, ask).or_else(|| match &session.kind {
            SessionKind::Plain(_) => None,
            SessionKind::Related(related) => related.unfit(node, &self.topologies),
        });
        self.session = Some(session);
        unfit
    }

    fn session_of(&mut self, workload: &'a Workload) -> Session {
        let shape = self.shape_of(workload);
        match self.session.take() {
            Some(session) if session.shape == shape => session,
            other => {
                self.session = other;
                self.end_session();
                self.begin(shape, &workload.template.spec)
            }
        }
    }

    fn shape_of(&mut self, workload: &'a Workload) -> u32 {
        if let Some((last, shape)) = self.last_workload
            && std::ptr::eq(last, workload)
        {
            return shape;
        }
        let shape = self.shape(&workload.key, &workload.template.hash, || Some(workload));
        self.last_workload = Some((workload, shape));
        shape
    }

    fn shape(
        &mut self,
        owner: &'a WorkloadKey,
        template: &'a TemplateHash,
        workload: impl FnOnce() -> Option<&'a Workload>,
    ) -> u32 {
        self.shapes
            .number(owner, template, workload, &mut self.topologies, &self.nodes)
    }

    fn count(&mut self, node: u32, shape: u32) {
        let of_shape = &mut self.shapes.all[shape as usize];
        of_shape.placed.push(node);
        self.load.add(node, &of_shape.ask);
        self.counted += 1;
    }

    fn begin(&mut self, shape: u32, spec: &'a PodSpec) -> Session {
        let of_shape = &self.shapes.all[shape as usize];
        for sibling in &self.shapes.owners[of_shape.owner as usize] {
            for node in &self.shapes.all[*sibling as usize].placed {
                let owned = &mut self.owned[*node as usize];
                *owned = owned.and_one(*sibling == shape);
            }
        }
        let queue = self
            .classes
            .queue(shape, spec, &of_shape.ask, &self.nodes, &self.load);
        let wishes = of_shape
            .relations
            .wishes
            .iter()
            .map(|wish| wish.weight)
            .sum::<u32>();
        let preferred = wishes
            + spec
                .affinity
                .node
                .preferred
                .iter()
                .map(|(weight, _)| weight)
                .sum::<u32>();
        let plain = of_shape.relations.is_empty() && of_shape.repelled_by.is_empty();
        let template = of_shape
            .workload
            .map(|workload| (&workload.key, &workload.template.hash));
        let off = template
            .and_then(|key| self.turned_away.get(&key))
            .cloned()
            .unwrap_or_default();
        let warm = template.and_then(|key| self.warm.get(&key)).cloned();
        let kind = match plain && off.is_empty() && warm.is_none() {
            true => SessionKind::Plain(Plain::default()),
            false => self.related(shape, spec, queue, (off, warm)),
        };
        Session {
            shape,
            queue,
            preferred,
            kind,
        }
    }

    fn related(
        &mut self,
        shape: u32,
        spec: &'a PodSpec,
        queue: u32,
        own: (BTreeSet<u32>, Option<BTreeSet<u32>>),
    ) -> SessionKind {
        let class = self.classes.queues[queue as usize].class;
        let policies = if spec.spread.is_empty() {
            &[]
        } else {
            self.classes.policies(class, spec, &self.nodes)
        };
        let sources = Sources {
            shapes: &self.shapes,
            topologies: &self.topologies,
            policies,
        };
        let relations = Relations::new(&sources, shape, &spec.spread);
        let coarse = Related::coarse(&relations);
        let grouping = self.topologies.grouping(self.nodes.len(), &coarse);
        SessionKind::Related(Box::new(Related::new(
            relations,
            own,
            coarse,
            grouping,
            self.sight(shape, queue),
        )))
    }

    fn sight(&self, shape: u32, queue: u32) -> Sight<'_> {
        Sight {
            class: &self.classes.all[self.classes.queues[queue as usize].class as usize],
            topologies: &self.topologies,
            load: &self.load,
            ask: &self.shapes.all[shape as usize].ask,
            owned: &self.owned,
        }
    }

    /// Chooses the best node and counts the pod there.
    fn take(&mut self, session: &mut Session) -> Option<Rank> {
        let (shape, queue) = (session.shape, session.queue);
        match &mut session.kind {
            SessionKind::Plain(plain) => {
                let ask = &self.shapes.all[shape as usize].ask;
                let queue = &mut self.classes.queues[queue as usize];
                let rank = plain.take(queue, &self.owned, &self.load, ask)?;
                self.owned[rank.node as usize] = rank.owned.and_one(true);
                self.count(rank.node, shape);
                plain.put(rank, &self.load, &self.shapes.all[shape as usize].ask);
                Some(rank)
            }
            SessionKind::Related(related) => {
                let rank = related.take()?;
                self.owned[rank.node as usize] = rank.owned.and_one(true);
                self.count(rank.node, shape);
                related.put(rank.node, self.sight(shape, queue));
                Some(rank)
            }
        }
    }

    fn refusal(&mut self, session: &Session) -> Refusal {
        let queue = &self.classes.queues[session.queue as usize];
        let class = &self.classes.all[queue.class as usize];
        let ask = &self.shapes.all[session.shape as usize].ask;
        match &session.kind {
            SessionKind::Plain(_) => {
                if let Some((counted, refusal)) = &queue.refusal
                    && *counted == self.counted
                {
                    return refusal.clone();
                }
                let refusal = class.refusal(self.nodes.len(), |node| self.load.unfit(node, ask));
                self.classes.queues[session.queue as usize].refusal =
                    Some((self.counted, refusal.clone()));
                refusal
            }
            SessionKind::Related(related) => class.refusal(self.nodes.len(), |node| {
                self.load
                    .unfit(node, ask)
                    .or_else(|| related.unfit(node, &self.topologies))
            }),
        }
    }

    fn end_session(&mut self) {
        let Some(Session {
            shape, queue, kind, ..
        }) = self.session.take()
        else {
            return;
        };
        if let SessionKind::Plain(plain) = kind {
            plain.end(&mut self.classes.queues[queue as usize]);
        }
        let owner = self.shapes.all[shape as usize].owner;
        for sibling in &self.shapes.owners[owner as usize] {
            for node in &self.shapes.all[*sibling as usize].placed {
                self.owned[*node as usize] = Owned::default();
            }
        }
    }
}
