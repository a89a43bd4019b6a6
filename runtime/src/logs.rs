//! What containers print.

use std::{pin::Pin, time::Duration};

use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use reconciler::{fault::Fault, foreign::ForeignText, name::ContainerId};

use crate::{
    docker::{CallError, Engine},
    runtime::Runtime,
};

/// What Kubernetes keeps for `FallbackToLogsOnError`.
const TAIL_LINES: &str = "80";
const TAIL_BYTES: usize = 2048;
const TAIL_TIMEOUT: Duration = Duration::from_secs(2);

/// Which part of a container's log.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Go on while the container runs.
    pub follow: bool,
    /// Only this many lines from the end.
    pub tail: Option<u64>,
    /// Only what was printed since.
    pub since: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
}

/// The log, both outputs in the order the engine took them.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>;

impl Runtime {
    /// A container's log. Without `follow` every part must come within the time of a short call;
    /// with it the stream lives until the container ends or the stream is dropped.
    pub async fn logs(
        &self,
        container: &ContainerId,
        options: LogOptions,
    ) -> Result<LogStream, Fault> {
        let LogOptions {
            follow,
            tail,
            since,
            timestamps,
        } = options;
        let what = format!("cannot read the log of container {container}");
        let engine = self.engine();
        let docker = engine
            .client()
            .await
            .map_err(|error| error.into_fault(&what))?;
        let since = since.map_or(0, |since| {
            i32::try_from(since.as_second()).unwrap_or(i32::MAX)
        });
        let tail = tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let options = LogsOptionsBuilder::new()
            .follow(follow)
            .stdout(true)
            .stderr(true)
            .since(since)
            .timestamps(timestamps)
            .tail(&tail)
            .build();
        let limit = (!follow).then_some(engine.call_timeout);
        let lines = docker.logs(container.as_str(), Some(options)).boxed();
        let limited = futures_util::stream::unfold(Some(lines), move |lines| async move {
            let mut lines = lines?;
            let next = match limit {
                Some(limit) => match tokio::time::timeout(limit, lines.next()).await {
                    Ok(next) => next,
                    Err(_) => return Some((Err(CallError::TimedOut(limit)), None)),
                },
                None => lines.next().await,
            };
            match next? {
                Ok(line) => Some((Ok(line.into_bytes()), Some(lines))),
                Err(error) => Some((Err(CallError::from(error)), None)),
            }
        });
        Ok(limited
            .map(move |line| line.map_err(|error| error.into_fault(&what)))
            .boxed())
    }
}

/// The end of a container's log, for its termination message; empty when it cannot be read.
pub(crate) async fn tail(engine: &Engine, container: &ContainerId) -> String {
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
        // Escaped it is longer, and its end is what matters.
        Ok(Ok(end)) => ForeignText::from_bytes(end.trim_ascii_end(), 2 * TAIL_BYTES).into(),
        Ok(Err(_)) | Err(_) => String::new(),
    }
}
