//! Shapes: what pods of one template have in common, and which terms of which shapes select them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Candidate,
    candidate::count,
    load::Ask,
    resources::{host_ports, requests},
    topology::Topologies,
};
use crate::{
    name::{TemplateHash, WorkloadKey, WorkloadKind},
    object::{Meta, Operator, PodTerm, Selector, Workload},
};

/// The label that distinguishes the pods of a Deployment's templates.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// The label by which a namespace selector can name a namespace; Kubernetes sets it on each
/// namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// The pods of one template of one owner.
#[derive(Debug)]
pub(super) struct Shape<'a> {
    pub(super) owner: u32,
    /// The workload of the template; `None` where the template is not known. Such pods are counted
    /// all the same.
    pub(super) workload: Option<&'a Workload>,
    pub(super) ask: Ask,
    pub(super) relations: TermNumbers,
    /// `podAntiAffinity` terms of any shape that keep this shape's pods away.
    pub(super) repelled_by: Vec<u32>,
    /// The node of each pod that stays.
    pub(super) placed: Vec<u32>,
    /// The node of each pod that is stopping.
    pub(super) stopping: Vec<u32>,
}

/// Terms of a shape about other pods, by their numbers.
#[derive(Debug, Default)]
pub(super) struct TermNumbers {
    pub(super) affinity: Vec<u32>,
    pub(super) anti: Vec<u32>,
    pub(super) wishes: Vec<Wish>,
    /// In the order of `topologySpreadConstraints`.
    pub(super) spread: Vec<u32>,
}

/// A preferred term with its weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) weight: u32,
    pub(super) anti: bool,
    pub(super) term: u32,
}

impl TermNumbers {
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            affinity,
            anti,
            wishes,
            spread,
        } = self;
        affinity.is_empty() && anti.is_empty() && wishes.is_empty() && spread.is_empty()
    }
}

/// A selection of pods, and the topology in which they are counted.
#[derive(Debug)]
pub(super) struct Term {
    /// The shape that has the term.
    pub(super) carrier: u32,
    pub(super) topology: u32,
    /// Whether the term keeps the selected pods away from its carrier's pods.
    repels: bool,
    selection: PodSelection,
    /// The shapes whose pods the term selects.
    pub(super) matching: Vec<u32>,
}

/// A selection of pods by namespace and labels.
#[derive(Debug)]
pub(super) struct PodSelection {
    namespaces: BTreeSet<String>,
    namespace_selector: Option<Selector>,
    /// Selector over labels; `None` selects no pod.
    labels: Option<Selector>,
}

impl PodSelection {
    /// The pods of an affinity term of this workload.
    pub(super) fn of_term(
        term: &PodTerm,
        workload: &Workload,
        own: &BTreeMap<String, String>,
    ) -> Self {
        let mut namespaces = term.namespaces.clone();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(workload.key.object.namespace.clone());
        }
        let namespace_selector = term.namespace_selector.clone();
        Self {
            namespaces,
            namespace_selector,
            labels: term.pods.resolve(own),
        }
    }

    /// Pods of the workload's own namespace that match the labels.
    pub(super) fn own_namespace(labels: Option<Selector>, workload: &Workload) -> Self {
        let namespaces = BTreeSet::from([workload.key.object.namespace.clone()]);
        Self {
            namespaces,
            namespace_selector: None,
            labels,
        }
    }

    /// Whether a pod of this namespace with these labels is selected.
    pub(super) fn selects(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        declared: &BTreeMap<String, Meta>,
    ) -> bool {
        self.labels
            .as_ref()
            .is_some_and(|selector| selector.matches(labels))
            && (self.namespaces.contains(namespace)
                || self.namespace_selector.as_ref().is_some_and(|selector| {
                    let mut labels = declared
                        .get(namespace)
                        .map(|meta| meta.labels.clone())
                        .unwrap_or_default();
                    labels.insert(NAMESPACE_NAME.to_owned(), namespace.to_owned());
                    selector.matches(&labels)
                }))
    }

    /// Labels of which every selected pod has at least one; `None` if the selector implies no such
    /// labels.
    fn needs_one_of(&self) -> Option<Vec<(&str, &str)>> {
        let selector = self.labels.as_ref()?;
        if let Some((key, value)) = selector.labels.iter().next() {
            return Some(vec![(key, value)]);
        }
        selector
            .expressions
            .iter()
            .find_map(|requirement| match &requirement.operator {
                Operator::In(values) => Some(
                    values
                        .iter()
                        .map(|value| (requirement.key.as_str(), value.as_str()))
                        .collect(),
                ),
                Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
            })
    }
}

