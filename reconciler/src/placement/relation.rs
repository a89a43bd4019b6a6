//! The effect of a pod's terms about other pods on each domain.

use super::{
    shape::{Shapes, Wish},
    topology::{NOWHERE, Topologies, Topology},
};
use crate::object::SpreadConstraint;
use crate::state::Unfit;

/// Distance from a preferred spread for a node without the label: larger than any real one.
const NO_DOMAIN: u32 = 1_000_000;

/// One rule about the pods in each domain of a topology.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) topology: u32,
    /// Whether each domain of the topology is a single node.
    pub(super) fine: bool,
    kind: RelationKind,
    /// Number of pods in each domain that the rule selects.
    counts: Vec<u32>,
    /// Whether the rule selects the shape's own pods too.
    about_itself: bool,
}

#[derive(Debug)]
enum RelationKind {
    Affinity,
    Anti,
    ExistingAnti,
    Wish(Wish),
    Spread(Spread),
}

#[derive(Debug)]
struct Spread {
    required: bool,
    max_skew: u32,
    /// The least count among the domains that count; 0 if there are fewer of them than
    /// `minDomains`.
    least: u32,
    /// Number of domains with that least count.
    at_least: usize,
    enough_domains: bool,
    /// Whether each node counts: it has all topology keys, and `nodeAffinityPolicy` and
    /// `nodeTaintsPolicy` do not exclude it.
    nodes: Vec<bool>,
    /// Whether each domain has a node that counts.
    domains: Vec<bool>,
}

/// The preference of a shape's relations for a node that fits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Merit {
    pub(super) unmet: u32,
    pub(super) excess: u32,
}

/// All relations of one shape to existing pods.
#[derive(Debug)]
pub(super) struct Relations {
    pub(super) all: Vec<Relation>,
    /// Whether the shape's pod is the first of those that it requires nearby: it may go to any node
    /// that has the topology labels.
    first: bool,
}

/// The inputs from which relations are computed.
pub(super) struct Sources<'s, 'a> {
    pub(super) shapes: &'s Shapes<'a>,
    pub(super) topologies: &'s Topologies,
    /// For each node, whether labels allow a pod of the shape and whether taints do.
    pub(super) policies: &'s [(bool, bool)],
}

impl Sources<'_, '_> {
    fn topology(&self, term: u32) -> (u32, &Topology) {
        let number = self.shapes.terms[term as usize].topology;
        (number, self.topologies.get(number))
    }

    fn relation(&self, term: u32, kind: RelationKind, shape: u32) -> Relation {
        let (number, topology) = self.topology(term);
        let about_itself = self.shapes.selects(term, shape);
        let counts = vec![0; topology.domains];
        Relation {
            topology: number,
            fine: topology.fine,
            kind,
            counts,
            about_itself,
        }
    }

    /// Counts the pods of shapes, stopping pods included, since they still exist.
    fn count(&self, counts: &mut [u32], topology: u32, shapes: impl IntoIterator<Item = u32>) {
        let topology = self.topologies.get(topology);
        for shape in shapes {
            let shape = &self.shapes.all[shape as usize];
            for node in shape.placed.iter().chain(&shape.stopping) {
                if let Some(count) = counts.get_mut(topology.domain(*node) as usize) {
                    *count += 1;
                }
            }
        }
    }

    fn matching(&self, term: u32) -> Vec<u32> {
        self.shapes.terms[term as usize].matching.clone()
    }
}

impl Relations {
    /// The relations of a shape, in the order in which a pod is judged by them.
    pub(super) fn new(
        sources: &Sources<'_, '_>,
        shape: u32,
        constraints: &[SpreadConstraint],
    ) -> Self {
        let (mut all, first) = required_affinity(sources, shape);
        let relations = &sources.shapes.all[shape as usize].relations;
        for term in &relations.anti {
            let mut relation = sources.relation(*term, RelationKind::Anti, shape);
            let matching = sources.matching(*term);
            sources.count(&mut relation.counts, relation.topology, matching);
            all.push(relation);
        }
        all.extend(existing_anti_affinity(sources, shape));
        for wish in &relations.wishes {
            let mut relation = sources.relation(wish.term, RelationKind::Wish(*wish), shape);
            let matching = sources.matching(wish.term);
            sources.count(&mut relation.counts, relation.topology, matching);
            all.push(relation);
        }
        for required in [true, false] {
            let of_kind: Vec<(u32, &SpreadConstraint)> = (relations.spread.iter().copied())
                .zip(constraints)
                .filter(|(_, constraint)| constraint.required == required)
                .collect();
            let topologies: Vec<u32> = of_kind
                .iter()
                .map(|(term, _)| sources.topology(*term).0)
                .collect();
            for (term, constraint) in of_kind {
                all.push(spread(sources, term, constraint, &topologies, shape));
            }
        }
        Self { all, first }
    }

