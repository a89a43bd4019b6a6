//! Webhooks over loopback: which are refused, and how few nudges a burst causes.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::stream;
use reqwest::{RequestBuilder, StatusCode};
use ring::hmac;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::http::fixture;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PUSH: &str = r#"{"ref":"refs/heads/main","after":"2222"}"#;

struct WebhookServer {
    address: SocketAddr,
    client: reqwest::Client,
    metrics: Arc<Metrics>,
    nudges: Arc<AtomicUsize>,
}

async fn server() -> WebhookServer {
    fixture::crypto();
    let (metrics, notify) = (Arc::new(Metrics::new().unwrap()), Arc::new(Notify::new()));
    let config = WebhookSettings {
        secret: Some(Sensitive::new(SECRET.to_owned())),
        branch: "main".into(),
    };
    let hooks = Webhooks::new(&config, metrics.clone(), notify.clone())
        .unwrap()
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, hooks.router()).await });
    let nudges = Arc::new(AtomicUsize::new(0));
    let counted = nudges.clone();
    // A loop that handles every nudge at once: the worst case for coalescing.
    tokio::spawn(async move {
        loop {
            notify.notified().await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    WebhookServer {
        address,
        client: reqwest::Client::new(),
        metrics,
        nudges,
    }
}

fn sign(body: &str) -> String {
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()),
        body.as_bytes(),
    );
    let digits: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256={digits}")
}

impl WebhookServer {
    fn post(&self, forge: &str, body: &str) -> RequestBuilder {
        let url = format!("http://{}/webhook/{forge}", self.address);
        self.client
            .post(url)
            .header("x-github-event", "push")
            .body(body.to_owned())
    }

    async fn github(&self, body: &str) -> (StatusCode, String) {
        answer(
            self.post("github", body)
                .header("x-hub-signature-256", sign(body)),
        )
        .await
    }

    async fn generic(&self, body: &str) -> (StatusCode, String) {
        answer(
            self.post("generic", body)
                .header("x-windlass-signature", sign(body)),
        )
        .await
    }

    fn nudges(&self) -> usize {
        self.nudges.load(Ordering::SeqCst)
    }

    fn counted(&self, line: &str) -> bool {
        self.metrics
            .text()
            .unwrap()
            .contains(&format!("windlass_webhook_requests_total{line}"))
    }
}

