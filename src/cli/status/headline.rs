//! What a person must know first: what is wrong with the newest commit, why, and what to do.

mod advice;
mod trouble;

use jiff::Timestamp;
use reconciler::state::{CommitState, Rollback};

use super::super::exit::Exit;
use crate::{
    http::{
        api::age,
        report::{CommitReport, StatusReport},
    },
    view::RefusedCommit,
};

/// The state of the newest commit on this host, in the order of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Standing {
    /// The newest commit is refused, held or has failed, and does not run.
    Rejected,
    /// Something else needs a person, or is waited for: a registry, the engine, a pod, `resume`.
    Troubled,
    /// The rollout of the newest commit makes progress, or there is no commit yet.
    Underway,
    /// The newest commit runs, and nothing is wrong.
    Well,
}

impl Standing {
    /// The exit code of `status --exit-code`.
    pub(in crate::cli) fn exit(self) -> Exit {
        match self {
            Self::Rejected => Exit::Refused,
            Self::Troubled | Self::Underway => Exit::Failed,
            Self::Well => Exit::Done,
        }
    }
}

/// The beginning of a status.
#[derive(Debug, PartialEq)]
pub(in crate::cli) struct Headline {
    pub(in crate::cli) standing: Standing,
    /// The state as one word, such as `Refused`.
    pub(in crate::cli) word: &'static str,
    /// The state as a sentence, which continues the word.
    pub(in crate::cli) sentence: String,
    /// The commit that the sentence is about, unless it is the target.
    pub(in crate::cli) commit: Option<CommitReport>,
    /// Why it is so, one reason a line.
    pub(in crate::cli) why: Vec<String>,
    /// What to do, one command or sentence a line.
    pub(in crate::cli) advice: Vec<String>,
}

impl Headline {
    /// The headline of a report.
    pub(in crate::cli) fn of(report: &StatusReport, now: Timestamp) -> Self {
        let rejected = refused(report)
            .or_else(|| held(report))
            .or_else(|| rolled_back(report))
            .or_else(|| degraded(report));
        rejected
            .or_else(|| trouble::troubled(report, now))
            .unwrap_or_else(|| regular(report, now))
    }

    fn rejected(word: &'static str, sentence: String, why: Vec<String>) -> Self {
        Self {
            standing: Standing::Rejected,
            word,
            sentence,
            commit: None,
            why,
            advice: Vec::new(),
        }
    }
}

fn refused(report: &StatusReport) -> Option<Headline> {
    let refusal = report.source.refusal.as_ref()?;
    if report.source.head.as_ref() != Some(&refusal.commit) {
        return None;
    }
    Some(Headline {
        commit: report.newest().cloned().map(|newest| CommitReport {
            signer: match refusal.signer.is_empty() {
                true => newest.signer,
                false => refusal.signer.clone(),
            },
            ..newest
        }),
        advice: advice::refused(refusal, &report.source),
        ..Headline::rejected(
            "Refused",
            "the newest commit does not run".to_owned(),
            reasons(report, refusal),
        )
    })
}

/// The problems of a refused commit, or its summary if that has the texts of all.
fn reasons(report: &StatusReport, refusal: &RefusedCommit) -> Vec<String> {
    // The headline shows id and subject of the head already.
    let subject = report.head.as_ref().map(|head| head.subject.as_str());
    let subject = match subject.unwrap_or_default() {
        "" => String::new(),
        subject => format!(" \"{subject}\""),
    };
    let head = format!("commit {}{subject}: ", refusal.commit.short());
    match refusal.problems.as_slice() {
        [] => vec![refusal.summary.clone()],
        problems => problems
            .iter()
            .map(|problem| problem.strip_prefix(&head).unwrap_or(problem).to_owned())
            .collect(),
    }
}

fn held(report: &StatusReport) -> Option<Headline> {
    if report.head_state != Some(CommitState::Held) || is_target(report) {
        return None;
    }
    Some(Headline {
        commit: report.newest().cloned(),
        advice: advice::held(),
        ..Headline::rejected(
            "Held",
            "the newest commit waits for an approval".to_owned(),
            vec![report.head_reason.clone()],
        )
    })
}

