//! What the leader decides: the phase of the rollout, which pods must exist, on which nodes, and
//! with which Service addresses.

mod health;
mod note;
mod notes;
mod parts;
mod pods;
mod removed;
mod sharing;
mod stock;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

pub use self::note::{HeldDeletions, Note, Undrained};
use self::{removed::Removed, sharing::keep_off};
use crate::{
    allocate::allocate,
    commit::{self, Commit},
    controller::{Action, NodeConditions, OwnedPod, control},
    name::{CommitId, NodeName, ObjectKey, PodUid, WorkloadKey},
    object::{NodeObject, Workload},
    placement::{Candidate, Choice, candidates},
    plan::Next,
    rollout::{Head, StepInput, progress, progress_deadline, step},
    settings::ClusterSettings,
    state::{
        Change, ClusterState, FailureClass, FailureReason, KnownNode, NodeLife, NodeReport, Outage,
        Phase, PodPlace, PodRecord, Record, RecordKey, Rollout, StopReason, StopRecord,
    },
};

/// Taint that keeps new pods off a node that is itself at fault, as long as another node accepts
/// them.
const FAULTY_TAINT: &str = "windlass.dev/faulty";
/// The annotation that orders an owner's pods when some of them are deleted, as in Kubernetes.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The snapshot from which the leader decides.
#[derive(Debug)]
pub struct ClusterInput<'a> {
    /// The leader's clock at the start of the cycle.
    pub now: Timestamp,
    /// Grace periods, deadlines and budgets from the configuration.
    pub settings: &'a ClusterSettings,
    /// The state as it is stored.
    pub state: &'a ClusterState,
    /// The newest commit of the followed branch, as this host judged it.
    pub head: &'a Head,
    /// The eligible commits among those in use, see [`commits_in_use`], and the head.
    pub commits: &'a BTreeMap<CommitId, Arc<Commit>>,
    /// Commits that are not eligible, while something of them runs on the leader: the deletions of
    /// a new commit are counted against them, and no pod is made from them.
    pub kept: &'a BTreeMap<CommitId, Arc<Commit>>,
    /// The nodes of the cluster, without those that were removed.
    pub nodes: &'a BTreeMap<NodeName, KnownNode>,
    /// The reports of the nodes. A missing report is no evidence of anything.
    pub reports: &'a BTreeMap<NodeName, NodeReport>,
}

impl<'a> ClusterInput<'a> {
    /// An eligible commit, or one that is kept, by its id; `None` if it is neither.
    pub(crate) fn readable(&self, id: &CommitId) -> Option<&'a Arc<Commit>> {
        self.commits.get(id).or_else(|| self.kept.get(id))
    }
}

/// The leader's decision of one cycle.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterChange {
    /// The changes of the state, in order; empty when nothing has to change.
    pub changes: Vec<Change>,
    /// When the next cycle is due.
    pub next: Next,
    /// Why some pods are not stopped though the commit does not contain their owner: their number
    /// exceeds the deletion budget, and no commit removed the owner. `None` if there are no such
    /// pods.
    pub held: Option<HeldDeletions>,
    /// Remarks for people about what was decided, and about what was not.
    pub notes: Vec<Note>,
    /// For each pod that was placed in this cycle, the reason for its node.
    pub placed: BTreeMap<PodUid, Choice>,
}

/// The commits whose content is needed to continue from this state.
pub fn commits_in_use(state: &ClusterState) -> BTreeSet<CommitId> {
    let rollout = &state.rollout;
    let pointers = [&rollout.target, &rollout.driving, &rollout.healthy];
    let from = rollout
        .rollback
        .as_ref()
        .map(|rollback| rollback.from.clone());
    pointers
        .into_iter()
        .flatten()
        .cloned()
        .chain(from)
        .chain(rollout.left.iter().cloned())
        .chain(state.pods.values().map(|record| record.commit.clone()))
        .collect()
}

