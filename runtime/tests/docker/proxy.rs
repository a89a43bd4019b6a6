//! A proxy before the engine's socket. It leaves some requests without an answer, as an engine that
//! hangs on one container, or answers some with an error, as an engine without its containerd.

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

/// The error of an engine that has lost its containerd.
const ERROR: &str = r#"{"message":"connection error: dial unix /run/containerd/containerd.sock: connect: no such file or directory"}"#;

pub(crate) struct Proxy {
    rules: Arc<Rules>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    server: JoinHandle<()>,
    path: PathBuf,
}

struct Rules {
    ignored: Mutex<Option<String>>,
    failed: Mutex<Option<String>>,
    failures: watch::Sender<usize>,
}

impl Proxy {
    pub(crate) fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let rules = Arc::new(Rules {
            ignored: Mutex::new(None),
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

    /// Requests whose first line contains `pattern` get no answer from now on.
    pub(crate) fn ignore(&self, pattern: &str) {
        *self.rules.ignored.lock().unwrap() = Some(pattern.to_owned());
    }

    /// Requests whose first line contains `pattern` are answered with an error from now on.
    pub(crate) fn fail(&self, pattern: &str) {
        *self.rules.failed.lock().unwrap() = Some(pattern.to_owned());
    }

    /// The number of requests that were answered with an error.
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
    let matches = |pattern: &Mutex<Option<String>>| {
        pattern
            .lock()
            .unwrap()
            .as_ref()
            .is_some_and(|pattern| first.contains(pattern))
    };
    if matches(&rules.ignored) {
        return std::future::pending().await;
    }
    if matches(&rules.failed) {
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
