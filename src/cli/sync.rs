//! `windlass sync`: asks the repository now and, with `--wait`, says what becomes of its newest
//! commit.

use std::{
    io::{self, Write},
    path::Path,
};

use reconciler::{name::CommitId, state::CommitState};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::{
    act,
    args::{Format, SyncArgs},
    client::Client,
    exit::{CliError, Exit},
    paint,
};
use crate::{command::Command, http::report::StatusReport, uptime::Uptime};

/// What a report says about the newest commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub(super) enum SyncVerdict {
    /// It is under way.
    Wait {
        /// What is waited for.
        message: String,
    },
    /// It runs and is good.
    Healthy {
        /// Which.
        commit: CommitId,
    },
    /// It does not run and will not.
    Refused {
        /// Which.
        commit: CommitId,
        /// Why.
        reason: String,
        /// Everything that is wrong with it.
        problems: Vec<String>,
    },
    /// Nothing will happen until somebody acts.
    Stopped {
        /// Why.
        message: String,
    },
}

/// Runs the command.
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
            let message = format!(
                "the time is up after {} s; last: {last}",
                args.timeout.as_secs()
            );
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

/// Follows the reports until one is final. A daemon that restarts in the meantime is waited for.
async fn watch(
    sockets: &Path,
    asked: Uptime,
    format: Format,
    last: &mut String,
    out: &mut dyn Write,
) -> Result<SyncVerdict, CliError> {
    let socket = sockets.join("windlass.sock");
    loop {
        let client = Client::new(socket.clone())?;
        let mut reports = client
            .stream("/windlass/v1/status?watch=true", "*/*")
            .await?;
        while let Ok(Some(report)) = reports.line::<StatusReport>().await {
            match verdict(&report, asked) {
                SyncVerdict::Wait { message } if message != *last => {
                    if format == Format::Text {
                        writeln!(out, "{message}")?;
                        out.flush()?;
                    }
                    *last = message;
                }
                SyncVerdict::Wait { .. } => {}
                end => return Ok(end),
            }
        }
        while !super::client::answers(&socket) {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
}

/// Judges one report.
pub(super) fn verdict(report: &StatusReport, asked: Uptime) -> SyncVerdict {
    let wait = |message: String| SyncVerdict::Wait { message };
    let source = &report.source;
    // An answer to a question from before this one may not know of the newest commit. Both are
    // times since the boot of this host: whoever sets its clock in between changes nothing.
    if source
        .fetched_uptime_nanos
        .is_none_or(|fetched| fetched < asked)
    {
        return match &source.error {
            Some(error) => wait(format!("the repository cannot be asked: {error}")),
            None => wait("asking the repository".to_owned()),
        };
    }
    let Some(head) = &source.head else {
        return wait("the branch has no commit yet".to_owned());
    };
    let refused = |reason: String, problems: Vec<String>| SyncVerdict::Refused {
        commit: head.clone(),
        reason,
        problems,
    };
    if let Some(refusal) = source
        .refusal
        .as_ref()
        .filter(|refusal| refusal.commit == *head)
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
    let is = |commit: &Option<crate::http::report::CommitReport>| {
        commit.as_ref().is_some_and(|commit| commit.id == *head)
    };
    if is(&report.target) {
        return match report.phase.as_str() {
            "Healthy" => SyncVerdict::Healthy {
                commit: head.clone(),
            },
            "Degraded" => refused(report.message.clone(), Vec::new()),
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
    if report.suspended {
        return SyncVerdict::Stopped {
            message: "suspended: no new commit is taken until `windlass resume`".to_owned(),
        };
    }
    if report.pinned_against.as_ref() == Some(head) {
        let message = format!(
            "rolled back by hand from {}: `windlass resume` ends that",
            head.short()
        );
        return SyncVerdict::Stopped { message };
    }
    wait(format!("{}  being judged", head.short()))
}

fn conclude(verdict: &SyncVerdict, format: Format, out: &mut dyn Write) -> Result<Exit, CliError> {
    match verdict {
        SyncVerdict::Healthy { commit } => {
            let text = format!("{}  {}", commit.short(), paint::good("Healthy"));
            conclude_with(Exit::Done, verdict, &text, format, out)
        }
        SyncVerdict::Refused {
            commit,
            reason,
            problems,
        } => {
            let mut text = format!("{}  {}", commit.short(), paint::bad(reason));
            // The only problem is the reason itself.
            for problem in problems.iter().filter(|problem| *problem != reason) {
                text.push_str(&format!("\n  {problem}"));
            }
            conclude_with(Exit::Refused, verdict, &text, format, out)
        }
        SyncVerdict::Wait { message } | SyncVerdict::Stopped { message } => {
            conclude_with(Exit::Failed, verdict, message, format, out)
        }
    }
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
        Format::Text => writeln!(out, "{text}"),
    };
    printed?;
    Ok(exit)
}