/// One decision from one snapshot. A caller applies the changes and calls this function again,
/// until it returns no change: a change can make another one possible.
pub fn cluster(input: &ClusterInput<'_>) -> ClusterChange {
    let nodes = stock::nodes_without_stock(input);
    let input = ClusterInput {
        nodes: nodes.as_ref().unwrap_or(input.nodes),
        ..*input
    };
    let mut decision = ClusterDecision::new(&input);
    decision.note_outages();
    decision.forget_and_adopt();
    if decision.takes_stock() {
        return decision.finish();
    }
    decision.mend_stops();
    decision.find_barred_canaries();
    decision.step_rollout();
    decision.control_workloads();
    decision.allocate_services();
    decision.take_notes();
    decision.finish()
}

struct ClusterDecision<'a> {
    input: &'a ClusterInput<'a>,
    owned: BTreeMap<&'a WorkloadKey, Vec<OwnedPod<'a>>>,
    nodes: Arc<[Candidate]>,
    conditions: NodeConditions,
    /// Owners of pods that run without a record, where this decision adds the record.
    observed_owners: BTreeSet<&'a WorkloadKey>,
    changes: Vec<Change>,
    serial: u64,
    next: Next,
    held: Option<HeldDeletions>,
    notes: Vec<Note>,
    placed: BTreeMap<PodUid, Choice>,
    /// For each Deployment, the canaries that cannot run its new pod.
    barred: BTreeMap<&'a WorkloadKey, BTreeSet<NodeName>>,
}

impl<'a> ClusterDecision<'a> {
    fn new(input: &'a ClusterInput<'a>) -> Self {
        let mut owned: BTreeMap<&WorkloadKey, Vec<OwnedPod<'a>>> = BTreeMap::new();
        for record in input.state.pods.values() {
            // A node reports its own pods only: what it reports about pods of other nodes is
            // ignored.
            let report = record.place.node().and_then(|node| input.reports.get(node));
            let node = record.place.node().and_then(|node| input.nodes.get(node));
            let pod = OwnedPod {
                record,
                status: report.and_then(|report| report.pods.get(&record.uid)),
                cost: deletion_cost(input, record),
                crowd: 0,
                unreachable: node.is_some_and(|node| node.life.is_out()),
                clock: report.and_then(|report| report.clock),
            };
            owned.entry(&record.owner).or_default().push(pod);
        }
        for pods in owned.values_mut() {
            pods.sort_by_key(|pod| pod.record.serial);
            count_crowds(pods);
        }

        let driving = commit::driving(input.commits, &input.state.rollout);
        let empty = BTreeMap::new();
        let objects = driving.map_or(&empty, |commit| &commit.objects.nodes);
        let mut nodes = candidates(input.nodes, objects);
        let conditions = node_conditions(input, objects);
        let off = sharing::off(input);
        keep_off(&mut nodes, |node| {
            conditions.faulty.contains(node) || off.contains(node)
        });

        Self {
            input,
            owned,
            nodes: nodes.into(),
            conditions,
            observed_owners: BTreeSet::new(),
            changes: Vec::new(),
            serial: input.state.serial,
            next: Next::AwaitChange,
            held: None,
            notes: Vec::new(),
            placed: BTreeMap::new(),
            barred: BTreeMap::new(),
        }
    }