/// The labels of a workload's pods.
pub(super) fn pod_labels(workload: &Workload) -> BTreeMap<String, String> {
    let mut labels = workload.template.meta.labels.clone();
    if workload.key.kind == WorkloadKind::Deployment {
        labels.insert(
            TEMPLATE_HASH.to_owned(),
            workload.template.hash.short().to_owned(),
        );
    }
    labels
}

type ShapesByLabel = BTreeMap<String, BTreeMap<String, Vec<u32>>>;

/// All shapes and terms. Whether a term selects a shape is computed once for each pair that shares
/// a label.
#[derive(Debug)]
pub(super) struct Shapes<'a> {
    pub(super) all: Vec<Shape<'a>>,
    pub(super) terms: Vec<Term>,
    /// The shapes of each owner.
    pub(super) owners: Vec<Vec<u32>>,
    owner_numbers: BTreeMap<&'a WorkloadKey, u32>,
    numbers: BTreeMap<(u32, &'a TemplateHash), u32>,
    declared: &'a BTreeMap<String, Meta>,
    /// Labels of every shape; computed from the first term on, since only terms need them.
    labels: Option<Vec<BTreeMap<String, String>>>,
    shapes_by_label: ShapesByLabel,
    terms_by_label: ShapesByLabel,
    /// Terms without an indexable label: these are checked against every shape.
    other_terms: Vec<u32>,
}

impl<'a> Shapes<'a> {
    pub(super) fn new(declared: &'a BTreeMap<String, Meta>) -> Self {
        Self {
            all: Vec::new(),
            terms: Vec::new(),
            owners: Vec::new(),
            owner_numbers: BTreeMap::new(),
            numbers: BTreeMap::new(),
            declared,
            labels: None,
            shapes_by_label: ShapesByLabel::new(),
            terms_by_label: ShapesByLabel::new(),
            other_terms: Vec::new(),
        }
    }

    /// The number of the shape of this owner and template; a new shape is added.
    pub(super) fn number(
        &mut self,
        owner: &'a WorkloadKey,
        template: &'a TemplateHash,
        workload: impl FnOnce() -> Option<&'a Workload>,
        topologies: &mut Topologies,
        nodes: &[Candidate],
    ) -> u32 {
        let owner = *self.owner_numbers.entry(owner).or_insert_with(|| {
            self.owners.push(Vec::new());
            count(self.owners.len() - 1)
        });
        let known = self.numbers.get(&(owner, template)).copied();
        if let Some(number) = known
            && self.all[number as usize].workload.is_some()
        {
            return number;
        }
        let workload = workload();
        if let (Some(number), None) = (known, workload) {
            return number;
        }
        let number = self.add(owner, workload, topologies, nodes);
        self.numbers.insert((owner, template), number);
        number
    }

    fn add(
        &mut self,
        owner: u32,
        workload: Option<&'a Workload>,
        topologies: &mut Topologies,
        nodes: &[Candidate],
    ) -> u32 {
        let number = count(self.all.len());
        let spec = workload.map(|workload| &workload.template.spec);
        self.all.push(Shape {
            owner,
            workload,
            ask: spec
                .map(|spec| Ask {
                    requests: requests(spec),
                    ports: host_ports(spec),
                })
                .unwrap_or_default(),
            relations: TermNumbers::default(),
            repelled_by: Vec::new(),
            placed: Vec::new(),
            stopping: Vec::new(),
        });
        self.owners[owner as usize].push(number);
        let relates = spec.is_some_and(|spec| {
            let (pods, anti) = (&spec.affinity.pods, &spec.affinity.anti);
            let terms = pods.required.len() + pods.preferred.len() + anti.required.len();
            terms + anti.preferred.len() + spec.spread.len() > 0
        });
        if relates && self.labels.is_none() {
            self.labels = Some(Vec::new());
            for before in 0..number {
                self.index(before);
            }
        }
        if self.labels.is_some() {
            self.index(number);
        }
        if relates && let Some(workload) = workload {
            self.relate(number, workload, topologies, nodes);
        }
        number
    }