    /// The merit of a node in these domains, by the relations that `which` selects.
    pub(super) fn judge(
        &self,
        which: impl Fn(&Relation) -> bool,
        domain: impl Fn(&Relation) -> u32,
    ) -> Result<Merit, Unfit> {
        let mut merit = Merit::default();
        for relation in self.all.iter().filter(|relation| which(relation)) {
            relation.judge(domain(relation), self.first, &mut merit)?;
        }
        Ok(merit)
    }

    /// Counts a pod of the shape itself; returns whether the ranks of other nodes must be computed
    /// again.
    pub(super) fn place(&mut self, node: u32, topologies: &Topologies) -> bool {
        let mut anew = false;
        for relation in self.all.iter_mut().filter(|relation| relation.about_itself) {
            let domain = topologies.get(relation.topology).domain(node) as usize;
            let counted = match &relation.kind {
                RelationKind::Spread(spread) => spread.nodes[node as usize],
                RelationKind::Affinity
                | RelationKind::Anti
                | RelationKind::ExistingAnti
                | RelationKind::Wish(_) => true,
            };
            if !counted {
                continue;
            }
            let Some(count) = relation.counts.get_mut(domain) else {
                continue;
            };
            *count += 1;
            match &mut relation.kind {
                RelationKind::Affinity => anew |= std::mem::take(&mut self.first),
                RelationKind::Spread(spread)
                    if *count - 1 == spread.least && spread.enough_domains =>
                {
                    spread.at_least -= 1;
                    if spread.at_least == 0 {
                        spread.find_least(&relation.counts);
                        anew |= relation.fine;
                    }
                }
                RelationKind::Anti
                | RelationKind::ExistingAnti
                | RelationKind::Wish(_)
                | RelationKind::Spread(_) => {}
            }
        }
        anew
    }
}

impl Relation {
    fn judge(&self, domain: u32, first: bool, merit: &mut Merit) -> Result<(), Unfit> {
        let count = self.counts.get(domain as usize).copied().unwrap_or(0);
        let nowhere = domain == NOWHERE;
        match &self.kind {
            RelationKind::Affinity if nowhere || (count == 0 && !first) => {
                return Err(Unfit::PodAffinity);
            }
            RelationKind::Anti if count > 0 => return Err(Unfit::PodAntiAffinity),
            RelationKind::ExistingAnti if count > 0 => return Err(Unfit::ExistingPodAntiAffinity),
            RelationKind::Affinity | RelationKind::Anti | RelationKind::ExistingAnti => {}
            RelationKind::Wish(wish) => {
                if wish.anti == (count > 0) {
                    merit.unmet += wish.weight;
                }
            }
            RelationKind::Spread(spread) => {
                let after = count + u32::from(self.about_itself);
                let above = after
                    .saturating_sub(spread.least)
                    .saturating_sub(spread.max_skew);
                match (spread.required, nowhere) {
                    (true, true) => return Err(Unfit::SpreadLabel),
                    (true, false) if above > 0 => return Err(Unfit::Spread),
                    (true, false) => {}
                    (false, true) => merit.excess = merit.excess.saturating_add(NO_DOMAIN),
                    (false, false) => merit.excess = merit.excess.saturating_add(above),
                }
            }
        }
        Ok(())
    }
}

fn carrier(sources: &Sources<'_, '_>, term: u32) -> u32 {
    sources.shapes.terms[term as usize].carrier
}

