//! The referee: what must hold of every transaction and every effect, worked out from the world itself and not from
//! what any of its parts believes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use reconciler::{
    commit::Commit,
    name::{CommitId, NodeName, ObjectKey, PodUid, WorkloadKey, WorkloadKind},
    object::{Control, DaemonSetUpdate, DeploymentStrategy, Workload},
    plan::{Lane, LaneKey, Role, Step, Why},
    state::{ClusterState, NodeFacts, PodRecord, StopReason},
};

use crate::{
    clock::Time,
    store::{Contents, Revision},
    world::World,
};

/// For so long a leader may not know yet what the store knows: a watch that is late, and a decision under way.
const BLIND: Time = 6_000;
/// Losses within this time count together.
const BRAKE: Time = 60_000;

/// What the referee remembers.
#[derive(Debug, Default)]
pub(crate) struct Referee {
    newest_epoch: Revision,
    /// Pods that ever had a stop record.
    stopped: BTreeSet<PodUid>,
    /// Pods that the store says are ready, by node.
    ready: BTreeMap<NodeName, BTreeSet<PodUid>>,
    /// Since when it has said so of those, and until when of the others.
    ready_since: BTreeMap<PodUid, Time>,
    ready_until: BTreeMap<PodUid, Time>,
    /// Since when a node has no lease, and when others had theirs again.
    absent: BTreeMap<NodeName, Time>,
    back: BTreeMap<NodeName, Time>,
    cluster_ips: BTreeMap<ObjectKey, Ipv4Addr>,
    /// Commits that were called bad.
    pub(crate) called_bad: BTreeMap<CommitId, String>,
}

impl Referee {
    /// A node's report has come to the store.
    pub(crate) fn report(&mut self, now: Time, node: &NodeName, contents: &Contents) {
        let ready: BTreeSet<PodUid> = contents
            .reports
            .get(node)
            // Who said that it comes back has left its pods running.
            .filter(|_| contents.present.contains_key(node) || contents.away.contains_key(node))
            .into_iter()
            .flat_map(|report| &report.pods)
            .filter(|(_, status)| status.ready.is_some())
            .map(|(uid, _)| uid.clone())
            .collect();
        let before = self.ready.insert(node.clone(), ready.clone()).unwrap_or_default();
        for uid in before.difference(&ready) {
            self.ready_since.remove(uid);
            self.ready_until.insert(uid.clone(), now);
        }
        for uid in ready.difference(&before) {
            self.ready_since.insert(uid.clone(), now);
        }
    }

    /// Leases came or went.
    pub(crate) fn leases(&mut self, now: Time, contents: &Contents) {
        for node in contents.facts.keys() {
            if contents.present.contains_key(node) {
                if self.absent.remove(node).is_some() {
                    self.back.insert(node.clone(), now);
                }
            } else {
                self.absent.entry(node.clone()).or_insert(now);
            }
            self.report(now, node, contents);
        }
    }

    /// Whether a leader with the oldest view it may have could take a pod for ready.
    fn could_be_ready(&self, now: Time, uid: &PodUid) -> bool {
        self.ready_since.contains_key(uid)
            || self.ready_until.get(uid).is_some_and(|until| now - until <= BLIND)
    }

    /// Whether a leader with the oldest view it may have must take a pod for ready.
    fn must_be_ready(&self, now: Time, uid: &PodUid) -> bool {
        self.ready_since.get(uid).is_some_and(|since| now - since > BLIND)
    }

    /// Whether a leader may take a node for silent.
    fn may_be_silent(&self, now: Time, node: &NodeName) -> bool {
        self.absent.contains_key(node) || self.back.get(node).is_some_and(|back| now - back <= BLIND)
    }
}

