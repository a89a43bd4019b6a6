//! One step in the rollout of a commit.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    Judgement, judged_workloads,
    prepare::{Prepared, Verdict},
};
use crate::{
    commit::Commit,
    foreign::ForeignText,
    name::{CommitId, NodeName, WorkloadKey},
    plan::Next,
    settings::RolloutSettings,
    state::{
        Activity, CanaryActivity, CommitReason, CommitState, Failure, FailureClass, FailureReason,
        HistoryEntry, NodeFault, NodeReport, Phase, Preparation, Rollback, Rollout, Stored, Wave,
    },
    time::later,
};

/// How this host judged the newest commit of the followed branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Head {
    /// There is no head yet, or it could not be judged: no reason to change anything.
    #[default]
    Unknown,
    /// The head is verified, read and without errors.
    Accepted(CommitId),
    /// The head must not be run.
    Refused {
        /// Id of the refused commit.
        commit: CommitId,
        /// The first line of its message.
        subject: String,
        /// Why the commit is refused.
        reason: String,
    },
}

/// The snapshot from which a step decides.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// The leader's clock at the start of the cycle.
    pub now: Timestamp,
    /// Deadlines, soak time and budgets from the configuration.
    pub settings: &'a RolloutSettings,
    /// The rollout as it is stored.
    pub rollout: &'a Rollout,
    /// The newest commit of the followed branch.
    pub head: &'a Head,
    /// The eligible commits among those in use, and the head.
    pub commits: &'a BTreeMap<CommitId, std::sync::Arc<Commit>>,
    /// Commits that are not eligible while something of them runs.
    pub kept: &'a BTreeMap<CommitId, std::sync::Arc<Commit>>,
    /// The nodes that are not unreachable, with their reports.
    pub nodes: BTreeMap<&'a NodeName, Option<&'a NodeReport>>,
    /// Maximum number of nodes that may be at fault without the commit being at fault.
    pub max_faulty: usize,
    /// The nodes that are at fault, judged by pods of the driving commit, with the reason.
    pub faulty: BTreeMap<NodeName, Stored<NodeFault>>,
    /// The nodes, canaries apart, where a DaemonSet's pod fails.
    pub failing: BTreeSet<NodeName>,
    /// The judgement of all changed workloads of the driving commit together.
    pub judgement: Judgement,
    /// When one of these workloads last made progress.
    pub progressed: Option<Timestamp>,
}

/// The rollout after this step, and when the next cycle is due.
pub fn step(input: &StepInput<'_>) -> (Rollout, Next) {
    let mut rollout = input.rollout.clone();
    rollout.limit_times_to(input.now);
    take_up_head(input, &mut rollout);
    note_faulty(input, &mut rollout);
    let next = match rollout.phase.clone() {
        Phase::Empty | Phase::Healthy => Next::AwaitChange,
        Phase::Preparing { .. } => prepare(input, &mut rollout),
        Phase::Progressing { .. } => progress(input, &mut rollout),
        Phase::Soaking => soak(input, &mut rollout),
        Phase::Degraded { .. } => recover(input, &mut rollout),
    };
    forget_old_marks(input, &mut rollout);
    (rollout, next)
}

/// Records which nodes are at fault. While the commit is judged, no node is removed from the list:
/// each addition restarts the deadline for the other nodes, so this bounds the number of restarts.
fn note_faulty(input: &StepInput<'_>, rollout: &mut Rollout) {
    if input.rollout.driving != rollout.driving {
        return;
    }
    if rollout.phase == Phase::Healthy {
        let target = rollout.target.clone();
        rollout.faulty.retain(|node, _| {
            input.faulty.contains_key(node) || input.lacks_images(target.as_ref(), node)
        });
        return;
    }
    let known = rollout.faulty.len();
    for (node, reason) in &input.faulty {
        rollout
            .faulty
            .entry(node.clone())
            .or_insert_with(|| reason.clone());
    }
    if rollout.faulty.len() > known {
        rollout.start_clock(input.now);
    }
}

