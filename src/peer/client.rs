//! Sends requests to another node of the cluster.

use std::{error::Error as _, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::body::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use reconciler::{
    foreign::ForeignText,
    name::{NodeName, ObjectKey},
};
use reqwest::{Method, Response, StatusCode};
use runtime::LastOutput;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::time::timeout;

use super::{Identity, PeerDirectory, server_name};
use crate::last_outputs::OutputQuery;

/// The time limit of a ping, from connecting to the whole answer.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_millis(400);
/// The time limit until any other answer begins.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// The size limit of an answer that is no log.
const ANSWER_BYTES: usize = 64 * 1024;
/// A followed log ends when the other host has been silent for about twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Sends requests to other nodes, over mutual TLS.
#[derive(Clone, Debug)]
pub(crate) struct PeerClient {
    identity: Arc<Identity>,
}

/// The answer of a living node to a ping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ping {
    pub(crate) node: NodeName,
    /// The node's version of Windlass.
    pub(crate) version: String,
    /// The node's clock.
    pub(crate) now: Timestamp,
}

/// A container's log, with the parameters of the Kubernetes route.
#[derive(Clone, Debug)]
pub(crate) struct LogRequest {
    pub(crate) pod: ObjectKey,
    /// The container's name; `None` means the pod's only container.
    pub(crate) container: Option<String>,
    /// Whether the log continues with lines that are written from now on.
    pub(crate) follow: bool,
    /// Whether the log of the previous attempt is wanted.
    pub(crate) previous: bool,
    /// Whether each line begins with its time.
    pub(crate) timestamps: bool,
    /// The number of last lines; `None` for all.
    pub(crate) tail: Option<u64>,
    /// The earliest time of a line; `None` for all.
    pub(crate) since: Option<Timestamp>,
}

/// The text of a log in pieces, as it arrives.
pub(crate) type LogText = BoxStream<'static, std::io::Result<Bytes>>;

/// Why a request to a node failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum PeerError {
    /// There was no answer.
    #[error("{node} at {address} does not answer: {reason}")]
    Silent {
        node: NodeName,
        address: SocketAddr,
        /// The reason that the network reported.
        reason: String,
    },
    /// The connection failed because one side does not trust the other.
    #[error("no trusted connection to {node} at {address}: {reason}")]
    Untrusted {
        node: NodeName,
        address: SocketAddr,
        /// The reason that TLS reported.
        reason: String,
    },
    /// The node refused the request.
    #[error("{message}")]
    Refused {
        /// The HTTP status of the answer.
        status: u16,
        /// The message in the answer.
        message: String,
    },
    /// The answer has an invalid form.
    #[error("the answer of {node} at {address} cannot be used: {reason}")]
    Broken {
        node: NodeName,
        address: SocketAddr,
        /// What is wrong with the answer.
        reason: String,
    },
}

/// The body of a refusal: this API's, or a `Status` of Kubernetes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) message: String,
}

/// The body of a request to `/peer/v1/renew`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenewRequest {
    /// The certificate request, as PEM.
    pub(super) request: String,
}

/// The answer to `/peer/v1/renew` and `/peer/v1/join`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Certified {
    /// The certificate followed by the authority's, as PEM.
    pub(super) certificate: String,
    pub(super) cluster: String,
}

impl PeerClient {
    /// A client with the certificate in this directory; `None` if there is no certificate.
    pub(crate) fn new(directory: &Path) -> anyhow::Result<Option<Self>> {
        Ok(Identity::open(&PeerDirectory::new(directory))?.map(Self::with))
    }

    /// A client with this certificate.
    pub(crate) fn with(identity: Arc<Identity>) -> Self {
        Self { identity }
    }

    /// Whether this node lives: only the owner of the node's key can answer.
    pub(crate) async fn ping(
        &self,
        node: &NodeName,
        address: SocketAddr,
    ) -> Result<Ping, PeerError> {
        self.line(node).ping(address).await
    }

    /// A connection for repeated requests to one node.
    pub(crate) fn line(&self, node: &NodeName) -> PeerLine {
        PeerLine {
            client: self.clone(),
            node: node.clone(),
            kept: None,
        }
    }

