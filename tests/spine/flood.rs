//! Floods of connections: DNS, the sockets, the API and the webhooks still answer other clients,
//! and no container is touched.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustls::pki_types::pem::PemObject;

use crate::manifest::{APP, pod};
use crate::support::{Host, SOON, Site, eventually};

/// The DNS address of a daemon with the default configuration.
const DNS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 53);
/// A query for the address of `web`. The tests check only that an answer comes.
const QUESTION: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00\x01";
/// How long an answer may take during the flood.
const ANSWER: Duration = Duration::from_secs(10);

/// A connection to the DNS from an address of the host.
fn connect_from(address: Ipv4Addr) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrV4::new(address, 0)).unwrap();
    connect(&socket, &DNS).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    stream
}

fn ask_by_tcp(address: Ipv4Addr) -> std::io::Result<()> {
    let mut stream = connect_from(address);
    let length = u16::try_from(QUESTION.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, QUESTION].concat())?;
    let mut begin = [0; 4];
    stream.read_exact(&mut begin)?;
    assert_eq!(begin[2..], QUESTION[..2]);
    Ok(())
}

fn ask_by_udp() -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(ANSWER)).unwrap();
    socket.send_to(QUESTION, SocketAddr::V4(DNS))?;
    let mut answer = [0; 512];
    socket.recv(&mut answer)?;
    assert_eq!(answer[..2], QUESTION[..2]);
    Ok(())
}

/// A client that keeps many connections to the DNS, sends queries on each so that none is idle, and
/// replaces each connection that ends.
struct Flood {
    open: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Sends a query and discards what was received; returns whether the connection is still open.
fn ask_and_check(stream: &mut TcpStream) -> bool {
    let length = u16::try_from(QUESTION.len()).unwrap().to_be_bytes();
    let would_block = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    if stream
        .write(&[&length, QUESTION].concat())
        .is_err_and(|error| !would_block(&error))
    {
        return false;
    }
    match stream.read(&mut [0; 4096]) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => would_block(&error),
    }
}

impl Flood {
    /// More connections than the daemon of the test may have descriptors.
    const CONNECTIONS: usize = 1400;

