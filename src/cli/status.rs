//! `windlass status`

pub(super) mod headline;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use jiff::Timestamp;
use reconciler::{foreign, name::CommitId};
use serde::Serialize;

use self::headline::{Headline, Standing};
use super::{
    args::{Format, StatusArgs},
    client::Client,
    exit::{CliError, Exit},
    paint, printed,
    wrap::{self, Colour, plain},
};
use crate::http::{
    api::age,
    report::{CommitReport, StatusReport},
};

/// Prints the state of the daemon, of the rollout and of the pods.
pub(super) async fn run(
    client: &Client,
    args: StatusArgs,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let report: StatusReport = client.get("/windlass/v1/status").await?;
    match args.output {
        Format::Json => json(&report, out)?,
        Format::Text => print(&report, out)?,
    }
    let standing = Headline::of(&report, Timestamp::now()).standing;
    Ok(match args.exit_code {
        true => standing.exit(),
        false => Exit::Done,
    })
}

/// Prints a value as JSON, with unprintable characters escaped.
pub(super) fn json<T: Serialize>(value: &T, out: &mut dyn Write) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    writeln!(out, "{}", foreign::escape_json(&text))
}

/// Prints a report as text: what is wrong and what to do, then the commits, the repository, the
/// pods and the daemon.
pub(super) fn print(report: &StatusReport, out: &mut dyn Write) -> io::Result<()> {
    let now = Timestamp::now();
    let headline = Headline::of(report, now);
    beginning(report, &headline, now, out)?;
    holds(report, out)?;
    for warning in &report.warnings {
        line(out, "warning", &warning.to_string(), paint::soso)?;
    }

    writeln!(out)?;
    commits(report, now, out)?;

    writeln!(out)?;
    source(report, &headline, now, out)?;
    pods(report, &headline, out)?;
    cluster(report, now, out)?;
    for trouble in report
        .troubles
        .iter()
        .filter(|one| !headline.why.contains(one))
    {
        line(out, "trouble", trouble, paint::bad)?;
    }
    for note in &report.notes {
        line(out, "note", note, plain)?;
    }
    line(
        out,
        "daemon",
        &format!("windlass {}", report.version),
        plain,
    )
}

/// Prints the headline: the state, the commit that it is about, the reasons, what to do, and what
/// runs meanwhile.
fn beginning(
    report: &StatusReport,
    headline: &Headline,
    now: Timestamp,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Headline {
        standing,
        word,
        sentence,
        commit,
        why,
        advice,
    } = headline;
    let separator = if sentence.starts_with("for ") || sentence.is_empty() {
        ""
    } else {
        ":"
    };
    let text = format!("{word}{separator} {sentence}");
    let first = format!("{}:", report.node);
    let colour = match standing {
        Standing::Rejected => paint::bad,
        Standing::Troubled | Standing::Underway => paint::soso,
        Standing::Well => paint::good,
    };
    wrap::headed(out, &first, text.trim_end(), colour)?;

    if let Some(commit) = commit {
        line(out, "commit", &described(commit, now), plain)?;
    }
    let colour = match standing {
        Standing::Underway | Standing::Well => plain,
        Standing::Rejected | Standing::Troubled => colour,
    };
    let title = match standing {
        Standing::Underway | Standing::Well => "waits for",
        Standing::Rejected | Standing::Troubled => "why",
    };
    section(out, title, why, colour)?;
    printed(out, report, now)?;
    section(out, "do", advice, paint::strong)?;

    if *word != report.phase
        && let Some(target) = &report.target
    {
        let age = headline::lasting(report, now);
        let text = format!("{} is {}{age}", target.id.short(), report.phase);
        line(out, "meanwhile", &text, plain)?;
    }
    Ok(())
}

/// The most containers whose output is printed.
const OUTPUTS: usize = 3;

/// Prints what containers printed before they failed.
fn printed(out: &mut dyn Write, report: &StatusReport, now: Timestamp) -> io::Result<()> {
    let shown = report.last_outputs.iter().take(OUTPUTS);
    for (index, output) in shown.enumerate() {
        let title = if index == 0 { "printed" } else { "" };
        line(out, title, &printed::title(output, now), plain)?;
        printed::lines(out, wrap::TEXT_COLUMN, output)?;
    }
    Ok(())
}

