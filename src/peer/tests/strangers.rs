//! Clients that must not get access.

use reconciler::name::Installation;
use reqwest::StatusCode;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use ssh_encoding::base64::{Base64UrlUnpadded, Encoding};

use super::*;
use crate::peer::{
    Other,
    client::{Keep, PeerTarget},
    identity::provider,
};

/// A client that trusts the cluster's authority, with this certificate, or none.
fn stranger(pair: &TwoHosts, certificate: Option<(&str, &str)>) -> (reqwest::Client, PeerTarget) {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let mut roots = RootCertStore::empty();
    roots.add(pair.one.directory.read_ca().unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
                .map(Result::unwrap)
                .collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let target = PeerTarget {
        node: name("n1"),
        address: pair.n1.address,
    };
    (target.client(config, Keep::No).unwrap(), target)
}

async fn answer(response: reqwest::Response) -> (StatusCode, String) {
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    (status, body["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn without_a_certificate_there_is_joining_and_nothing_else() {
    let pair = pair().await;
    let (http, target) = stranger(&pair, None);
    for route in ["ping", "logs?namespace=default&name=batch", "nothing"] {
        let response = http.get(target.url(route)).send().await.unwrap();
        let wanted = (
            StatusCode::UNAUTHORIZED,
            "a certificate of this cluster is needed".to_owned(),
        );
        assert_eq!(answer(response).await, wanted, "{route}");
    }
    let response = http
        .post(target.url("renew"))
        .json(&json!({ "request": "x" }))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(pair.n1.fixture.asked.lock().is_empty());
}

/// The lines of a log that a test reads.
#[derive(Clone, Default)]
struct LogLines(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn refused_requests_to_join_write_one_line_to_the_log() {
    let pair = pair().await;
    let (http, target) = stranger(&pair, None);
    let lines = LogLines::default();
    let to = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || to.clone())
        .finish();
    let logging = tracing::subscriber::set_default(subscriber);

    let wrong = json!({ "secret": "x", "node": "n9", "request": "x" });
    let mut statuses = std::collections::BTreeSet::new();
    for body in [&json!({}), &wrong].into_iter().cycle().take(30) {
        let response = http.post(target.url("join")).json(body).send().await;
        statuses.insert(response.unwrap().status());
    }
    drop(logging);

    let refusals = [
        StatusCode::UNAUTHORIZED,
        StatusCode::UNPROCESSABLE_ENTITY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    assert_eq!(statuses, refusals.into());
    let log = String::from_utf8(lines.0.lock().clone()).unwrap();
    // The host also reports that it listens.
    let about_joining = log.lines().filter(|line| line.contains("join"));
    assert_eq!(about_joining.count(), 1, "{log}");
    assert!(log.contains("requests to join were refused"), "{log}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_does_not_get_through_the_handshake() {
    let pair = pair().await;
    let other = disk();
    first(&other, Timestamp::now());
    let read = |path| std::fs::read_to_string(path).unwrap();
    let (chain, key) = (
        read(other.directory.node()),
        read(other.directory.node_key()),
    );
    let (http, target) = stranger(&pair, Some((&chain, &key)));
    let error = target.send(http.get(target.url("ping"))).await.unwrap_err();
    assert!(matches!(error, PeerError::Untrusted { .. }), "{error}");
}

#[tokio::test]
async fn a_certificate_that_is_no_nodes_opens_nothing() {
    let pair = pair().await;
    let into = tempfile::tempdir().unwrap();
    let etcd = Other {
        name: "etcd-1".into(),
        addresses: Vec::new(),
        life: DAY,
        replace: false,
    };
    pair.authority
        .certify(&etcd, into.path(), Timestamp::now())
        .unwrap();
    let read = |file: &str| std::fs::read_to_string(into.path().join(file)).unwrap();
    let (http, target) = stranger(&pair, Some((&read("etcd-1.pem"), &read("etcd-1-key.pem"))));
    let response = http
        .get(target.url("logs?namespace=default&name=batch"))
        .send()
        .await
        .unwrap();
    let wanted = "the certificate of etcd-1 is not a node's: it opens nothing here".to_owned();
    assert_eq!(answer(response).await, (StatusCode::FORBIDDEN, wanted));
}

#[tokio::test]
async fn a_host_that_was_given_up_is_a_stranger_until_it_was_installed_anew() {
    let pair = pair().await;
    let ping = async || client(&pair.two).ping(&name("n1"), pair.n1.address).await;
    ping().await.unwrap();
    let publish = |removed: &[&str]| {
        let mut view = view();
        let removed = removed
            .iter()
            .map(|node| (name(node), Installation::new("installation")));
        Arc::make_mut(&mut view.state).removed = removed.collect();
        pair.n1.fixture.publish.send_replace(Arc::new(view));
    };
    publish(&["n2", "n3"]);
    let error = ping().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "node n2 was taken out of the cluster by `windlass node rm`"
    );
    assert!(
        client(&pair.two)
            .logs(&name("n1"), pair.n1.address, &log_of("web"))
            .await
            .is_err()
    );
    publish(&["n3"]);
    ping().await.unwrap();
}

#[tokio::test]
async fn a_body_that_is_too_large_or_no_request_is_refused() {
    let pair = pair().await;
    let (http, target) = stranger(&pair, None);
    let join = |body: String| {
        http.post(target.url("join"))
            .header("content-type", "application/json")
            .body(body)
    };
    let large = json!({ "secret": "x".repeat(64 * 1024), "node": "n3", "request": "" }).to_string();
    assert_eq!(
        join(large).send().await.unwrap().status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
    assert_eq!(
        join("{".into()).send().await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
    let extra = json!({ "secret": "", "node": "", "request": "", "admin": true }).to_string();
    assert_eq!(
        join(extra).send().await.unwrap().status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let garbage = json!({ "secret": "%%%", "node": "\n", "request": "x" }).to_string();
    let (status, message) = answer(join(garbage).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(
        message.starts_with("the join token is not known here"),
        "{message}"
    );
}

#[tokio::test]
async fn guessing_is_slow() {
    let pair = pair().await;
    let (http, target) = stranger(&pair, None);
    let mut last = StatusCode::OK;
    for guess in 0..12u8 {
        let secret = Base64UrlUnpadded::encode_string(&[guess; 32]);
        let body = json!({ "secret": secret, "node": "n3", "request": "" });
        last = http
            .post(target.url("join"))
            .json(&body)
            .send()
            .await
            .unwrap()
            .status();
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    // Nodes are not delayed by these connections.
    client(&pair.two)
        .ping(&name("n1"), pair.n1.address)
        .await
        .unwrap();
}