    /// Records the terms that select a shape.
    fn index(&mut self, number: u32) {
        let workload = self.all[number as usize].workload;
        let own = workload.map(pod_labels).unwrap_or_default();
        if let Some(workload) = workload {
            let mut terms = self.other_terms.clone();
            for (key, value) in &own {
                terms.extend(
                    self.terms_by_label
                        .get(key)
                        .and_then(|values| values.get(value))
                        .into_iter()
                        .flatten(),
                );
                let shapes = self.shapes_by_label.entry(key.clone()).or_default();
                shapes.entry(value.clone()).or_default().push(number);
            }
            terms.sort_unstable();
            terms.dedup();
            for term in terms {
                let selection = &self.terms[term as usize].selection;
                if selection.selects(&workload.key.object.namespace, &own, self.declared) {
                    self.join(term, number);
                }
            }
        }
        if let Some(labels) = &mut self.labels {
            labels.push(own);
        }
    }

    fn join(&mut self, term: u32, shape: u32) {
        let entry = &mut self.terms[term as usize];
        entry.matching.push(shape);
        if entry.repels {
            self.all[shape as usize].repelled_by.push(term);
        }
    }

    /// Adds the terms of a shape itself.
    fn relate(
        &mut self,
        number: u32,
        workload: &Workload,
        topologies: &mut Topologies,
        nodes: &[Candidate],
    ) {
        let own = pod_labels(workload);
        let spec = &workload.template.spec;
        let mut add = |key: &str, selection: PodSelection, repels: bool| {
            let topology = topologies.number(nodes, key);
            self.add_term(Term {
                carrier: number,
                topology,
                repels,
                selection,
                matching: Vec::new(),
            })
        };
        let mut add_term = |term: &PodTerm, repels: bool| {
            add(
                &term.topology_key,
                PodSelection::of_term(term, workload, &own),
                repels,
            )
        };
        let affinity = spec
            .affinity
            .pods
            .required
            .iter()
            .map(|term| add_term(term, false))
            .collect();
        let anti = spec
            .affinity
            .anti
            .required
            .iter()
            .map(|term| add_term(term, true))
            .collect();
        let mut wishes = Vec::new();
        for (preferred, anti) in [
            (&spec.affinity.pods.preferred, false),
            (&spec.affinity.anti.preferred, true),
        ] {
            for (weight, term) in preferred {
                wishes.push(Wish {
                    weight: *weight,
                    anti,
                    term: add_term(term, false),
                });
            }
        }
        let spread = spec
            .spread
            .iter()
            .map(|one| {
                let selection = PodSelection::own_namespace(one.pods.resolve(&own), workload);
                add(&one.topology_key, selection, false)
            })
            .collect();
        self.all[number as usize].relations = TermNumbers {
            affinity,
            anti,
            wishes,
            spread,
        };
    }

    fn add_term(&mut self, term: Term) -> u32 {
        let number = count(self.terms.len());
        let none = Vec::new();
        let all = self.labels.as_ref().unwrap_or(&none);
        let mut shapes: Vec<u32> = match term.selection.needs_one_of() {
            Some(needed) => {
                let mut shapes = Vec::new();
                for (key, value) in needed {
                    let found = self
                        .shapes_by_label
                        .get(key)
                        .and_then(|values| values.get(value));
                    shapes.extend(found.into_iter().flatten().copied());
                    let terms = self.terms_by_label.entry(key.to_owned()).or_default();
                    terms.entry(value.to_owned()).or_default().push(number);
                }
                shapes
            }
            None => {
                self.other_terms.push(number);
                (0..count(all.len())).collect()
            }
        };
        shapes.retain(|shape| {
            self.all[*shape as usize].workload.is_some_and(|workload| {
                let labels = &all[*shape as usize];
                term.selection
                    .selects(&workload.key.object.namespace, labels, self.declared)
            })
        });
        shapes.sort_unstable();
        shapes.dedup();
        self.terms.push(term);
        for shape in shapes {
            self.join(number, shape);
        }
        number
    }

    /// Whether a term selects the pods of a shape.
    pub(super) fn selects(&self, term: u32, shape: u32) -> bool {
        self.terms[term as usize]
            .matching
            .binary_search(&shape)
            .is_ok()
    }
}
