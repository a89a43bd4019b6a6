//! A registry with one image and several modes of failure.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use ring::digest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Serving,
    Denying,
    /// Serves only the user `deployer` with the password `s3cret`.
    RequiringPassword,
    Hanging,
    /// Sends the first half of each large layer, and no more.
    HalfALayer,
}

pub(crate) struct Registry {
    pub(crate) host: String,
    pub(crate) manifest_digest: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    mode: Mutex<Mode>,
    manifest_requests: AtomicUsize,
    /// The content type and the content at each path.
    content: BTreeMap<String, (&'static str, Vec<u8>)>,
    manifest_digest: String,
}

/// Manifests and configurations are smaller.
const LARGE: usize = 64 * 1024;
const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";

impl Registry {
    /// Serves the image `app:1`, which has one file with this content.
    pub(crate) async fn start(content: &str) -> Self {
        let layer = archive(content);
        let layer_digest = sha256(&layer);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/hello"]}},"rootfs":{{"type":"layers","diff_ids":["{layer_digest}"]}},"history":[{{"created":"2026-01-01T00:00:00Z"}}]}}"#
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":{},"digest":"{}"}},"layers":[{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":{},"digest":"{layer_digest}"}}]}}"#,
            config.len(),
            sha256(config.as_bytes()),
            layer.len(),
        );
        let manifest_digest = sha256(manifest.as_bytes());
        let blob = |digest: &str| format!("/v2/app/blobs/{digest}");
        let content = BTreeMap::from([
            (
                blob(&sha256(config.as_bytes())),
                ("application/octet-stream", config.into_bytes()),
            ),
            (blob(&layer_digest), ("application/octet-stream", layer)),
            (
                format!("/v2/app/manifests/{manifest_digest}"),
                (MANIFEST_TYPE, manifest.clone().into_bytes()),
            ),
            (
                "/v2/app/manifests/1".to_owned(),
                (MANIFEST_TYPE, manifest.into_bytes()),
            ),
        ]);
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Serving),
            manifest_requests: AtomicUsize::new(0),
            content,
            manifest_digest: manifest_digest.clone(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let serving = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&serving), connection));
            }
        });
        Self {
            host,
            manifest_digest,
            shared,
            server,
        }
    }

    pub(crate) fn image(&self) -> String {
        format!("{}/app:1", self.host)
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    pub(crate) fn manifest_requests(&self) -> usize {
        self.shared.manifest_requests.load(Ordering::Relaxed)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(shared: Arc<Shared>, mut connection: TcpStream) {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.read(&mut part).await {
            Ok(length) if length > 0 => request.extend_from_slice(&part[..length]),
            _ => return,
        }
        // The engine tries TLS first, whose handshake begins with 0x16. A server without TLS closes
        // the connection, and the engine then uses plain HTTP.
        if request.first() == Some(&0x16) {
            return;
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let mut words = request.split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    if path.contains("/manifests/") {
        shared.manifest_requests.fetch_add(1, Ordering::Relaxed);
    }
    let mode = *shared.mode.lock().unwrap();
    let error = |code: &str| {
        format!(r#"{{"errors":[{{"code":"{code}","message":"{code}"}}]}}"#).into_bytes()
    };
    let (status, kind, body) = match (mode, shared.content.get(path)) {
        (Mode::Hanging, _) => return std::future::pending().await,
        (Mode::Denying, _) if path.contains("/manifests/") => (
            "401 Unauthorized",
            "application/json",
            error("UNAUTHORIZED"),
        ),
        (Mode::RequiringPassword, _)
            if !request.contains("Authorization: Basic ZGVwbG95ZXI6czNjcmV0\r\n") =>
        {
            (
                "401 Unauthorized",
                "application/json",
                error("UNAUTHORIZED"),
            )
        }
        _ if path == "/v2/" => ("200 OK", "application/json", b"{}".to_vec()),
        (_, Some((kind, body))) => ("200 OK", *kind, body.clone()),
        (_, None) => (
            "404 Not Found",
            "application/json",
            error("MANIFEST_UNKNOWN"),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ndocker-content-digest: {}\r\n\
         www-authenticate: Basic realm=\"images\"\r\n\
         docker-distribution-api-version: registry/2.0\r\nconnection: close\r\n\r\n",
        body.len(),
        shared.manifest_digest,
    );
    let _ = connection.write_all(head.as_bytes()).await;
    if mode == Mode::HalfALayer && body.len() > LARGE {
        let _ = connection.write_all(&body[..body.len() / 2]).await;
        return std::future::pending().await;
    }
    if method != "HEAD" {
        let _ = connection.write_all(&body).await;
    }
}

fn sha256(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    let hex: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// A layer with the one file `hello`.
fn archive(content: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("hello"), content).unwrap();
    let output = std::process::Command::new("tar")
        .arg("-c")
        .arg("-C")
        .arg(directory.path())
        .arg("hello")
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}