/// Removes the `bad` marks of commits that are neither the head nor the target nor in the history:
/// such a commit will not become the head again, and its mark would otherwise stay for ever.
fn forget_old_marks(input: &StepInput<'_>, rollout: &mut Rollout) {
    let head = match input.head {
        Head::Unknown => return,
        Head::Accepted(commit) | Head::Refused { commit, .. } => commit,
    };
    let (target, history) = (&rollout.target, &rollout.history);
    rollout.bad.retain(|commit, _| {
        commit == head
            || target.as_ref() == Some(commit)
            || history.iter().any(|entry| entry.commit == *commit)
    });
}

fn take_up_head(input: &StepInput<'_>, rollout: &mut Rollout) {
    match input.head {
        Head::Unknown => {}
        Head::Refused {
            commit,
            subject,
            reason,
        } => {
            let reason = CommitReason::Refused(ForeignText::sentence(reason)).into();
            let known = rollout.history.iter().any(|entry| {
                entry.commit == *commit
                    && entry.state == CommitState::Refused
                    && entry.reason == reason
            });
            if !known {
                rollout.record(HistoryEntry {
                    commit: commit.clone(),
                    subject: subject.clone(),
                    signer: String::new(),
                    state: CommitState::Refused,
                    reason,
                    class: None,
                    began: input.now,
                    ended: Some(input.now),
                });
            }
        }
        Head::Accepted(id) => {
            // A head that is in the history (held, or bad) was the head before the rollback
            // already: the head has not moved on.
            let seen = rollout.history.iter().any(|entry| entry.commit == *id);
            if !seen
                && rollout
                    .pinned_against
                    .as_ref()
                    .is_some_and(|left| left != id)
            {
                rollout.pinned_against = None;
            }

            let is_wanted = !rollout.suspended
                && rollout.pinned_against.is_none()
                && rollout.target.as_ref() != Some(id)
                && !rollout.bad.contains_key(id);
            if is_wanted && let Some(head) = input.commits.get(id) {
                consider(input, rollout, head);
            }
        }
    }
}

/// Makes the head the target, unless it deletes too much. If the commit that runs cannot be read,
/// the deletions are unknown, so the head waits.
fn consider(input: &StepInput<'_>, rollout: &mut Rollout, head: &Commit) {
    let over_budget = match &rollout.driving {
        None => None,
        Some(id) => {
            let Some(before) = input.commits.get(id).or_else(|| input.kept.get(id)) else {
                return;
            };
            over_budget(input.settings, before, head)
        }
    };
    if let Some(reason) = over_budget {
        let known = rollout
            .history
            .iter()
            .any(|entry| entry.commit == head.id && entry.state == CommitState::Held);
        if !known {
            rollout.record(entry(head, CommitState::Held, reason, input.now));
        }
        return;
    }

    rollout.close_target(
        CommitState::Superseded,
        CommitReason::Superseded.into(),
        None,
        input.now,
    );
    rollout.target = Some(head.id.clone());
    rollout.rollback = None;
    rollout.began = Some(input.now);
    rollout.enter(Phase::preparing(), input.now);
    rollout.record(entry(
        head,
        CommitState::Progressing,
        CommitReason::None,
        input.now,
    ));
}

fn entry(
    commit: &Commit,
    state: CommitState,
    reason: CommitReason,
    now: Timestamp,
) -> HistoryEntry {
    HistoryEntry {
        commit: commit.id.clone(),
        subject: commit.subject.clone(),
        signer: commit.signer.clone(),
        state,
        reason: reason.into(),
        class: None,
        began: now,
        ended: None,
    }
}

/// Why a commit must wait for a person's approval, if it deletes more than the budget.
fn over_budget(settings: &RolloutSettings, before: &Commit, head: &Commit) -> Option<CommitReason> {
    if head.allow_deletions {
        return None;
    }
    let workloads = before.objects.workloads.len();
    let deleted: Vec<WorkloadKey> = before
        .objects
        .workloads
        .keys()
        .filter(|key| !head.objects.workloads.contains_key(*key))
        .cloned()
        .collect();
    let allowed = settings.deletion_budget(workloads);
    (deleted.len() > allowed).then_some(CommitReason::OverBudget {
        deleted,
        of: workloads,
        allowed,
    })
}

