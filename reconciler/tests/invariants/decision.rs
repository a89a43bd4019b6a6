//! The invariants of every decision of the leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Violations;
use reconciler::{
    cluster::{ClusterChange, ClusterInput},
    commit::{self, Commit},
    endpoints::selects,
    name::{CommitId, NodeName, PodUid, WorkloadKey},
    object::{Control, Workload},
    rollout::Head,
    state::{
        Adoption, Change, ClusterState, NodeLife, Phase, PodRecord, Record, Rollout, StopReason,
    },
    status::PodStatus,
};

/// The invariants that a decision violates; empty for a valid decision.
pub(crate) fn check_decision(input: &ClusterInput<'_>, change: &ClusterChange) -> Vec<String> {
    let mut after = input.state.clone();
    after.apply(change.changes.clone());
    let statuses = input
        .reports
        .values()
        .flat_map(|report| &report.pods)
        .collect();
    let mut check = DecisionCheck {
        input,
        after: &after,
        statuses,
        findings: Violations::default(),
    };
    check.records(change);
    check.names();
    check.forgotten();
    check.stock();
    check.allocations();
    check.rollout();
    check.owners();
    check.deletions(change);
    check.findings.0
}

/// A decision, with the state before it and after it.
pub(super) struct DecisionCheck<'a> {
    pub(super) input: &'a ClusterInput<'a>,
    pub(super) after: &'a ClusterState,
    pub(super) statuses: BTreeMap<&'a PodUid, &'a PodStatus>,
    pub(super) findings: Violations,
}