    /// The log of a container on that node.
    pub(crate) async fn logs(
        &self,
        node: &NodeName,
        address: SocketAddr,
        log: &LogRequest,
    ) -> Result<LogText, PeerError> {
        let target = PeerTarget {
            node: node.clone(),
            address,
        };
        let http = self.connect(&target, Keep::No)?;
        let url = reqwest::Url::parse_with_params(&target.url("logs"), log.parameters());
        let url = url.map_err(|error| target.broken(error.to_string()))?;
        let response = target.send(http.get(url)).await?;

        let name = format!("{node} at {address}");
        let ended = move |error: reqwest::Error| {
            std::io::Error::other(format!(
                "the connection to {name} broke: {}",
                innermost(&error)
            ))
        };
        Ok(response
            .bytes_stream()
            .map(move |part| part.map_err(&ended))
            .boxed())
    }

    /// What failed containers of that node printed, as far as the query looks for it.
    pub(crate) async fn outputs(
        &self,
        node: &NodeName,
        address: SocketAddr,
        query: &OutputQuery,
    ) -> Result<Vec<LastOutput>, PeerError> {
        let target = PeerTarget {
            node: node.clone(),
            address,
        };
        let http = self.connect(&target, Keep::No)?;
        let url = reqwest::Url::parse_with_params(&target.url("outputs"), query.parameters());
        let url = url.map_err(|error| target.broken(error.to_string()))?;
        target.read(target.send(http.get(url)).await?).await
    }

    /// Requests a new certificate from the host that has the authority.
    pub(super) async fn renew(
        &self,
        node: &NodeName,
        address: SocketAddr,
        request: String,
    ) -> Result<Certified, PeerError> {
        let target = PeerTarget {
            node: node.clone(),
            address,
        };
        let http = self.connect(&target, Keep::No)?;
        let request = http
            .request(Method::POST, target.url("renew"))
            .json(&RenewRequest { request });
        target.read(target.send(request).await?).await
    }

    fn connect(&self, target: &PeerTarget, keep: Keep) -> Result<reqwest::Client, PeerError> {
        let config = self
            .identity
            .client_config()
            .map_err(|error| target.untrusted(format!("{error:#}")))?;
        target.client(config, keep)
    }
}

/// A node that receives repeated requests, over one connection while that works.
#[derive(Debug)]
pub(crate) struct PeerLine {
    client: PeerClient,
    node: NodeName,
    kept: Option<(SocketAddr, reqwest::Client)>,
}

impl PeerLine {
    /// Whether the node lives: only the owner of the node's key can answer.
    pub(crate) async fn ping(&mut self, address: SocketAddr) -> Result<Ping, PeerError> {
        let target = PeerTarget {
            node: self.node.clone(),
            address,
        };
        let http = match self.kept.take() {
            Some((known, http)) if known == address => http,
            _ => self.client.connect(&target, Keep::Yes)?,
        };

        let pinged = async {
            let request = http.get(target.url("ping"));
            let ping: Ping = target.read(target.send(request).await?).await?;
            if ping.node == self.node {
                Ok(ping)
            } else {
                Err(target.broken(format!("its name is {}", ping.node)))
            }
        };
        let late = || target.silent(format!("no answer within {} ms", PING_TIMEOUT.as_millis()));
        let answer = timeout(PING_TIMEOUT, pinged)
            .await
            .unwrap_or_else(|_| Err(late()));

        // After a failure both the connection and the client with its certificate are made again.
        if answer.is_ok() {
            self.kept = Some((address, http));
        }
        answer
    }
}