fn prepare(input: &StepInput<'_>, rollout: &mut Rollout) -> Next {
    let mut next = Next::AwaitChange;
    if input.rollout.judges_superseded() && rollout.judges_superseded() {
        match watch(input, rollout) {
            Err(failure) => {
                rollout.give_up_superseded(&failure, input.now);
                return Next::AwaitChange;
            }
            Ok(later) => next = later,
        }
    }

    let Some(target) = rollout.target.clone() else {
        return Next::AwaitChange;
    };
    let prepared = Prepared::collect(input, rollout, &target);
    rollout.failing = prepared.failing_since(rollout.failing, input.now);
    match prepared.verdict(input, rollout) {
        Verdict::Failed(failure) => {
            fail(input, rollout, failure);
            Next::AwaitChange
        }
        Verdict::Waiting { awaited, until } => {
            rollout.update(Phase::Preparing {
                message: awaited.into(),
            });
            until.map_or(next, |until| next.sooner(Next::at(until, input.now)))
        }
        Verdict::Nobody => next,
        Verdict::Ready(obstacles) => {
            let faulty = obstacles
                .into_iter()
                .map(|(node, obstacle)| (node, NodeFault::Images(obstacle).into()))
                .collect();
            let canaries = canaries(input, rollout, &faulty);
            let broken = rollout
                .faulty
                .keys()
                .chain(&input.failing)
                .cloned()
                .collect();
            let before = std::mem::take(&mut rollout.faulty);
            rollout.drive(target);
            rollout.faulty = faulty;
            // Without a change to judge, the faulty nodes stay at fault.
            if input.nothing_to_judge(rollout) {
                rollout.faulty.extend(before);
            }
            rollout.wave = canaries.map(|nodes| Wave {
                nodes,
                since: input.now,
                broken,
                settled: None,
            });
            rollout.start_clock(input.now);
            rollout.enter(Phase::progressing(Activity::Starting), input.now);
            next
        }
    }
}

/// The canaries that follow a commit first; none if nothing ran before, nothing changes, or no
/// canary is a member.
fn canaries(
    input: &StepInput<'_>,
    rollout: &Rollout,
    faulty: &BTreeMap<NodeName, Stored<NodeFault>>,
) -> Option<BTreeSet<NodeName>> {
    if rollout.healthy.is_none() || rollout.rollback.is_some() {
        return None;
    }
    let there = |node: &&NodeName| input.nodes.contains_key(*node) && !faulty.contains_key(*node);
    let nodes: BTreeSet<NodeName> = input
        .settings
        .canary_nodes
        .iter()
        .filter(there)
        .cloned()
        .collect();
    let target = rollout
        .target
        .as_ref()
        .and_then(|target| input.commits.get(target))?;
    let changes = !judged_workloads(rollout, input.commits, target).is_empty();
    (changes && !nodes.is_empty()).then_some(nodes)
}

/// Keeps the clock of the driving commit; returns its failure, or when its deadline is due.
fn watch(input: &StepInput<'_>, rollout: &mut Rollout) -> Result<Next, Box<Failure>> {
    let waiting = matches!(input.judgement, Judgement::Waiting(_));
    if rollout.waiting && !waiting {
        rollout.start_clock(input.now);
    }
    rollout.waiting = waiting;
    if rollout.driving == rollout.target {
        rollout.note_waiting(match &input.judgement {
            Judgement::Waiting(obstacle) => CommitReason::Waiting(obstacle.clone()),
            Judgement::Settled | Judgement::Progressing(_) | Judgement::Failed(_) => {
                CommitReason::None
            }
        });
    }
    let deadline = input.deadline(rollout);
    match &input.judgement {
        Judgement::Failed(failure) => Err(Box::new(failure.clone())),
        Judgement::Progressing(lacking) if deadline <= input.now => Err(Box::new(Failure {
            class: FailureClass::Deadline,
            reason: FailureReason::NoProgress {
                seconds: input.settings.deadline.as_secs(),
                lacking: Box::new(lacking.clone()),
            },
        })),
        Judgement::Progressing(_) => Ok(Next::at(deadline, input.now)),
        Judgement::Settled | Judgement::Waiting(_) => Ok(Next::AwaitChange),
    }
}

