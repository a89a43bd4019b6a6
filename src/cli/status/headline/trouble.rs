//! Headlines about what no commit ends: registries, the repository, the engine, pods, `suspend`.

use jiff::Timestamp;
use reconciler::fault::FaultKind;

use super::{Headline, Standing, advice, is_target, lasting, once};
use crate::{
    http::{api::age, report::StatusReport},
    view::FailedPull,
};

/// Something that no commit ends: a registry or the repository that does not answer, the engine, a
/// pod that fails after its commit was healthy, or a person's own `suspend`.
pub(super) fn troubled(report: &StatusReport, now: Timestamp) -> Option<Headline> {
    let mut why = report.troubles.clone();
    if let Some(error) = &report.source.error {
        why.push(error.clone());
    }
    let runs = is_target(report);
    let is_healthy = report.phase == "Healthy";
    let stopped = stopped(report);
    let mut advice: Vec<String> = stopped
        .iter()
        .map(|(_, advice)| (*advice).to_owned())
        .collect();

    let (word, sentence) = if report.waiting || waits_for_registry(report) {
        why.splice(0..0, once(report, waited_for(report, now)));
        advice.extend(advice::waiting(&report.failed_pulls));
        (
            "Waiting",
            format!(
                "something outside of the commit is in the way{}",
                lasting(report, now)
            ),
        )
    } else if let Some((sentence, _)) = stopped {
        ("Stopped", sentence)
    } else if is_healthy && !report.unwell.is_empty() {
        why.splice(0..0, once(report, Vec::new()));
        advice.extend(advice::crashing(report.crashing.as_ref()));
        (
            "Unwell",
            format!(
                "the commit was healthy{}, and pods need attention",
                lasting(report, now)
            ),
        )
    } else if why.is_empty() {
        return None;
    } else if report.target.is_none() && report.source.error.is_some() {
        (
            "Waiting",
            "the repository has no commit for this host yet".to_owned(),
        )
    } else if report.source.error.is_some() && report.troubles.is_empty() {
        (
            "Unwell",
            "the repository cannot be read, so a newer commit would not be noticed".to_owned(),
        )
    } else {
        ("Unwell", "a part of the daemon does not work".to_owned())
    };
    let commit = report.newest().cloned().filter(|_| !runs);
    Some(Headline {
        standing: Standing::Troubled,
        word,
        sentence,
        commit,
        why,
        advice,
    })
}

/// Whether a registry is what the preparation of the target waits for. The rollout itself says so
/// only after some attempts.
fn waits_for_registry(report: &StatusReport) -> bool {
    let of_registry = |pull: &FailedPull| {
        matches!(
            pull.fault,
            FaultKind::RegistryUnreachable | FaultKind::RegistryDenied
        )
    };
    report.phase == "Preparing" && report.failed_pulls.iter().any(of_registry)
}

/// Why the newest commit is not taken although it could be, and the command that ends that.
fn stopped(report: &StatusReport) -> Option<(String, &'static str)> {
    if is_target(report) {
        return None;
    }
    let newest = report.newest()?;
    if report.pinned_against.as_ref() == Some(&newest.id) {
        let sentence = "the newest commit was rolled back by hand";
        return Some((sentence.to_owned(), "windlass resume"));
    }
    report.suspended.then(|| {
        let sentence = "suspended, so the newest commit is not deployed";
        (sentence.to_owned(), "windlass resume")
    })
}

/// What the rollout waits for: the images by name, if this host cannot pull them.
fn waited_for(report: &StatusReport, now: Timestamp) -> Vec<String> {
    if report.failed_pulls.is_empty() {
        return vec![report.message.clone()];
    }
    report
        .failed_pulls
        .iter()
        .map(|pull| pulled(pull, now))
        .collect()
}

fn pulled(pull: &FailedPull, now: Timestamp) -> String {
    let next = match pull.retry_at {
        Some(at) => format!(
            "the next attempt is in {}",
            age::human(at.as_second() - now.as_second())
        ),
        None => "an attempt is under way".to_owned(),
    };
    let what = match pull.fault {
        FaultKind::RegistryUnreachable => "the registry does not answer",
        FaultKind::RegistryDenied => "the registry denies access",
        _ => "the image cannot be pulled",
    };
    format!(
        "{}: {what} since {:.0} ({}, {} attempts), {next}: {}",
        pull.image,
        pull.since,
        age::since(Some(pull.since), now),
        pull.attempts,
        pull.error
    )
}
