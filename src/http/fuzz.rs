//! Connections that send any bytes in the place of HTTP requests.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{future, io, sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use proptest::prelude::*;
use reconciler::object::Sensitive;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::{Notify, mpsc},
};

use super::{
    fixture::fixture,
    health, reading,
    webhook::{WebhookSettings, Webhooks},
};
use crate::fuzz::Fuzz;

const WORDS: [&str; 22] = [
    "GET ",
    "POST ",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "Host: a\r\n",
    "Connection: close\r\n",
    "Connection: upgrade\r\n",
    "Upgrade: h2c\r\n",
    "Content-Length: 2\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "0\r\n\r\n",
    "ffffffffffffffff\r\n",
    "%00",
    "%2e%2e/",
    "/windlass/v1/",
    "/api/v1/pods?watch=true",
    "http://a/",
];
/// How long the client waits without a byte from the server before it closes the connection: an
/// answer that takes work may come within this time.
const QUIET: Duration = Duration::from_secs(5);
/// How long a connection is kept: a watch has no end of its own.
const PATIENCE: Duration = Duration::from_secs(30);

/// A listener in memory.
pub(crate) struct Pipes(mpsc::Receiver<DuplexStream>);

impl Listener for Pipes {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(stream) => (stream, ()),
            None => future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A runtime with a paused clock, which advances only when all tasks wait.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

/// The bytes that a server answers to a client that sends these pieces and then nothing more.
pub(crate) async fn answer(router: Router, pieces: &[&[u8]]) -> Vec<u8> {
    let (connect, pipes) = mpsc::channel(1);
    let server = tokio::spawn(async { axum::serve(Pipes(pipes), router).await });
    let (client, io) = tokio::io::duplex(4096);
    connect.send(io).await.unwrap();
    let (mut reading, mut writing) = tokio::io::split(client);
    let mut answer = Vec::new();
    let exchange = async {
        let send = async {
            for piece in pieces {
                // The server may close the connection early.
                if writing.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(QUIET).await;
            let _ = writing.shutdown().await;
        };
        let receive = async {
            let _ = reading.read_to_end(&mut answer).await;
        };
        tokio::join!(send, receive);
    };
    // A watch goes on for as long as its client is there; what came until then is its answer.
    let _ = tokio::time::timeout(PATIENCE, exchange).await;
    server.abort();
    answer
}

/// The status of each answer on a connection; every answer must begin as HTTP requires.
pub(crate) fn statuses(answer: &[u8]) -> Result<Vec<u16>, TestCaseError> {
    // A client that begins with the preface of HTTP/2 is answered in HTTP/2: by a SETTINGS frame.
    if answer.get(3) == Some(&4) {
        return Ok(Vec::new());
    }
    let text = String::from_utf8_lossy(answer);
    let begins = text.is_empty() || text.starts_with("HTTP/1.");
    prop_assert!(begins, "{:?}", text.chars().take(80).collect::<String>());
    let lines = text.split("HTTP/1.").skip(1);
    let statuses = lines.filter_map(|line| line.get(2..5)?.parse().ok());
    Ok(statuses.collect())
}

#[test]
fn any_bytes_of_a_connection_are_answered_or_refused() {
    let runtime = runtime();
    let fixture = fixture();
    let config = WebhookSettings {
        secret: Some(Sensitive::new("It's a Secret to Everybody".to_owned())),
        branch: "main".to_owned(),
    };
    Fuzz::new("src/http/corpus", &WORDS).run(|bytes| {
        let router = || {
            let metrics = fixture.daemon.metrics.clone();
            let hooks = Webhooks::new(&config, metrics, Arc::new(Notify::new()));
            let hooks = hooks.unwrap().unwrap().router();
            reading(&fixture.daemon)
                .merge(health::router(&fixture.daemon))
                .merge(hooks)
        };
        let whole = statuses(&runtime.block_on(answer(router(), &[bytes])))?;
        fixture.asked.lock().clear();
        prop_assert!(!whole.contains(&500), "{whole:?}");

        // The answer must not depend on where the network splits a request.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let cut = statuses(&runtime.block_on(answer(router(), &[first, second])))?;
        if let (Some(cut), Some(whole)) = (cut.first(), whole.first()) {
            prop_assert_eq!(cut, whole);
        }
        Ok(whole.first() == Some(&200))
    });
}
