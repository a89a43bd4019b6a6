//! `windlass sync`: fetches from the repository now and, with `--wait`, waits for the outcome of its
//! newest commit.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use jiff::Timestamp;
use reconciler::{
    fault::FaultKind, foreign, manifest::Problem, name::CommitId, state::CommitState,
};
use runtime::{ImagePull, LastOutput};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::{
    act,
    args::{Format, SyncArgs},
    client::Client,
    exit::{CliError, Exit},
    paint, printed,
    status::headline::{Headline, Standing},
    wrap,
};
use crate::{command::Command, http::report::StatusReport, uptime::Uptime, view::FailedPull};

/// How often the bytes of the same pulls are printed.
const PULL_INTERVAL: Duration = Duration::from_secs(5);

/// The outcome of the newest commit, as far as a report shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub(super) enum SyncVerdict {
    /// The outcome is open.
    Wait {
        /// What the command waits for.
        message: String,
    },
    /// The commit runs, and is healthy.
    Healthy {
        /// The newest commit.
        commit: CommitId,
        /// What its manifests may not mean, such as a Service that leads to no pod.
        warnings: Vec<Problem>,
    },
    /// The commit was refused, held or rolled back.
    Refused {
        /// The newest commit.
        commit: CommitId,
        /// The reason, as one sentence.
        reason: String,
        /// All problems of the commit.
        problems: Vec<String>,
        /// What containers of the commit printed before they failed, newest first.
        last_outputs: Vec<LastOutput>,
        /// What to do, one command or sentence each.
        advice: Vec<String>,
    },
    /// The rollout does not begin before a person acts.
    Stopped {
        /// What prevents the rollout, and the command that ends it.
        message: String,
    },
}

/// Sends the command and, with `--wait`, prints each change until the outcome is known.
pub(super) async fn run(
    sockets: &Path,
    args: &SyncArgs,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let asked = Uptime::now();
    let message = act::send(&Client::new(sockets.join("admin.sock"))?, Command::Sync)
        .await?
        .message;
    if !args.wait {
        writeln!(out, "{message}")?;
        return Ok(Exit::Done);
    }

    let until = Instant::now() + args.timeout;
    let mut last = String::new();
    let watched = timeout_at(until, watch(sockets, asked, args.output, &mut last, out)).await;
    match watched {
        Ok(verdict) => conclude(&verdict?, args.output, out),
        Err(_) => {
            let message = format!("timed out after {} s; last: {last}", args.timeout.as_secs());
            conclude_with(
                Exit::TimedOut,
                &SyncVerdict::Wait {
                    message: message.clone(),
                },
                &message,
                args.output,
                out,
            )
        }
    }
}