/// The relations of `podAffinity`, and whether the pod is the first of those that it requires
/// nearby.
fn required_affinity(sources: &Sources<'_, '_>, shape: u32) -> (Vec<Relation>, bool) {
    let terms = &sources.shapes.all[shape as usize].relations.affinity;
    // As in Kubernetes, a pod counts only if all terms select it.
    let mut wanted: Option<Vec<u32>> = None;
    for term in terms {
        let matching = sources.matching(*term);
        wanted = Some(match wanted {
            None => matching,
            Some(before) => before
                .into_iter()
                .filter(|one| matching.binary_search(one).is_ok())
                .collect(),
        });
    }
    let wanted = wanted.unwrap_or_default();
    let is_about_itself = wanted.binary_search(&shape).is_ok();

    let mut relations = Vec::new();
    for term in terms {
        let mut relation = sources.relation(*term, RelationKind::Affinity, shape);
        relation.about_itself = is_about_itself;
        let shapes = wanted.iter().copied();
        sources.count(&mut relation.counts, relation.topology, shapes);
        relations.push(relation);
    }
    let none_there = relations
        .iter()
        .all(|relation| relation.counts.iter().all(|count| *count == 0));
    (relations, none_there && is_about_itself)
}

/// The relations of those existing pods whose own `podAntiAffinity` selects the shape's pods, one
/// for each topology.
fn existing_anti_affinity(sources: &Sources<'_, '_>, shape: u32) -> Vec<Relation> {
    let mut repelling: Vec<(u32, u32)> = sources.shapes.all[shape as usize]
        .repelled_by
        .iter()
        .map(|term| (sources.topology(*term).0, *term))
        .collect();
    repelling.sort_unstable();

    let mut relations = Vec::new();
    for terms in repelling.chunk_by(|a, b| a.0 == b.0) {
        let Some((topology, term)) = terms.first() else {
            continue;
        };
        let mut relation = sources.relation(*term, RelationKind::ExistingAnti, shape);
        relation.about_itself = terms
            .iter()
            .any(|(_, term)| carrier(sources, *term) == shape);
        let carriers = terms.iter().map(|(_, term)| carrier(sources, *term));
        sources.count(&mut relation.counts, *topology, carriers);
        relations.push(relation);
    }
    relations
}

/// Nodes count that the policies allow and that have the labels of all constraints of the same
/// severity; stopping pods do not count.
fn spread(
    sources: &Sources<'_, '_>,
    term: u32,
    constraint: &SpreadConstraint,
    topologies: &[u32],
    shape: u32,
) -> Relation {
    let labelled = |node: u32| {
        topologies
            .iter()
            .all(|one| sources.topologies.get(*one).domain(node) != NOWHERE)
    };
    let nodes: Vec<bool> = (0..)
        .zip(sources.policies)
        .map(|(node, (wanted, tolerated))| {
            (*wanted || !constraint.honor_affinity)
                && (*tolerated || !constraint.honor_taints)
                && labelled(node)
        })
        .collect();
    let (number, topology) = sources.topology(term);
    let mut domains = vec![false; topology.domains];
    for (node, _) in (0..).zip(&nodes).filter(|(_, counts)| **counts) {
        domains[topology.domain(node) as usize] = true;
    }
    let mut counts = vec![0; topology.domains];
    for shape in sources.matching(term) {
        for node in sources.shapes.all[shape as usize]
            .placed
            .iter()
            .filter(|node| nodes[**node as usize])
        {
            counts[topology.domain(*node) as usize] += 1;
        }
    }
    let there = domains.iter().filter(|counts| **counts).count();
    let mut spread = Spread {
        required: constraint.required,
        max_skew: constraint.max_skew,
        least: 0,
        at_least: 0,
        enough_domains: there >= constraint.min_domains as usize,
        nodes,
        domains,
    };
    spread.find_least(&counts);
    let about_itself = sources.shapes.selects(term, shape);
    Relation {
        topology: number,
        fine: topology.fine,
        kind: RelationKind::Spread(spread),
        counts,
        about_itself,
    }
}

impl Spread {
    fn find_least(&mut self, counts: &[u32]) {
        if !self.enough_domains {
            return;
        }
        let of_domains = || {
            counts
                .iter()
                .zip(&self.domains)
                .filter(|(_, counts)| **counts)
                .map(|(count, _)| *count)
        };
        let least = of_domains().min().unwrap_or(0);
        let at_least = of_domains().filter(|count| *count == least).count();
        (self.least, self.at_least) = (least, at_least);
    }
}
