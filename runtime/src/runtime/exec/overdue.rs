//! Commands that had not ended at their deadline: each is watched until it is known to have ended,
//! and is killed as soon as it has a process.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bollard::models::ExecInspectResponse;
use parking_lot::{Mutex, MutexGuard};
use reconciler::{name::ContainerId, time::backoff};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::{ExecOutcome, tree};
use crate::docker::{CallError, Engine};

const FIRST_LOOK: Duration = Duration::from_millis(10);
/// The longest interval between two inspections, and so the longest that a command runs which the
/// engine starts late.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// How long a new command waits for the end of the same command from before.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// An engine that has reported for this long that a command is about to start has lost the command.
const START_LIMIT: Duration = Duration::from_secs(3600);
/// An engine that has reported for this long that a command is only created has lost the request to
/// start it.
const ORDER_LIMIT: Duration = Duration::from_secs(60);

/// A command in a container; two probes or hooks may have the same key.
pub(super) type CommandKey = (ContainerId, Vec<String>);

/// The overdue commands, with whether their end is known. Kept in memory only: a restarted daemon
/// does not know them, and a command that the engine starts then runs to its own end.
#[derive(Default)]
pub(crate) struct Overdue {
    commands: Mutex<BTreeMap<CommandKey, Vec<Entry>>>,
}

#[derive(Clone)]
struct Entry {
    outcome: ExecOutcome,
    ended: watch::Receiver<bool>,
}

/// The state of a command that the engine reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Created; it neither runs nor ever ran.
    Created,
    /// The engine is about to start it: it has no process yet.
    Starting,
    /// It runs as the process with this id.
    Running(i64),
    /// It has ended, or could not be started.
    Ended {
        /// The exit code: 126 or 127 when the command could not be started.
        code: i64,
        /// Whether it ever had a process.
        ran: bool,
    },
}

impl Stage {
    pub(super) fn of(found: &ExecInspectResponse) -> Self {
        // Before a command has a process the engine reports 0, or no id.
        let pid = found.pid.filter(|pid| *pid > 0);
        match (found.running, found.exit_code, pid) {
            (Some(true), _, Some(pid)) => Self::Running(pid),
            (Some(true), _, None) => Self::Starting,
            (_, Some(code), pid) => Self::Ended {
                code,
                ran: pid.is_some(),
            },
            (_, None, _) => Self::Created,
        }
    }
}

impl Overdue {
    /// Waits for the end of the same commands from before, for `limit` and at most
    /// [`LONGEST_WAIT`]. Returns the outcome of a command that has not ended.
    pub(super) async fn settled(&self, key: &CommandKey, limit: Duration) -> Option<ExecOutcome> {
        let deadline = Instant::now() + limit.min(LONGEST_WAIT);
        let entries = self.commands().get(key).cloned().unwrap_or_default();
        for mut entry in entries {
            // A sender that was dropped without a value belonged to a task that ended with the
            // daemon.
            let end = entry.ended.wait_for(|ended| *ended);
            let is_late = timeout_at(deadline, end).await.is_err();
            if is_late {
                return Some(entry.outcome);
            }
        }
        None
    }

    /// Watches a command that had not ended at its deadline until it is known to have ended; kills
    /// it as soon as it has a process.
    pub(super) fn follow(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        key: CommandKey,
        exec: String,
        outcome: ExecOutcome,
    ) {
        let (sender, ended) = watch::channel(false);
        self.commands()
            .entry(key.clone())
            .or_default()
            .push(Entry { outcome, ended });

        let (overdue, engine) = (Arc::clone(self), Arc::clone(engine));
        tokio::spawn(async move {
            see_out(&engine, &key.0, &exec).await;
            sender.send_replace(true);
            overdue.forget_ended(&key);
        });
    }