    fn start(host: &Host) -> Flood {
        let (open, ended) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (count, end) = (Arc::clone(&open), Arc::clone(&ended));
        let flood = move || {
            let mut held: Vec<TcpStream> = Vec::new();
            while !end.load(Ordering::Relaxed) {
                held.retain_mut(ask_and_check);
                while held.len() < Self::CONNECTIONS {
                    let connected = TcpStream::connect_timeout(
                        &SocketAddr::V4(DNS),
                        Duration::from_millis(200),
                    );
                    let Ok(stream) = connected else { break };
                    stream.set_nonblocking(true).unwrap();
                    held.push(stream);
                }
                count.store(held.len(), Ordering::Relaxed);
                // Shorter than the server's time-out of an idle connection.
                thread::sleep(Duration::from_millis(500));
            }
        };
        // A new thread is in the network namespace of the thread that starts it.
        let thread = host.inside(|| thread::spawn(flood));
        Flood {
            open,
            ended,
            thread: Some(thread),
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

#[test]
fn a_thousand_dns_connections_of_one_source_do_not_block_other_clients() {
    let mut site = Site::new("");
    site.configure("");
    // systemd's soft limit for a unit without LimitNOFILE, here as the hard limit too.
    site.start_with_files(1024);
    site.deploy(&[("web.yaml", &pod("web", APP))]);
    let before = site.running();

    let flood = Flood::start(site.host);
    eventually(SOON, "the flood has a thousand connections", || {
        flood.open.load(Ordering::Relaxed) >= 1000
    });
    site.host.inside(|| {
        ask_by_udp().expect("DNS by UDP");
        ask_by_tcp(Ipv4Addr::new(127, 0, 0, 9)).expect("DNS by TCP, for another source");
    });
    assert!(
        site.windlass(&["status"]).success(),
        "windlass.sock does not answer"
    );
    assert!(
        site.windlass(&["sync"]).success(),
        "admin.sock does not answer"
    );
    assert!(
        site.host
            .http_get("http://127.0.0.1:9464/healthz")
            .is_some_and(|answer| answer.status == 200)
    );
    assert_eq!(site.running(), before, "a container was touched");

    let killed = site.container("web");
    site.host.docker(&["kill", &killed.id]);
    eventually(SOON, "the daemon restarts the killed container", || {
        let running = site.running_of("web");
        running
            .iter()
            .any(|container| !container.is_sandbox() && container.id != killed.id)
    });
    assert!(
        flood.open.load(Ordering::Relaxed) >= 1000,
        "the flood ended before the test did"
    );
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const API: &str = "127.0.0.1:6443";
const HOOKS: &str = "127.0.0.1:9466";

/// A site whose daemon serves the API over TLS and webhooks, each on a port of its own, and the
/// path of the API's certificate.
fn with_listeners() -> (Site, PathBuf) {
    let mut site = Site::new("");
    let dir = site.host.dir();
    let (token, certificate, key) = (
        dir.join("api-token"),
        dir.join("api.crt"),
        dir.join("api.key"),
    );
    fs::write(&token, TOKEN).unwrap();
    let (certificate_path, key_path) =
        (certificate.display().to_string(), key.display().to_string());
    let made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 \
                -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1 -out"
        .split_whitespace()
        .chain([certificate_path.as_str(), "-keyout", &key_path])
        .collect::<Vec<_>>();
    site.host.exec(&made).ok();
    site.configure(&format!(
        "[listen]\napi = '{API}'\napi-token-file = '{token}'\napi-certificate = '{certificate_path}'\n\
         api-key = '{key_path}'\nwebhook = '{HOOKS}'\n[webhook]\nsecret-file = '{token}'\n",
        token = token.display(),
    ));
    site.start();
    (site, certificate)
}

/// A TLS connection after its handshake, on which no request is sent.
fn silent_tls(certificate: &Path) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = rustls::pki_types::CertificateDer::from_pem_file(certificate).unwrap();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(API).unwrap();
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    // A server without room for another connection closes it.
    let _ = tls.complete_io(&mut stream);
    rustls::StreamOwned::new(tls, stream)
}

#[test]
fn silent_tls_connections_do_not_block_the_api() {
    let (site, certificate) = with_listeners();
    let silent: Vec<_> = site
        .host
        .inside(|| (0..161).map(|_| silent_tls(&certificate)).collect());
    let path = certificate.display().to_string();
    let authorization = format!("Authorization: Bearer {TOKEN}");
    let url = format!("https://{API}/api/v1/namespaces/default/pods");
    let mut curl = vec![
        "curl",
        "-sS",
        "--fail",
        "--max-time",
        "8",
        "--cacert",
        &path,
    ];
    curl.extend(["-H", &authorization, &url]);
    assert!(site.host.exec(&curl).ok().contains("PodList"));
    drop(silent);
}

#[test]
fn neither_slow_heads_nor_unsigned_requests_block_the_webhooks() {
    let (site, _) = with_listeners();
    let slow: Vec<TcpStream> = site.host.inside(|| {
        let slow_head = |_| {
            let mut stream = TcpStream::connect(HOOKS).unwrap();
            // A server without room for another connection closes it.
            let _ = stream.write_all(b"POST /webhook/generic HTTP/1.1\r\nHost: here\r\nX-Slow: ");
            stream
        };
        (0..130).map(slow_head).collect()
    });
    let post = |signature: &str, body: &str| {
        let (url, header) = (
            format!("http://{HOOKS}/webhook/generic"),
            format!("X-Windlass-Signature: {signature}"),
        );
        let curl = [
            "curl",
            "-sS",
            "--max-time",
            "8",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-d",
            body,
            "-H",
        ];
        site.host
            .exec(&[&curl[..], &[&header, &url]].concat())
            .stdout
    };
    let sign = |body: &str| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, TOKEN.as_bytes());
        let tag = ring::hmac::sign(&key, body.as_bytes());
        let digits: String = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("sha256={digits}")
    };
    assert_eq!(post(&sign("a"), "a"), "202", "during slow heads");
    let unsigned = format!(
        "for i in $(seq 160); do printf 'url = http://{HOOKS}/webhook/generic\ndata = x\noutput = /dev/null\n'; \
         done | curl -sS -K -"
    );
    site.host.exec(&["sh", "-c", &unsigned]).ok();
    assert_eq!(post(&sign("b"), "b"), "202", "after unsigned requests");
    drop(slow);
}

/// The files and directories below a directory that other users of the host may list, read or
/// write.
fn open_to_others(directory: &Path) -> Vec<PathBuf> {
    let mut open = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        let mode = metadata.permissions().mode();
        if !metadata.is_symlink() && mode & 0o006 != 0 {
            open.push(path.clone());
        }
        // Without the right to search a directory a user reaches nothing below it.
        if metadata.is_dir() && mode & 0o001 != 0 {
            pending.extend(
                fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        }
    }
    open
}

#[test]
fn other_users_cannot_read_or_write_the_files_of_a_running_daemon() {
    let mut site = Site::started("");
    site.deploy(&[("web.yaml", &pod("web", APP))]);
    assert_eq!(
        open_to_others(&site.host.path("/var/lib/windlass")),
        Vec::<PathBuf>::new()
    );
    for socket in ["windlass.sock", "admin.sock"] {
        let metadata = fs::metadata(site.host.path("/run/windlass").join(socket)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o007, 0, "{socket}");
    }
}
