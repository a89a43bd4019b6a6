//! Lifecycle hooks.

use std::{fmt, net::Ipv4Addr, time::Duration};

use reconciler::{
    fault::{Fault, FaultKind},
    foreign::{DEFAULT_BYTES, ForeignText},
    name::ContainerId,
    object::Handler,
};

use crate::{
    http::{self, RequestError},
    runtime::{Runtime, exec::ExecOutcome},
};

/// The deadline of a postStart hook. Kubernetes has none; a lane here must end.
const POST_START_LIMIT: Duration = Duration::from_secs(600);

/// Why a hook did not succeed.
#[derive(Debug)]
pub(crate) enum HookError {
    /// The hook failed, with this message.
    Failed(String),
    /// The engine could not run the hook, or did not report its result: that is no evidence about
    /// the container.
    NotRun(Fault),
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) => f.write_str(message),
            Self::NotRun(fault) => fault.fmt(f),
        }
    }
}

impl From<RequestError> for HookError {
    fn from(error: RequestError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Runtime {
    /// Runs a postStart hook in a pod's running container, and kills the container if the hook
    /// fails. Where the engine could not run the hook, the container is left alone, and the hook
    /// must be run again.
    pub async fn post_start(
        &self,
        container: &ContainerId,
        handler: &Handler,
        address: Ipv4Addr,
    ) -> Result<(), Fault> {
        let what = format!("cannot run the postStart hook of container {container}");
        let run = self.run_hook(container, handler, address, POST_START_LIMIT);
        let failed = match run.await {
            Ok(()) => return Ok(()),
            Err(HookError::NotRun(fault)) => {
                return Err(Fault::new(fault.kind, format!("{what}: {fault}")));
            }
            Err(HookError::Failed(failed)) => failed,
        };

        let killed = self.kill(container).await;
        self.inner.observer.container_dirty(container);
        match killed {
            // The container may still run: what failed last is the kill.
            Err(error) if !error.is_not_found() => {
                Err(error.into_fault(&format!("{failed}; {what}")))
            }
            _ => Err(Fault::new(
                FaultKind::HookFailed,
                format!("postStart hook of container {container}: {failed}"),
            )),
        }
    }

    /// Runs a hook to its end or to the limit; returns why it failed.
    pub(crate) async fn run_hook(
        &self,
        container: &ContainerId,
        handler: &Handler,
        address: Ipv4Addr,
        limit: Duration,
    ) -> Result<(), HookError> {
        match handler {
            Handler::Exec { command } => outcome(self.exec(container, command, limit).await, limit),
            Handler::HttpGet {
                host,
                port,
                path,
                https,
                headers,
            } => {
                let url = http::url(*https, host.as_deref(), address, *port, path)?;
                // As in Kubernetes an HTTP hook has succeeded when it got a response, whatever the
                // status.
                Ok(self.inner.http.get(url, headers, limit).await.map(drop)?)
            }
            Handler::TcpSocket { host, port } => {
                Ok(http::connect(host.as_deref(), address, *port, limit).await?)
            }
            Handler::Sleep { duration } => {
                tokio::time::sleep((*duration).min(limit)).await;
                Ok(())
            }
        }
    }
}

/// The result of a hook's command.
fn outcome(run: Result<ExecOutcome, Fault>, limit: Duration) -> Result<(), HookError> {
    match run {
        Ok(ExecOutcome::Exited { code: 0, .. }) => Ok(()),
        Ok(ExecOutcome::Exited { code, output }) => Err(HookError::Failed(format!(
            "exit code {code}: {}",
            ForeignText::from_bytes(output.trim_ascii(), DEFAULT_BYTES)
        ))),
        Ok(ExecOutcome::TimedOut) => Err(HookError::Failed(format!(
            "no end within {} s",
            limit.as_secs()
        ))),
        Ok(ExecOutcome::Unanswered) => Err(HookError::NotRun(Fault::new(
            FaultKind::EngineUnreachable,
            format!(
                "the container engine did not run the command within {} s",
                limit.as_secs()
            ),
        ))),
        // The container has no such command, or has ended: that is the fault of the container.
        Err(fault) if matches!(fault.kind, FaultKind::Rejected | FaultKind::Gone) => {
            Err(HookError::Failed(fault.message))
        }
        Err(fault) => Err(HookError::NotRun(fault)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hook_that_the_container_failed_is_held_against_it() {
        let limit = Duration::from_secs(1);
        let is_containers = |run| matches!(outcome(run, limit), Err(HookError::Failed(_)));
        assert!(is_containers(Ok(ExecOutcome::TimedOut)));
        assert!(is_containers(Ok(ExecOutcome::Exited {
            code: 3,
            output: Vec::new()
        })));
        assert!(is_containers(Err(Fault::new(
            FaultKind::Rejected,
            "no such file"
        ))));
        assert!(!is_containers(Ok(ExecOutcome::Unanswered)));
        for kind in [
            FaultKind::EngineUnreachable,
            FaultKind::Other,
            FaultKind::DiskFull,
        ] {
            assert!(
                !is_containers(Err(Fault::new(kind, "the engine"))),
                "{kind:?}"
            );
        }
        assert!(
            outcome(
                Ok(ExecOutcome::Exited {
                    code: 0,
                    output: Vec::new()
                }),
                limit
            )
            .is_ok()
        );
    }
}
