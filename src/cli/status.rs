//! `windlass status`

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use jiff::Timestamp;
use reconciler::{foreign, state::CommitState};
use serde::Serialize;

use super::{
    args::Format,
    client::Client,
    exit::{CliError, Exit},
    paint,
};
use crate::http::{
    api::age,
    report::{CommitReport, StatusReport},
};

/// Prints the state of the daemon, of the rollout and of the pods.
pub(super) async fn run(
    client: &Client,
    format: Format,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let report: StatusReport = client.get("/windlass/v1/status").await?;
    match format {
        Format::Json => json(&report, out)?,
        Format::Text => print(&report, out)?,
    }
    Ok(Exit::Done)
}

/// Prints a value as JSON, with unprintable characters escaped.
pub(super) fn json<T: Serialize>(value: &T, out: &mut dyn Write) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    writeln!(out, "{}", foreign::escape_json(&text))
}

/// Prints a report as text: the rollout and what blocks it, the commits, the repository, the pods.
pub(super) fn print(report: &StatusReport, out: &mut dyn Write) -> io::Result<()> {
    let now = Timestamp::now();
    let since = report
        .since
        .map(|since| format!(" for {}", age::since(Some(since), now)))
        .unwrap_or_default();
    let waiting = if report.waiting {
        ", waiting for a cause outside of the commit"
    } else {
        ""
    };
    writeln!(
        out,
        "{}: {}{waiting}{since}",
        paint::strong(&report.node),
        paint::state(&report.phase)
    )?;
    if !report.message.is_empty() {
        writeln!(out, "  {}", report.message)?;
    }
    holds(report, out)?;

    writeln!(out)?;
    let pointers = [
        ("target", &report.target),
        ("healthy", &report.healthy),
        ("verified", &report.verified),
        ("head", &report.head),
    ];
    for (pointer, commit) in pointers {
        let text = match commit {
            Some(commit) => described(commit, now),
            None => "-".to_owned(),
        };
        line(out, pointer, &text)?;
    }
    refusal(report, out)?;

    writeln!(out)?;
    source(report, now, out)?;
    pods(report, out)?;
    cluster(report, now, out)?;
    for trouble in &report.troubles {
        line(out, "trouble", &paint::bad(trouble))?;
    }
    for note in &report.notes {
        line(out, "note", note)?;
    }
    for warning in &report.warnings {
        line(out, "warning", &paint::soso(&warning.to_string()))?;
    }
    line(out, "daemon", &format!("windlass {}", report.version))
}

fn line(out: &mut dyn Write, title: &str, text: &str) -> io::Result<()> {
    writeln!(out, "  {title:<9} {text}")
}

/// Prints why the target is not the head.
fn holds(report: &StatusReport, out: &mut dyn Write) -> io::Result<()> {
    if let Some(rollback) = &report.rollback {
        let text = format!(
            "rolled back from {}: {}",
            rollback.from.short(),
            rollback.reason
        );
        writeln!(out, "  {}", paint::bad(&text))?;
    }
    if let Some(head) = &report.pinned_against {
        let text = format!(
            "pinned by hand against {}: `windlass resume` ends that",
            head.short()
        );
        writeln!(out, "  {}", paint::soso(&text))?;
    }
    if report.head_state == Some(CommitState::Held) && !is_target(report) {
        writeln!(
            out,
            "  {}",
            paint::soso(&format!(
                "the newest commit is held: {}",
                report.head_reason
            ))
        )?;
    }
    if report.suspended {
        writeln!(
            out,
            "  {}",
            paint::soso("suspended: no new commit is deployed until `windlass resume`")
        )?;
    }
    if !report.converged {
        writeln!(
            out,
            "  {}",
            paint::soso("the first cycle since the start has not converged yet")
        )?;
    }
    Ok(())
}

/// Whether the newest commit is the one that must run.
fn is_target(report: &StatusReport) -> bool {
    let id = |commit: &Option<CommitReport>| commit.as_ref().map(|commit| commit.id.clone());
    id(&report.head) == id(&report.target)
}

