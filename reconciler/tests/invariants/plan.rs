//! The invariants of every plan of a host, and of what is observed on the host.

use std::collections::{BTreeMap, BTreeSet};

use super::Violations;
use reconciler::{
    commit,
    name::{ContainerId, LinkName, PodUid},
    node::{NodeInput, NodePlan},
    observed::{Observed, ObservedContainer},
    plan::{ContainerSpec, Drift, Lane, LaneKey, Role, Step, Why},
    pod::link::link_name,
    state::PodRecord,
};

/// Invariants that are violated on a host independently of any plan: two running containers of one
/// name in one pod, or two running sandboxes.
pub(crate) fn check_observed(observed: &Observed) -> Vec<String> {
    let mut findings = Violations::default();
    let mut alive = BTreeMap::new();
    for (id, one) in observed
        .containers
        .iter()
        .filter(|(_, one)| one.state.is_alive())
    {
        let name = (&one.identity.uid, one.role, &one.name);
        let other = alive.insert(name, id);
        findings.require(other.is_none(), || {
            format!("{other:?} and {id} are both alive as {name:?}")
        });
    }
    findings.0
}

/// The invariants that a plan violates; empty for a valid plan.
pub(crate) fn check_plan(input: &NodeInput<'_>, plan: &NodePlan) -> Vec<String> {
    let mut check = Plan {
        input,
        findings: Violations::default(),
    };
    check.keys(plan);
    check.addresses(plan);
    check.memory(plan);
    check.probes(plan);
    check.endpoints(plan);
    for lane in &plan.lanes {
        check.lane(lane, plan);
    }
    check.findings.0
}

struct Plan<'a> {
    input: &'a NodeInput<'a>,
    findings: Violations,
}

