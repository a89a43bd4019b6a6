//! Pod logs for the API, from the engine.

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use reconciler::{fault::FaultKind, plan::Role};
use runtime::Runtime;

use crate::http::api::{LogError, LogOptions, LogSource, LogStream, LogTarget};

/// Reads the logs of this host's containers.
pub(super) struct EngineLogs {
    runtime: Runtime,
}

impl EngineLogs {
    pub(super) fn new(runtime: Runtime) -> Self {
        Self { runtime }
    }

    async fn open(&self, target: LogTarget, options: LogOptions) -> Result<LogStream, LogError> {
        let found = self.runtime.observe().await.map_err(|fault| LogError::Engine(fault.message))?;
        let wanted = if options.previous { target.restarts.checked_sub(1) } else { None };
        let id = found
            .containers
            .into_iter()
            .filter(|(_, one)| one.identity.uid == target.pod && one.name == target.container)
            .filter(|(_, one)| {
                one.role != Role::Sandbox && wanted.is_none_or(|attempt| one.attempt == attempt)
            })
            .max_by_key(|(_, one)| one.attempt)
            .map(|(id, _)| id)
            .ok_or(LogError::Gone)?;
        let LogOptions { follow, previous: _, timestamps, tail, since } = options;
        let options = runtime::LogOptions { follow, tail, since, timestamps };
        let stream = self.runtime.logs(&id, options).await.map_err(|fault| match fault.kind {
            FaultKind::Gone => LogError::Gone,
            _ => LogError::Engine(fault.message),
        })?;
        Ok(stream.map(|part| part.map_err(|fault| std::io::Error::other(fault.message))).boxed())
    }
}

impl LogSource for EngineLogs {
    fn logs(&self, target: LogTarget, options: LogOptions) -> BoxFuture<'_, Result<LogStream, LogError>> {
        self.open(target, options).boxed()
    }
}
