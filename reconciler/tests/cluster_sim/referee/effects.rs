//! What must hold of every effect on a host.

use std::{collections::BTreeMap, net::Ipv4Addr};

use reconciler::{
    name::{NodeName, PodUid, WorkloadKey, WorkloadKind},
    plan::{Lane, LaneKey, Role, Step, Why},
};

use crate::world::World;

impl World {
    /// A step is about to have its effect.
    pub(crate) fn before_effect(&mut self, host: usize, lane: &Lane, step: &Step) {
        let LaneKey::Pod(uid) = &lane.key else { return };
        let name = self.hosts[host].name.clone();
        let stops = match step {
            Step::Stop(specs) => specs.iter().any(|spec| self.is_alive(host, &spec.container)),
            Step::Remove(ids) => ids.iter().any(|id| self.is_alive(host, id)),
            Step::Disconnect(link) => self.hosts[host].engine.links.contains_key(link),
            _ => false,
        };
        let repairs = matches!(
            lane.why,
            Why::Unhealthy { .. } | Why::Restart { .. } | Why::Repair { .. } | Why::Clean { .. }
        );
        let sound = !stops || repairs || self.referee.stopped.contains(uid);
        self.require(sound, || format!("{name} stops {uid} without a stop record: {lane:?}"));
    }

    fn is_alive(&self, host: usize, container: &reconciler::name::ContainerId) -> bool {
        self.hosts[host].engine.containers.get(container).is_some_and(|one| one.state.is_alive())
    }

    /// A step has had its effect.
    pub(crate) fn after_effect(&mut self, host: usize, step: &Step) {
        match step {
            Step::StartContainer(spec) => {
                let one = &self.hosts[host];
                let name = one.name.clone();
                // The commit of a record is a locator: what runs may be of any verified commit with that template.
                let named = one.verified.values().any(|commit| {
                    let workload = commit.resolve(&spec.identity.owner, &spec.identity.template);
                    workload.is_some_and(|workload| {
                        workload.template.spec.containers.iter().any(|container| {
                            let image = one.registry.find(&container.image);
                            container.name == spec.name && image.is_some_and(|image| image.id == spec.image)
                        })
                    })
                });
                self.require(named, || {
                    format!(
                        "{name} runs {} of {}, which it has not verified",
                        spec.image_name, spec.identity.commit
                    )
                });
                self.judge_identities();
                self.judge_one_template(&spec.identity);
            }
            Step::Connect { .. } => self.judge_addresses(),
            _ => {}
        }
    }

    /// A bare Pod is in one place, a DaemonSet's once on a node.
    fn judge_identities(&mut self) {
        let mut bare: BTreeMap<&WorkloadKey, (&NodeName, &PodUid)> = BTreeMap::new();
        let mut daemons: BTreeMap<(&WorkloadKey, &NodeName), &PodUid> = BTreeMap::new();
        let mut wrong = None;
        for host in &self.hosts {
            for one in host.engine.containers.values() {
                if one.role == Role::Sandbox || !one.state.is_alive() {
                    continue;
                }
                let (owner, uid) = (&one.identity.owner, &one.identity.uid);
                let other = match owner.kind {
                    WorkloadKind::Pod => {
                        bare.insert(owner, (&host.name, uid)).filter(|other| *other != (&host.name, uid))
                    }
                    WorkloadKind::DaemonSet => daemons
                        .insert((owner, &host.name), uid)
                        .filter(|other| *other != uid)
                        .map(|uid| (&host.name, uid)),
                    _ => None,
                };
                if let Some((node, other)) = other {
                    wrong = Some(format!("{owner} runs twice: {other} on {node} and {uid} on {}", host.name));
                }
            }
        }
        self.require(wrong.is_none(), || wrong.clone().unwrap_or_default());
    }

    fn judge_addresses(&mut self) {
        let mut taken: BTreeMap<Ipv4Addr, PodUid> = BTreeMap::new();
        let mut wrong = None;
        for host in &self.hosts {
            for (pod, address) in host.engine.links.values() {
                if let Some(other) = taken.insert(*address, pod.clone()) {
                    wrong = Some(format!("{pod} and {other} both have {address}"));
                }
            }
        }
        self.require(wrong.is_none(), || wrong.clone().unwrap_or_default());
    }
}