impl<'a> Plan<'a> {
    fn record(&self, uid: &PodUid) -> Option<&'a PodRecord> {
        self.input.state.pods.get(uid)
    }

    fn container(&self, id: &ContainerId) -> Option<&'a ObservedContainer> {
        self.input.observed.containers.get(id)
    }

    fn keys(&mut self, plan: &NodePlan) {
        let mut keys = BTreeSet::new();
        for lane in &plan.lanes {
            let key = &lane.key;
            self.findings
                .require(keys.insert(key), || format!("two lanes for {key:?}"));
            let free = !self.input.observed.lanes.contains(key);
            self.findings
                .require(free, || format!("a lane for {key:?}, which is under way"));
            self.findings.require(!lane.steps.is_empty(), || {
                format!("a lane without steps: {key:?}")
            });
        }
    }

    fn addresses(&mut self, plan: &NodePlan) {
        let mut taken = BTreeMap::new();
        for (uid, memory) in &plan.memory.pods {
            let Some(address) = memory.address else {
                continue;
            };
            let other = taken.insert(address, uid);
            self.findings.require(other.is_none(), || {
                format!("{other:?} and {uid} both have {address}")
            });
            let subnet = self.input.network.pod_subnet;
            let fits = subnet.contains(&address)
                && address != subnet.network()
                && address != subnet.broadcast();
            self.findings.require(fits, || {
                format!("{uid} has {address}, not a host of {subnet}")
            });
            let before = self
                .input
                .memory
                .pods
                .get(uid)
                .and_then(|memory| memory.address);
            let kept = before.is_none_or(|before| before == address);
            self.findings.require(kept, || {
                format!("{uid} had {before:?} and now has {address}")
            });
        }
    }

    /// Checks that the memory keeps every pod of which something is left.
    fn memory(&mut self, plan: &NodePlan) {
        for container in self.input.observed.containers.values() {
            let uid = &container.identity.uid;
            let kept =
                !self.input.memory.pods.contains_key(uid) || plan.memory.pods.contains_key(uid);
            self.findings
                .require(kept, || format!("{uid} has containers and was forgotten"));
        }
        for uid in &plan.report.gone {
            let left = self
                .input
                .observed
                .containers
                .values()
                .any(|one| one.identity.uid == *uid);
            self.findings
                .require(!left, || format!("{uid} is called gone and has containers"));
            let stopped = self.record(uid).is_some_and(|record| record.stop.is_some());
            let adopted = self.input.state.rollout.adopted;
            let of_copy =
                |record: &PodRecord| adopted.is_some_and(|one| record.serial <= one.serial);
            let absent = self.record(uid).is_some_and(of_copy)
                && !self.input.memory.pods.contains_key(uid)
                && !plan
                    .lanes
                    .iter()
                    .any(|lane| lane.key == LaneKey::Pod(uid.clone()));
            self.findings.require(stopped || absent, || {
                format!("{uid} is called gone without a stop record")
            });
        }
    }

    fn probes(&mut self, plan: &NodePlan) {
        let mut seen = BTreeSet::new();
        for task in &plan.probes {
            let id = &task.container;
            self.findings.require(seen.insert((id, task.kind)), || {
                format!("two probes {:?} of {id}", task.kind)
            });
            let alive = self.container(id).is_some_and(|one| one.state.is_alive());
            self.findings
                .require(alive, || format!("{id} is probed and does not run"));
        }
    }

    /// Checks that traffic goes only to ready pods of this host that stay, and to stopping pods
    /// only where there are no others, unless a Service publishes pods that are not ready.
    fn endpoints(&mut self, plan: &NodePlan) {
        let driving = commit::driving(self.input.commits, &self.input.state.rollout);
        let lenient = driving.is_some_and(|commit| {
            commit
                .objects
                .services
                .values()
                .any(|service| service.publish_not_ready)
        });
        if lenient {
            return;
        }
        let good: BTreeSet<_> = plan
            .report
            .pods
            .iter()
            .filter(|(uid, _)| {
                let refused = plan.report.refused.contains_key(*uid);
                self.record(uid)
                    .is_some_and(|record| record.stop.is_none() || refused)
            })
            .filter(|(_, status)| status.ready.is_some())
            .filter_map(|(_, status)| status.address)
            .collect();
        let last = plan.report.pods.values().filter(|status| status.serving);
        let last: BTreeSet<_> = last.filter_map(|status| status.address).collect();
        let Some(services) = &plan.services else {
            return;
        };
        let backends = services
            .cluster_ips
            .values()
            .chain(services.node_ports.values());
        for backends in backends {
            let any_good = backends
                .endpoints
                .iter()
                .any(|endpoint| good.contains(endpoint.ip()));
            for endpoint in &backends.endpoints {
                let address = endpoint.ip();
                let sound = good.contains(address) || !any_good && last.contains(address);
                self.findings.require(sound, || {
                    format!("traffic goes to {endpoint}, where no ready pod is")
                });
            }
        }
    }

    fn lane(&mut self, lane: &Lane, plan: &NodePlan) {
        let uid = match &lane.key {
            LaneKey::Pod(uid) => uid,
            LaneKey::Image(..) => {
                let only = lane
                    .steps
                    .iter()
                    .all(|step| matches!(step, Step::PullImage { .. }));
                return self.findings.require(only, || {
                    format!("the image lane {:?} does more than pull", lane.key)
                });
            }
            LaneKey::Link(name) => return self.link_lane(name, lane),
        };
        let record = self.record(uid);
        let refused = plan.report.refused.contains_key(uid);
        let stopped = record.is_some_and(|record| record.stop.is_some()) && !refused;
        let unwanted = refused && record.is_some_and(|record| record.stop.is_none());
        self.findings.require(!unwanted, || {
            format!("{uid} is refused and has a lane: {lane:?}")
        });
        let here = record.is_some_and(|record| record.place.node() == Some(self.input.node));
        let mut removed: BTreeSet<&ContainerId> = BTreeSet::new();
        let mut ended: BTreeSet<&ContainerId> = BTreeSet::new();
        for step in &lane.steps {
            match step {
                Step::Stop(specs) => {
                    let why = stopped || may_stop(lane, plan);
                    self.findings.require(why, || {
                        format!("{uid} is stopped without a stop record: {lane:?}")
                    });
                    for spec in specs {
                        self.own(uid, &spec.container);
                        ended.insert(&spec.container);
                    }
                }
                Step::Remove(ids) => {
                    for id in ids {
                        self.own(uid, id);
                        let alive = self.container(id).is_some_and(|one| {
                            one.state.is_alive() && one.role != Role::Sandbox && !ended.contains(id)
                        });
                        self.findings
                            .require(!alive, || format!("{id} is removed while it runs"));
                        let sandbox = self
                            .container(id)
                            .is_some_and(|one| one.state.is_alive() && one.role == Role::Sandbox);
                        let sound = stopped || !sandbox || matches!(lane.why, Why::Clean { .. });
                        self.findings
                            .require(sound, || format!("the live sandbox of {uid} is removed"));
                        removed.insert(id);
                    }
                }
                Step::StartSandbox(_)
                | Step::Connect { .. }
                | Step::PrepareFiles(_)
                | Step::PostStart { .. } => {
                    self.findings.require(here && !stopped, || {
                        format!("{uid} is started and must not run here")
                    });
                }
                Step::StartContainer(spec) => {
                    self.findings.require(here && !stopped, || {
                        format!("{uid} is started and must not run here")
                    });
                    if let Some(record) = record {
                        self.start(record, spec, &removed);
                    }
                }
                Step::Disconnect(_) | Step::RemoveFiles(_) => {
                    let free = stopped || (record.is_none() && !self.has_containers(uid));
                    self.findings.require(free, || {
                        format!("{uid} loses its link or files and may run")
                    });
                }
                Step::PullImage { .. } | Step::Unpause(_) | Step::Drain(_) => {}
            }
        }
    }

    fn link_lane(&mut self, name: &LinkName, lane: &Lane) {
        let only = lane.steps == [Step::Disconnect(name.clone())];
        self.findings.require(only, || {
            format!("the lane of the link {name} does more than remove it: {lane:?}")
        });

        let records = self.input.state.pods.keys();
        let containers = self.input.observed.containers.values();
        let mut pods = records.chain(containers.map(|one| &one.identity.uid));
        let owner = pods.find(|uid| link_name(uid) == *name);
        self.findings.require(owner.is_none(), || {
            format!("the link {name} is removed, and may be used by {owner:?}")
        });
    }

    fn has_containers(&self, uid: &PodUid) -> bool {
        self.input
            .observed
            .containers
            .values()
            .any(|one| one.identity.uid == *uid)
    }

    fn own(&mut self, uid: &PodUid, id: &ContainerId) {
        let own = self
            .container(id)
            .is_some_and(|one| one.identity.uid == *uid);
        self.findings.require(own, || {
            format!("the lane of {uid} touches {id}, which is not its own")
        });
    }

    fn start(
        &mut self,
        record: &PodRecord,
        spec: &ContainerSpec,
        removed: &BTreeSet<&ContainerId>,
    ) {
        let name = &spec.name;
        let pinned = self
            .input
            .pins
            .get(&record.commit)
            .and_then(|pins| pins.get(&spec.image_name));
        let sound = pinned.is_some_and(|pin| pin.id == spec.image);
        self.findings.require(sound, || {
            format!("{name} of {} has an image that is not pinned", record.key)
        });
        let here = self.input.observed.images.contains(&spec.image);
        self.findings.require(here, || {
            format!("{name} of {} has an image that is not here", record.key)
        });
        for (id, one) in &self.input.observed.containers {
            if one.identity.uid != record.uid || one.name != *name || removed.contains(id) {
                continue;
            }
            self.findings.require(!one.state.is_alive(), || {
                format!("{name} of {} runs already", record.key)
            });
            let free = one.attempt != spec.attempt
                || one.state == reconciler::observed::ContainerState::Created;
            self.findings.require(free, || {
                format!("{name} of {} had that number before", record.key)
            });
        }
    }
}

/// Whether containers of a pod that must run may be stopped: after a failed probe, for a sandbox
/// that is gone, or at the pod's own end.
fn may_stop(lane: &Lane, plan: &NodePlan) -> bool {
    match &lane.why {
        Why::Unhealthy { .. }
        | Why::Repair {
            drift: Drift::SandboxGone,
            ..
        } => true,
        Why::Clean { .. } => {
            let LaneKey::Pod(uid) = &lane.key else {
                return false;
            };
            plan.memory
                .pods
                .get(uid)
                .is_some_and(|memory| memory.ended.is_some())
        }
        _ => false,
    }
}
