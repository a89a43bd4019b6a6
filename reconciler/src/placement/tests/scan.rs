//! The plain algorithm: it checks every node for every pod, and every pod for every term.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    object::{Meta, PodSelector, PodTerm, SpreadConstraint, Workload},
    placement::{
        Candidate, Choice, Chosen, ResourceAmounts,
        candidate::{
            avoided, taints_tolerated, unfit_by_itself, unmet_by_labels, wanted_by_labels,
        },
        host_ports, requests,
        shape::{PodSelection, pod_labels},
    },
    state::{Refusal, Unfit},
};

/// A pod that is placed.
#[derive(Clone, Copy)]
pub(super) struct PlacedPod<'a> {
    pub(super) node: usize,
    pub(super) workload: &'a Workload,
    pub(super) stopping: bool,
}

/// Avoided taints, unmet weight, excess, pods of the template and of the owner, usage, pods, index
/// of the node: the least score is the best.
type Score = (u32, u32, u32, (u32, u32), u32, u32, usize);

pub(super) struct Scan<'a> {
    pub(super) nodes: &'a [Candidate],
    pub(super) max_pods: usize,
    pub(super) namespaces: &'a BTreeMap<String, Meta>,
    pub(super) pods: Vec<PlacedPod<'a>>,
}

impl<'a> Scan<'a> {
    pub(super) fn place(&mut self, workload: &'a Workload) -> Result<Chosen, Refusal> {
        let mut reasons: BTreeMap<Unfit, usize> = BTreeMap::new();
        let mut best = None;
        let mut allowed = 0;
        for (number, node) in self.nodes.iter().enumerate() {
            allowed += usize::from(unfit_by_itself(&workload.template.spec, node).is_none());
            match self.rank(workload, number) {
                Ok(rank) if best.is_none_or(|best| rank < best) => best = Some(rank),
                Ok(_) => {}
                Err(unfit) => *reasons.entry(unfit).or_default() += 1,
            }
        }
        let Some((avoided, unmet, excess, (_, owned), _, _, node)) = best else {
            return Err(Refusal::Counted {
                nodes: self.nodes.len(),
                reasons: reasons.into_iter().collect(),
            });
        };
        self.pods.push(PlacedPod {
            node,
            workload,
            stopping: false,
        });
        let affinity = &workload.template.spec.affinity;
        let preferred = affinity
            .node
            .preferred
            .iter()
            .map(|(weight, _)| weight)
            .sum::<u32>()
            + affinity
                .pods
                .preferred
                .iter()
                .map(|(weight, _)| weight)
                .sum::<u32>()
            + affinity
                .anti
                .preferred
                .iter()
                .map(|(weight, _)| weight)
                .sum::<u32>();
        let why = Choice {
            nodes: self.nodes.len(),
            allowed,
            avoided,
            unmet,
            preferred,
            excess,
            owned,
        };
        Ok(Chosen {
            node: self.nodes[node].name.clone(),
            why,
        })
    }

    fn rank(&self, workload: &Workload, number: usize) -> Result<Score, Unfit> {
        let spec = &workload.template.spec;
        let node = &self.nodes[number];
        if let Some(unfit) = unfit_by_itself(spec, node) {
            return Err(unfit);
        }
        let pods_here: Vec<&PlacedPod<'_>> =
            self.pods.iter().filter(|pod| pod.node == number).collect();
        let used_ports: BTreeSet<_> = pods_here
            .iter()
            .flat_map(|pod| host_ports(&pod.workload.template.spec))
            .collect();
        if let Some((_, port)) = host_ports(spec)
            .iter()
            .find(|port| used_ports.contains(port))
        {
            return Err(Unfit::HostPort(*port));
        }
        if pods_here.len() >= self.max_pods {
            return Err(Unfit::Full);
        }
        let requested = requests(spec);
        let used = pods_here
            .iter()
            .map(|pod| requests(&pod.workload.template.spec))
            .fold(requested, ResourceAmounts::plus);
        if let Some(most) = node.allocatable {
            if requested.cpu_millis > 0 && used.cpu_millis > most.cpu_millis {
                return Err(Unfit::Cpu);
            }
            if requested.memory_bytes > 0 && used.memory_bytes > most.memory_bytes {
                return Err(Unfit::Memory);
            }
        }
        self.relations(workload, node)?;
        let owned = || {
            pods_here
                .iter()
                .filter(|pod| pod.workload.key == workload.key && !pod.stopping)
        };
        let alike = owned()
            .filter(|pod| pod.workload.template.hash == workload.template.hash)
            .count();
        Ok((
            avoided(spec, node),
            unmet_by_labels(spec, node) + self.unmet(workload, node),
            self.excess(workload, node),
            (alike as u32, owned().count() as u32),
            used.share(node.allocatable),
            pods_here.len() as u32,
            number,
        ))
    }

    /// The first required rule about other pods that forbids the node.
    pub(super) fn relations(&self, workload: &Workload, node: &Candidate) -> Result<(), Unfit> {
        self.affinity(workload, node)?;
        self.anti_affinity(workload, node)?;
        for constraint in workload
            .template
            .spec
            .spread
            .iter()
            .filter(|constraint| constraint.required)
        {
            if !node.labels.contains_key(&constraint.topology_key) {
                return Err(Unfit::SpreadLabel);
            }
            if self.skew(workload, constraint, node) > i64::from(constraint.max_skew) {
                return Err(Unfit::Spread);
            }
        }
        Ok(())
    }

