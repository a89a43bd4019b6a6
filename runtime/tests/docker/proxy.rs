//! A socket before the engine's that swallows some requests, as an engine does that hangs on one
//! container, or answers them with an error, as one does whose own parts do not work.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
};

/// What an engine says that has lost its containerd.
const ERROR: &str = r#"{"message":"connection error: dial unix /run/containerd/containerd.sock: connect: no such file or directory"}"#;

pub(crate) struct Proxy {
    rules: Arc<Rules>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    server: JoinHandle<()>,
    path: PathBuf,
}

struct Rules {
    swallowed: Mutex<Option<String>>,
    failed: Mutex<Option<String>>,
    failures: watch::Sender<usize>,
}

impl Proxy {
    pub(crate) fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let rules = Arc::new(Rules {
            swallowed: Mutex::new(None),
            failed: Mutex::new(None),
            failures: watch::Sender::new(0),
        });
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (given, open) = (Arc::clone(&rules), Arc::clone(&connections));
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let served = tokio::spawn(serve(client, Arc::clone(&given)));
                open.lock().unwrap().push(served);
            }
        });
        Self {
            rules,
            connections,
            server,
            path: path.to_owned(),
        }
    }

    /// Requests whose first line contains this get no answer any more.
    pub(crate) fn swallow(&self, pattern: &str) {
        *self.rules.swallowed.lock().unwrap() = Some(pattern.to_owned());
    }

    /// Requests whose first line contains this are answered with an error.
    pub(crate) fn fail(&self, pattern: &str) {
        *self.rules.failed.lock().unwrap() = Some(pattern.to_owned());
    }

    /// How many requests were answered so.
    pub(crate) fn failures(&self) -> watch::Receiver<usize> {
        self.rules.failures.subscribe()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
        self.connections
            .lock()
            .unwrap()
            .iter()
            .for_each(JoinHandle::abort);
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(mut client: UnixStream, rules: Arc<Rules>) {
    let mut head = vec![0; 16 * 1024];
    let Ok(length) = client.read(&mut head).await else {
        return;
    };
    let first = String::from_utf8_lossy(&head[..length])
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    let is_meant = |pattern: &Mutex<Option<String>>| {
        pattern
            .lock()
            .unwrap()
            .as_ref()
            .is_some_and(|it| first.contains(it))
    };
    if is_meant(&rules.swallowed) {
        return std::future::pending().await;
    }
    if is_meant(&rules.failed) {
        let length = ERROR.len();
        let head = format!(
            "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n"
        );
        let _ = client.write_all(format!("{head}{ERROR}").as_bytes()).await;
        rules.failures.send_modify(|count| *count += 1);
        return;
    }
    let Ok(mut engine) = UnixStream::connect("/var/run/docker.sock").await else {
        return;
    };
    if engine.write_all(&head[..length]).await.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut engine).await;
    }
}
