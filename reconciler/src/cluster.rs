//! What the leader decides: how far the commit is, which pods there must be, where, and with which
//! addresses.

mod health;
mod notes;
mod parts;
mod pods;
mod removed;
mod sharing;
mod stock;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use self::removed::Removed;
use self::sharing::keep_off;
use crate::{
    allocate::allocate,
    commit::Commit,
    controller::{Action, NodeConditions, OwnedPod, control},
    name::{CommitId, NodeName, ObjectKey, PodUid, WorkloadKey, first_few},
    object::{NodeObject, Workload},
    placement::{Candidate, Choice, candidates},
    plan::Next,
    rollout::{Head, StepInput, progress, progress_deadline, step},
    settings::ClusterSettings,
    state::{
        Change, ClusterState, FailureClass, KnownNode, NodeLife, NodeReport, Outage, Phase,
        PodPlace, PodRecord, Record, RecordKey, Rollout, StopReason, StopRecord,
    },
};

/// Keeps new pods off a node that is at fault itself, as long as there is another one for them.
const FAULTY_TAINT: &str = "windlass.dev/faulty";
/// The annotation that says which pods are to be given up first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Everything the leader looks at.
#[derive(Debug)]
pub struct ClusterInput<'a> {
    /// The time.
    pub now: Timestamp,
    /// The bounds.
    pub settings: &'a ClusterSettings,
    /// What was decided so far.
    pub state: &'a ClusterState,
    /// The newest commit.
    pub head: &'a Head,
    /// The eligible ones of all commits in use, see [`commits_in_use`], and the head.
    pub commits: &'a BTreeMap<CommitId, Arc<Commit>>,
    /// Commits that are not eligible, and of which something runs on the leader: what a new commit
    /// takes away is compared with them, and nothing is made of them.
    pub kept: &'a BTreeMap<CommitId, Arc<Commit>>,
    /// The nodes there are, without those that were removed.
    pub nodes: &'a BTreeMap<NodeName, KnownNode>,
    /// What they say. A missing report is no evidence of anything.
    pub reports: &'a BTreeMap<NodeName, NodeReport>,
}

impl<'a> ClusterInput<'a> {
    /// A commit that may be started from, or one that is only kept up.
    pub(crate) fn readable(&self, id: &CommitId) -> Option<&'a Arc<Commit>> {
        self.commits.get(id).or_else(|| self.kept.get(id))
    }
}

/// What the leader decides.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterChange {
    /// The changes, in order; empty when nothing is to be done.
    pub changes: Vec<Change>,
    /// When the next cycle is due.
    pub next: Next,
    /// What is not stopped though its owner is not in the commit, because it is more than the
    /// budget allows and no commit took it away.
    pub held: Option<String>,
    /// What people should know of what is decided, and of what is not.
    pub notes: Vec<String>,
    /// Why each pod that was placed is where it is.
    pub placed: BTreeMap<PodUid, Choice>,
}

/// The commits whose content is needed to go on from this state.
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

/// One decision over one snapshot. Called again after its changes are applied it finds what they
/// made possible, until it changes nothing.
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
    /// Whose pods were found running without a record, and come in with this decision.
    observed_owners: BTreeSet<&'a WorkloadKey>,
    changes: Vec<Change>,
    serial: u64,
    next: Next,
    held: Option<String>,
    notes: Vec<String>,
    placed: BTreeMap<PodUid, Choice>,
    /// The canaries that cannot take a Deployment's new pod.
    barred: BTreeMap<&'a WorkloadKey, BTreeSet<NodeName>>,
}

