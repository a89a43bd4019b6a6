//! Stopping and removing containers.

use std::time::Duration;

use bollard::query_parameters::{RemoveContainerOptionsBuilder, StopContainerOptionsBuilder};
use futures_util::{StreamExt, future::join_all, stream};
use reconciler::{
    fault::Fault,
    name::ContainerId,
    plan::{Role, StopSpec},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    docker::CallError,
    runtime::{Runtime, blocking},
    volume,
};

/// The time that is left for the signal, once, after a preStop hook that used up the grace period,
/// as in Kubernetes.
const AFTER_PRE_STOP: Duration = Duration::from_secs(2);
/// How many containers are removed concurrently.
pub(crate) const REMOVE_CONCURRENCY: usize = 8;

impl Runtime {
    /// Stops containers concurrently. All are tried; the first fault is returned.
    pub async fn stop(&self, stops: &[StopSpec]) -> Result<(), Fault> {
        join_all(stops.iter().map(|stop| self.stop_one(stop)))
            .await
            .into_iter()
            .collect()
    }

    /// Removes containers in any state, with their own files and anonymous volumes. All are tried;
    /// the first fault is returned.
    pub async fn remove(&self, containers: &[ContainerId]) -> Result<(), Fault> {
        // The ids are owned: a future that borrows them could not be spawned.
        stream::iter(containers.to_vec())
            .map(|id| async move { self.remove_one(&id).await })
            .buffer_unordered(REMOVE_CONCURRENCY)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect()
    }

    async fn stop_one(&self, stop: &StopSpec) -> Result<(), Fault> {
        let id = &stop.container;
        let deadline = Instant::now() + stop.grace;
        let mut left = stop.grace;
        // A grace period of 0 leaves no time for a hook.
        if let Some(hook) = &stop.pre_stop
            && !stop.grace.is_zero()
        {
            // Neither the result of the hook nor a delay of the engine in running it changes the
            // stop.
            match timeout_at(deadline, self.run_hook(id, hook, stop.address, stop.grace)).await {
                Ok(Ok(())) => {}
                Ok(Err(failed)) => {
                    tracing::info!(container = %id, %failed, "a preStop hook failed")
                }
                Err(_) => {
                    tracing::info!(container = %id, "a preStop hook did not end in the grace period")
                }
            }
            left = deadline
                .saturating_duration_since(Instant::now())
                .max(AFTER_PRE_STOP);
        }

        // The engine counts whole seconds; the grace period is rounded up.
        let seconds = i32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let limit = left + self.engine().start_timeout;
        let name = id.as_str();
        let stopped = if left.is_zero() {
            self.kill(id).await
        } else {
            self.engine()
                .call_within(limit, |docker| async move {
                    docker.stop_container(name, Some(options)).await
                })
                .await
        };

        self.inner.observer.container_dirty(id);
        match stopped {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() => {
                self.inner.observer.container_gone(id);
                Ok(())
            }
            Err(error) => {
                Err(error.into_fault(&format!("cannot stop container {}", self.name_of(id))))
            }
        }
    }

    /// Sends KILL, and waits for the end.
    pub(crate) async fn kill(&self, container: &ContainerId) -> Result<(), CallError> {
        let name = container.as_str();
        // A stop with a time of 0 sends KILL right after the signal; the call returns when the
        // process has ended.
        let options = StopContainerOptionsBuilder::new().t(0).build();
        let limit = self.engine().start_timeout;
        self.engine()
            .call_within(limit, |docker| async move {
                docker.stop_container(name, Some(options)).await
            })
            .await
    }

    async fn remove_one(&self, id: &ContainerId) -> Result<(), Fault> {
        self.inner.observer.output_reader.is_read(id).await;
        let known = self.inner.observer.known(id);
        let what = format!("cannot remove container {}", self.name_of(id));
        // With its anonymous volumes: an image's VOLUME creates one for every container.
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let (limit, name) = (self.engine().start_timeout, id.as_str());
        let removed = self
            .engine()
            .call_within(limit, |docker| async move {
                docker.remove_container(name, Some(options)).await
            })
            .await;

        match removed {
            Ok(()) => self.inner.observer.container_gone(id),
            Err(error) if error.is_not_found() => self.inner.observer.container_gone(id),
            // The engine is removing it for another request: the next inspection tells how that
            // ended.
            Err(CallError::Refused {
                status: 409,
                message,
            }) if message.contains("already in progress") => {
                self.inner.observer.container_dirty(id);
            }
            Err(error) => return Err(error.into_fault(&what)),
        }

        match known {
            Some(known) if known.role != Role::Sandbox => {
                let pods = self.pods_dir();
                let remove = move || {
                    volume::remove_container_files(
                        &pods,
                        &known.identity.uid,
                        &known.name,
                        known.attempt,
                    )
                };
                blocking(remove).await
            }
            // A sandbox has no files of its own, and those of an unknown container go with its pod.
            _ => Ok(()),
        }
    }

    /// The name of a container for messages.
    pub(crate) fn name_of(&self, id: &ContainerId) -> String {
        match self.inner.observer.known(id) {
            Some(known) if known.role == Role::Sandbox => {
                format!("{id} (the sandbox of pod {})", known.identity.pod)
            }
            Some(known) => format!("{id} ({} of pod {})", known.name, known.identity.pod),
            None => id.to_string(),
        }
    }
}