/// Prints texts, each on a line of its own, with a title at the left of the first.
fn section(out: &mut dyn Write, title: &str, texts: &[String], colour: Colour) -> io::Result<()> {
    for (index, text) in texts.iter().enumerate() {
        line(out, if index == 0 { title } else { "" }, text, colour)?;
    }
    Ok(())
}

/// Prints what keeps new commits from being deployed now or later.
fn holds(report: &StatusReport, out: &mut dyn Write) -> io::Result<()> {
    if let Some(head) = &report.pinned_against {
        let text = format!(
            "pinned by hand against {}: `windlass resume` ends that",
            head.short()
        );
        wrap::indented(out, 2, &text, paint::soso)?;
    }
    if report.suspended {
        let text = "suspended: no new commit is deployed until `windlass resume`";
        wrap::indented(out, 2, text, paint::soso)?;
    }
    if !report.converged {
        let text = "the first cycle since the start has not converged yet";
        wrap::indented(out, 2, text, paint::soso)?;
    }
    Ok(())
}

/// Prints the commits that the daemon knows by a role. A commit with several roles is described
/// once.
fn commits(report: &StatusReport, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    let pointers = [
        ("target", &report.target),
        ("healthy", &report.healthy),
        ("verified", &report.verified),
        ("head", &report.head),
    ];
    let mut known: BTreeMap<&CommitId, &str> = BTreeMap::new();
    for (pointer, commit) in pointers {
        let text = match commit {
            Some(commit) => match known.get(&commit.id) {
                Some(first) => format!("{}  (the {first})", commit.id.short()),
                None => described(commit, now),
            },
            None => "-".to_owned(),
        };
        line(out, pointer, &text, plain)?;
        if let Some(commit) = commit {
            known.entry(&commit.id).or_insert(pointer);
        }
    }
    Ok(())
}

fn line(out: &mut dyn Write, title: &str, text: &str, colour: Colour) -> io::Result<()> {
    wrap::titled(out, title, text, colour)
}

fn described(commit: &CommitReport, now: Timestamp) -> String {
    let mut text = commit.id.short().to_owned();
    if !commit.subject.is_empty() {
        text.push_str(&format!("  {}", commit.subject));
    }
    let age = commit
        .time
        .map(|time| format!("{} ago", age::since(Some(time), now)));
    let signer = (!commit.signer.is_empty()).then(|| commit.signer.clone());
    let aside: Vec<String> = signer.into_iter().chain(age).collect();
    if !aside.is_empty() {
        text.push_str(&format!("  ({})", aside.join(", ")));
    }
    text
}

/// Prints the repository, with the time and the error of the last fetch.
fn source(
    report: &StatusReport,
    headline: &Headline,
    now: Timestamp,
    out: &mut dyn Write,
) -> io::Result<()> {
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
        plain,
    )?;
    match &source.error {
        Some(error) if !headline.why.contains(error) => line(out, "", error, paint::bad),
        Some(_) | None => Ok(()),
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
        plain,
    )?;

    let not_ready = cluster.nodes.iter().filter(|(_, life)| *life != "Ready");
    for (node, life) in not_ready {
        line(out, "", &format!("node {node} is {life}"), paint::soso)?;
    }

    if cluster.store != "current" {
        let since = cluster
            .since
            .map(|since| format!(" for {}", age::since(Some(since), now)))
            .unwrap_or_default();
        line(
            out,
            "store",
            &format!("{}{since}", cluster.store),
            paint::bad,
        )?;
    }
    Ok(())
}

/// Prints the number of pods in each state, as `get pods` shows it, the pulls under way, and the
/// pods that need attention.
fn pods(report: &StatusReport, headline: &Headline, out: &mut dyn Write) -> io::Result<()> {
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
    line(out, "pods", &text, plain)?;
    for pull in &report.pulls {
        line(out, "pulling", &foreign::escape(&pull.to_string()), plain)?;
    }
    let mut others = report
        .unwell
        .iter()
        .filter(|one| !headline.why.contains(one));
    others.try_for_each(|sentence| line(out, "", sentence, paint::soso))
}
