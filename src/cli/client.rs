//! HTTP over the daemon's Unix sockets.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::body::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use reconciler::foreign;
use reqwest::{RequestBuilder, Response};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::exit::CliError;

/// The daemon answers from memory; a command waits for the control loop.
const PATIENCE: Duration = Duration::from_secs(90);
/// The longest line of a stream.
const LINE_BYTES: usize = 64 * 1024 * 1024;
/// The host in URLs is of no meaning on a Unix socket.
const BASE: &str = "http://windlass";

/// One socket of the daemon.
pub(super) struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

impl Client {
    /// For this socket; nothing is opened yet.
    pub(super) fn new(socket: PathBuf) -> Result<Self, CliError> {
        let builder = reqwest::Client::builder()
            .unix_socket(socket.as_path())
            .no_proxy();
        let http = builder
            .build()
            .map_err(|error| CliError::Broken(chain(&error)))?;
        Ok(Self { http, socket })
    }

    /// Reads one answer, to be printed: a daemon of an older version, or its history, may hold
    /// texts that nobody escaped.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        printable(self.get_exact(path).await?)
    }

    /// Reads one answer with every text as it is, to be printed as JSON or YAML, which have escapes
    /// of their own.
    pub(super) async fn get_exact(&self, path: &str) -> Result<Value, CliError> {
        let response = self
            .send(self.http.get(format!("{BASE}{path}")).timeout(PATIENCE))
            .await?;
        response
            .json()
            .await
            .map_err(|error| CliError::Broken(chain(&error)))
    }

    /// Reads one answer in the form of a table.
    pub(super) async fn get_table(&self, path: &str) -> Result<Value, CliError> {
        let request = self
            .http
            .get(format!("{BASE}{path}"))
            .header("accept", super::table::ACCEPT);
        let response = self.send(request.timeout(PATIENCE)).await?;
        printable(
            response
                .json()
                .await
                .map_err(|error| CliError::Broken(chain(&error)))?,
        )
    }

    /// Sends an order.
    pub(super) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, CliError> {
        let response = self
            .send(
                self.http
                    .post(format!("{BASE}{path}"))
                    .json(body)
                    .timeout(PATIENCE),
            )
            .await?;
        printable(
            response
                .json()
                .await
                .map_err(|error| CliError::Broken(chain(&error)))?,
        )
    }

    /// Opens an answer that may go on for ever.
    pub(super) async fn stream(&self, path: &str, accept: &str) -> Result<Stream, CliError> {
        let response = self
            .send(
                self.http
                    .get(format!("{BASE}{path}"))
                    .header("accept", accept),
            )
            .await?;
        Ok(Stream {
            chunks: response.bytes_stream().boxed(),
            left: Vec::new(),
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        Err(CliError::Answer(
            message(&text).unwrap_or_else(|| format!("the daemon answers {status}")),
        ))
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        match cause(error) {
            Some(io) if io.kind() == io::ErrorKind::PermissionDenied => {
                CliError::Forbidden(self.socket.clone())
            }
            Some(io) => CliError::Unreachable {
                socket: self.socket.clone(),
                why: plain(io),
            },
            None => CliError::Unreachable {
                socket: self.socket.clone(),
                why: chain(error),
            },
        }
    }
}

/// Is there something at the end of this socket? Used where a question would wait too long.
pub(super) fn answers(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

/// The message of a `Status`, of a command's answer, or the text itself. It may be several lines:
/// problems of a revision.
fn message(text: &str) -> Option<String> {
    let json: Option<Value> = serde_json::from_str(text).ok();
    let message = json
        .as_ref()
        .and_then(|json| json["message"].as_str())
        .unwrap_or(text)
        .trim();
    (!message.is_empty()).then(|| foreign::escape_but(message, &['\n']).into_owned())
}

/// An answer whose texts are each one line and act on no terminal.
fn printable<T: DeserializeOwned>(mut answer: Value) -> Result<T, CliError> {
    foreign::escape_value(&mut answer);
    serde_json::from_value(answer).map_err(|error| CliError::Broken(error.to_string()))
}

fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error
            .downcast_ref::<io::Error>()
            .filter(|io| io.raw_os_error().is_some())
        {
            return Some(io);
        }
        next = error.source();
    }
    None
}

/// Without the number that Rust puts behind it.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error")
        .map_or(text.as_str(), |(head, _)| head)
        .to_owned()
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// An answer as it comes.
pub(super) struct Stream {
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    left: Vec<u8>,
}

impl Stream {
    /// The next piece; `None` at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, CliError> {
        self.chunks
            .next()
            .await
            .transpose()
            .map_err(|error| CliError::Broken(chain(&error)))
    }

    /// The next line as JSON; `None` at the end.
    pub(super) async fn line<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CliError> {
        loop {
            if let Some(end) = self.left.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.left.drain(..=end).collect();
                let value = serde_json::from_slice(&line)
                    .map_err(|error| CliError::Broken(error.to_string()))?;
                return printable(value).map(Some);
            }
            if self.left.len() > LINE_BYTES {
                return Err(CliError::Broken("a line has no end".to_owned()));
            }
            match self.chunk().await? {
                Some(chunk) => self.left.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// `?a=b&c=d`, with whatever is not plain text escaped (RFC 3986).
pub(super) fn query(pairs: &[(&str, Option<String>)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        let Some(value) = value else { continue };
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    text.push(char::from(byte))
                }
                other => text.push_str(&format!("%{other:02X}")),
            }
        }
    }
    text
}

/// One segment of a path: a name that came from the command line must not become another path.
pub(super) fn segment(name: &str) -> Result<&str, CliError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    let good = !name.is_empty() && name != "." && name != ".." && name.chars().all(plain);
    good.then_some(name)
        .ok_or_else(|| CliError::Usage(format!("`{name}` is no name")))
}
