//! One step in the life of a commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    Judgement, judged_workloads,
    prepare::{Prepared, Verdict},
};
use crate::{
    commit::Commit,
    name::{CommitId, NodeName},
    plan::Next,
    state::{NodeReport, Preparation},
    time::later,
};
use crate::{
    settings::RolloutSettings,
    state::{CommitState, Failure, FailureClass, HistoryEntry, Phase, Rollback, Rollout, Wave},
};

/// What the source says about the newest commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Head {
    /// Nothing yet, or it could not be judged: no reason to change anything.
    #[default]
    Unknown,
    /// Verified, read and without errors.
    Accepted(CommitId),
    /// Not to be run.
    Refused {
        /// Which.
        commit: CommitId,
        /// The first line of its message.
        subject: String,
        /// Why.
        reason: String,
    },
}

/// What a step looks at.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// The time.
    pub now: Timestamp,
    /// The bounds.
    pub settings: &'a RolloutSettings,
    /// How it stands.
    pub rollout: &'a Rollout,
    /// The newest commit.
    pub head: &'a Head,
    /// The eligible ones of all commits in use, and the head.
    pub commits: &'a BTreeMap<CommitId, std::sync::Arc<Commit>>,
    /// Commits that are not eligible, and of which something runs.
    pub kept: &'a BTreeMap<CommitId, std::sync::Arc<Commit>>,
    /// The nodes that are there, with what they say.
    pub nodes: BTreeMap<&'a NodeName, Option<&'a NodeReport>>,
    /// How many nodes may be at fault themselves.
    pub max_faulty: usize,
    /// The nodes that are, by the pods of what is driven.
    pub faulty: BTreeMap<NodeName, String>,
    /// The nodes, canaries apart, where a DaemonSet's pod fails.
    pub failing: BTreeSet<NodeName>,
    /// How the changed workloads of the driving commit stand, all together.
    pub judgement: Judgement,
    /// When one of them last came nearer to that.
    pub progressed: Option<Timestamp>,
}

/// The rollout after this step, and when to look again.
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

/// Takes down which nodes are at fault. As long as the commit is judged none of them is taken off
/// the list again, so that the deadline, which begins anew for the others, does so a few times at
/// most.
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

/// A commit that is neither the head nor the target nor in the history is not met again: its mark
/// would stay for ever.
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
            let known = rollout.history.iter().any(|entry| {
                entry.commit == *commit
                    && entry.state == CommitState::Refused
                    && entry.reason == *reason
            });
            if !known {
                rollout.record(HistoryEntry {
                    commit: commit.clone(),
                    subject: subject.clone(),
                    signer: String::new(),
                    state: CommitState::Refused,
                    reason: reason.clone(),
                    class: None,
                    began: input.now,
                    ended: Some(input.now),
                });
            }
        }
        Head::Accepted(id) => {
            // A head that is in the history (held, or bad) was there when somebody went back: it
            // has not moved on.
            let seen = rollout.history.iter().any(|entry| entry.commit == *id);
            if !seen
                && rollout
                    .pinned_against
                    .as_ref()
                    .is_some_and(|left| left != id)
            {
                rollout.pinned_against = None;
            }
            let wanted = !rollout.suspended
                && rollout.pinned_against.is_none()
                && rollout.target.as_ref() != Some(id)
                && !rollout.bad.contains_key(id);
            if let (true, Some(head)) = (wanted, input.commits.get(id)) {
                consider(input, rollout, head);
            }
        }
    }
}

/// Makes the head the target, unless it deletes too much. Where what runs cannot be read, nobody
/// can say what it would delete: it waits.
fn consider(input: &StepInput<'_>, rollout: &mut Rollout, head: &Commit) {
    let readable = |id| input.commits.get(id).or_else(|| input.kept.get(id));
    let before = rollout.driving.as_ref().map(readable);
    if before.is_some_and(|before| before.is_none()) {
        return;
    }
    let before = before.flatten();
    if let Some(reason) = before.and_then(|before| over_budget(input.settings, before, head)) {
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
        "a newer commit took its place",
        None,
        input.now,
    );
    rollout.target = Some(head.id.clone());
    rollout.rollback = None;
    rollout.began = Some(input.now);
    rollout.enter(
        Phase::Preparing {
            message: "looking at its images".to_owned(),
        },
        input.now,
    );
    rollout.record(entry(
        head,
        CommitState::Progressing,
        String::new(),
        input.now,
    ));
}