impl World {
    /// A leader's transaction is in the store. `driven` is the commit it decided by, `before` what was there.
    pub(crate) fn judge_transaction(
        &mut self,
        epoch: Revision,
        driven: Option<&CommitId>,
        before: &ClusterState,
    ) {
        let after = self.store.contents.state.clone();
        let newest = self.referee.newest_epoch;
        self.require(epoch >= newest, || format!("a leader of epoch {epoch} wrote after one of {newest}"));
        self.referee.newest_epoch = newest.max(epoch);
        let commit = driven.and_then(|id| self.pushed.iter().find(|commit| commit.id == *id)).cloned();
        self.judge_records(before, &after, commit.as_deref());
        self.judge_losses(before, &after);
        self.judge_rollout(before, &after);
        self.judge_services(&after);
        self.judge_canaries(before, &after);
        if let Some(commit) = &commit {
            for workload in commit.objects.workloads.values() {
                self.judge_bounds(workload, commit, before, &after);
            }
        }
    }

    fn judge_records(&mut self, before: &ClusterState, after: &ClusterState, driven: Option<&Commit>) {
        for (uid, record) in &after.pods {
            let old = before.pods.get(uid);
            if let Some(old) = old {
                let moved = old.place.node().is_some() && old.place != record.place;
                self.require(!moved, || {
                    format!("{uid} was moved from {:?} to {:?}", old.place, record.place)
                });
                let same =
                    old.key == record.key && old.owner == record.owner && old.template == record.template;
                self.require(same, || format!("{uid} became another pod: {old:?} and {record:?}"));
                let withdrawn = old.stop.is_some() && record.stop.is_none();
                self.require(!withdrawn, || format!("the stop record of {uid} was withdrawn"));
            }
            let Some(stop) = &record.stop else { continue };
            self.referee.stopped.insert(uid.clone());
            if old.is_none_or(|old| old.stop.is_some()) {
                continue;
            }
            // While only the canaries move, what the commit leaves out goes on as the healthy one has it.
            let kept = [before, after].into_iter().find(|state| state.rollout.wave.is_some());
            let kept = kept.and_then(|state| state.rollout.healthy.as_ref());
            let kept = kept.and_then(|id| self.pushed.iter().find(|commit| commit.id == *id));
            let has = |commit: &Commit| commit.objects.workloads.contains_key(&record.owner);
            let owned = driven.is_some_and(has) || kept.is_some_and(|commit| has(commit));
            let sound = match stop.reason {
                StopReason::OwnerRemoved => driven.is_some() && !owned,
                StopReason::NodeLost => {
                    record.place.node().is_some_and(|node| self.referee.may_be_silent(self.now, node))
                }
                _ => owned,
            };
            self.require(sound, || format!("{} {uid} is stopped without reason: {stop:?}", record.key.name));
        }
        for (uid, old) in &before.pods {
            if after.pods.contains_key(uid) {
                continue;
            }
            let node = old.place.node();
            let removed = node.is_some_and(|node| after.removed.contains_key(node));
            let sound = old.stop.is_some() || removed;
            self.require(sound, || format!("{uid} was forgotten without a stop record"));
            let left = self.hosts.iter().any(|host| {
                !removed
                    && host
                        .engine
                        .containers
                        .values()
                        .any(|one| one.identity.uid == *uid && one.state.is_alive())
            });
            self.require(!left, || format!("{uid} was forgotten while it runs"));
        }
    }

    /// While only the canaries move, nothing new comes to other nodes.
    fn judge_canaries(&mut self, before: &ClusterState, after: &ClusterState) {
        let (Some(_), Some(wave)) = (&before.rollout.wave, &after.rollout.wave) else { return };
        let find = |id: &Option<CommitId>| self.pushed.iter().find(|commit| Some(&commit.id) == id.as_ref());
        let (Some(driving), Some(healthy)) = (find(&after.rollout.driving), find(&after.rollout.healthy))
        else {
            return;
        };
        let made = after.pods.values().filter(|record| !before.pods.contains_key(&record.uid));
        // What a superseded commit brought already moves on when its node is drained.
        let drains = driving.objects.nodes.values().any(|node| node.drain);
        let moves = |record: &PodRecord| {
            let mut pods = before.pods.values();
            drains && pods.any(|old| old.owner == record.owner && old.template == record.template)
        };
        let early = made
            .filter(|record| !moves(record))
            .filter(|record| record.place.node().is_some_and(|node| !wave.nodes.contains(node)))
            .find(|record| {
                let hash = |commit: &Commit| {
                    commit.objects.workloads.get(&record.owner).map(|owner| owner.template.hash.clone())
                };
                let new = hash(driving);
                new.as_ref() == Some(&record.template) && new != hash(healthy)
            })
            .cloned();
        self.require(early.is_none(), || format!("{early:?} is made while only {:?} move", wave.nodes));
    }

