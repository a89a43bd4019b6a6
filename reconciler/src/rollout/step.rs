//! One step in the rollout of a commit.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Judgement,
    head::take_up_head,
    input::{Head, StepInput},
    judged_workloads,
    prepare::{Prepared, Verdict},
};
use crate::{
    name::NodeName,
    plan::Next,
    state::{
        Activity, CanaryActivity, CommitReason, CommitState, Failure, FailureClass, FailureReason,
        NodeFault, Phase, Rollback, Rollout, Stored, Wave,
    },
    time::later,
};

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