fn entry(commit: &Commit, state: CommitState, reason: String, now: Timestamp) -> HistoryEntry {
    HistoryEntry {
        commit: commit.id.clone(),
        subject: commit.subject.clone(),
        signer: commit.signer.clone(),
        state,
        reason,
        class: None,
        began: now,
        ended: None,
    }
}

/// Why a commit must wait for a word, if it deletes more than the budget.
fn over_budget(settings: &RolloutSettings, before: &Commit, head: &Commit) -> Option<String> {
    if head.allow_deletions {
        return None;
    }
    let all = before.objects.workloads.len();
    let deleted: Vec<String> = before
        .objects
        .workloads
        .keys()
        .filter(|key| !head.objects.workloads.contains_key(*key))
        .map(ToString::to_string)
        .collect();
    let allowed = settings.deletion_budget(all);
    (deleted.len() > allowed).then(|| {
        let named: Vec<&str> = deleted.iter().take(5).map(String::as_str).collect();
        format!(
            "it would delete {} of {all} workloads ({}{}), the budget is {allowed}: if that is meant, commit again \
             with the trailer `Windlass-Allow-Deletions: yes`",
            deleted.len(),
            named.join(", "),
            if deleted.len() > 5 { ", ..." } else { "" }
        )
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
        Verdict::Waiting { message, until } => {
            rollout.update(Phase::Preparing { message });
            until.map_or(next, |until| next.sooner(after(until, input.now)))
        }
        Verdict::Nobody => next,
        Verdict::Ready(faulty) => {
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
            // Where nothing changes they are at fault still.
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
            rollout.enter(
                Phase::Progressing {
                    message: "starting".to_owned(),
                },
                input.now,
            );
            next
        }
    }
}

/// The canaries that a commit comes to first: where something ran before, something changes, and
/// one of them is there.
fn canaries(
    input: &StepInput<'_>,
    rollout: &Rollout,
    faulty: &BTreeMap<NodeName, String>,
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

/// Keeps the clock of what is driven; says why it has failed, or when it will be late.
fn watch(input: &StepInput<'_>, rollout: &mut Rollout) -> Result<Next, Failure> {
    let waiting = matches!(input.judgement, Judgement::Waiting(_));
    if rollout.waiting && !waiting {
        rollout.start_clock(input.now);
    }
    rollout.waiting = waiting;
    if rollout.driving == rollout.target {
        rollout.note_waiting(match &input.judgement {
            Judgement::Waiting(message) => format!("waiting: {message}"),
            Judgement::Settled | Judgement::Progressing(_) | Judgement::Failed(_) => String::new(),
        });
    }
    let deadline = input.deadline(rollout);
    match &input.judgement {
        Judgement::Failed(failure) => Err(failure.clone()),
        Judgement::Progressing(message) if deadline <= input.now => {
            let reason = format!(
                "no progress within {} s: {message}",
                input.settings.deadline.as_secs()
            );
            Err(Failure {
                class: FailureClass::Deadline,
                reason,
            })
        }
        Judgement::Progressing(_) => Ok(after(deadline, input.now)),
        Judgement::Settled | Judgement::Waiting(_) => Ok(Next::AwaitChange),
    }
}

fn progress(input: &StepInput<'_>, rollout: &mut Rollout) -> Next {
    // The judgement is about what was driven when it was made; a commit that has just become the
    // driving one is judged next time.
    if input.rollout.driving != rollout.driving {
        return Next::AwaitChange;
    }
    let next = match watch(input, rollout) {
        Err(failure) => {
            fail(input, rollout, failure);
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
        Judgement::Waiting(message) | Judgement::Progressing(message) => {
            rollout.update(Phase::Progressing {
                message: message.clone(),
            });
        }
        Judgement::Failed(_) => {}
    }
    next
}

/// While only the canaries move; `None` when there is no wave, or it does not hold the others back
/// any more.
fn canary(input: &StepInput<'_>, rollout: &mut Rollout) -> Option<Next> {
    let mut wave = rollout.wave.clone()?;
    // What fails where it has not come yet is not its fault.
    wave.broken.extend(input.failing.iter().cloned());
    let named: Vec<&str> = wave.nodes.iter().map(NodeName::as_str).collect();
    let on = format!("canaries {}", named.join(", "));
    let (message, next) = match &input.judgement {
        Judgement::Settled => {
            let opens = later(
                *wave.settled.get_or_insert(input.now),
                input.settings.canary_soak,
            );
            if opens <= input.now {
                rollout.wave = None;
                rollout.start_clock(input.now);
                rollout.update(Phase::Progressing {
                    message: format!("{on}: all is well; the others follow"),
                });
                return Some(Next::AwaitChange);
            }
            (
                format!("{on}: all is well, the others follow if it stays so"),
                after(opens, input.now),
            )
        }
        Judgement::Waiting(message) | Judgement::Progressing(message) => {
            wave.settled = None;
            let deadline = input.deadline(rollout);
            // While something is waited for no deadline falls due.
            let next = if rollout.waiting {
                Next::AwaitChange
            } else {
                after(deadline, input.now)
            };
            (format!("{on}: {message}"), next)
        }
        Judgement::Failed(_) => return None,
    };
    rollout.wave = Some(wave);
    rollout.update(Phase::Progressing { message });
    Some(next)
}

fn soak(input: &StepInput<'_>, rollout: &mut Rollout) -> Next {
    match &input.judgement {
        Judgement::Failed(failure) => fail(input, rollout, failure.clone()),
        Judgement::Settled => {
            let end = later(rollout.since.unwrap_or(input.now), input.settings.soak);
            if end > input.now {
                return after(end, input.now);
            }
            become_healthy(input, rollout);
        }
        Judgement::Waiting(message) | Judgement::Progressing(message) => {
            rollout.enter(
                Phase::Progressing {
                    message: message.clone(),
                },
                input.now,
            );
        }
    }
    Next::AwaitChange
}

/// A degraded commit that has settled all the same is healthy; being late is no reason to call it
/// bad for ever.
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
        let known: BTreeSet<String> = commit
            .objects
            .workloads
            .keys()
            .map(ToString::to_string)
            .collect();
        rollout
            .restarts
            .retain(|workload, _| known.contains(workload));
    }
    rollout.enter(Phase::Healthy, input.now);
    rollout.close_target(CommitState::Healthy, "", None, input.now);
    // One that was given up as degraded and came up all the same.
    let last = rollout
        .history
        .iter_mut()
        .rev()
        .find(|entry| Some(&entry.commit) == rollout.target.as_ref());
    if let Some(entry) = last.filter(|entry| entry.state == CommitState::Degraded) {
        entry.state = CommitState::Healthy;
        entry.reason.clear();
        entry.class = None;
        entry.ended = Some(input.now);
    }
}

/// The target has failed: back to the last healthy commit, if there is another one.
fn fail(input: &StepInput<'_>, rollout: &mut Rollout, failure: Failure) {
    let Failure { class, reason } = failure;
    let Some(target) = rollout.target.clone() else {
        return;
    };
    // A rollback that fails is not rolled back further, and the commit that was healthy once is not
    // called bad. Of one that is not eligible any more nothing could be started.
    let back = match &rollout.rollback {
        Some(_) => None,
        None => rollout
            .healthy
            .clone()
            .filter(|healthy| *healthy != target && !input.kept.contains_key(healthy)),
    };
    if rollout.rollback.is_none() {
        rollout.bad.insert(target.clone(), reason.clone());
    }
    match back {
        Some(healthy) => {
            rollout.go_back_to(
                healthy,
                Rollback {
                    from: target,
                    reason,
                    class,
                },
                input.now,
            );
        }
        None => {
            rollout.close_target(CommitState::Degraded, &reason, Some(class), input.now);
            // Nothing ran before it, so its pods are left to come up if they can.
            rollout.drive(target);
            rollout.enter(Phase::Degraded { message: reason }, input.now);
        }
    }
}

fn after(time: Timestamp, now: Timestamp) -> Next {
    let wait = time.duration_since(now).max(SignedDuration::from_millis(1));
    Next::After(Duration::try_from(wait).unwrap_or(Duration::from_millis(1)))
}

impl StepInput<'_> {
    /// Until when the changed workloads must come nearer to being settled: many hosts one after
    /// another take their time.
    fn deadline(&self, rollout: &Rollout) -> Timestamp {
        let from = rollout
            .clock
            .unwrap_or(self.now)
            .max(self.progressed.unwrap_or(Timestamp::MIN));
        later(from, self.settings.deadline)
    }

    /// Whether a node that is there still has to get the target, or its images.
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