    /// The commit that the controllers follow; `None` if there is none, or if it cannot be read.
    fn driving(&self) -> Option<&'a Arc<Commit>> {
        commit::driving(self.input.commits, &self.input.state.rollout)
    }

    /// Records which nodes are unreachable or lost, so that all hosts send their pods no traffic.
    fn note_outages(&mut self) {
        let state = self.input.state;
        for (name, node) in self.input.nodes {
            let before = state.outages.get(name);
            let lost = node.life == NodeLife::Lost;
            match before {
                Some(before) if node.life.is_out() && before.lost == lost => {}
                _ if node.life.is_out() => {
                    let since = before.map_or(self.input.now, |before| before.since);
                    self.changes.push(Change::Put(Record::Outage(
                        name.clone(),
                        Outage { since, lost },
                    )));
                }
                Some(_) => self
                    .changes
                    .push(Change::Delete(RecordKey::Outage(name.clone()))),
                None => {}
            }
        }
        // A node that was installed again under a name that was removed from the cluster before.
        let anew = self.input.nodes.iter().filter(|(name, node)| {
            state
                .removed
                .get(*name)
                .is_some_and(|installation| *installation != node.facts.installation)
        });
        self.changes
            .extend(anew.map(|(name, _)| Change::Delete(RecordKey::Removed(name.clone()))));
        let unknown = state
            .outages
            .keys()
            .filter(|name| !self.input.nodes.contains_key(*name));
        self.changes
            .extend(unknown.map(|name| Change::Delete(RecordKey::Outage(name.clone()))));
    }

    /// Deletes the records of pods of which nothing is left; adds records for pods that run without
    /// one, since a lost record is no reason to stop a pod.
    fn forget_and_adopt(&mut self) {
        for (node, report) in self.input.reports {
            for uid in &report.gone {
                let own = |record: &PodRecord| {
                    record.place.node() == Some(node) && self.is_gone(record, report)
                };
                if self.input.state.pods.get(uid).is_some_and(own) {
                    self.changes
                        .push(Change::Delete(RecordKey::Pod(uid.clone())));
                }
            }
        }
        for (node, report) in self.input.reports {
            for orphan in &report.orphans {
                if self.input.state.pods.contains_key(&orphan.uid) {
                    continue;
                }
                self.serial += 1;
                self.observed_owners.insert(&orphan.owner);
                self.changes.push(Change::put(PodRecord {
                    uid: orphan.uid.clone(),
                    key: orphan.pod.clone(),
                    owner: orphan.owner.clone(),
                    place: PodPlace::Node(node.clone()),
                    commit: orphan.commit.clone(),
                    template: orphan.template.clone(),
                    created: self.input.now,
                    serial: self.serial,
                    stop: None,
                }));
            }
        }
        // Two kinds of stopping pods have no node that could stop them, so their records are
        // deleted at once: pods that were never assigned, and pods whose node was removed.
        let removed = |node: &NodeName| {
            self.input.state.removed.contains_key(node) && !self.input.nodes.contains_key(node)
        };
        for record in self.input.state.pods.values() {
            let nobody_has_it = match record.place.node() {
                Some(node) => removed(node),
                None => record.stop.is_some(),
            };
            if nobody_has_it {
                self.changes
                    .push(Change::Delete(RecordKey::Pod(record.uid.clone())));
            }
        }
    }

    fn step_rollout(&mut self) {
        let rollout = &self.input.state.rollout;
        let judged = self.judged();
        self.next = self.next.sooner(judged.next);

        let there = self.counted_nodes();
        let mut before = rollout.clone();
        let late = self.share_images(&mut before, &there);
        let (mut after, next) = step(&StepInput {
            now: self.input.now,
            settings: &self.input.settings.rollout,
            rollout: &before,
            head: self.input.head,
            commits: self.input.commits,
            kept: self.input.kept,
            nodes: there
                .iter()
                .map(|node| (node, self.input.reports.get(node)))
                .collect(),
            max_faulty: self
                .input
                .settings
                .rollout
                .max_faulty(self.input.nodes.len()),
            faulty: judged.faulty,
            failing: self.failing(),
            judgement: judged.judgement,
            progressed: judged.progressed,
        });
        self.next = self.next.sooner(next).sooner(late);
        if !after.is_shared_out() {
            self.next = self.next.sooner(self.share_images(&mut after, &there));
        }
        if after != *rollout {
            self.changes.push(Change::put(after));
        }
    }

    /// The nodes that the rollout waits for: a node that accepts no pods is not waited for while
    /// other nodes do.
    fn counted_nodes(&self) -> BTreeSet<NodeName> {
        let is_unready = |node: &NodeName| self.conditions.unready.contains_key(node);
        let present: Vec<&NodeName> = self
            .input
            .nodes
            .keys()
            .filter(|node| !self.conditions.absent.contains(*node))
            .collect();
        let some_ready = present.iter().any(|node| !is_unready(node));
        present
            .into_iter()
            .filter(|node| !some_ready || !is_unready(node))
            .cloned()
            .collect()
    }

    fn control_workloads(&mut self) {
        let Some(driving) = self.driving() else {
            return;
        };
        let removed = self.removed(driving);
        let mut placer = self.placer(driving, &removed);
        let mut names: BTreeSet<ObjectKey> = self
            .input
            .state
            .pods
            .values()
            .map(|record| record.key.clone())
            .collect();
        for part in self.parts(driving) {
            let workload = part.workload;
            // Pods whose record was just added are counted in the next cycle: until then no pod is
            // made in their place.
            if self.observed_owners.contains(&workload.key) {
                continue;
            }
            let view = self.part_view(&part, &self.conditions);
            // Pods that must leave their node go first: the limits of a rollout count them as gone,
            // so the rollout continues in the next cycle.
            let leaving = self.leaving(&part);
            let actions = if leaving.is_empty() {
                control(&view)
            } else {
                Vec::new()
            };
            let progress = progress(&view, self.input.state.workloads.get(&workload.key));
            self.next = self.next.sooner(self.late_at(workload));
            if part.moves
                && let Some(progress) = progress
            {
                self.changes.push(Change::Put(Record::Workload(
                    workload.key.clone(),
                    progress,
                )));
            }
            let stopped = actions
                .iter()
                .filter_map(|action| match action {
                    Action::Stop(uid, _) => Some(uid.clone()),
                    Action::Create { .. } => None,
                })
                .collect();
            self.act(
                part.commit,
                workload,
                actions,
                &removed,
                &mut placer,
                &mut names,
            );
            self.keep_in_place(&part, &stopped, &leaving, &mut placer);
        }
        // What a commit removes is stopped only when all nodes follow that commit.
        if self.input.state.rollout.wave.is_none() {
            self.stop_removed(driving, &removed);
        }
        for key in self.input.state.workloads.keys() {
            if !driving.objects.workloads.contains_key(key) {
                self.changes
                    .push(Change::Delete(RecordKey::Workload(key.clone())));
            }
        }
    }

    /// Stops the pods whose owners are not in the driving commit, unless these pods wait for their
    /// successors. If a commit that ran before contained the owners, a push or a rollback removed
    /// them, and the deletion budget was checked at that time. If no commit explains the pods
    /// (another `source.paths`, a lost state), their number must itself keep to the budget.
    fn stop_removed(&mut self, driving: &'a Commit, removed: &[Removed<'a>]) {
        let live: Vec<(&WorkloadKey, &Vec<OwnedPod<'_>>)> = self
            .owned
            .iter()
            .filter(|(_, pods)| !pods.iter().all(OwnedPod::is_stopping))
            .map(|(owner, pods)| (*owner, pods))
            .collect();
        let (explained, unexplained): (Vec<_>, Vec<_>) = live
            .iter()
            .copied()
            .filter(|(owner, _)| !driving.objects.workloads.contains_key(*owner))
            .partition(|(owner, _)| removed.iter().any(|one| one.owner == *owner));
        let allowed = self.input.settings.rollout.deletion_budget(live.len());
        let is_held = unexplained.len() > allowed && !driving.allow_deletions;
        if is_held {
            self.held = Some(HeldDeletions {
                workloads: unexplained
                    .iter()
                    .map(|(owner, _)| (*owner).clone())
                    .collect(),
                running: live.len(),
                commit: driving.id.clone(),
                allowed,
            });
        }

        let room = self.make_room(driving, removed);
        let waits = |owner: &WorkloadKey| {
            removed
                .iter()
                .any(|one| one.owner == owner && !one.awaited.is_empty())
        };
        let mut going = explained;
        if !is_held {
            going.extend(unexplained);
        }
        let stops: Vec<Change> = going
            .into_iter()
            .flat_map(|(owner, pods)| pods.iter().map(move |pod| (owner, pod)))
            .filter(|(owner, pod)| !waits(owner) || room.contains(&pod.record.uid))
            .filter(|(_, pod)| !pod.is_stopping())
            .map(|(_, pod)| stop(pod.record, StopReason::OwnerRemoved, self.input.now))
            .collect();
        self.changes.extend(stops);

        for one in removed.iter().filter(|one| !one.awaited.is_empty()) {
            self.notes.push(Note::RunsOn {
                workload: one.owner.clone(),
                awaited: one.awaited.iter().copied().cloned().collect(),
            });
        }
    }

    /// When a workload that makes no progress exceeds its deadline: no event announces that moment.
    fn late_at(&self, workload: &Workload) -> Next {
        let rollout = &self.input.state.rollout;
        let is_progressing = matches!(rollout.phase, Phase::Progressing { .. });
        if !is_progressing && !rollout.judges_superseded() {
            return Next::AwaitChange;
        }
        let now = self.input.now;
        let progress = self.input.state.workloads.get(&workload.key);
        match progress_deadline(workload, progress, rollout.clock, now) {
            // A deadline that has passed was judged in this cycle already.
            Some(deadline) if deadline > now => Next::at(deadline, now),
            Some(_) | None => Next::AwaitChange,
        }
    }

    fn allocate_services(&mut self) {
        let Some(driving) = self.driving() else {
            return;
        };
        let rollout = &self.input.state.rollout;
        let returnable: Vec<&Arc<Commit>> = [&rollout.target, &rollout.healthy]
            .into_iter()
            .flatten()
            .filter_map(|id| self.input.commits.get(id))
            .collect();
        let settled = rollout.phase == Phase::Healthy;
        let droppable = |key: &ObjectKey| {
            settled
                && !returnable
                    .iter()
                    .any(|commit| commit.objects.services.contains_key(key))
        };
        self.changes.extend(allocate(
            &self.input.settings.ranges,
            &driving.objects.services,
            &self.input.state.services,
            droppable,
        ));
    }

    fn finish(mut self) -> ClusterChange {
        if self.serial != self.input.state.serial {
            self.changes.push(Change::Put(Record::Serial(self.serial)));
        }
        ClusterChange {
            changes: self.changes,
            next: self.next,
            held: self.held,
            notes: self.notes,
            placed: self.placed,
        }
    }
}

