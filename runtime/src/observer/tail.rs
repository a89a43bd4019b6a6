//! The end of a container's log.

use std::time::Duration;

use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;
use reconciler::{foreign::ForeignText, name::ContainerId};

use crate::docker::{CallError, Engine};

/// The limits of Kubernetes for `FallbackToLogsOnError`.
const TAIL_LINES: &str = "80";
const TAIL_BYTES: usize = 2048;
const TAIL_TIMEOUT: Duration = Duration::from_secs(2);

/// The end of a container's log, for its termination message; empty when it cannot be read.
pub(super) async fn tail(engine: &Engine, container: &ContainerId) -> String {
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .tail(TAIL_LINES)
        .build();
    let read = async {
        let docker = engine.client().await?;
        let mut end = Vec::new();
        let mut lines = docker.logs(container.as_str(), Some(options)).boxed();
        while let Some(line) = lines.next().await {
            end.extend_from_slice(line?.as_ref());
            let excess = end.len().saturating_sub(TAIL_BYTES);
            end.drain(..excess);
        }
        Ok::<_, CallError>(end)
    };
    match tokio::time::timeout(TAIL_TIMEOUT, read).await {
        // Escaping makes the text longer, and its end is the important part.
        Ok(Ok(end)) => ForeignText::from_bytes(end.trim_ascii_end(), 2 * TAIL_BYTES).into(),
        Ok(Err(_)) | Err(_) => String::new(),
    }
}