    /// Whether the end of every command is known.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.commands().is_empty()
    }

    fn forget_ended(&self, key: &CommandKey) {
        let mut commands = self.commands();
        let Some(entries) = commands.get_mut(key) else {
            return;
        };
        entries.retain(|entry| !*entry.ended.borrow());
        if entries.is_empty() {
            commands.remove(key);
        }
    }

    fn commands(&self) -> MutexGuard<'_, BTreeMap<CommandKey, Vec<Entry>>> {
        self.commands.lock()
    }
}

/// Returns when the command has ended, or its container is gone, or the engine has lost it. A
/// command that has a process by then is killed. An engine that does not respond is asked again:
/// nothing else knows the state of the command.
async fn see_out(engine: &Engine, container: &ContainerId, exec: &str) {
    let mut looks = 0;
    let mut waiting: Option<(Stage, Instant)> = None;
    loop {
        match engine
            .call(|docker| async move { docker.inspect_exec(exec).await })
            .await
        {
            // After its own restart the engine knows no earlier command, and it forgets a command
            // with its container.
            Err(error) if error.is_not_found() => return,
            Err(error) => tracing::debug!(exec, %error, "an overdue command cannot be looked at"),
            Ok(found) => match Stage::of(&found) {
                Stage::Ended { .. } => return,
                Stage::Running(pid) => match kill(engine, container, pid).await {
                    Ok(Killed::Gone) => return,
                    Ok(Killed::Processes(count)) => {
                        tracing::debug!(exec, pid, count, "killed an overdue command");
                    }
                    Err(error) => {
                        tracing::debug!(exec, pid, %error, "an overdue command cannot be killed")
                    }
                },
                stage @ (Stage::Created | Stage::Starting) => {
                    let since = match waiting {
                        Some((before, since)) if before == stage => since,
                        _ => Instant::now(),
                    };
                    waiting = Some((stage, since));

                    let limit = if stage == Stage::Starting {
                        START_LIMIT
                    } else {
                        ORDER_LIMIT
                    };
                    if since.elapsed() >= limit {
                        tracing::warn!(
                            %container,
                            exec,
                            "the container engine has not started a command within {} s: it is not waited for any more",
                            limit.as_secs()
                        );
                        return;
                    }
                }
            },
        }
        sleep(backoff(FIRST_LOOK, looks, LAST_LOOK)).await;
        looks += 1;
    }
}

/// The result of a kill.
pub(super) enum Killed {
    /// The process had ended already, even if the engine reports it as running.
    Gone,
    /// The number of processes that were killed.
    Processes(usize),
}

/// Kills the process of a command and its descendants, and nothing else of the container.
pub(super) async fn kill(
    engine: &Engine,
    container: &ContainerId,
    pid: i64,
) -> Result<Killed, CallError> {
    let name = container.as_str();
    let found = engine
        .call(|docker| async move { docker.inspect_container(name, None).await })
        .await?;
    let init = found.state.and_then(|state| state.pid).unwrap_or_default();

    let container = container.clone();
    let work = move || match tree::running_for(pid) {
        None => Killed::Gone,
        Some(_) => Killed::Processes(tree::kill_tree(pid, init, &container)),
    };
    // A task that panicked counts as one that killed no process.
    Ok(tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Killed::Processes(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_run_only_if_it_has_a_process() {
        let stage = |running, pid, exit_code| {
            Stage::of(&ExecInspectResponse {
                running,
                pid,
                exit_code,
                ..ExecInspectResponse::default()
            })
        };
        assert_eq!(stage(Some(false), Some(0), None), Stage::Created);
        assert_eq!(stage(Some(true), Some(0), None), Stage::Starting);
        assert_eq!(stage(Some(true), None, None), Stage::Starting);
        assert_eq!(stage(Some(true), Some(-1), None), Stage::Starting);
        assert_eq!(stage(Some(true), Some(42), None), Stage::Running(42));
        assert_eq!(
            stage(Some(false), Some(42), Some(1)),
            Stage::Ended { code: 1, ran: true }
        );
        assert_eq!(
            stage(Some(false), Some(0), Some(126)),
            Stage::Ended {
                code: 126,
                ran: false
            }
        );
    }
}
