//! A small https server in front of `git http-backend`, with a certificate of its own authority.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::run;

/// Serves every repository below a directory to clients with the right `Authorization`.
pub(crate) struct HttpsServer {
    port: u16,
    files: TempDir,
    downloads: Arc<AtomicUsize>,
}

impl HttpsServer {
    /// Starts the server; `authorization` is the required header value, if one is required.
    pub(crate) fn start(root: &Path, authorization: Option<&str>) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (key, certificate) = (files.path().join("key.pem"), files.path().join("ca.pem"));
        let (key_text, certificate_text) = (key.to_str().unwrap(), certificate.to_str().unwrap());
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
                "-keyout",
                key_text,
                "-out",
                certificate_text,
            ],
        );
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![CertificateDer::from_pem_file(&certificate).unwrap()],
                    PrivateKeyDer::from_pem_file(&key).unwrap(),
                )
                .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let downloads = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&downloads);
        let (root, authorization) = (root.to_owned(), authorization.map(str::to_owned));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                // A client that refuses the server's certificate ends the connection early, which
                // is no error of the test.
                let stream = StreamOwned::new(connection, stream);
                let _ = serve(stream, &root, authorization.as_deref(), &counter);
            }
        });
        Self {
            port,
            files,
            downloads,
        }
    }

    pub(crate) fn url(&self, repository: &str) -> String {
        format!("https://localhost:{}/{repository}", self.port)
    }

    /// The number of requests for a pack.
    pub(crate) fn downloads(&self) -> usize {
        self.downloads.load(Ordering::SeqCst)
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.files.path().join("ca.pem")
    }
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// Answers one request and closes the connection.
fn serve(
    stream: Tls,
    root: &Path,
    authorization: Option<&str>,
    downloads: &AtomicUsize,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    if request.starts_with("POST") && request.contains("/git-upload-pack") {
        downloads.fetch_add(1, Ordering::SeqCst);
    }
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let header = |name: &str| {
        headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    let length = header("content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;

    let answer = if authorization.is_some() && header("authorization") != authorization {
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nConnection: close\r\n\
          Content-Length: 0\r\n\r\n"
            .to_vec()
    } else {
        let mut words = request.split_whitespace();
        let (method, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        backend(
            root,
            method,
            path,
            query,
            header("content-type"),
            header("content-encoding"),
            &body,
        )
    };
    let mut stream = reader.into_inner();
    stream.write_all(&answer)?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn backend(
    root: &Path,
    method: &str,
    path: &str,
    query: &str,
    kind: Option<&str>,
    encoding: Option<&str>,
    body: &[u8],
) -> Vec<u8> {
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", kind.unwrap_or_default())
        .env("HTTP_CONTENT_ENCODING", encoding.unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Dropping the pipe ends the body.
    child.stdin.take().unwrap().write_all(body).unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8_lossy(&output[..end]);
    let status = head
        .lines()
        .find_map(|line| line.strip_prefix("Status: "))
        .unwrap_or("200 OK");
    let content = &output[end + 4..];
    let mut answer = format!(
        "HTTP/1.1 {status}\r\n{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        content.len()
    )
    .into_bytes();
    answer.extend_from_slice(content);
    answer
}
