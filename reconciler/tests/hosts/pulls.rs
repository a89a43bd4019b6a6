//! Hosts that pull images by their own plans.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use reconciler::{
    commit::{Commits, locate},
    fault::{Fault, FaultKind},
    name::{CommitId, ImageId, ImageReference, NodeName},
    network::{HostNetwork, VxlanSettings},
    node::{NodeInput, Pins, node},
    observed::{LaneFailure, Observed},
    plan::{ImagePin, LaneKey, Step},
    pod::{files::DnsFacts, memory::NodeMemory},
    state::{NodeFacts, PodRecord, Preparation},
};

use crate::world::World;

/// The images of the hosts. Each host pulls by its own plan.
#[derive(Default)]
pub(crate) struct Images {
    pub(crate) pins: BTreeMap<NodeName, Pins>,
    /// Hosts whose pulls never end.
    pub(crate) stuck: BTreeSet<NodeName>,
    /// Hosts whose pulls fail, and why.
    pub(crate) failing: BTreeMap<NodeName, FaultKind>,
    under_way: BTreeMap<NodeName, BTreeSet<LaneKey>>,
    /// Each pull: the host, the image, and the phase of the rollout.
    pub(crate) pulled: Vec<(NodeName, ImageReference, String)>,
    /// The image that all tags point to at present.
    pub(crate) generation: u32,
}

impl Images {
    /// Whether a host has the images of a pod.
    pub(crate) fn has(&self, node: &NodeName, record: &PodRecord, commits: &Commits) -> bool {
        let Some((_, workload)) = locate(commits, record) else {
            return false;
        };
        let pins = self
            .pins
            .get(node)
            .and_then(|pins| pins.get(&record.commit));
        let mut containers = workload.template.spec.containers.iter();
        containers.all(|container| pins.is_some_and(|pins| pins.contains_key(&container.image)))
    }

    /// One cycle of a host: it plans its pulls, and they succeed at once.
    pub(crate) fn pull(
        &mut self,
        world: &World,
        host: &NodeName,
    ) -> (BTreeMap<CommitId, Preparation>, Option<u64>) {
        let own_facts = &world.nodes[host].facts;
        let network = HostNetwork {
            pod_range: "10.42.0.0/16".parse().unwrap(),
            pod_subnet: own_facts.pod_subnet,
            service_range: "10.96.0.0/16".parse().unwrap(),
            dns: "10.96.0.10".parse().unwrap(),
            node_address: own_facts.address,
            mtu: 1500,
            vxlan: VxlanSettings::default(),
        };
        let others = world
            .nodes
            .values()
            .map(|known| &known.facts)
            .filter(|facts| facts.name != own_facts.name);
        let peers: BTreeMap<NodeName, NodeFacts> = others
            .map(|facts| (facts.name.clone(), facts.clone()))
            .collect();
        let under_way = self.under_way.entry(host.clone()).or_default();
        if !self.stuck.contains(host) {
            under_way.clear();
        }
        let known = self
            .pins
            .get(host)
            .into_iter()
            .flat_map(BTreeMap::values)
            .flat_map(BTreeMap::values);
        let mut observed = Observed {
            lanes: under_way.clone(),
            images: known.map(|pin| pin.id.clone()).collect(),
            ..Observed::default()
        };
        if let (Some(kind), Some(target)) = (self.failing.get(host), &world.state.rollout.target) {
            let images = world.commits[target].objects.workloads.values();
            for container in images.flat_map(|workload| &workload.template.spec.containers) {
                let key = LaneKey::Image(target.clone(), container.image.clone());
                let fault = Fault::new(*kind, "the pull failed");
                let failure = LaneFailure {
                    fault,
                    container: None,
                    since: world.now,
                    at: world.now,
                    count: 1,
                    removes: false,
                };
                observed.failures.insert(key, failure);
            }
        }
        let pins = self.pins.entry(host.clone()).or_default();
        let plan = node(&NodeInput {
            now: world.now,
            node: host,
            facts: own_facts,
            settings: &world.settings,
            network: &network,
            dns: &DnsFacts {
                zone: "cluster.local".to_owned(),
                ..DnsFacts::default()
            },
            drain: Duration::from_secs(2),
            state: &world.state,
            commits: &world.commits,
            kept: &world.kept,
            barred: &world.barred,
            observed: &observed,
            memory: &NodeMemory::default(),
            pins,
            peers: &peers,
            reports: &world.reports,
        });
        for (commit, image, pin) in plan.inherited {
            pins.entry(commit).or_default().insert(image, pin);
        }
        for lane in plan
            .lanes
            .into_iter()
            .filter(|lane| matches!(lane.key, LaneKey::Image(..)))
        {
            let Some(Step::PullImage { commit, image, .. }) = lane.steps.into_iter().next() else {
                continue;
            };
            if self.stuck.contains(host) {
                under_way.insert(lane.key);
                continue;
            }
            let pin = ImagePin {
                id: ImageId::new(self.generation.to_string()),
                digest: None,
                warning: None,
            };
            pins.entry(commit).or_default().insert(image.clone(), pin);
            self.pulled.push((
                host.clone(),
                image,
                world.state.rollout.phase.as_str().to_owned(),
            ));
        }
        (plan.report.prepared, plan.report.share)
    }
}