    /// A node is given up only without a lease, and not with half of the others.
    fn judge_losses(&mut self, before: &ClusterState, after: &ClusterState) {
        let now = self.now;
        for (node, outage) in after.outages.iter().filter(|(_, outage)| outage.lost) {
            if before.outages.get(node).is_some_and(|before| before.lost) {
                continue;
            }
            let gone = |facts: &NodeFacts| after.removed.get(&facts.name) == Some(&facts.installation);
            let all: Vec<&NodeName> = self
                .store
                .contents
                .facts
                .values()
                .filter(|facts| !gone(facts))
                .map(|facts| &facts.name)
                .collect();
            let dead = all
                .iter()
                .filter(|name| {
                    let since = self.referee.absent.get(**name);
                    let unreachable =
                        self.hosts.iter().any(|host| host.name == ***name && host.daemon.is_none());
                    let away = self.store.contents.away.contains_key(**name);
                    let counts = since.is_some_and(|since| now - since > BLIND && now - since < BRAKE);
                    **name == node || counts && unreachable && !away
                })
                .count();
            let braked = dead * 2 >= all.len();
            let count = all.len();
            self.require(!braked, || {
                format!(
                    "{node} is given up ({outage:?}) though {dead} of {count} nodes vanished within a minute"
                )
            });
        }
    }

    fn judge_rollout(&mut self, before: &ClusterState, after: &ClusterState) {
        for (commit, reason) in &after.rollout.bad {
            let fair = self.bad.contains(commit) || self.doubtful.contains(commit);
            self.require(fair, || format!("{commit} can run and is called bad: {reason}"));
            self.referee.called_bad.entry(commit.clone()).or_insert_with(|| reason.clone());
        }
        let (old, new) = (&before.rollout.driving, &after.rollout.driving);
        if old != new
            && let Some(commit) = new
        {
            let again = before.rollout.bad.contains_key(commit);
            self.require(!again, || format!("{commit} is driven again though it is called bad"));
            let known = self.pushed.iter().any(|pushed| pushed.id == *commit);
            self.require(known, || format!("{commit} is driven and was never pushed"));
        }
        self.judge_doubtful(before, after);
        let healthy = after.rollout.healthy.clone().filter(|healthy| self.bad.contains(healthy));
        self.require(healthy.is_none(), || format!("{healthy:?} cannot run and is called healthy"));
    }

    /// A commit that cannot run on one host is healthy only where that host is named, or is not there.
    fn judge_doubtful(&mut self, before: &ClusterState, after: &ClusterState) {
        let healthy =
            after.rollout.healthy.as_ref().filter(|id| before.rollout.healthy.as_ref() != Some(*id));
        let Some(id) = healthy.filter(|id| self.doubtful.contains(*id)) else { return };
        let Some(commit) = self.pushed.iter().find(|commit| commit.id == *id) else { return };
        let culprit = NodeName::new("n1");
        let daemon = |record: &PodRecord| {
            let owner = commit.objects.workloads.get(&record.owner);
            record.owner.kind == WorkloadKind::DaemonSet
                && record.place.node() == Some(&culprit)
                && owner.is_some_and(|owner| {
                    owner.template.hash == record.template
                        && owner.template.spec.containers.iter().any(|container| container.image == "local:1")
                })
        };
        let runs = after.pods.values().any(daemon);
        let out = after.outages.contains_key(&culprit) || self.referee.may_be_silent(self.now, &culprit);
        let named = after.rollout.faulty.contains_key(&culprit);
        let id = id.clone();
        self.require(!runs || out || named, || format!("{id} is healthy, and {culprit} is not named"));
    }