impl<'a> ClusterDecision<'a> {
    fn new(input: &'a ClusterInput<'a>) -> Self {
        let mut owned: BTreeMap<&WorkloadKey, Vec<OwnedPod<'a>>> = BTreeMap::new();
        for record in input.state.pods.values() {
            // A node speaks for its own pods, and for nobody else's.
            let report = record.place.node().and_then(|node| input.reports.get(node));
            let status = report.and_then(|report| report.pods.get(&record.uid));
            let node = record.place.node().and_then(|node| input.nodes.get(node));
            let unheard = node.is_some_and(|node| node.life.is_out());
            let report = record.place.node().and_then(|node| input.reports.get(node));
            let clock = report.and_then(|report| report.clock);
            let pod = OwnedPod {
                record,
                status,
                cost: deletion_cost(input, record),
                crowd: 0,
                unreachable: unheard,
                clock,
            };
            owned.entry(&record.owner).or_default().push(pod);
        }
        for pods in owned.values_mut() {
            pods.sort_by_key(|pod| pod.record.serial);
            count_crowds(pods);
        }
        let driving = input
            .state
            .rollout
            .driving
            .as_ref()
            .and_then(|id| input.commits.get(id));
        let empty = BTreeMap::new();
        let objects = driving.map_or(&empty, |commit| &commit.objects.nodes);
        let mut nodes = candidates(input.nodes, objects);
        let standing = node_conditions(input, objects);
        let off = sharing::off(input);
        keep_off(&mut nodes, |node| {
            standing.faulty.contains(node) || off.contains(node)
        });
        let nodes: Arc<[Candidate]> = nodes.into();
        Self {
            input,
            owned,
            nodes,
            conditions: standing,
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

    /// The commit the controllers follow.
    fn driving(&self) -> Option<&'a Arc<Commit>> {
        self.input
            .state
            .rollout
            .driving
            .as_ref()
            .and_then(|id| self.input.commits.get(id))
    }

    /// Which nodes nobody hears from, for all hosts to know: their pods take no traffic.
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
        // Set up anew under a name that was given up before.
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

    /// Pods of which nothing is left go out of the state; pods that run without a record come into
    /// it, since a lost record is not a reason to stop anything.
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
        // A pod that no node ever had needs nobody to stop it, and one whose node was removed has
        // nobody.
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
        // A node that takes no pods is not waited for while there are others.
        let standing = &self.conditions;
        let absent = |node: &NodeName| standing.absent.contains(node);
        let unready = |node: &NodeName| standing.unready.contains_key(node);
        let some_ready = self
            .input
            .nodes
            .keys()
            .any(|node| !absent(node) && !unready(node));
        let there = self
            .input
            .nodes
            .keys()
            .filter(|node| !(absent(node) || some_ready && unready(node)));
        let there: BTreeSet<NodeName> = there.cloned().collect();
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
            // What has just come in is counted in the next cycle: nothing is made in its place
            // before.
            if self.observed_owners.contains(&workload.key) {
                continue;
            }
            let view = self.part_view(&part, &self.conditions);
            // What must leave goes first: the bounds of what may go count it as gone, so that is
            // for the next cycle.
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
        // What leaves the commit goes when all others follow it.
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

    /// Stops the pods whose owners are not in the driving commit, unless they wait for what takes
    /// their place. That a commit which ran before had them explains it: a push or a rollback took
    /// them away, and the budget was asked then. What nothing explains (another `source.paths`, a
    /// state that was lost) must itself keep to the budget.
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
        let held = unexplained.len() > allowed && !driving.allow_deletions;
        if held {
            self.held = Some(format!(
                "{} of {} workloads that run ({}) are not in commit {}, and no commit took them away; the budget \
                 is {allowed}, so none of them is stopped: put them back, check `paths` in [source] of the \
                 configuration, or commit with the trailer `Windlass-Allow-Deletions: yes`",
                unexplained.len(),
                live.len(),
                first_few(unexplained.iter().map(|(owner, _)| owner)),
                driving.id.short()
            ));
        }
        let room = self.make_room(driving, removed);
        let waits = |owner: &WorkloadKey| {
            removed
                .iter()
                .any(|one| one.owner == owner && !one.awaited.is_empty())
        };
        let going = explained
            .into_iter()
            .chain(unexplained.into_iter().filter(|_| !held));
        let going = going.flat_map(|(owner, pods)| pods.iter().map(move |pod| (owner, pod)));
        let going = going.filter(|(owner, pod)| !waits(owner) || room.contains(&pod.record.uid));
        let stops = going.filter(|(_, pod)| !pod.is_stopping());
        let stops =
            stops.map(|(_, pod)| stop(pod.record, StopReason::OwnerRemoved, self.input.now));
        let stops: Vec<Change> = stops.collect();
        self.changes.extend(stops);
        for one in removed.iter().filter(|one| !one.awaited.is_empty()) {
            let owner = one.owner;
            self.notes.push(format!(
                "{owner} left the commit; its pods run on until {} is available, or the rollout ends",
                first_few(&one.awaited)
            ));
        }
    }

    /// When a workload that makes no progress will be late, so that this is not missed for want of
    /// an event.
    fn late_at(&self, workload: &Workload) -> Next {
        let rollout = &self.input.state.rollout;
        let progress = self.input.state.workloads.get(&workload.key);
        let deadline = progress_deadline(workload, progress, rollout.clock, self.input.now)
            .filter(|_| {
                matches!(rollout.phase, Phase::Progressing { .. }) || rollout.judges_superseded()
            })
            .map(|deadline| {
                Duration::try_from(deadline.duration_since(self.input.now)).unwrap_or_default()
            })
            .filter(|wait| !wait.is_zero());
        deadline.map_or(Next::AwaitChange, Next::After)
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

/// How the nodes stand, from their lives, from what the rollout found, and from Git.
fn node_conditions(
    input: &ClusterInput<'_>,
    objects: &BTreeMap<NodeName, NodeObject>,
) -> NodeConditions {
    let rollout = &input.state.rollout;
    let mut standing = NodeConditions {
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
                standing.unready.insert(name.clone(), why.clone());
            }
            NodeLife::Away | NodeLife::Silent(_) => {
                standing.absent.insert(name.clone());
            }
            NodeLife::Lost => {
                standing.absent.insert(name.clone());
                standing.lost.insert(name.clone());
            }
        }
        if objects.get(name).is_some_and(|object| object.drain) {
            standing.draining.insert(name.clone());
        }
    }
    standing
}

/// What the template of a pod, in its own commit, says its deletion costs; 0 where it says nothing.
fn deletion_cost(input: &ClusterInput<'_>, record: &PodRecord) -> i32 {
    let commit = input.commits.get(&record.commit);
    let workload = commit.and_then(|commit| commit.resolve(&record.owner, &record.template));
    let annotations = workload.map(|workload| &workload.template.meta.annotations);
    let cost = annotations.and_then(|annotations| annotations.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// How many pods of one owner stay on the node of each of them.
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

/// A rollout as a person asked to change it.
pub fn roll_back(rollout: &Rollout, to: CommitId, now: Timestamp) -> Rollout {
    let mut rollout = rollout.clone();
    let from = rollout.target.clone().unwrap_or_else(|| to.clone());
    rollout.pinned_against = Some(from.clone());
    let reason = "asked for by `windlass rollback`".to_owned();
    rollout.go_back_to(
        to,
        crate::state::Rollback {
            from,
            reason,
            class: FailureClass::Manual,
        },
        now,
    );
    rollout
}
