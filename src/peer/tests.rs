//! Hosts on loopback, with real certificates and real TLS.

#![expect(clippy::unwrap_used, reason = "test code")]

mod commands;
mod joining;
mod renewing;
mod strangers;

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use jiff::Timestamp;
use reconciler::name::{NodeName, ObjectKey};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use super::{
    Authority, Identity, JoinToken, LogRequest, PeerClient, PeerDirectory, PeerHost, TokenOffer,
    client::{PING_TIMEOUT, PeerError},
};
use crate::{
    http::fixture::{Fixture, NEW, OLD, crypto, fixture, output, view},
    ids::commit_id,
    last_outputs::OutputQuery,
};

pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn name(node: &str) -> NodeName {
    NodeName::new(node)
}

/// The data directory of a host.
pub(super) struct Disk {
    _parent: TempDir,
    pub(super) directory: PeerDirectory,
}

pub(super) fn disk() -> Disk {
    crypto();
    let parent = tempfile::tempdir().unwrap();
    let directory = PeerDirectory::new(parent.path().join("peer"));
    Disk {
        _parent: parent,
        directory,
    }
}

/// A host with a running listener.
pub(super) struct ListeningHost {
    pub(super) address: SocketAddr,
    pub(super) fixture: Fixture,
    _stop: watch::Sender<()>,
    serving: JoinHandle<()>,
}

