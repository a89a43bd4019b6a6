//! A small https server in front of `git http-backend`, on the hosts' network, with a certificate
//! of its own authority.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::guard::enter_netns;
use super::network::GATEWAY as ADDRESS;
use super::{Network, run};

/// The domain that the server's certificate is valid for.
pub(crate) const DOMAIN: &str = "git.test";

/// What the server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// The server answers.
    Serve,
    /// The server accepts the connection and never answers.
    Silent,
    /// The server's machine refuses the connection, as if no server listened.
    Refuse,
}

/// A server that runs as long as its network.
#[derive(Debug)]
pub(crate) struct GitServer {
    port: u16,
    files: TempDir,
    network: Arc<Network>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    /// The whole value of the header `Authorization` that a request needs; `None` where every
    /// request is answered.
    authorization: Option<String>,
    behaviour: Mutex<Behaviour>,
    requests: AtomicUsize,
}

impl GitServer {
    /// Serves every repository below a directory; where `user` is a name and a password, only to
    /// clients that send both.
    pub(crate) fn start(
        root: &Path,
        network: &Arc<Network>,
        user: Option<(&str, &str)>,
    ) -> GitServer {
        let files = tempfile::tempdir().unwrap();
        make_certificate(files.path());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(files.path().join("server.pem")).unwrap()],
                PrivateKeyDer::from_pem_file(files.path().join("server.key")).unwrap(),
            )
            .unwrap();
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            authorization: user.map(|(user, password)| basic(user, password)),
            behaviour: Mutex::new(Behaviour::Serve),
            requests: AtomicUsize::new(0),
        });
        let listener = listen_in(network);
        let port = listener.local_addr().unwrap().port();
        let (config, serving) = (Arc::new(config), Arc::clone(&shared));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, shared) = (Arc::clone(&config), Arc::clone(&serving));
                thread::spawn(move || connection(stream, config, &shared));
            }
        });
        network
            .exec(&[
                "nft",
                "add chain inet bed input { type filter hook input priority 0; }",
            ])
            .ok();
        GitServer {
            port,
            files,
            network: Arc::clone(network),
            shared,
        }
    }

    /// The URL of a repository.
    pub(crate) fn url(&self, repository: &str) -> String {
        self.url_by(&ADDRESS.to_string(), repository)
    }

    /// The URL of a repository by a name of the server, which may be any below `DOMAIN`.
    pub(crate) fn url_by(&self, name: &str, repository: &str) -> String {
        format!("https://{name}:{}/{repository}", self.port)
    }

    /// Starts a DNS server beside this one, which knows only this name; returns its address.
    pub(crate) fn serve_name(&self, name: &str) -> Ipv4Addr {
        let address = format!("--address=/{name}/{ADDRESS}");
        let listen = format!("--listen-address={ADDRESS}");
        self.network
            .exec(&[
                "dnsmasq",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--bind-interfaces",
                "--user=root",
                "--pid-file=",
                &listen,
                &address,
            ])
            .ok();
        ADDRESS
    }

    /// The certificate of the authority that signed the server's certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.files.path().join("ca.pem")
    }

    /// The number of requests so far, answered or refused.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Changes what the server does with connections from now on.
    pub(crate) fn set(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
        self.network
            .exec(&["nft", "flush chain inet bed input"])
            .ok();
        if behaviour == Behaviour::Refuse {
            let rule = format!(
                "add rule inet bed input tcp dport {} reject with tcp reset",
                self.port
            );
            self.network.exec(&["nft", &rule]).ok();
        }
    }
}

/// Listens in the network's own namespace. A socket belongs to the namespace of the thread that
/// makes it, so a thread that has entered the namespace makes it.
fn listen_in(network: &Network) -> TcpListener {
    let namespace = network.namespace().to_owned();
    let listening = thread::spawn(move || {
        enter_netns(&namespace);
        TcpListener::bind((ADDRESS, 0)).unwrap()
    });
    listening.join().unwrap()
}

fn make_certificate(dir: &Path) {
    let script = format!(
        "set -e
        new='openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
        $new -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
        $new -subj /CN=git -keyout server.key -out server.csr
        echo 'subjectAltName=IP:{ADDRESS},DNS:*.{DOMAIN}' >names
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem"
    );
    run(Command::new("sh").current_dir(dir).args(["-c", &script])).ok();
}

/// The value of the header `Authorization` with the scheme `Basic` (RFC 7617).
fn basic(user: &str, password: &str) -> String {
    let script = "printf %s \"$1\" | base64 -w0";
    let encoded = run(Command::new("sh").args(["-c", script, "sh", &format!("{user}:{password}")]));
    format!("Basic {}", encoded.ok())
}

fn connection(stream: TcpStream, config: Arc<ServerConfig>, shared: &Shared) {
    if *shared.behaviour.lock().unwrap() == Behaviour::Silent {
        // The copy ends when the client closes the connection.
        let _ = std::io::copy(&mut &stream, &mut std::io::sink());
        return;
    }
    let connection = ServerConnection::new(config).unwrap();
    // A client that refuses the server's certificate ends the connection early, which is no error
    // of the server.
    let _ = serve(StreamOwned::new(connection, stream), shared);
}

/// Answers one request and closes.
fn serve(stream: StreamOwned<ServerConnection, TcpStream>, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    // A client that does not trust the server closes the connection during the handshake or after
    // it.
    if reader.read_line(&mut request)? == 0 {
        return Ok(());
    }
    shared.requests.fetch_add(1, Ordering::Relaxed);
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

    let wanted = shared.authorization.as_deref();
    let answer = if wanted.is_some() && header("authorization") != wanted {
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nConnection: close\r\n\
          Content-Length: 0\r\n\r\n"
            .to_vec()
    } else {
        let kind = header("content-type").unwrap_or_default();
        backend(
            &shared.root,
            &request,
            kind,
            header("content-encoding").unwrap_or_default(),
            &body,
        )
    };
    let mut stream = reader.into_inner();
    stream.write_all(&answer)?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// What `git http-backend` answers to a request, with a status line before it.
fn backend(root: &Path, request: &str, kind: &str, encoding: &str, body: &[u8]) -> Vec<u8> {
    let mut words = request.split_whitespace();
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", kind)
        .env("HTTP_CONTENT_ENCODING", encoding)
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The end of this statement drops the pipe, and so ends the body.
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
    let length = content.len();
    let head = format!(
        "HTTP/1.1 {status}\r\n{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), content].concat()
}