/// Follows the reports until one shows the outcome. If the daemon restarts meanwhile, its next start
/// is waited for.
async fn watch(
    sockets: &Path,
    asked: Uptime,
    format: Format,
    last: &mut String,
    out: &mut dyn Write,
) -> Result<SyncVerdict, CliError> {
    let socket = sockets.join("windlass.sock");
    let (mut pulls, mut advice) = (ShownPulls::default(), ShownAdvice::default());
    loop {
        let client = Client::new(socket.clone())?;
        let mut reports = client
            .stream("/windlass/v1/status?watch=true", "*/*")
            .await?;
        while let Ok(Some(report)) = reports.line::<StatusReport>().await {
            match verdict(&report, asked) {
                SyncVerdict::Wait { message } => {
                    if format == Format::Text {
                        if message != *last {
                            wrap::hanging(out, &message)?;
                            advice.show(&report, out)?;
                        }
                        pulls.show(&report.pulls, Instant::now(), out)?;
                        out.flush()?;
                    }
                    *last = message;
                }
                end @ SyncVerdict::Refused { .. } => {
                    return Ok(with_outputs(&client, asked, end).await);
                }
                end => return Ok(end),
            }
        }
        while !super::client::answers(&socket) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// What to do while something outside of the commit is in the way, as it was printed last.
#[derive(Default)]
struct ShownAdvice(Vec<String>);

impl ShownAdvice {
    fn show(&mut self, report: &StatusReport, out: &mut dyn Write) -> io::Result<()> {
        let headline = Headline::of(report, Timestamp::now());
        if headline.standing != Standing::Troubled || headline.advice == self.0 {
            return Ok(());
        }
        self.0 = headline.advice;
        let mut lines = self.0.iter();
        lines.try_for_each(|line| wrap::hanging(out, &format!("  {line}")))
    }
}

/// The pulls that were printed last. Their bytes change all the time, so they are printed again
/// only from time to time.
#[derive(Default)]
struct ShownPulls {
    pulls: Vec<ImagePull>,
    at: Option<Instant>,
}

impl ShownPulls {
    fn show(&mut self, pulls: &[ImagePull], now: Instant, out: &mut dyn Write) -> io::Result<()> {
        let images = |pulls: &[ImagePull]| -> Vec<String> {
            pulls.iter().map(|pull| pull.image.clone()).collect()
        };
        let is_due = self.at.is_none_or(|at| now >= at + PULL_INTERVAL);
        if images(pulls) == images(&self.pulls) && (pulls == self.pulls || !is_due) {
            return Ok(());
        }
        (self.pulls, self.at) = (pulls.to_vec(), Some(now));
        for pull in pulls {
            let text = format!("  pulling {}", foreign::escape(&pull.to_string()));
            wrap::hanging(out, &text)?;
        }
        Ok(())
    }
}

/// A refusal with what containers printed on all hosts: the reports that are streamed have only the
/// outputs of this host that were known at that moment.
async fn with_outputs(client: &Client, asked: Uptime, refused: SyncVerdict) -> SyncVerdict {
    let Ok(report) = client.get::<StatusReport>("/windlass/v1/status").await else {
        return refused;
    };
    let later = verdict(&report, asked);
    match (&refused, &later) {
        (SyncVerdict::Refused { commit, .. }, SyncVerdict::Refused { commit: newest, .. })
            if commit == newest =>
        {
            later
        }
        // A newer commit has come meanwhile.
        _ => refused,
    }
}

/// Why an image is not here yet, without what differs between two attempts.
fn missing(pull: &FailedPull) -> String {
    let why = match pull.fault {
        FaultKind::RegistryUnreachable => "its registry does not answer",
        FaultKind::RegistryDenied => "its registry denies access",
        _ => pull.error.as_str(),
    };
    format!("image {}: {why}", pull.image)
}

/// What containers of a commit printed before they failed.
fn of_commit(report: &StatusReport, commit: &CommitId) -> Vec<LastOutput> {
    let outputs = report.last_outputs.iter();
    let of_commit = outputs.filter(|output| output.commit == *commit);
    of_commit.cloned().collect()
}

/// The outcome that one report shows, for a command that was sent at `asked`.
pub(super) fn verdict(report: &StatusReport, asked: Uptime) -> SyncVerdict {
    let wait = |message: String| SyncVerdict::Wait { message };
    let source = &report.source;
    // The result of an earlier fetch may not include the newest commit. Both times are since the
    // boot of this host, so that setting the clock in between has no effect.
    if source
        .fetched_uptime_nanos
        .is_none_or(|fetched| fetched < asked)
    {
        return match &source.error {
            Some(error) => wait(format!("the repository cannot be fetched: {error}")),
            None => wait("fetching from the repository".to_owned()),
        };
    }

    let Some(head) = &source.head else {
        return wait(format!(
            "waiting for the first commit: branch {} of {} has none; push one",
            source.branch, source.url
        ));
    };
    let refused = |reason: String, problems: Vec<String>| SyncVerdict::Refused {
        commit: head.clone(),
        reason,
        problems,
        last_outputs: of_commit(report, head),
        advice: Headline::of(report, Timestamp::now()).advice,
    };

    if let Some(refusal) = &source.refusal
        && refusal.commit == *head
    {
        return refused(refusal.summary.clone(), refusal.problems.clone());
    }
    if let Some(reason) = report.bad.get(head) {
        return refused(reason.clone(), Vec::new());
    }
    if let Some(state) = report.head_state
        && matches!(
            state,
            CommitState::Refused
                | CommitState::Held
                | CommitState::RolledBack
                | CommitState::Degraded
        )
    {
        return refused(
            format!("{}: {}", state.as_str(), report.head_reason),
            Vec::new(),
        );
    }

    let target = report.target.as_ref();
    if target.is_some_and(|target| target.id == *head) {
        return match report.phase.as_str() {
            "Healthy" => SyncVerdict::Healthy {
                commit: head.clone(),
                warnings: report.warnings.clone(),
            },
            "Degraded" => refused(report.message.clone(), Vec::new()),
            "Preparing" if !report.failed_pulls.is_empty() => {
                let images: Vec<String> = report.failed_pulls.iter().map(missing).collect();
                wait(format!(
                    "{}  Preparing: {}",
                    head.short(),
                    images.join("; ")
                ))
            }
            phase => {
                let message = if report.message.is_empty() {
                    String::new()
                } else {
                    format!(": {}", report.message)
                };
                wait(format!("{}  {phase}{message}", head.short()))
            }
        };
    }

    // The head is accepted, and is not the target.
    if report.suspended {
        return SyncVerdict::Stopped {
            message: "suspended: no new commit is deployed until `windlass resume`".to_owned(),
        };
    }
    if report.pinned_against.as_ref() == Some(head) {
        let message = format!(
            "rolled back by hand from {}: `windlass resume` ends that",
            head.short()
        );
        return SyncVerdict::Stopped { message };
    }
    wait(format!("{}  is being checked", head.short()))
}

fn conclude(verdict: &SyncVerdict, format: Format, out: &mut dyn Write) -> Result<Exit, CliError> {
    match verdict {
        SyncVerdict::Healthy { commit, warnings } => {
            let count = match warnings.len() {
                0 => String::new(),
                1 => ", with a warning:".to_owned(),
                more => format!(", with {more} warnings:"),
            };
            let mut text = format!("{}  {}{count}", commit.short(), paint::good("Healthy"));
            for warning in warnings {
                text.push_str(&format!("\n  {warning}"));
            }
            conclude_with(Exit::Done, verdict, &text, format, out)
        }
        SyncVerdict::Refused {
            commit,
            reason,
            problems,
            last_outputs,
            advice,
        } => {
            let mut text = format!("{}  {}", commit.short(), paint::bad(reason));
            // The reason of few problems has their texts.
            let problems = problems.iter().filter(|problem| !reason.contains(*problem));
            for line in problems {
                text.push_str(&format!("\n  {line}"));
            }
            text.push_str(&printed_below(last_outputs)?);
            for line in advice {
                text.push_str(&format!("\n  {line}"));
            }
            conclude_with(Exit::Refused, verdict, &text, format, out)
        }
        SyncVerdict::Wait { message } | SyncVerdict::Stopped { message } => {
            conclude_with(Exit::Failed, verdict, message, format, out)
        }
    }
}

/// What containers printed before they failed, as further lines of a text.
fn printed_below(outputs: &[LastOutput]) -> io::Result<String> {
    let mut text = b"\n".to_vec();
    printed::outputs(&mut text, 2, outputs, Timestamp::now())?;
    Ok(String::from_utf8_lossy(text.trim_ascii_end()).into_owned())
}

fn conclude_with(
    exit: Exit,
    verdict: &SyncVerdict,
    text: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let printed: io::Result<()> = match format {
        Format::Json => super::status::json(verdict, out),
        // What a container printed stays as it is.
        Format::Text => {
            text.lines()
                .try_for_each(|line| match line.trim_start().starts_with('|') {
                    true => writeln!(out, "{line}"),
                    false => wrap::hanging(out, line),
                })
        }
    };
    printed?;
    Ok(exit)
}