impl LogRequest {
    /// The query parameters: those of the Kubernetes route, and the pod.
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let LogRequest {
            pod,
            container,
            follow,
            previous,
            timestamps,
            tail,
            since,
        } = self;
        let flag = |is_set: &bool| {
            if *is_set {
                Some("true".to_owned())
            } else {
                None
            }
        };
        let all = [
            ("namespace", Some(pod.namespace.clone())),
            ("name", Some(pod.name.clone())),
            ("container", container.clone()),
            ("follow", flag(follow)),
            ("previous", flag(previous)),
            ("timestamps", flag(timestamps)),
            ("tailLines", tail.map(|lines| lines.to_string())),
            ("sinceTime", since.map(|time| time.to_string())),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

/// Whether a connection stays open for the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Yes,
    No,
}

/// The target of a request: the node whose name the certificate must have, and its address.
pub(super) struct PeerTarget {
    pub(super) node: NodeName,
    pub(super) address: SocketAddr,
}

impl PeerTarget {
    pub(super) fn url(&self, route: &str) -> String {
        format!(
            "https://{}:{}/peer/v1/{route}",
            server_name(&self.node),
            self.address.port()
        )
    }

    pub(super) fn client(
        &self,
        config: ClientConfig,
        keep: Keep,
    ) -> Result<reqwest::Client, PeerError> {
        reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .resolve(&server_name(&self.node), self.address)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(usize::from(keep == Keep::Yes))
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_keepalive_interval(KEEP_ALIVE / 3)
            .tcp_keepalive_retries(3)
            .build()
            .map_err(|error| self.broken(innermost(&error)))
    }

    /// Sends the request and returns the answer, if its status is a success.
    pub(super) async fn send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<Response, PeerError> {
        let late = || self.silent(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
        let sent = timeout(ANSWER_TIMEOUT, request.send())
            .await
            .map_err(|_| late())?;
        let response = sent.map_err(|error| self.classify(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }

        let body = self.body(response).await.unwrap_or_default();
        let message = match serde_json::from_slice(&body) {
            Ok(Message { message }) => message,
            Err(_) => format!("{} at {} answers {status}", self.node, self.address),
        };
        Err(PeerError::Refused {
            status: status.as_u16(),
            message: ForeignText::new(&message).into(),
        })
    }

    /// Reads a small answer.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        response: Response,
    ) -> Result<T, PeerError> {
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|error| self.broken(error.to_string()))
    }

    async fn body(&self, response: Response) -> Result<Vec<u8>, PeerError> {
        let mut body = Vec::new();
        let mut parts = response.bytes_stream();
        let reading = async {
            while let Some(part) = parts.next().await {
                body.extend_from_slice(&part.map_err(|error| self.classify(&error))?);
                if body.len() > ANSWER_BYTES {
                    return Err(self.broken("it is too long".to_owned()));
                }
            }
            Ok(())
        };
        timeout(ANSWER_TIMEOUT, reading)
            .await
            .map_err(|_| self.silent("its answer does not end".to_owned()))??;
        Ok(body)
    }

    fn classify(&self, error: &reqwest::Error) -> PeerError {
        let reason = innermost(error);
        if is_tls(error) {
            self.untrusted(reason)
        } else {
            self.silent(reason)
        }
    }

    fn silent(&self, reason: String) -> PeerError {
        PeerError::Silent {
            node: self.node.clone(),
            address: self.address,
            reason,
        }
    }

    fn untrusted(&self, reason: String) -> PeerError {
        PeerError::Untrusted {
            node: self.node.clone(),
            address: self.address,
            reason,
        }
    }

    fn broken(&self, reason: String) -> PeerError {
        PeerError::Broken {
            node: self.node.clone(),
            address: self.address,
            reason,
        }
    }
}

impl PeerError {
    /// Whether the node itself refused the request as wrong.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status < StatusCode::INTERNAL_SERVER_ERROR.as_u16())
    }
}

/// Whether TLS failed, on either side.
fn is_tls(error: &reqwest::Error) -> bool {
    let mut next = error.source();
    while let Some(error) = next {
        let mut wrapped: &(dyn std::error::Error + 'static) = error;
        // The source of an `io::Error` is the source of the error in it, so the inner error has to
        // be taken out: one `io::Error` inside another hides it.
        while let Some(inner) = wrapped
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            wrapped = inner;
        }
        if wrapped.is::<rustls::Error>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// The message of the innermost cause, which is the most precise one.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }

    let text = cause.to_string();
    text.split_once(" (os error")
        .map_or(text.as_str(), |(head, _)| head)
        .to_owned()
}