impl<'a> DecisionCheck<'a> {
    pub(super) fn driving(&self) -> Option<&'a Arc<Commit>> {
        commit::driving(self.input.commits, &self.input.state.rollout)
    }

    fn driving_workload(&self, owner: &WorkloadKey) -> Option<&'a Workload> {
        self.driving()?.objects.workloads.get(owner)
    }

    /// The owner in the last healthy commit, which applies while only the canaries follow the new
    /// one.
    pub(super) fn old_workload(&self, owner: &WorkloadKey) -> Option<&'a Workload> {
        let rollout = &self.input.state.rollout;
        let id = rollout
            .healthy
            .as_ref()
            .filter(|_| rollout.wave.is_some())?;
        self.input.commits.get(id)?.objects.workloads.get(owner)
    }

    pub(super) fn is_drained(&self, node: &NodeName) -> bool {
        self.driving().is_some_and(|commit| {
            commit
                .objects
                .nodes
                .get(node)
                .is_some_and(|object| object.drain)
        })
    }

    /// In a record only three things may change: the commit, an unplaced pod's place, and a first
    /// stop record.
    fn records(&mut self, change: &ClusterChange) {
        let mut seen = BTreeSet::new();
        for change in &change.changes {
            let Change::Put(Record::Pod(record)) = change else {
                continue;
            };
            let uid = &record.uid;
            self.findings.require(seen.insert(uid), || {
                format!("pod {uid} is changed twice in one decision")
            });
            let known = self.input.commits.get(&record.commit);
            // If the commit in a record was wrong before, because that commit reads differently
            // now, this decision did not cause it.
            let kept = self
                .input
                .state
                .pods
                .get(uid)
                .is_some_and(|before| before.commit == record.commit);
            let resolved = kept
                || known
                    .is_none_or(|commit| commit.resolve(&record.owner, &record.template).is_some());
            self.findings.require(resolved, || {
                format!("pod {uid}: its commit has not its template")
            });
            let Some(before) = self.input.state.pods.get(uid) else {
                self.new_pod(record);
                continue;
            };
            let same = before.key == record.key
                && before.owner == record.owner
                && before.template == record.template
                && before.created == record.created
                && before.serial == record.serial;
            self.findings
                .require(same, || format!("pod {uid} became another pod"));
            let placed = before.place.node().is_none() || before.place == record.place;
            self.findings
                .require(placed, || format!("pod {uid} was moved to another node"));
            let stop = before.stop.is_none()
                || before.stop == record.stop
                || self.is_mended(before, record);
            self.findings
                .require(stop, || format!("the stop record of pod {uid} was changed"));
            if before.stop.is_none() && record.stop.is_some() {
                self.stop(before, record);
            }
        }
    }

    /// Whether a new record is for a pod that already runs somewhere, rather than for a new pod.
    pub(super) fn is_observed(&self, uid: &PodUid) -> bool {
        self.input
            .reports
            .values()
            .flat_map(|report| &report.orphans)
            .any(|orphan| orphan.uid == *uid)
    }

    fn new_pod(&mut self, record: &PodRecord) {
        let uid = &record.uid;
        let adopted = self.is_observed(uid);
        let driving = self.driving_workload(&record.owner).is_some()
            || self.old_workload(&record.owner).is_some();
        self.findings.require(adopted || driving, || {
            format!("pod {uid} was made for an owner that is not driven")
        });
        self.findings.require(record.stop.is_none(), || {
            format!("pod {uid} was made with a stop record")
        });
        let serial = record.serial > self.input.state.serial && record.serial <= self.after.serial;
        self.findings.require(serial, || {
            format!("pod {uid} has serial {}, not a new one", record.serial)
        });
    }

    fn stop(&mut self, before: &PodRecord, record: &PodRecord) {
        let Some(stop) = &record.stop else { return };
        let owner = self.driving_workload(&record.owner);
        let followed = owner.or_else(|| self.old_workload(&record.owner));
        let ended = self
            .statuses
            .get(&record.uid)
            .is_some_and(|status| status.phase.is_final());
        let sound = match stop.reason {
            StopReason::OwnerRemoved => owner.is_none() && self.may_go(before),
            StopReason::Failed => {
                let faulty = &self.input.state.rollout.faulty;
                ended
                    || before
                        .place
                        .node()
                        .is_some_and(|node| faulty.contains_key(node))
            }
            StopReason::Replaced => followed.is_some_and(|owner| {
                (owner.template.hash != before.template || self.input.state.rollout.wave.is_some())
                    && !matches!(owner.control, Control::Replicas { .. })
            }),
            StopReason::Restarted => self
                .input
                .state
                .rollout
                .restarts
                .contains_key(&record.owner),
            StopReason::ScaledDown | StopReason::NodeExcluded => followed.is_some(),
            StopReason::Drained => {
                let drained = before
                    .place
                    .node()
                    .is_some_and(|node| self.is_drained(node));
                drained && followed.is_some_and(Workload::moves_when_lost)
            }
            StopReason::WentBack => false,
            StopReason::NodeLost => {
                let node = before
                    .place
                    .node()
                    .and_then(|node| self.input.nodes.get(node));
                node.is_some_and(|node| node.life == NodeLife::Lost)
                    && followed.is_some_and(Workload::moves_when_lost)
            }
        };
        self.findings.require(sound, || {
            format!("pod {} is stopped without reason: {stop:?}", record.key)
        });
    }

    /// Whether a pod whose owner left the commit may stop: either an added Deployment, to which its
    /// Services now lead, has an available pod, or a new pod cannot be started because other pods
    /// hold what it needs.
    fn may_go(&self, record: &PodRecord) -> bool {
        let rollout = &self.input.state.rollout;
        let lasts =
            |rollout: &Rollout| matches!(rollout.phase, Phase::Progressing { .. } | Phase::Soaking);
        if !lasts(rollout) || !lasts(&self.after.rollout) {
            return true;
        }
        let get = |id: &CommitId| self.input.commits.get(id);
        let Some(driving) = self.driving() else {
            return true;
        };
        let from = rollout.rollback.as_ref().map(|rollback| &rollback.from);
        let mut earlier = rollout
            .left
            .iter()
            .rev()
            .chain(from)
            .chain(&rollout.healthy)
            .filter_map(get);
        let before = earlier.find(|commit| commit.objects.workloads.contains_key(&record.owner));
        let Some(before) = before.filter(|before| before.id != driving.id) else {
            return true;
        };
        let labels = &before.objects.workloads[&record.owner].template.meta.labels;
        let services = driving.objects.services.iter().filter(|(key, service)| {
            let old = before.objects.services.get(*key);
            key.namespace == record.key.namespace
                && (selects(service, labels) || old.is_some_and(|old| selects(old, labels)))
        });
        let services: Vec<_> = services.map(|(_, service)| service).collect();
        let is_up = |workload: &Workload| {
            let mut pods = self
                .input
                .state
                .pods
                .values()
                .filter(|pod| pod.owner == workload.key);
            pods.any(|pod| self.is_available(workload, pod))
        };
        let next = driving.objects.workloads.values().filter(|workload| {
            let runs = matches!(
                workload.control,
                Control::Deployment {
                    replicas: 1..,
                    paused: false,
                    ..
                }
            );
            let is_new = !before.objects.workloads.contains_key(&workload.key);
            let labels = &workload.template.meta.labels;
            runs && is_new && services.iter().any(|service| selects(service, labels))
        });
        let mut late = next.filter(|workload| !is_up(workload));
        late.next().is_none() || self.lacks_something(driving)
    }

    /// Whether a pod is unplaced, has no node of its own yet, or has a name that another pod uses.
    fn lacks_something(&self, driving: &Commit) -> bool {
        let pods = || self.input.state.pods.values();
        driving.objects.workloads.values().any(|workload| {
            let mut own = pods().filter(|pod| pod.owner == workload.key);
            match workload.control {
                Control::Pod => {
                    own.any(|pod| pod.place.node().is_none())
                        || pods()
                            .any(|pod| pod.key == workload.key.object && pod.owner != workload.key)
                }
                Control::DaemonSet { .. } => own.count() < self.input.nodes.len(),
                Control::Deployment { .. } | Control::Replicas { .. } => {
                    own.any(|pod| pod.place.node().is_none())
                }
            }
        })
    }

    /// Whether a stop record gets another reason, because it names the removal of an owner that
    /// still exists, so that the host refuses it.
    fn is_mended(&self, before: &PodRecord, record: &PodRecord) -> bool {
        let reason = |record: &PodRecord| record.stop.as_ref().map(|stop| stop.reason);
        let report = before
            .place
            .node()
            .and_then(|node| self.input.reports.get(node));
        let refused = report.and_then(|report| report.refused.get(&before.uid));
        reason(before) == Some(StopReason::OwnerRemoved)
            && reason(record) == Some(StopReason::ScaledDown)
            && self.driving_workload(&record.owner).is_some()
            && refused.is_some()
    }

    /// Checks that no new pod gets a name in use. A pod that already runs keeps its name.
    fn names(&mut self) {
        let mut names: BTreeMap<_, Vec<&PodUid>> = BTreeMap::new();
        for record in self.after.pods.values() {
            names.entry(&record.key).or_default().push(&record.uid);
        }
        for (name, uids) in names {
            let made =
                |uid: &&PodUid| !self.input.state.pods.contains_key(*uid) && !self.is_observed(uid);
            let twice = uids.len() > 1 && uids.iter().any(made);
            self.findings
                .require(!twice, || format!("pods {uids:?} are all {name}"));
        }
    }

    fn forgotten(&mut self) {
        for (uid, record) in &self.input.state.pods {
            if self.after.pods.contains_key(uid) {
                continue;
            }
            let gone = self
                .input
                .reports
                .values()
                .any(|report| report.gone.contains(uid));
            let removed = record.place.node().is_some_and(|node| {
                self.input.state.removed.contains_key(node) && !self.input.nodes.contains_key(node)
            });
            let sound = removed
                || record.stop.is_some() && (gone || record.place.node().is_none())
                || self.is_missing_from_stock(record);
            self.findings.require(sound, || {
                format!("pod {uid} was forgotten while it may run")
            });
        }
    }

    /// Whether a store was adopted, and the pod's own node has reported since that nothing of the
    /// pod is there.
    fn is_missing_from_stock(&self, record: &PodRecord) -> bool {
        let report = record
            .place
            .node()
            .and_then(|node| self.input.reports.get(node));
        let has_reported = |adoption: Adoption| {
            report.is_some_and(|report| {
                report.stock == Some(adoption.at) && report.gone.contains(&record.uid)
            })
        };
        let adopted = self.input.state.rollout.adopted;
        adopted.is_some_and(|adoption| record.serial <= adoption.serial && has_reported(adoption))
    }

    /// Whether a node has not reported its pods since a store was adopted.
    pub(super) fn has_not_taken_stock(&self, node: &NodeName) -> bool {
        let adopted = self.input.state.rollout.adopted;
        let stock = self.input.reports.get(node).and_then(|report| report.stock);
        adopted.is_some_and(|adoption| stock != Some(adoption.at))
    }

    /// Checks stock-taking: until all pods are known, no pod is made and none is stopped. On a node
    /// that has not reported its pods, no pod is made at any time.
    fn stock(&mut self) {
        let taking = self
            .input
            .state
            .rollout
            .adopted
            .is_some_and(|adoption| !adoption.stock_taken);
        for (uid, record) in &self.after.pods {
            let before = self.input.state.pods.get(uid);
            let made = before.is_none() && !self.is_observed(uid);
            let is_stopped =
                record.stop.is_some() && before.is_some_and(|before| before.stop.is_none());
            let decided = taking && (made || is_stopped);
            self.findings.require(!decided, || {
                format!("pod {uid} is decided while stock is taken")
            });
            let blind = made
                && record
                    .place
                    .node()
                    .is_some_and(|node| self.has_not_taken_stock(node));
            self.findings.require(!blind, || {
                format!("pod {uid} is made where nobody knows what runs")
            });
        }
    }

    fn allocations(&mut self) {
        let mut addresses = BTreeSet::new();
        let mut ports = BTreeSet::new();
        for (key, given) in &self.after.services {
            if let Some(address) = given.cluster_ip {
                let fits = self.input.settings.ranges.addresses.contains(&address)
                    && address != self.input.settings.ranges.dns;
                self.findings.require(fits, || {
                    format!("service {key} has {address}, not of the range")
                });
                self.findings.require(addresses.insert(address), || {
                    format!("two services have address {address}")
                });
            }
            for (port, number) in &given.node_ports {
                let protocol = port.protocol();
                self.findings
                    .require(ports.insert((protocol.to_owned(), *number)), || {
                        format!("two services have node port {protocol} {number}")
                    });
            }
        }
    }

    fn rollout(&mut self) {
        let (before, after) = (&self.input.state.rollout, &self.after.rollout);
        let followed = after.driving == before.driving
            || after.driving == after.target
            || after.driving == after.healthy
                && before
                    .driving
                    .as_ref()
                    .is_some_and(|id| !is_good(before, id));
        self.findings.require(followed, || {
            format!("{:?} is driven and is not the target", after.driving)
        });
        for (commit, reason) in &before.bad {
            let met_again = after.target.as_ref() == Some(commit)
                || *self.input.head == Head::Accepted(commit.clone())
                || after.history.iter().any(|entry| entry.commit == *commit);
            let kept = after.bad.contains_key(commit)
                || after.healthy.as_ref() == Some(commit)
                || !met_again;
            self.findings.require(kept, || {
                format!("{commit} is not called bad any more ({reason})")
            });
        }
        let good = after
            .healthy
            .as_ref()
            .is_none_or(|healthy| !after.bad.contains_key(healthy));
        self.findings
            .require(good, || "the healthy commit is called bad".to_owned());
    }
}

fn is_good(rollout: &Rollout, commit: &CommitId) -> bool {
    rollout.healthy.as_ref() == Some(commit)
}
