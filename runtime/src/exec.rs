//! Commands in running containers, each with a dead line: what it leaves behind is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
    time::Duration,
};

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures_util::StreamExt;
use reconciler::{
    fault::{Fault, FaultKind},
    name::ContainerId,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    docker::CallError,
    runtime::{Inner, Runtime},
};

/// What is kept of a command's output.
const OUTPUT_BYTES: usize = 10 * 1024;
/// The engine records an exit code a moment after the output has ended.
const FIRST_POLL: Duration = Duration::from_millis(2);
const LAST_POLL: Duration = Duration::from_millis(200);

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutcome {
    /// By itself.
    Exited {
        /// Its exit code; 126 or 127 when it could not be started.
        code: i64,
        /// The beginning of what it printed, on both outputs.
        output: Vec<u8>,
    },
    /// It was still running at the dead line, and was killed with all that it started.
    TimedOut,
}

impl Runtime {
    /// Runs a command in a container. It is seen to its end, or killed at the limit, even if this future is dropped.
    pub async fn exec(
        &self,
        container: &ContainerId,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecOutcome, Fault> {
        let (inner, container, command) = (Arc::clone(&self.inner), container.clone(), command.to_vec());
        let what = format!("cannot run a command in container {container}");
        let run = tokio::spawn(async move { run(&inner, &container, command, limit).await });
        match run.await {
            Ok(outcome) => outcome.map_err(|error| match error {
                // A container that ended or was paused takes no commands.
                CallError::Refused { status: 409, message } => {
                    Fault::new(FaultKind::Gone, format!("{what}: {message}"))
                }
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
    // Taken only while the engine is busy with it: a command that hangs holds nobody else up.
    let starting = inner.exec_starts.acquire().await;
    let options = CreateExecOptions {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command),
        ..CreateExecOptions::default()
    };
    let exec =
        engine.call(|docker| async move { docker.create_exec(container.as_str(), options).await }).await?.id;
    let id = exec.as_str();
    let attach =
        engine.call(|docker| async move { docker.start_exec(id, None::<StartExecOptions>).await }).await;
    drop(starting);
    let StartExecResults::Attached { mut output, input } = attach? else {
        return Err(CallError::Garbled("a command was detached that should not be".to_owned()));
    };
    let deadline = Instant::now() + limit;
    let mut kept = Vec::new();
    let seen_through = timeout_at(deadline, async {
        while let Some(part) = output.next().await {
            let part = part.map_err(CallError::from)?;
            let room = OUTPUT_BYTES - kept.len();
            kept.extend(part.as_ref().iter().take(room));
        }
        let mut poll = FIRST_POLL;
        loop {
            let found = engine.call(|docker| async move { docker.inspect_exec(id).await }).await?;
            match (found.running, found.exit_code) {
                (Some(false) | None, code) => return Ok(code.unwrap_or(-1)),
                (Some(true), _) => sleep(poll).await,
            }
            poll = (poll * 2).min(LAST_POLL);
        }
    })
    .await;
    // The write half is kept open until here, or the engine would take the command's input as closed.
    drop(input);
    match seen_through {
        Ok(Ok(code)) => Ok(ExecOutcome::Exited { code, output: kept }),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let found = engine.call(|docker| async move { docker.inspect_exec(id).await }).await?;
            if let (Some(true), Some(pid)) = (found.running, found.pid) {
                let container = container.clone();
                // Whether it could be killed is seen by the next look; there is nothing more to do here.
                let killed = tokio::task::spawn_blocking(move || kill_tree(pid, &container)).await;
                tracing::debug!(
                    exec = id,
                    killed = killed.unwrap_or_default(),
                    "a command ran into its dead line"
                );
            }
            Ok(ExecOutcome::TimedOut)
        }
    }
}

/// Kills a process and all that descends from it, as long as they belong to the container. Says how many.
fn kill_tree(pid: i64, container: &ContainerId) -> usize {
    let parents = parents();
    let mut tree = BTreeSet::from([pid]);
    loop {
        let before = tree.len();
        let children: Vec<_> =
            parents.iter().filter(|(_, parent)| tree.contains(parent)).map(|(child, _)| *child).collect();
        tree.extend(children);
        if tree.len() == before {
            break;
        }
    }
    tree.into_iter().filter(|pid| kill_in(*pid, container)).count()
}

/// The descriptor pins the process, so that the one that is checked is the one that is killed.
fn kill_in(pid: i64, container: &ContainerId) -> bool {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let Ok(process) = pidfd_open(raw, PidfdFlags::empty()) else { return false };
    let is_containers = fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .is_ok_and(|groups| groups.contains(container.as_str()));
    is_containers && pidfd_send_signal(process, Signal::KILL).is_ok()
}

/// Every process of the host with its parent.
fn parents() -> BTreeMap<i64, i64> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    entries
        .filter_map(|entry| {
            let pid: i64 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The second field is the program's name in brackets, which may itself hold brackets and spaces.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect()
}
