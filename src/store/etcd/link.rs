//! Connections to etcd: one end point at a time, and the next one when it does not answer.
//!
//! The client library can balance over several end points itself, but it sends each call to one of
//! two end points picked at random and keeps one that hangs among them: every second call would
//! wait. Here a failure moves all tasks to the next end point.

use std::{
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tokio::sync::{Mutex, watch};

use super::{
    EtcdConfig, EtcdTls,
    failure::{self, CallFailure},
};

/// The time limit of a call that normally takes milliseconds.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_millis(1500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// etcd closes connections of clients that ping more often than every 5 s
/// (`--grpc-keepalive-min-time`).
const PING_INTERVAL: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Which end point is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Preferred {
    pub(super) index: usize,
    /// Counts the failures of all tasks: after each one a task checks whether its own connection
    /// still works.
    pub(super) failures: u64,
}

/// The end points, shared by all connections.
pub(super) struct Endpoints {
    config: EtcdConfig,
    preferred: watch::Sender<Preferred>,
}

impl Endpoints {
    /// Checks the parts of the configuration that need no connection.
    pub(super) fn new(config: EtcdConfig, prefix: String) -> anyhow::Result<Self> {
        if config.endpoints.is_empty() {
            bail!("no end point of etcd is configured");
        }
        for endpoint in &config.endpoints {
            match (&config.tls, endpoint.split_once("://")) {
                (_, Some(("https", rest))) | (None, Some(("http", rest))) if !rest.is_empty() => {}
                (Some(_), Some(("http", _))) => {
                    bail!(
                        "the end point {endpoint} of etcd is plain text, and TLS is configured: write https://"
                    )
                }
                _ => bail!("the end point {endpoint:?} of etcd must be as https://HOST:2379"),
            }
        }
        let config = EtcdConfig { prefix, ..config };
        if let Some(tls) = &config.tls {
            read_tls(tls)?;
        }
        // Hosts start at different end points, so that the load is spread over the members.
        let index = usize::try_from(std::process::id()).unwrap_or(0) % config.endpoints.len();
        Ok(Self {
            config,
            preferred: watch::channel(Preferred { index, failures: 0 }).0,
        })
    }

    pub(super) fn count(&self) -> usize {
        self.config.endpoints.len()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Preferred> {
        self.preferred.subscribe()
    }

    fn name(&self, index: usize) -> &str {
        self.config.endpoints.get(index).map_or("", String::as_str)
    }

    /// Moves on from an end point that failed, unless another task already has.
    fn failed(&self, index: usize) {
        self.preferred.send_modify(|preferred| {
            preferred.failures += 1;
            if preferred.index == index {
                preferred.index = (index + 1) % self.config.endpoints.len();
            }
        });
    }

    async fn connect(&self, index: usize, within: Duration) -> Result<Box<Client>, CallFailure> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some(tls) = &self.config.tls {
            let read =
                read_tls(tls).map_err(|error| CallFailure::Unreachable(format!("{error:#}")))?;
            options = options.with_tls(read);
        }
        if let Some((user, password)) = &self.config.user {
            options = options.with_user(user, password.reveal());
        }
        // Without a user this waits for nothing: the first call opens the connection.
        let connected = async {
            Ok(Box::new(
                Client::connect([self.name(index)], Some(options)).await?,
            ))
        };
        self.judged(index, within, Box::pin(connected)).await
    }

    async fn judged<T>(
        &self,
        index: usize,
        timeout: Duration,
        call: Pin<Box<impl Future<Output = Result<T, etcd_client::Error>>>>,
    ) -> Result<T, CallFailure> {
        let endpoint = self.name(index);
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(failure::judge(&error, endpoint, &self.config)),
            Err(_) => Err(CallFailure::Unreachable(format!(
                "etcd at {endpoint} gave no answer within {} s: check that it runs, that its members have quorum, \
                 and that this host reaches it",
                timeout.as_secs_f32()
            ))),
        }
    }

    /// Classifies a refusal that came inside of an answer.
    pub(super) fn refusal(&self, connection: &EtcdConnection, message: &str) -> CallFailure {
        let code = if message.contains("permission denied") {
            7
        } else {
            0
        };
        CallFailure::Refused(failure::words(&failure::refusal(
            code,
            message,
            self.name(connection.index),
            &self.config,
        )))
    }
}

/// A client of one end point.
#[derive(Clone)]
pub(super) struct EtcdConnection {
    /// Boxed, since it is large and every task holds several.
    pub(super) client: Box<Client>,
    pub(super) index: usize,
    id: u64,
}

/// One connection, opened when it is needed and again after a failure. Clones share it.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) endpoints: Arc<Endpoints>,
    current: Arc<Mutex<Option<EtcdConnection>>>,
    made: Arc<AtomicU64>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(endpoints: Arc<Endpoints>) -> Self {
        Self {
            endpoints,
            current: Arc::default(),
            made: Arc::default(),
        }
    }

    /// The connection to the preferred end point.
    pub(super) async fn connection(&self) -> Result<EtcdConnection, CallFailure> {
        self.connection_within(CALL_TIMEOUT).await
    }

    /// As [`Link::connection`] with another time limit: with a password, etcd is asked for a token
    /// first.
    pub(super) async fn connection_within(
        &self,
        within: Duration,
    ) -> Result<EtcdConnection, CallFailure> {
        let index = self.endpoints.preferred.borrow().index;
        let mut current = self.current.lock().await;
        if let Some(connection) = current
            .as_ref()
            .filter(|connection| connection.index == index)
        {
            return Ok(connection.clone());
        }
        *current = None;
        let client = Box::pin(self.endpoints.connect(index, within))
            .await
            .inspect_err(|_| self.endpoints.failed(index))?;
        let connection = EtcdConnection {
            client,
            index,
            id: self.made.fetch_add(1, Ordering::Relaxed),
        };
        *current = Some(connection.clone());
        Ok(connection)
    }

    /// Makes one call on a connection. Without an answer the connection and its end point are given
    /// up. The call is boxed: the futures of the client library take tens of kilobytes, too much
    /// for a stack with several of them.
    pub(super) async fn call<T>(
        &self,
        connection: &EtcdConnection,
        timeout: Duration,
        call: Pin<Box<impl Future<Output = Result<T, etcd_client::Error>>>>,
    ) -> Result<T, CallFailure> {
        let result = self.endpoints.judged(connection.index, timeout, call).await;
        if let Err(CallFailure::Unreachable(_)) = &result {
            self.give_up(connection).await;
        }
        result
    }

    /// Stops the use of this connection.
    pub(super) async fn give_up(&self, connection: &EtcdConnection) {
        self.endpoints.failed(connection.index);
        let mut current = self.current.lock().await;
        if current
            .as_ref()
            .is_some_and(|current| current.id == connection.id)
        {
            *current = None;
        }
    }
}

fn read_tls(tls: &EtcdTls) -> anyhow::Result<TlsOptions> {
    let read = |what: &str, path: &Path| {
        std::fs::read(path)
            .with_context(|| format!("{what} for etcd cannot be read from {}", path.display()))
    };
    let ca = Certificate::from_pem(read("the CA", &tls.ca)?);
    let identity = Identity::from_pem(
        read("the certificate", &tls.certificate)?,
        read("the key", &tls.key)?,
    );
    Ok(TlsOptions::new().ca_certificate(ca).identity(identity))
}