impl Drop for ListeningHost {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(super) async fn serve(disk: &Disk, node: &str) -> ListeningHost {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bound = PeerHost::bind(disk.directory.path(), &name(node), Some(loopback), || {
        Ok(loopback)
    })
    .await;
    let host = bound.unwrap().unwrap();
    let address = host.address();
    let fixture = fixture();
    let mut shown = view();
    shown.node = name(node);
    // The fixture's pods become pods of this host.
    for pod in Arc::make_mut(&mut shown.state).pods.values_mut() {
        pod.place = reconciler::state::PodPlace::Node(name(node));
    }
    fixture.publish.send_replace(Arc::new(shown));
    let (stop, stopped) = watch::channel(());
    let serving = tokio::spawn(host.serve(fixture.daemon.clone(), Arc::new(|_| None), stopped));
    ListeningHost {
        address,
        fixture,
        _stop: stop,
        serving,
    }
}

/// The host with the authority, made at this time.
pub(super) fn first(disk: &Disk, now: Timestamp) -> Authority {
    Authority::init(&disk.directory, &name("n1"), now).unwrap()
}

pub(super) fn offer() -> TokenOffer {
    TokenOffer {
        life: HOUR,
        node: None,
        replace: false,
    }
}

pub(super) fn token(authority: &Authority, host: &ListeningHost, offer: &TokenOffer) -> JoinToken {
    authority
        .token(offer, host.address, Timestamp::now())
        .unwrap()
}

pub(super) fn client(disk: &Disk) -> PeerClient {
    PeerClient::new(disk.directory.path()).unwrap().unwrap()
}

/// Two hosts of one cluster.
pub(super) struct TwoHosts {
    pub(super) one: Disk,
    pub(super) two: Disk,
    pub(super) authority: Authority,
    pub(super) n1: ListeningHost,
    pub(super) n2: ListeningHost,
}

pub(super) async fn pair() -> TwoHosts {
    let (one, two) = (disk(), disk());
    let authority = first(&one, Timestamp::now());
    let n1 = serve(&one, "n1").await;
    let token = token(&authority, &n1, &offer());
    super::join(&two.directory, &name("n2"), &token, false)
        .await
        .unwrap();
    let n2 = serve(&two, "n2").await;
    TwoHosts {
        one,
        two,
        authority,
        n1,
        n2,
    }
}

fn log_of(pod: &str) -> LogRequest {
    LogRequest {
        pod: ObjectKey::new("default", pod),
        container: None,
        follow: false,
        previous: false,
        timestamps: false,
        tail: None,
        since: None,
    }
}

fn mode(path: PathBuf) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn hosts_of_one_cluster_answer_each_other() {
    let pair = pair().await;
    let ping = client(&pair.one)
        .ping(&name("n2"), pair.n2.address)
        .await
        .unwrap();
    assert_eq!(
        (ping.node, ping.version.as_str()),
        (name("n2"), env!("CARGO_PKG_VERSION"))
    );
    let ping = client(&pair.two)
        .ping(&name("n1"), pair.n1.address)
        .await
        .unwrap();
    assert_eq!(ping.node, name("n1"));

    let theirs = &pair.two.directory;
    assert_eq!(mode(theirs.path().to_owned()), 0o700);
    for file in [
        theirs.ca(),
        theirs.node(),
        theirs.node_key(),
        pair.one.directory.ca_key(),
    ] {
        assert_eq!(mode(file), 0o600);
    }
    assert!(
        !theirs.ca_key().exists(),
        "the authority's key stays where it was made"
    );
}

/// A forwarder to an address, which counts connections; it is closed, with all its connections,
/// when the task is aborted.
async fn counted_way(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, count) = (
        listener.local_addr().unwrap(),
        Arc::new(AtomicUsize::new(0)),
    );
    let counted = count.clone();
    let task = tokio::spawn(async move {
        let mut ways = tokio::task::JoinSet::new();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            ways.spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, count, task)
}

#[tokio::test]
async fn repeated_pings_use_one_connection_as_long_as_it_lasts() {
    let pair = pair().await;
    let (address, count, way) = counted_way(pair.n2.address).await;
    let mut line = client(&pair.one).line(&name("n2"));
    for _ in 0..5 {
        line.ping(address).await.unwrap();
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
    way.abort();
    let _ = way.await;
    let error = line.ping(address).await.unwrap_err();
    assert!(matches!(error, PeerError::Silent { .. }), "{error}");
    // The host has another address now.
    line.ping(pair.n2.address).await.unwrap();
}

#[tokio::test]
async fn a_host_that_answers_for_another_is_not_trusted() {
    let pair = pair().await;
    let error = client(&pair.one)
        .ping(&name("n3"), pair.n2.address)
        .await
        .unwrap_err();
    assert!(matches!(error, PeerError::Untrusted { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("no trusted connection to n3 at 127.0.0.1:")
            && text.contains("n2.node.windlass"),
        "{text}"
    );
}

#[tokio::test]
async fn a_log_comes_from_the_host_that_has_the_pod() {
    let pair = pair().await;
    let request = LogRequest {
        tail: Some(5),
        follow: true,
        ..log_of("web-bbbbbbbbbb-b2222")
    };
    let log = client(&pair.one)
        .logs(&name("n2"), pair.n2.address, &request)
        .await
        .unwrap();
    let text: Vec<u8> = log
        .try_fold(Vec::new(), async |text, part| {
            Ok([text, part.to_vec()].concat())
        })
        .await
        .unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.starts_with("hello from httpd of ") && text.ends_with("\nsecond line\n"),
        "{text}"
    );
    let (_, options) = pair.n2.fixture.asked.lock().pop().unwrap();
    assert_eq!((options.tail, options.follow), (Some(5), true));
    assert!(pair.n1.fixture.asked.lock().is_empty());
}

#[tokio::test]
async fn what_a_failed_container_printed_comes_from_its_host() {
    let pair = pair().await;
    let mut shown = view();
    shown.last_outputs = Arc::new(vec![output()]);
    pair.n2.fixture.publish.send_replace(Arc::new(shown));
    let ask = async |commit: &str| {
        let query = OutputQuery {
            commits: [commit_id(commit)].into(),
            ..OutputQuery::default()
        };
        let client = client(&pair.one);
        let answered = client.outputs(&name("n2"), pair.n2.address, &query).await;
        answered.unwrap()
    };
    assert_eq!(ask(NEW).await[0].lines, output().lines);
    assert!(ask(OLD).await.is_empty());
}

#[tokio::test]
async fn a_log_that_cannot_be_read_reports_the_reason_of_its_host() {
    let pair = pair().await;
    let one = client(&pair.one);
    let ask = async |request: LogRequest| {
        let asked = one.logs(&name("n2"), pair.n2.address, &request).await;
        let error = asked.err().unwrap();
        assert!(error.is_refusal(), "{error:?}");
        error.to_string()
    };
    assert_eq!(ask(log_of("nobody")).await, "pods \"nobody\" not found");
    let request = LogRequest {
        container: Some("x".into()),
        ..log_of("batch")
    };
    assert_eq!(ask(request).await, "container x is not valid for pod batch");
    // The pod has moved in the meantime: the request is not passed on.
    let mut moved = view();
    moved.node = name("n2");
    for pod in Arc::make_mut(&mut moved.state).pods.values_mut() {
        pod.place = reconciler::state::PodPlace::Node(name("n1"));
    }
    pair.n2.fixture.publish.send_replace(Arc::new(moved));
    assert_eq!(
        ask(log_of("batch")).await,
        "pod \"batch\" is not on this host any more: it is on n1, repeat the request"
    );
}

#[tokio::test]
async fn a_host_that_is_down_is_named_with_its_address_and_the_reason() {
    let pair = pair().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = client(&pair.one)
        .logs(&name("n2"), free, &log_of("batch"))
        .await
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        format!("n2 at {free} does not answer: Connection refused")
    );
    assert!(!error.is_refusal());
}

#[tokio::test]
async fn a_silent_host_costs_a_ping_and_no_more() {
    let pair = pair().await;
    // The kernel accepts the connection, and no process ever answers.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap();
    let start = Instant::now();
    let error = client(&pair.one)
        .ping(&name("n2"), address)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("n2 at {address} does not answer: no answer within 400 ms")
    );
    assert!(start.elapsed() >= PING_TIMEOUT);
}

#[tokio::test]
async fn a_host_without_certificates_has_no_listener_and_reports_a_configured_one() {
    let disk = disk();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = async |node: &str, listen| {
        PeerHost::bind(disk.directory.path(), &name(node), listen, || Ok(address)).await
    };
    assert!(bind("n1", None).await.unwrap().is_none());
    assert!(
        !disk.directory.path().exists(),
        "nothing is made by looking"
    );
    let error = bind("n1", Some(address)).await.err().unwrap().to_string();
    assert!(
        error.starts_with("[peer] listen is 127.0.0.1:0, and there is no certificate in "),
        "{error}"
    );
    first(&disk, Timestamp::now());
    let error = bind("n9", None).await.err().unwrap().to_string();
    assert!(
        error.contains("is for n1, and this host is called n9"),
        "{error}"
    );
    assert!(bind("n1", None).await.unwrap().is_some());
}

#[test]
fn names_that_cannot_be_a_nodes_are_refused() {
    for good in ["n1", "host-a", "a.example.com"] {
        assert!(super::check_node_name(good).is_ok(), "{good}");
    }
    let long = "x".repeat(70);
    for bad in [
        "",
        "root",
        "N1",
        "a b",
        "a/b",
        "a..b",
        "-a\n",
        "ä",
        long.as_str(),
    ] {
        assert!(super::check_node_name(bad).is_err(), "{bad:?}");
    }
}