fn progress(input: &StepInput<'_>, rollout: &mut Rollout) -> Next {
    // The judgement refers to the commit that was driven when it was made; a commit that has just
    // become the driving one is judged in the next cycle.
    if input.rollout.driving != rollout.driving {
        return Next::AwaitChange;
    }
    let next = match watch(input, rollout) {
        Err(failure) => {
            fail(input, rollout, *failure);
            return Next::AwaitChange;
        }
        Ok(next) => next,
    };
    if let Some(next) = canary(input, rollout) {
        return next;
    }
    match &input.judgement {
        Judgement::Settled if input.nothing_to_judge(rollout) => become_healthy(input, rollout),
        Judgement::Settled => {
            rollout.enter(Phase::Soaking, input.now);
            return Next::After(input.settings.soak);
        }
        Judgement::Waiting(obstacle) => {
            rollout.update(Phase::progressing(Activity::Waiting(obstacle.clone())));
        }
        Judgement::Progressing(lacking) => {
            rollout.update(Phase::progressing(Activity::Unsettled(lacking.clone())));
        }
        Judgement::Failed(_) => {}
    }
    next
}

/// Judges the wave; `None` when there is no wave, or the wave no longer holds back the other nodes.
fn canary(input: &StepInput<'_>, rollout: &mut Rollout) -> Option<Next> {
    let mut wave = rollout.wave.clone()?;
    // The commit is not at fault for failures on nodes that do not follow it yet.
    wave.broken.extend(input.failing.iter().cloned());
    let nodes = wave.nodes.clone();
    let on_canaries = |activity| Phase::progressing(Activity::Canaries { nodes, activity });
    let activity = match &input.judgement {
        Judgement::Settled => {
            let opens = later(
                *wave.settled.get_or_insert(input.now),
                input.settings.canary_soak,
            );
            if opens <= input.now {
                rollout.wave = None;
                rollout.start_clock(input.now);
                rollout.update(on_canaries(CanaryActivity::Passed));
                return Some(Next::AwaitChange);
            }
            rollout.wave = Some(wave);
            rollout.update(on_canaries(CanaryActivity::Soaking));
            return Some(Next::at(opens, input.now));
        }
        Judgement::Waiting(obstacle) => CanaryActivity::Waiting(obstacle.clone()),
        Judgement::Progressing(lacking) => CanaryActivity::Unsettled(lacking.clone()),
        Judgement::Failed(_) => return None,
    };

    wave.settled = None;
    rollout.wave = Some(wave);
    rollout.update(on_canaries(activity));
    // No deadline falls due while the rollout waits.
    if rollout.waiting {
        return Some(Next::AwaitChange);
    }
    Some(Next::at(input.deadline(rollout), input.now))
}

fn soak(input: &StepInput<'_>, rollout: &mut Rollout) -> Next {
    match &input.judgement {
        Judgement::Failed(failure) => fail(input, rollout, failure.clone()),
        Judgement::Settled => {
            let end = later(rollout.since.unwrap_or(input.now), input.settings.soak);
            if end > input.now {
                return Next::at(end, input.now);
            }
            become_healthy(input, rollout);
        }
        Judgement::Waiting(obstacle) => {
            let activity = Activity::Waiting(obstacle.clone());
            rollout.enter(Phase::progressing(activity), input.now);
        }
        Judgement::Progressing(lacking) => {
            let activity = Activity::Unsettled(lacking.clone());
            rollout.enter(Phase::progressing(activity), input.now);
        }
    }
    Next::AwaitChange
}