    fn judge_services(&mut self, after: &ClusterState) {
        let mut taken: BTreeMap<Ipv4Addr, &ObjectKey> = BTreeMap::new();
        let mut wrong = None;
        for (service, given) in &after.services {
            let Some(address) = given.cluster_ip else { continue };
            if let Some(other) = taken.insert(address, service) {
                wrong = Some(format!("{service} and {other} both have {address}"));
            }
            let before = *self.referee.cluster_ips.entry(service.clone()).or_insert(address);
            if before != address {
                wrong = Some(format!("service {service} had {before} and has {address}"));
            }
        }
        let rollout = &after.rollout;
        let needed = |service: &ObjectKey| {
            let mut commits = [&rollout.driving, &rollout.healthy].into_iter().flatten();
            commits.any(|id| {
                let commit = self.pushed.iter().find(|commit| commit.id == *id);
                commit.is_some_and(|commit| commit.objects.services.contains_key(service))
            })
        };
        let dropped: Vec<ObjectKey> = self
            .referee
            .cluster_ips
            .keys()
            .filter(|service| !after.services.contains_key(*service))
            .cloned()
            .collect();
        for service in dropped {
            if needed(&service) {
                wrong = Some(format!("service {service} has lost its address"));
            }
            self.referee.cluster_ips.remove(&service);
        }
        self.require(wrong.is_none(), || wrong.clone().unwrap_or_default());
    }

    /// maxSurge where pods are made, maxUnavailable where pods are stopped that run well.
    fn judge_bounds(
        &mut self,
        workload: &Workload,
        commit: &Commit,
        before: &ClusterState,
        after: &ClusterState,
    ) {
        let key = &workload.key;
        let owned: Vec<&PodRecord> = after.pods.values().filter(|record| record.owner == *key).collect();
        let made = owned.iter().any(|record| !before.pods.contains_key(&record.uid));
        let now = self.now;
        let ready = |record: &PodRecord| self.referee.could_be_ready(now, &record.uid);
        // One that has started anew is ready before it is available.
        let is_available = |record: &PodRecord| {
            let report = record.place.node().and_then(|node| self.store.contents.reports.get(node));
            let status = report.and_then(|report| report.pods.get(&record.uid));
            status.is_some_and(|status| status.available(workload.control.min_ready()))
        };
        // Pods that ran well and that somebody chose to stop.
        let chosen = owned
            .iter()
            .filter(|record| before.pods.get(&record.uid).is_some_and(|old| old.stop.is_none()))
            .filter(|record| {
                record.stop.as_ref().is_some_and(|stop| {
                    matches!(
                        stop.reason,
                        StopReason::Replaced
                            | StopReason::ScaledDown
                            | StopReason::Restarted
                            | StopReason::Drained
                    )
                })
            })
            .filter(|record| self.referee.must_be_ready(now, &record.uid))
            .filter(|record| is_available(record))
            .count();
        let staying: Vec<&PodRecord> = owned.iter().copied().filter(|record| record.stop.is_none()).collect();
        let ended = |record: &PodRecord| {
            let reports = self.store.contents.reports.values();
            reports.flat_map(|report| report.pods.get(&record.uid)).any(|status| status.phase.is_final())
        };
        let active = staying.iter().filter(|record| !ended(record)).count();
        let available = staying.iter().filter(|record| ready(record)).count();
        // While only the canaries move, as many as before are wanted as well.
        let waves = [before, after].into_iter().filter(|state| state.rollout.wave.is_some());
        let healthy = waves.filter_map(|state| state.rollout.healthy.clone()).next();
        let old = self.pushed.iter().find(|commit| Some(&commit.id) == healthy.as_ref());
        let old = old.and_then(|commit| commit.objects.workloads.get(key)).and_then(replicas);
        let range = |now: u32| {
            let old = old.unwrap_or(now);
            (now.max(old) as usize, now.min(old) as usize)
        };
        let (most, least) = match &workload.control {
            Control::Pod => (1, 0),
            // One more while a node is drained.
            Control::Replicas { replicas, .. } => {
                let drains = commit.objects.nodes.values().any(|node| node.drain);
                let (most, least) = range(*replicas);
                (most + usize::from(drains), least)
            }
            Control::Deployment { replicas, strategy, .. } => {
                let (most, least) = range(*replicas);
                match strategy {
                    DeploymentStrategy::Recreate => (most, 0),
                    DeploymentStrategy::RollingUpdate { max_surge, max_unavailable } => {
                        let surge = max_surge.round_up(*replicas) as usize;
                        let down = max_unavailable.round_down(*replicas) as usize;
                        let down = if surge == 0 { down.max(1) } else { down };
                        (most + surge, least.saturating_sub(down))
                    }
                }
            }
            Control::DaemonSet { update, .. } => {
                let DaemonSetUpdate::RollingUpdate { .. } = update else { return };
                // What a node that takes none any more does, the others need not make up for.
                let fits = |record: &&&PodRecord| {
                    let object = record.place.node().and_then(|node| commit.objects.nodes.get(node));
                    object.is_none_or(|object| object.taints.is_empty())
                };
                let owned: Vec<&PodRecord> = owned.iter().filter(fits).copied().collect();
                return self.judge_daemons(workload, &owned, chosen, [before, after]);
            }
        };
        self.require(!made || active <= most, || {
            format!("{key}: a pod was made, and there are {active} where {most} may be")
        });
        self.require(chosen == 0 || available >= least, || {
            format!("{key}: {chosen} good pods were stopped, {available} are left where {least} must be")
        });
    }

