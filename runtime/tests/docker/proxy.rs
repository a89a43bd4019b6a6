//! A socket before the engine's that swallows some requests, as an engine does that hangs on one container.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

pub(crate) struct Proxy {
    swallowed: Arc<Mutex<Option<String>>>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    server: JoinHandle<()>,
    path: PathBuf,
}

impl Proxy {
    pub(crate) fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let swallowed = Arc::new(Mutex::new(None));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (pattern, open) = (Arc::clone(&swallowed), Arc::clone(&connections));
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let served = tokio::spawn(serve(client, Arc::clone(&pattern)));
                open.lock().unwrap().push(served);
            }
        });
        Self { swallowed, connections, server, path: path.to_owned() }
    }

    /// Requests whose first line contains this get no answer any more.
    pub(crate) fn swallow(&self, pattern: &str) {
        *self.swallowed.lock().unwrap() = Some(pattern.to_owned());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
        self.connections.lock().unwrap().iter().for_each(JoinHandle::abort);
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(mut client: UnixStream, swallowed: Arc<Mutex<Option<String>>>) {
    let mut head = vec![0; 16 * 1024];
    let Ok(length) = client.read(&mut head).await else { return };
    let first = String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned();
    if swallowed.lock().unwrap().as_ref().is_some_and(|pattern| first.contains(pattern)) {
        return std::future::pending().await;
    }
    let Ok(mut engine) = UnixStream::connect("/var/run/docker.sock").await else { return };
    if engine.write_all(&head[..length]).await.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut engine).await;
    }
}