/// Makes a degraded commit healthy once it has settled: a missed deadline is no reason to keep the
/// commit marked as bad.
fn recover(input: &StepInput<'_>, rollout: &mut Rollout) -> Next {
    if input.judgement == Judgement::Settled {
        rollout.enter(Phase::Soaking, input.now);
        return Next::After(input.settings.soak);
    }
    Next::AwaitChange
}

fn become_healthy(input: &StepInput<'_>, rollout: &mut Rollout) {
    let Some(target) = rollout.target.clone() else {
        return;
    };
    rollout.bad.remove(&target);
    rollout.healthy = Some(target);
    rollout.left.clear();
    if let Some(commit) = rollout
        .healthy
        .as_ref()
        .and_then(|id| input.commits.get(id))
    {
        rollout
            .restarts
            .retain(|owner, _| commit.objects.workloads.contains_key(owner));
    }
    rollout.enter(Phase::Healthy, input.now);
    rollout.close_target(
        CommitState::Healthy,
        CommitReason::None.into(),
        None,
        input.now,
    );
    // The commit was given up as degraded and has settled nevertheless.
    let last = rollout
        .history
        .iter_mut()
        .rev()
        .find(|entry| Some(&entry.commit) == rollout.target.as_ref());
    if let Some(entry) = last.filter(|entry| entry.state == CommitState::Degraded) {
        entry.state = CommitState::Healthy;
        entry.reason = CommitReason::None.into();
        entry.class = None;
        entry.ended = Some(input.now);
    }
}

/// The target has failed: rolls back to the last healthy commit, if that is another one.
fn fail(input: &StepInput<'_>, rollout: &mut Rollout, failure: Failure) {
    let Failure { class, reason } = failure;
    let Some(target) = rollout.target.clone() else {
        return;
    };
    // A failed rollback is not rolled back further, and the commit that was healthy before is not
    // marked as bad. A commit that is no longer eligible is no goal, since no pod could be started
    // from it.
    let back = match &rollout.rollback {
        Some(_) => None,
        None => rollout
            .healthy
            .clone()
            .filter(|healthy| *healthy != target && !input.kept.contains_key(healthy)),
    };
    if rollout.rollback.is_none() {
        rollout.bad.insert(target.clone(), reason.clone().into());
    }
    match back {
        Some(healthy) => {
            rollout.go_back_to(
                healthy,
                Rollback {
                    from: target,
                    reason: reason.into(),
                    class,
                },
                input.now,
            );
        }
        None => {
            rollout.close_target(
                CommitState::Degraded,
                CommitReason::Failed(reason.clone()).into(),
                Some(class),
                input.now,
            );
            // No commit ran before it, so its pods stay and may still become available.
            rollout.drive(target);
            let message = reason.into();
            rollout.enter(Phase::Degraded { message }, input.now);
        }
    }
}

impl StepInput<'_> {
    /// The time by which the changed workloads must make progress. It counts from the last
    /// progress, not from the start of the rollout, since nodes are updated one after another.
    fn deadline(&self, rollout: &Rollout) -> Timestamp {
        let from = rollout
            .clock
            .unwrap_or(self.now)
            .max(self.progressed.unwrap_or(Timestamp::MIN));
        later(from, self.settings.deadline)
    }

    /// Whether a node still has to receive the target or pull its images.
    fn lacks_images(&self, target: Option<&CommitId>, node: &NodeName) -> bool {
        let Some(report) = self.nodes.get(node) else {
            return false;
        };
        let prepared = target.and_then(|target| report.as_ref()?.prepared.get(target));
        prepared != Some(&Preparation::Ready)
    }

    fn nothing_to_judge(&self, rollout: &Rollout) -> bool {
        let get = |id: &Option<CommitId>| id.as_ref().and_then(|id| self.commits.get(id));
        let (Some(target), Some(_)) = (get(&rollout.target), get(&rollout.base())) else {
            return false;
        };
        judged_workloads(rollout, self.commits, target).is_empty()
    }
}