async fn answer(request: RequestBuilder) -> (StatusCode, String) {
    let response = request.send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

#[tokio::test]
async fn a_signed_push_makes_the_daemon_look_again() {
    let server = server().await;
    assert_eq!(server.github(PUSH).await.0, StatusCode::ACCEPTED);
    tokio::task::yield_now().await;
    assert_eq!(server.nudges(), 1);
    assert!(server.counted("{forge=\"github\",result=\"accepted\"} 1"));
}

#[tokio::test]
async fn no_or_a_wrong_signature_is_refused_and_nudges_nobody() {
    let server = server().await;
    let (status, message) = answer(server.post("github", PUSH)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(
        message.contains("X-Hub-Signature-256 is missing"),
        "{message}"
    );
    let (status, message) = answer(server.post("generic", PUSH)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(message.contains("X-Windlass-Signature"), "{message}");
    let other = sign("something else");
    let (status, message) = answer(
        server
            .post("github", PUSH)
            .header("x-hub-signature-256", other),
    )
    .await;
    assert_eq!(
        (status, message.as_str()),
        (
            StatusCode::UNAUTHORIZED,
            "the signature does not match the body\n"
        )
    );
    assert_eq!(server.nudges(), 0);
    assert!(server.counted("{forge=\"github\",result=\"unsigned\"} 1"));
    assert!(server.counted("{forge=\"github\",result=\"bad_signature\"} 1"));
}

#[tokio::test]
async fn a_replayed_body_does_not_count_again() {
    let server = server().await;
    assert_eq!(server.github(PUSH).await.0, StatusCode::ACCEPTED);
    assert_eq!(
        server.github(PUSH).await,
        (StatusCode::OK, "already seen\n".to_owned())
    );
    let (status, message) = server.generic(PUSH).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        message.contains("add a commit id or a time to the body"),
        "{message}"
    );
    tokio::task::yield_now().await;
    assert_eq!(server.nudges(), 1);
}

#[tokio::test]
async fn other_branches_and_events_are_ignored() {
    let server = server().await;
    assert_eq!(
        server.github(r#"{"ref":"refs/heads/topic"}"#).await.0,
        StatusCode::OK
    );
    assert_eq!(
        server.generic(r#"{"ref":"refs/tags/main"}"#).await.0,
        StatusCode::OK
    );
    let ping = r#"{"zen":"Keep it logically awesome."}"#;
    let url = format!("http://{}/webhook/github", server.address);
    let request = reqwest::Client::new()
        .post(url)
        .header("x-github-event", "ping")
        .body(ping);
    assert_eq!(
        answer(request.header("x-hub-signature-256", sign(ping)))
            .await
            .0,
        StatusCode::OK
    );
    assert_eq!(server.nudges(), 0);
    assert_eq!(
        server.generic("deployed by hand at 12:00").await.0,
        StatusCode::ACCEPTED
    );
}

#[tokio::test]
async fn ten_megabytes_are_refused_before_they_are_read() {
    let server = server().await;
    let mut socket = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let head = "POST /webhook/github HTTP/1.1\r\nhost: x\r\nx-hub-signature-256: sha256=00\r\ncontent-length: 10485760\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64];
    let read = socket.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // Without a length header the limit is reached while the body is read.
    let chunks = stream::iter((0..10).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 1024 * 1024])));
    let request = server
        .post("generic", "")
        .header("x-windlass-signature", sign(""));
    let sent = request
        .body(reqwest::Body::wrap_stream(chunks))
        .send()
        .await;
    // The server closes the connection during the body, which the client may notice before the
    // answer.
    assert!(
        sent.is_err()
            || sent.is_ok_and(|response| response.status() == StatusCode::PAYLOAD_TOO_LARGE)
    );
    assert!(server.counted("{forge=\"generic\",result=\"too_large\"} 1"));
    assert!(server.counted("{forge=\"github\",result=\"too_large\"} 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_a_thousand_is_a_few_nudges() {
    let server = Arc::new(server().await);
    let bodies =
        (0..1000).map(|number| format!("{{\"ref\":\"refs/heads/main\",\"after\":\"{number}\"}}"));
    let start = Instant::now();
    let statuses: Vec<StatusCode> = stream::iter(bodies)
        .map(|body| {
            let server = server.clone();
            async move { server.github(&body).await.0 }
        })
        .buffer_unordered(50)
        .collect()
        .await;
    let accepted = statuses
        .iter()
        .filter(|status| **status == StatusCode::ACCEPTED)
        .count();
    let limited = statuses
        .iter()
        .filter(|status| **status == StatusCode::TOO_MANY_REQUESTS)
        .count();
    assert_eq!(accepted + limited, 1000);
    // The number of accepted requests depends on how long this machine takes to send a thousand.
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
    assert!(
        (100..=100 + 20 * seconds).contains(&accepted),
        "{accepted} in {seconds} s"
    );
    assert!(
        (1..=1 + seconds).contains(&server.nudges()),
        "{} in {seconds} s",
        server.nudges()
    );
}

#[tokio::test(start_paused = true)]
async fn nudges_are_a_second_apart_and_the_last_is_not_lost() {
    let notify = Arc::new(Notify::new());
    let nudger = Nudger::new(notify.clone());
    let start = tokio::time::Instant::now();
    for _ in 0..100 {
        nudger.nudge();
    }
    notify.notified().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    notify.notified().await;
    assert!(start.elapsed() >= Duration::from_secs(1) && start.elapsed() < Duration::from_secs(2));
    let third = tokio::time::timeout(Duration::from_secs(60), notify.notified());
    assert!(
        third.await.is_err(),
        "a hundred hooks at once are two nudges"
    );
}

#[test]
fn without_a_secret_there_are_no_hooks_and_a_weak_one_is_refused() {
    let make = |secret: Option<&str>| {
        let secret = secret.map(|secret| Sensitive::new(secret.to_owned()));
        let config = WebhookSettings {
            secret,
            branch: "main".into(),
        };
        Webhooks::new(
            &config,
            Arc::new(Metrics::new().unwrap()),
            Arc::new(Notify::new()),
        )
    };
    assert!(make(None).unwrap().is_none());
    assert!(make(Some("short")).is_err_and(|weak| weak.to_string().contains("at least 16")));
}

#[tokio::test]
async fn unsigned_requests_do_not_use_up_the_rate_of_signed_ones() {
    let server = server().await;
    for _ in 0..160 {
        let (status, _) = answer(server.post("github", PUSH)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let (status, _) = answer(
            server
                .post("github", PUSH)
                .header("x-hub-signature-256", sign("another")),
        )
        .await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(server.github(PUSH).await.0, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn an_unsigned_request_costs_a_connection() {
    let server = server().await;
    let response = server.post("generic", PUSH).send().await.unwrap();
    assert_eq!(response.headers()["connection"], "close");
}
