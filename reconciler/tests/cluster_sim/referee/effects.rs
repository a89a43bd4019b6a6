//! What must hold of every effect on a host.

use std::{collections::BTreeMap, net::Ipv4Addr};

use reconciler::{
    name::PodUid,
    plan::{Lane, LaneKey, Step, Why},
};

use crate::world::World;

impl World {
    /// A step is about to have its effect.
    pub(crate) fn before_effect(&mut self, host: usize, lane: &Lane, step: &Step) {
        let LaneKey::Pod(uid) = &lane.key else { return };
        let name = self.hosts[host].name.clone();
        let stops = match step {
            Step::Stop(specs) => specs
                .iter()
                .any(|spec| self.is_alive(host, &spec.container)),
            Step::Remove(ids) => ids.iter().any(|id| self.is_alive(host, id)),
            Step::Disconnect(link) => self.hosts[host].engine.links.contains_key(link),
            _ => false,
        };
        let repairs = matches!(
            lane.why,
            Why::Unhealthy { .. } | Why::Restart { .. } | Why::Repair { .. } | Why::Clean { .. }
        );
        let sound = !stops || repairs || self.referee.stopped.contains(uid);
        self.require(sound, || {
            format!("{name} stops {uid} without a stop record: {lane:?}")
        });
    }

    fn is_alive(&self, host: usize, container: &reconciler::name::ContainerId) -> bool {
        self.hosts[host]
            .engine
            .containers
            .get(container)
            .is_some_and(|one| one.state.is_alive())
    }

    /// A step has had its effect.
    pub(crate) fn after_effect(&mut self, host: usize, step: &Step) {
        match step {
            Step::StartContainer(spec) => {
                let one = &self.hosts[host];
                let name = one.name.clone();
                // The commit of a record is a locator: what runs may be of any verified commit with
                // that template.
                let named = one.verified.values().any(|commit| {
                    let workload = commit.resolve(&spec.identity.owner, &spec.identity.template);
                    workload.is_some_and(|workload| {
                        workload.template.spec.containers.iter().any(|container| {
                            let image = one.registry.find(container.image.as_str());
                            container.name == spec.name
                                && image.is_some_and(|image| image.id == spec.image)
                        })
                    })
                });
                self.require(named, || {
                    format!(
                        "{name} runs {} of {}, which it has not verified",
                        spec.image_name, spec.identity.commit
                    )
                });
                self.judge_identities(&spec.identity);
                self.judge_one_template(&spec.identity);
                self.judge_start(host, &spec.identity.uid);
            }
            Step::Connect { .. } => self.judge_addresses(),
            _ => {}
        }
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