    fn near(&self, pod: &PlacedPod<'_>, node: &Candidate, key: &str) -> bool {
        let value = self.nodes[pod.node].labels.get(key);
        value.is_some() && value == node.labels.get(key)
    }

    fn selects(&self, term: &PodTerm, owner_of_rule: &Workload, pod: &Workload) -> bool {
        PodSelection::of_term(term, owner_of_rule, &pod_labels(owner_of_rule)).selects(
            &pod.key.object.namespace,
            &pod_labels(pod),
            self.namespaces,
        )
    }

    fn affinity(&self, workload: &Workload, node: &Candidate) -> Result<(), Unfit> {
        let terms = &workload.template.spec.affinity.pods.required;
        let wanted = |pod: &Workload| terms.iter().all(|term| self.selects(term, workload, pod));
        let somewhere = self.pods.iter().any(|pod| {
            let labels = &self.nodes[pod.node].labels;
            wanted(pod.workload)
                && terms
                    .iter()
                    .any(|term| labels.contains_key(&term.topology_key))
        });
        let first = !somewhere && wanted(workload);
        for term in terms {
            let labelled = node.labels.contains_key(&term.topology_key);
            let mut pods = self.pods.iter();
            let has_pod_near =
                pods.any(|pod| wanted(pod.workload) && self.near(pod, node, &term.topology_key));
            if !labelled || !(has_pod_near || first) {
                return Err(Unfit::PodAffinity);
            }
        }
        Ok(())
    }

    fn anti_affinity(&self, workload: &Workload, node: &Candidate) -> Result<(), Unfit> {
        let mut own = workload.template.spec.affinity.anti.required.iter();
        let forbidden = |term: &PodTerm| {
            let mut pods = self.pods.iter();
            pods.any(|pod| {
                self.selects(term, workload, pod.workload)
                    && self.near(pod, node, &term.topology_key)
            })
        };
        if own.any(forbidden) {
            return Err(Unfit::PodAntiAffinity);
        }
        let forbids = |pod: &PlacedPod<'_>| {
            let mut terms = pod.workload.template.spec.affinity.anti.required.iter();
            terms.any(|term| {
                self.selects(term, pod.workload, workload)
                    && self.near(pod, node, &term.topology_key)
            })
        };
        if self.pods.iter().any(forbids) {
            Err(Unfit::ExistingPodAntiAffinity)
        } else {
            Ok(())
        }
    }

    fn unmet(&self, workload: &Workload, node: &Candidate) -> u32 {
        let affinity = &workload.template.spec.affinity;
        let has_pod_near = |term: &PodTerm| {
            let mut pods = self.pods.iter();
            pods.any(|pod| {
                self.selects(term, workload, pod.workload)
                    && self.near(pod, node, &term.topology_key)
            })
        };
        let near = affinity
            .pods
            .preferred
            .iter()
            .filter(|(_, term)| !has_pod_near(term));
        let far = affinity
            .anti
            .preferred
            .iter()
            .filter(|(_, term)| has_pod_near(term));
        near.chain(far).map(|(weight, _)| weight).sum()
    }

    fn excess(&self, workload: &Workload, node: &Candidate) -> u32 {
        let preferred_constraints = workload
            .template
            .spec
            .spread
            .iter()
            .filter(|constraint| !constraint.required);
        preferred_constraints
            .map(|constraint| {
                if !node.labels.contains_key(&constraint.topology_key) {
                    return 1_000_000;
                }
                let skew = self.skew(workload, constraint, node);
                u32::try_from(skew - i64::from(constraint.max_skew)).unwrap_or(0)
            })
            .sum()
    }

    /// How far the node's domain would exceed the least domain with the pod.
    fn skew(&self, workload: &Workload, constraint: &SpreadConstraint, node: &Candidate) -> i64 {
        let spec = &workload.template.spec;
        let keys: Vec<&String> = spec
            .spread
            .iter()
            .filter(|other| other.required == constraint.required)
            .map(|other| &other.topology_key)
            .collect();
        let counts_node = |node: &Candidate| {
            keys.iter().all(|key| node.labels.contains_key(*key))
                && (!constraint.honor_affinity || wanted_by_labels(spec, node))
                && (!constraint.honor_taints || taints_tolerated(spec, node))
        };
        let mut counts: BTreeMap<&String, i64> = BTreeMap::new();
        for (number, other) in self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, other)| counts_node(other))
        {
            let pods = self.pods.iter().filter(|pod| {
                pod.node == number
                    && !pod.stopping
                    && self.spreads(&constraint.pods, workload, pod.workload)
            });
            *counts
                .entry(&other.labels[&constraint.topology_key])
                .or_default() += pods.count() as i64;
        }
        // With fewer domains than `minDomains` Kubernetes takes the least count for zero.
        let least = if counts.len() < constraint.min_domains as usize {
            0
        } else {
            counts.values().min().copied().unwrap_or(0)
        };
        let pods_here = counts
            .get(&node.labels[&constraint.topology_key])
            .copied()
            .unwrap_or(0);
        pods_here + i64::from(self.spreads(&constraint.pods, workload, workload)) - least
    }

    fn spreads(&self, pods: &PodSelector, owner_of_rule: &Workload, pod: &Workload) -> bool {
        let selection =
            PodSelection::own_namespace(pods.resolve(&pod_labels(owner_of_rule)), owner_of_rule);
        selection.selects(&pod.key.object.namespace, &pod_labels(pod), self.namespaces)
    }
}