    fn judge_daemons(
        &mut self,
        workload: &Workload,
        owned: &[&PodRecord],
        chosen: usize,
        states: [&ClusterState; 2],
    ) {
        let key = &workload.key;
        let mut nodes: BTreeMap<&NodeName, usize> = BTreeMap::new();
        for record in owned.iter().filter(|record| record.stop.is_none()) {
            if let Some(node) = record.place.node() {
                *nodes.entry(node).or_default() += 1;
            }
        }
        let twice = nodes.iter().find(|(_, count)| **count > 1).map(|(node, _)| (*node).clone());
        self.require(twice.is_none(), || format!("{key}: two pods for {twice:?}"));
        let now = self.now;
        // What nobody waits for: nodes that were given up, and those that are at fault themselves.
        let aside = |node: &NodeName| {
            states.iter().any(|state| {
                state.outages.get(node).is_some_and(|outage| outage.lost)
                    || state.rollout.faulty.contains_key(node)
                    || state.rollout.wave.as_ref().is_some_and(|wave| wave.broken.contains(node))
            })
        };
        let reports = &self.store.contents.reports;
        let down = |record: &&&PodRecord| {
            let Some(node) = record.place.node().filter(|node| !aside(node)) else { return false };
            let said = reports.get(node).and_then(|report| report.pods.get(&record.uid));
            let last_up =
                self.referee.may_be_silent(now, node) && said.is_some_and(|status| status.ready.is_some());
            let replaced = record.stop.as_ref().is_some_and(|stop| stop.reason == StopReason::Replaced);
            let down = !last_up && !self.referee.could_be_ready(now, &record.uid);
            replaced || record.stop.is_none() && down
        };
        let down: BTreeSet<NodeName> =
            owned.iter().filter(down).filter_map(|record| record.place.node().cloned()).collect();
        self.require(chosen == 0 || down.len() <= 1, || {
            format!("{key}: {chosen} good pods were stopped, and now it is down on {down:?}")
        });
    }

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

fn replicas(workload: &Workload) -> Option<u32> {
    match &workload.control {
        Control::Deployment { replicas, .. } | Control::Replicas { replicas, .. } => Some(*replicas),
        Control::Pod | Control::DaemonSet { .. } => None,
    }
}
