//! The rules for every effect on a host.

use std::{collections::BTreeMap, net::Ipv4Addr};

use reconciler::{
    name::PodUid,
    plan::{Lane, LaneKey, Step, Why},
};

use crate::world::World;

impl World {
    /// Checks a step before its effect: a running pod is stopped only by a stop record or a repair.
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
        let is_allowed = !stops || repairs || self.referee.stopped.contains(uid);
        self.require(is_allowed, || {
            format!("{name} stops {uid} without a stop record: {lane:?}")
        });
    }

    fn is_alive(&self, host: usize, container: &reconciler::name::ContainerId) -> bool {
        self.hosts[host]
            .engine
            .containers
            .get(container)
            .is_some_and(|container| container.state.is_alive())
    }

    /// Checks the host after the effect of a step.
    pub(crate) fn after_effect(&mut self, host: usize, step: &Step) {
        match step {
            Step::StartContainer(spec) => {
                let target = &self.hosts[host];
                let name = target.name.clone();
                // The commit of a record only locates the template: the image may be that of any
                // verified commit with this template.
                let is_verified = target.verified.values().any(|commit| {
                    let workload = commit.resolve(&spec.identity.owner, &spec.identity.template);
                    workload.is_some_and(|workload| {
                        workload.template.spec.containers.iter().any(|container| {
                            let image = target.registry.find(container.image.as_str());
                            container.name == spec.name
                                && image.is_some_and(|image| image.id == spec.image)
                        })
                    })
                });
                self.require(is_verified, || {
                    format!(
                        "{name} runs {} of {}, which it has not verified",
                        spec.image_name, spec.identity.commit
                    )
                });
                self.check_identities(&spec.identity);
                self.check_one_template(&spec.identity);
                self.check_start(host, &spec.identity.uid);
            }
            Step::Connect { .. } => self.check_addresses(),
            _ => {}
        }
    }

    fn check_addresses(&mut self) {
        let mut used: BTreeMap<Ipv4Addr, PodUid> = BTreeMap::new();
        let mut violation = None;
        for host in &self.hosts {
            for (pod, address) in host.engine.links.values() {
                if let Some(other) = used.insert(*address, pod.clone()) {
                    violation = Some(format!("{pod} and {other} both have {address}"));
                }
            }
        }
        self.require(violation.is_none(), || {
            violation.clone().unwrap_or_default()
        });
    }
}