fn described(commit: &CommitReport, now: Timestamp) -> String {
    let mut text = format!("{}  {}", paint::strong(commit.id.short()), commit.subject);
    let age = commit
        .time
        .map(|time| format!("{} ago", age::since(Some(time), now)));
    let signer = (!commit.signer.is_empty()).then(|| commit.signer.clone());
    let aside: Vec<String> = signer.into_iter().chain(age).collect();
    if !aside.is_empty() {
        text.push_str(&paint::faint(&format!("  ({})", aside.join(", "))));
    }
    text
}

/// Prints why commits do not run: the refusal of the head, and the commits that failed.
fn refusal(report: &StatusReport, out: &mut dyn Write) -> io::Result<()> {
    if let Some(refusal) = &report.source.refusal {
        let text = format!("{} is refused: {}", refusal.commit.short(), refusal.summary);
        writeln!(out, "\n  {}", paint::bad(&text))?;
        // If there is only one problem, the summary has the same text.
        for problem in refusal
            .problems
            .iter()
            .filter(|problem| **problem != refusal.summary)
        {
            writeln!(out, "    {problem}")?;
        }
    }
    for (commit, reason) in &report.bad {
        line(out, "failed", &format!("{}  {reason}", commit.short()))?;
    }
    Ok(())
}

/// Prints the repository, with the time and the error of the last fetch.
fn source(report: &StatusReport, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    let source = &report.source;
    let branch = if source.branch.is_empty() {
        String::new()
    } else {
        format!(", branch {}", source.branch)
    };
    let asked = match (source.fetched, &source.error) {
        (Some(_), None) => format!("fetched {} ago", age::since(source.fetched, now)),
        (Some(_), Some(_)) => format!("no answer for {}", age::since(source.fetched, now)),
        (None, None) => "not fetched yet".to_owned(),
        (None, Some(_)) => "no answer yet".to_owned(),
    };
    line(
        out,
        "source",
        &format!(
            "{}{branch}; verification {}; {asked}",
            source.url, source.verification
        ),
    )?;
    match &source.error {
        Some(error) => line(out, "", &paint::bad(error)),
        None => Ok(()),
    }
}

/// Prints the state of the other hosts and of the store.
fn cluster(report: &StatusReport, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    let Some(cluster) = &report.cluster else {
        return Ok(());
    };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for life in cluster.nodes.values() {
        *counts.entry(life).or_default() += 1;
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(life, count)| format!("{count} {life}"))
        .collect();

    let leader = cluster.leader.as_ref().map_or_else(
        || "no known leader".to_owned(),
        |node| format!("leader {node}"),
    );
    line(
        out,
        "cluster",
        &format!(
            "{} nodes: {}; {leader}",
            cluster.nodes.len(),
            counts.join(", ")
        ),
    )?;

    let not_ready = cluster.nodes.iter().filter(|(_, life)| *life != "Ready");
    for (node, life) in not_ready {
        line(out, "", &paint::soso(&format!("node {node} is {life}")))?;
    }

    if cluster.store != "current" {
        let since = cluster
            .since
            .map(|since| format!(" for {}", age::since(Some(since), now)))
            .unwrap_or_default();
        line(
            out,
            "store",
            &paint::bad(&format!("{}{since}", cluster.store)),
        )?;
    }
    Ok(())
}

/// Prints the number of pods in each phase, and the pods that need attention.
fn pods(report: &StatusReport, out: &mut dyn Write) -> io::Result<()> {
    let total: usize = report.pods.values().sum();
    let phases: Vec<String> = report
        .pods
        .iter()
        .map(|(phase, count)| format!("{count} {phase}"))
        .collect();
    let text = match total {
        0 => "none".to_owned(),
        _ => format!(
            "{}; {} of {total} ready",
            phases.join(", "),
            report.ready_pods
        ),
    };
    line(out, "pods", &text)?;
    report
        .unwell
        .iter()
        .try_for_each(|sentence| line(out, "", &paint::soso(sentence)))
}