/// The conditions of all nodes, from their lives, from the faults that the rollout observed, and
/// from Git.
fn node_conditions(
    input: &ClusterInput<'_>,
    objects: &BTreeMap<NodeName, NodeObject>,
) -> NodeConditions {
    let rollout = &input.state.rollout;
    let mut conditions = NodeConditions {
        faulty: rollout
            .faulty
            .keys()
            .filter(|node| input.nodes.contains_key(*node))
            .cloned()
            .collect(),
        clock: rollout.clock,
        ..NodeConditions::default()
    };
    for (name, node) in input.nodes {
        match &node.life {
            NodeLife::Ready => {}
            NodeLife::NotReady(why) => {
                conditions.unready.insert(name.clone(), why.clone());
            }
            NodeLife::Away | NodeLife::Silent(_) => {
                conditions.absent.insert(name.clone());
            }
            NodeLife::Lost => {
                conditions.absent.insert(name.clone());
                conditions.lost.insert(name.clone());
            }
        }
        if objects.get(name).is_some_and(|object| object.drain) {
            conditions.draining.insert(name.clone());
        }
    }
    conditions
}

/// The deletion cost in the pod's template in its own commit; 0 where the template has none.
fn deletion_cost(input: &ClusterInput<'_>, record: &PodRecord) -> i32 {
    let commit = input.commits.get(&record.commit);
    let workload = commit.and_then(|commit| commit.resolve(&record.owner, &record.template));
    let annotations = workload.map(|workload| &workload.template.meta.annotations);
    let cost = annotations.and_then(|annotations| annotations.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// For each pod, counts the pods of the same owner that stay on its node.
fn count_crowds(pods: &mut [OwnedPod<'_>]) {
    let mut crowds: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.is_active()) {
        if let Some(node) = pod.record.place.node() {
            *crowds.entry(node).or_default() += 1;
        }
    }
    for pod in pods {
        pod.crowd = pod
            .record
            .place
            .node()
            .and_then(|node| crowds.get(node))
            .copied()
            .unwrap_or(0);
    }
}

fn stop(record: &PodRecord, reason: StopReason, now: Timestamp) -> Change {
    let mut record = record.clone();
    record.stop = Some(StopRecord { at: now, reason });
    Change::put(record)
}

/// A rollout with the manual rollback that a person asked for.
pub fn roll_back(rollout: &Rollout, to: CommitId, now: Timestamp) -> Rollout {
    let mut rollout = rollout.clone();
    let from = rollout.target.clone().unwrap_or_else(|| to.clone());
    rollout.pinned_against = Some(from.clone());
    rollout.go_back_to(
        to,
        crate::state::Rollback {
            from,
            reason: FailureReason::Asked.into(),
            class: FailureClass::Manual,
        },
        now,
    );
    rollout
}
