//! The client of the engine: every call has a deadline, and every error is classified here.

use std::{future::Future, path::PathBuf, time::Duration};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};
use reconciler::{
    fault::{Fault, FaultKind},
    foreign::ForeignText,
};
use tokio::{sync::Mutex, time::timeout};

mod classify;
mod log_driver;

pub(crate) use classify::is_engines_trouble;
pub(crate) use log_driver::LogDriver;

/// bollard's own limit on a call. The deadlines here are always shorter, so that this limit never
/// applies.
const NEVER_SECONDS: u64 = 24 * 3600;

/// The limit, in bytes, of an engine's error response that is read to classify it. A fault quotes
/// less.
const ANSWER_BYTES: usize = 16 * 1024;

/// A connection to the engine. It is made at the first call, so that the daemon starts without an
/// engine.
pub(crate) struct Engine {
    socket: PathBuf,
    /// The deadline of a short call.
    pub(crate) call_timeout: Duration,
    /// The deadline of creating or starting a container.
    pub(crate) start_timeout: Duration,
    client: Mutex<Option<Docker>>,
    /// The default logging driver; `None` until it is asked for.
    log_driver: Mutex<Option<LogDriver>>,
}

/// Why a call returned no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nothing listens on the socket, or the connection broke.
    #[error("the container engine cannot be reached: {0}")]
    Unreachable(String),
    /// The engine accepted the call and did not respond within this time.
    #[error("the container engine did not answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The engine responded with an error.
    #[error("{message}")]
    Refused {
        /// HTTP status, or 0 for an error inside a stream.
        status: u16,
        /// The engine's error message.
        message: String,
    },
    /// The response could not be decoded; holds the error of the decoder.
    #[error("the container engine's answer is not understood: {0}")]
    Garbled(String),
}

impl Engine {
    pub(crate) fn new(socket: PathBuf, call_timeout: Duration, start_timeout: Duration) -> Self {
        Self {
            socket,
            call_timeout,
            start_timeout,
            client: Mutex::new(None),
            log_driver: Mutex::new(None),
        }
    }

    /// Makes one short call.
    pub(crate) async fn call<T, F, Fut>(&self, call: F) -> Result<T, CallError>
    where
        F: FnOnce(Docker) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        self.call_within(self.call_timeout, call).await
    }

    /// Makes one call with its own deadline, which includes connecting.
    pub(crate) async fn call_within<T, F, Fut>(
        &self,
        limit: Duration,
        call: F,
    ) -> Result<T, CallError>
    where
        F: FnOnce(Docker) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let work = async {
            let docker = self.connected().await?;
            call(docker).await.map_err(CallError::from)
        };
        timeout(limit, work)
            .await
            .unwrap_or(Err(CallError::TimedOut(limit)))
    }

    /// The connected client, within the deadline of a short call; for streams, whose limits are the
    /// caller's.
    pub(crate) async fn client(&self) -> Result<Docker, CallError> {
        let limit = self.call_timeout;
        timeout(limit, self.connected())
            .await
            .unwrap_or(Err(CallError::TimedOut(limit)))
    }

    /// Drops the negotiated API version and what is known of the engine's configuration: the engine
    /// may have been upgraded or configured anew while it was unreachable.
    pub(crate) async fn renegotiate(&self) {
        *self.client.lock().await = None;
        *self.log_driver.lock().await = None;
    }

    /// The engine's default logging driver, which it reads from its configuration when it starts.
    pub(crate) async fn log_driver(&self) -> Result<LogDriver, CallError> {
        let mut known = self.log_driver.lock().await;
        if let Some(driver) = *known {
            return Ok(driver);
        }
        let driver = self
            .call(|docker| async move { LogDriver::of(&docker).await })
            .await?;
        Ok(*known.insert(driver))
    }

    async fn connected(&self) -> Result<Docker, CallError> {
        let mut client = self.client.lock().await;
        if let Some(docker) = client.as_ref() {
            return Ok(docker.clone());
        }
        let path = self.socket.to_string_lossy();
        let newest = Docker::connect_with_unix(&path, NEVER_SECONDS, API_DEFAULT_VERSION)?;
        let negotiated = newest.negotiate_version().await?;
        Ok(client.insert(negotiated).clone())
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError {
                status_code,
                message,
            } => Self::Refused {
                status: status_code,
                message: one_line(&message),
            },
            Error::DockerStreamError { error } | Error::DockerContainerWaitError { error, .. } => {
                Self::Refused {
                    status: 0,
                    message: one_line(&error),
                }
            }
            Error::JsonDataError { .. }
            | Error::JsonSerdeError { .. }
            | Error::StrParseError { .. }
            | Error::APIVersionParseError {} => Self::Garbled(error.to_string()),
            Error::RequestTimeoutError => Self::TimedOut(Duration::from_secs(NEVER_SECONDS)),
            other => Self::Unreachable(with_sources(&other)),
        }
    }
}

impl CallError {
    /// Whether the engine responded that the object does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the engine responded that the container name is in use.
    pub(crate) fn is_name_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, message } if message.contains("is already in use"))
    }

    /// Converts the error for the core; `what` names the operation and its object.
    pub(crate) fn into_fault(self, what: &str) -> Fault {
        let kind = match &self {
            Self::Unreachable(_) | Self::TimedOut(_) => FaultKind::EngineUnreachable,
            Self::Garbled(_) => FaultKind::Other,
            Self::Refused { status, message } => classify::container(*status, message),
        };
        Fault::new(kind, format!("{what}: {self}"))
    }

    /// Converts the error of a pull, where the engine's message comes from the registry.
    pub(crate) fn into_pull_fault(self, what: &str) -> Fault {
        match &self {
            Self::Refused { status, message } => {
                Fault::new(classify::pull(*status, message), format!("{what}: {self}"))
            }
            _ => self.into_fault(what),
        }
    }
}

/// The engine's messages contain line breaks and trailing spaces; the message of a fault is one
/// line.
fn one_line(text: &str) -> String {
    ForeignText::words(text, ANSWER_BYTES).into()
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}
