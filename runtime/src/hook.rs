//! Lifecycle hooks.

use std::{net::Ipv4Addr, time::Duration};

use reconciler::{
    fault::{Fault, FaultKind},
    foreign::{DEFAULT_BYTES, ForeignText},
    name::ContainerId,
    object::Handler,
};

use crate::{exec::ExecOutcome, http, runtime::Runtime};

/// Kubernetes lets a postStart hook run for ever; a lane here does not.
const POST_START_LIMIT: Duration = Duration::from_secs(600);

impl Runtime {
    /// Runs a postStart hook in a pod's running container, and kills the container if it fails.
    pub async fn post_start(
        &self,
        container: &ContainerId,
        handler: &Handler,
        address: Ipv4Addr,
    ) -> Result<(), Fault> {
        let what = format!("cannot run the postStart hook of container {container}");
        let Err(failed) = self.run_hook(container, handler, address, POST_START_LIMIT).await else {
            return Ok(());
        };
        let killed = self.kill(container).await;
        self.inner.observer.container_dirty(container);
        match killed {
            Err(error) if !error.is_not_found() => Err(error.into_fault(&format!("{failed}; {what}"))),
            _ => Err(Fault::new(
                FaultKind::HookFailed,
                format!("postStart hook of container {container}: {failed}"),
            )),
        }
    }

    /// Runs a hook to its end or to the limit; says what went wrong.
    pub(crate) async fn run_hook(
        &self,
        container: &ContainerId,
        handler: &Handler,
        address: Ipv4Addr,
        limit: Duration,
    ) -> Result<(), String> {
        match handler {
            Handler::Exec { command } => match self.exec(container, command, limit).await {
                Ok(ExecOutcome::Exited { code: 0, .. }) => Ok(()),
                Ok(ExecOutcome::Exited { code, output }) => Err(format!(
                    "exit code {code}: {}",
                    ForeignText::from_bytes(output.trim_ascii(), DEFAULT_BYTES)
                )),
                Ok(ExecOutcome::TimedOut) => Err(format!("no end within {} s", limit.as_secs())),
                Err(fault) => Err(fault.message),
            },
            Handler::HttpGet { host, port, path, https, headers } => {
                let url = http::url(*https, host.as_deref(), address, *port, path)?;
                // As in Kubernetes a hook has done its work when it was answered, whatever the status.
                self.inner.http.get(url, headers, limit).await.map(drop)
            }
            Handler::TcpSocket { host, port } => http::connect(host.as_deref(), address, *port, limit).await,
            Handler::Sleep { duration } => {
                tokio::time::sleep((*duration).min(limit)).await;
                Ok(())
            }
        }
    }
}