fn rolled_back(report: &StatusReport) -> Option<Headline> {
    let newest = report.newest()?;
    let rollback = report
        .rollback
        .as_ref()
        .filter(|rollback| rollback.from == newest.id);
    // A rollback by hand is a stop, which the person knows of.
    if is_target(report) || report.pinned_against.as_ref() == Some(&newest.id) {
        return None;
    }
    let why = report
        .bad
        .get(&newest.id)
        .cloned()
        .or_else(|| rollback.map(|Rollback { reason, .. }| reason.to_string()))?;
    let sentence = match &report.target {
        Some(target) => format!(
            "the newest commit has failed, {} runs instead",
            target.id.short()
        ),
        None => "the newest commit has failed".to_owned(),
    };
    Some(Headline {
        commit: Some(newest.clone()),
        advice: advice::failed(&newest.id),
        ..Headline::rejected("RolledBack", sentence, vec![why])
    })
}

fn degraded(report: &StatusReport) -> Option<Headline> {
    if report.phase != "Degraded" {
        return None;
    }
    let target = report.target.as_ref();
    Some(Headline {
        advice: [
            advice::crashing(report.crashing.as_ref()),
            target.map_or_else(Vec::new, |target| advice::failed(&target.id)),
        ]
        .concat(),
        ..Headline::rejected(
            "Degraded",
            format!(
                "the commit{} has failed, and there is no healthy one to go back to",
                target.map_or(String::new(), |target| format!(" {}", target.id.short()))
            ),
            once(report, vec![report.message.clone()]),
        )
    })
}

/// Reasons with those of the pods, each only once.
fn once(report: &StatusReport, mut why: Vec<String>) -> Vec<String> {
    why.retain(|reason| !reason.is_empty());
    for sentence in &report.unwell {
        if !why.iter().any(|reason| reason.contains(sentence.as_str())) {
            why.push(sentence.clone());
        }
    }
    why
}

/// The rollout takes its course, or has ended well.
fn regular(report: &StatusReport, now: Timestamp) -> Headline {
    let headline = |standing, word, sentence| Headline {
        standing,
        word,
        sentence,
        commit: None,
        why: once(report, vec![report.message.clone()]),
        advice: advice::crashing(report.crashing.as_ref()),
    };
    match report.phase.as_str() {
        "Empty" => headline(
            Standing::Underway,
            "Empty",
            format!(
                "waiting for the first commit on branch {} of {}",
                report.source.branch, report.source.url
            ),
        ),
        "Healthy" => {
            let standing = match report.head.is_some() && is_target(report) && report.converged {
                true => Standing::Well,
                false => Standing::Underway,
            };
            let lasting = lasting(report, now);
            headline(
                standing,
                "Healthy",
                format!("{}{}", lasting.trim_start(), unread(report)),
            )
        }
        phase => headline(
            Standing::Underway,
            known(phase),
            lasting(report, now).trim_start().to_owned(),
        ),
    }
}

/// The phases in which the rollout makes progress.
fn known(phase: &str) -> &'static str {
    match phase {
        "Preparing" => "Preparing",
        "Soaking" => "Soaking",
        _ => "Progressing",
    }
}

/// How long the phase lasts already.
pub(super) fn lasting(report: &StatusReport, now: Timestamp) -> String {
    report
        .since
        .map(|since| format!(" for {}", age::since(Some(since), now)))
        .unwrap_or_default()
}

/// That a newer commit would not be known: until the first fetch since the start.
fn unread(report: &StatusReport) -> &'static str {
    match report.head {
        Some(_) => "",
        None => "; the repository has not been read since the daemon started",
    }
}

/// Whether the newest commit is the one that must run.
pub(in crate::cli) fn is_target(report: &StatusReport) -> bool {
    let target = report.target.as_ref();
    report.newest().map(|commit| &commit.id) == target.map(|commit| &commit.id)
}
