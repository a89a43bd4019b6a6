//! An HTTP client for the daemon's Unix sockets.

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

use super::{exit::CliError, table::GetTable};

/// The time limit of a request. The daemon answers reads from memory, and a command waits for the
/// control loop, which has 60 s (`http::admin`).
const PATIENCE: Duration = Duration::from_secs(90);
/// The maximum length of a line of a stream, in bytes.
const LINE_BYTES: usize = 64 * 1024 * 1024;
/// The host in a URL has no meaning on a Unix socket.
const BASE: &str = "http://windlass";

/// A client of one socket of the daemon.
pub(super) struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

impl Client {
    /// A client of this socket; a connection is opened with the first request.
    pub(super) fn new(socket: PathBuf) -> Result<Self, CliError> {
        let builder = reqwest::Client::builder()
            .unix_socket(socket.as_path())
            .no_proxy();
        let http = builder
            .build()
            .map_err(|error| CliError::Broken(chain(&error)))?;
        Ok(Self { http, socket })
    }

    /// Reads an answer and escapes its texts for printing: a daemon of an older version, or an old
    /// entry of its history, may contain texts that were not escaped.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        printable(self.get_exact(path).await?)
    }

    /// Reads an answer with its texts unchanged, for printing as JSON or YAML, which have escapes of
    /// their own.
    pub(super) async fn get_exact(&self, path: &str) -> Result<Value, CliError> {
        let response = self
            .send(self.http.get(format!("{BASE}{path}")).timeout(PATIENCE))
            .await?;
        response
            .json()
            .await
            .map_err(|error| CliError::Broken(chain(&error)))
    }

    /// Reads an answer as a table.
    pub(super) async fn get_table(&self, path: &str) -> Result<GetTable, CliError> {
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

    /// Sends a command, and reads the answer.
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

    /// Opens an answer that may have no end: a watch, or a log that is followed.
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
        Err(CliError::Answer(message(&text).unwrap_or_else(|| {
            format!("the daemon answered with status {status} and no message")
        })))
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

/// Whether a process listens at this socket. Connecting does not wait for an answer, unlike a
/// request.
pub(super) fn answers(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

/// The message of a Kubernetes `Status` or of a command's answer, or the text itself. A message may
/// have several lines, such as the problems of a revision.
fn message(text: &str) -> Option<String> {
    let json: Option<Value> = serde_json::from_str(text).ok();
    let message = json
        .as_ref()
        .and_then(|json| json["message"].as_str())
        .unwrap_or(text)
        .trim();
    (!message.is_empty()).then(|| foreign::escape_but(message, &['\n']).into_owned())
}

/// Escapes the texts of an answer, so that each is one line and none acts on a terminal.
fn printable<T: DeserializeOwned>(mut answer: Value) -> Result<T, CliError> {
    foreign::escape_value(&mut answer);
    serde_json::from_value(answer).map_err(|error| CliError::Broken(error.to_string()))
}

fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.raw_os_error().is_some()
        {
            return Some(io);
        }
        next = error.source();
    }
    None
}

/// The error's text without `(os error 2)`, which Rust appends.
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

/// An answer that is read in pieces.
pub(super) struct Stream {
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    left: Vec<u8>,
}

impl Stream {
    /// The next bytes, as they were received; `None` at the end.
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
                return Err(CliError::Broken(format!(
                    "a line is longer than {LINE_BYTES} bytes"
                )));
            }
            match self.chunk().await? {
                Some(chunk) => self.left.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// A query such as `?a=b&c=d`, percent-encoded (RFC 3986). A pair without a value is left out.
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

/// Checks a name from the command line that becomes a segment of a path, so that it cannot lead to
/// another path.
pub(super) fn segment(name: &str) -> Result<&str, CliError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    let good = !name.is_empty() && name != "." && name != ".." && name.chars().all(plain);
    good.then_some(name).ok_or_else(|| {
        CliError::Usage(format!(
            "`{name}` is not a name: expected letters, digits, `-`, `.`, `_` and `:`"
        ))
    })
}
