//! What the leader decides: the phase of the rollout, which pods must exist, on which nodes, and
//! with which Service addresses.

mod health;
mod note;
mod notes;
mod parts;
mod pods;
mod records;
mod removed;
mod sharing;
mod snapshot;
mod stock;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

pub use self::note::{HeldDeletions, Note, Undrained};
use self::{
    sharing::keep_off,
    snapshot::{node_conditions, owned_pods},
};
use crate::{
    allocate::{Allocations, allocate},
    commit::{self, Commit, Commits},
    controller::{Action, NodeConditions, OwnedPod, control},
    name::{CommitId, NodeName, ObjectKey, PodUid, WorkloadKey},
    object::Workload,
    placement::{Candidate, Choice, candidates},
    plan::Next,
    rollout::{Head, StepInput, progress, progress_deadline, step},
    settings::ClusterSettings,
    state::{
        Change, ClusterState, FailureClass, FailureReason, KnownNode, NodeReport, Phase, PodRecord,
        Record, RecordKey, Rollout, StopReason, StopRecord,
    },
};

/// Taint that keeps new pods off a node that is itself at fault, as long as another node accepts
/// them.
const FAULTY_TAINT: &str = "windlass.dev/faulty";

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
    pub commits: &'a Commits,
    /// Commits that are not eligible, while something of them runs on the leader: the deletions of
    /// a new commit are counted against them, and no pod is made from them.
    pub kept: &'a Commits,
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
            owned: owned_pods(input),
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
        let Allocations { changes, refused } = allocate(
            &self.input.settings.ranges,
            &driving.objects.services,
            &self.input.state.services,
            droppable,
        );
        self.changes.extend(changes);
        self.notes
            .extend(refused.into_iter().map(Note::Unallocated));
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
