//! Commands in running containers, each with a deadline: the processes that it leaves behind are
//! killed.

use std::{sync::Arc, time::Duration};

use bollard::{
    container::LogOutput,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
};
use futures_util::{Stream, StreamExt};
use reconciler::{
    fault::{Fault, FaultKind},
    name::ContainerId,
    time::backoff,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    docker::{CallError, Engine, is_engines_trouble},
    runtime::{Inner, Runtime},
};

mod overdue;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use overdue::Overdue;
use overdue::Stage;

/// The limit, in bytes, of a command's output that is kept.
const OUTPUT_BYTES: usize = 10 * 1024;
/// The first pause between two requests for the exit code, which the engine records a moment after
/// the output has ended.
const FIRST_POLL: Duration = Duration::from_millis(2);
const LAST_POLL: Duration = Duration::from_millis(200);

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutcome {
    /// It ended by itself.
    Exited {
        /// Its exit code: 126 or 127 when it could not be started.
        code: i64,
        /// The beginning of its output, standard output and standard error together.
        output: Vec<u8>,
    },
    /// It ran for longer than the limit, and was killed with all processes that it started.
    TimedOut,
    /// At the deadline the engine had not started the command, or had not reported its end: that is
    /// no evidence about the container. Nothing was killed. The command is killed as soon as the
    /// engine reports its process, and the same command is not started again in this container
    /// before its end is known.
    Unanswered,
}

impl Runtime {
    /// Runs a command in a container. The command is watched to its end, or killed at the limit,
    /// even if this future is dropped. The limit counts from when the command begins to run, not
    /// from the request to the engine.
    pub async fn exec(
        &self,
        container: &ContainerId,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecOutcome, Fault> {
        let (inner, container, command) =
            (Arc::clone(&self.inner), container.clone(), command.to_vec());
        let what = format!("cannot run a command in container {container}");
        let run = tokio::spawn(async move { run(&inner, &container, command, limit).await });
        match run.await {
            Ok(outcome) => outcome.map_err(|error| match error {
                // A container that has ended or was paused runs no commands.
                CallError::Refused {
                    status: 409,
                    message,
                } => Fault::new(FaultKind::Gone, format!("{what}: {message}")),
                error => error.into_fault(&what),
            }),
            Err(error) => Err(Fault::new(FaultKind::Other, format!("{what}: {error}"))),
        }
    }
}

async fn run(
    inner: &Inner,
    container: &ContainerId,
    command: Vec<String>,
    limit: Duration,
) -> Result<ExecOutcome, CallError> {
    let engine = &inner.observer.engine;
    let key = (container.clone(), command);
    if let Some(outcome) = inner.overdue.settled(&key, limit).await {
        return Ok(outcome);
    }

    // The permit is held only while the engine starts the command: a command that hangs delays no
    // other.
    let starting = inner.exec_starts.acquire().await;
    let options = CreateExecOptions {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(key.1.clone()),
        ..CreateExecOptions::default()
    };
    let exec = engine
        .call(|docker| async move { docker.create_exec(container.as_str(), options).await })
        .await?
        .id;
    let id = exec.as_str();
    let attach = engine
        .call(|docker| async move { docker.start_exec(id, None::<StartExecOptions>).await })
        .await;
    drop(starting);

    let seen = match attach {
        Ok(StartExecResults::Attached { output, input }) => {
            let seen = see_through(engine, id, output, limit).await;
            // The write half stays open until here; otherwise the engine would treat the input of
            // the command as closed.
            drop(input);
            seen
        }
        Ok(StartExecResults::Detached) => Err(CallError::Garbled(
            "a command was detached that should not be".to_owned(),
        )),
        // The engine has responded that it does not start the command.
        Err(refused @ CallError::Refused { .. }) => return Err(refused),
        Err(error) => Err(error),
    };

    // What has ended, or is gone with its container, needs no follow-up.
    let outcome = match &seen {
        Ok(ExecOutcome::Exited { .. }) => return seen,
        Ok(outcome) => outcome.clone(),
        Err(error) if error.is_not_found() => return seen,
        Err(_) => ExecOutcome::Unanswered,
    };
    inner.overdue.follow(engine, key, exec, outcome);
    seen
}

/// Waits for the end of a command that the engine has accepted, or for its deadline.
async fn see_through(
    engine: &Engine,
    id: &str,
    output: impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin,
    limit: Duration,
) -> Result<ExecOutcome, CallError> {
    let mut kept = Vec::new();
    let ended = {
        let mut deadline = Instant::now() + limit;
        let mut is_extended = false;
        let mut end = std::pin::pin!(until_its_end(engine, id, output, &mut kept));
        loop {
            if let Ok(ended) = timeout_at(deadline, &mut end).await {
                break ended?;
            }
            match stage(engine, id).await? {
                Stage::Ended { code, ran } => break (code, ran),
                Stage::Created | Stage::Starting => return Ok(ExecOutcome::Unanswered),
                Stage::Running(pid) => match tree::running_for(pid) {
                    // The process has ended, and the engine has not reported it.
                    None => return Ok(ExecOutcome::Unanswered),
                    // The engine was slow to start the command: the command gets the rest of its
                    // time, once.
                    Some(age) if age < limit && !is_extended => {
                        is_extended = true;
                        deadline = Instant::now() + (limit - age);
                    }
                    Some(_) => return Ok(ExecOutcome::TimedOut),
                },
            }
        }
    };
    exited(ended, kept)
}

/// Reads the output of a command to its end, then waits for the exit code.
async fn until_its_end(
    engine: &Engine,
    id: &str,
    mut output: impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin,
    kept: &mut Vec<u8>,
) -> Result<(i64, bool), CallError> {
    while let Some(part) = output.next().await {
        let part = part.map_err(CallError::from)?;
        // Output beyond the limit is read and dropped: a command whose pipe is full would wait.
        let room = OUTPUT_BYTES - kept.len();
        kept.extend(part.as_ref().iter().take(room));
    }
    let mut polls = 0;
    loop {
        if let Stage::Ended { code, ran } = stage(engine, id).await? {
            return Ok((code, ran));
        }
        sleep(backoff(FIRST_POLL, polls, LAST_POLL)).await;
        polls += 1;
    }
}

async fn stage(engine: &Engine, id: &str) -> Result<Stage, CallError> {
    let found = engine
        .call(|docker| async move { docker.inspect_exec(id).await })
        .await?;
    Ok(Stage::of(&found))
}

/// A command that never had a process "ends" with 126 or 127 in two cases: the container's runtime
/// cannot run it, which is the container's fault, or the engine cannot reach its own components,
/// which is not.
fn exited((code, ran): (i64, bool), output: Vec<u8>) -> Result<ExecOutcome, CallError> {
    let message = String::from_utf8_lossy(&output);
    if !ran && matches!(code, 126 | 127) && is_engines_trouble(&message) {
        return Err(CallError::Refused {
            status: 500,
            message: message.trim().to_owned(),
        });
    }
    Ok(ExecOutcome::Exited { code, output })
}
