//! Logs of containers.

mod replay;

use std::pin::Pin;

use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use reconciler::{fault::Fault, name::ContainerId};

use self::replay::ReplayFilter;
use crate::{docker::CallError, runtime::Runtime};

/// The part of a container's log that is requested.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Continue while the container runs.
    pub follow: bool,
    /// Only this many lines from the end; `None` for all.
    pub tail: Option<u64>,
    /// Only lines since this time; `None` for all.
    pub since: Option<Timestamp>,
    /// Prefix each line with its time.
    pub timestamps: bool,
}

/// The log: standard output and standard error in the order in which the engine received them.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>;

impl Runtime {
    /// The log of a container. Without `follow` every chunk must arrive within the deadline of a
    /// short call; with it the stream lasts until the container ends or the stream is dropped.
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

        // Only lines whose time is known can be told from those that were sent before.
        let mut replay = if follow && !self.has_terminal(container).await {
            Some(ReplayFilter::default())
        } else {
            None
        };

        let since = match since {
            Some(since) => i32::try_from(since.as_second()).unwrap_or(i32::MAX),
            None => 0,
        };
        let tail = match tail {
            Some(lines) => lines.to_string(),
            None => "all".to_owned(),
        };
        let options = LogsOptionsBuilder::new()
            .follow(follow)
            .stdout(true)
            .stderr(true)
            .since(since)
            .timestamps(timestamps || replay.is_some())
            .tail(&tail)
            .build();

        // The next line of a log that is followed may come in hours.
        let limit = if follow {
            None
        } else {
            Some(engine.call_timeout)
        };
        let lines = docker.logs(container.as_str(), Some(options)).boxed();
        // After an error the stream has no lines any more, and ends.
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
                Ok(line) => Some((Ok(line), Some(lines))),
                Err(error) => Some((Err(CallError::from(error)), None)),
            }
        });
        let once = limited.filter_map(move |line| {
            let passed = match (line, &mut replay) {
                (Ok(line), Some(replay)) => replay.pass(line, timestamps).map(Ok),
                (Ok(line), None) => Some(Ok(line.into_bytes())),
                (Err(error), _) => Some(Err(error.into_fault(&what))),
            };
            futures_util::future::ready(passed)
        });
        Ok(once.boxed())
    }

    /// Whether a container has a terminal, whose output has no pieces with a time each; true if the
    /// engine does not say.
    async fn has_terminal(&self, container: &ContainerId) -> bool {
        let id = container.as_str();
        let found = self
            .engine()
            .call(|docker| async move { docker.inspect_container(id, None).await })
            .await;
        let config = found.ok().and_then(|found| found.config);
        config.and_then(|config| config.tty).unwrap_or(true)
    }
}
