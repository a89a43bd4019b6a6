//! The listeners end to end, over real sockets.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use reconciler::object::Sensitive;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    sync::{Notify, watch},
    task::JoinHandle,
};

use super::{
    api::tests::kubectl,
    fixture::{self, Fixture, fixture},
    serve::{Bound, KubectlConfig, ListenError, ListenerConfig},
    webhook::{WebhookSettings, Webhooks},
};
use crate::{command::Command as Asked, uptime::Uptime};

struct RunningServer {
    directory: tempfile::TempDir,
    listen: String,
    kubectl: Option<String>,
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

fn config(directory: &Path) -> ListenerConfig {
    ListenerConfig {
        socket_dir: directory.to_owned(),
        listen: Some(([127, 0, 0, 1], 0).into()),
        webhook: None,
        kubectl: None,
    }
}

async fn run(
    fixture: &Fixture,
    directory: tempfile::TempDir,
    config: ListenerConfig,
    secret: Option<&str>,
) -> RunningServer {
    fixture::crypto();
    let bound = Bound::bind(&config).await.unwrap();
    let listen = format!("http://{}", bound.listen_address().unwrap());
    let kubectl = bound
        .kubectl_address()
        .map(|address| format!("https://{address}"));
    let webhook = WebhookSettings {
        secret: secret.map(|secret| Sensitive::new(secret.to_owned())),
        branch: "main".into(),
    };
    let hooks = Webhooks::new(
        &webhook,
        fixture.daemon.metrics.clone(),
        Arc::new(Notify::new()),
    )
    .unwrap();
    let (stop, stopped) = watch::channel(());
    let task = tokio::spawn(bound.serve(fixture.daemon.clone(), hooks, stopped));
    RunningServer {
        directory,
        listen,
        kubectl,
        stop,
        task,
    }
}

/// The token of the listener for kubectl.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// How long a legitimate client waits for its answer.
const ANSWER: Duration = Duration::from_secs(5);

/// A listener for kubectl with a certificate of its own.
async fn over_tls(directory: &Path) -> KubectlConfig {
    let (token, certificate, key) = (
        directory.join("token"),
        directory.join("tls.crt"),
        directory.join("tls.key"),
    );
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let made = Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
                .split(' '),
        )
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .await
        .expect("openssl is needed");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    KubectlConfig {
        address: ([127, 0, 0, 1], 0).into(),
        token,
        certificate,
        key,
    }
}

fn over(socket: &Path) -> reqwest::Client {
    reqwest::Client::builder()
        .unix_socket(socket)
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap()
}

#[tokio::test]
async fn reading_and_acting_have_sockets_of_their_own() {
    let mut fixture = fixture();
    let directory = tempfile::tempdir().unwrap();
    let listen = config(directory.path());
    let running = run(&fixture, directory, listen, None).await;
    let read = over(&running.directory.path().join("windlass.sock"));
    let status: Value = read
        .get("http://windlass/windlass/v1/status")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(status["phase"], "Progressing");
    let pods: Value = read
        .get("http://windlass/api/v1/pods")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(pods["kind"], "PodList");
    let order = json!({ "command": "suspend" });
    let refused = read
        .post("http://windlass/windlass/v1/command")
        .json(&order)
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);

    let admin = over(&running.directory.path().join("admin.sock"));
    let asked = admin
        .post("http://windlass/windlass/v1/command")
        .json(&order)
        .send();
    let answered = async {
        let request = fixture.requests.recv().await.unwrap();
        assert_eq!(request.command, Asked::Suspend);
        request.answer.send(Ok("suspended".to_owned())).unwrap();
    };
    let (response, ()) = tokio::join!(asked, answered);
    let answer: Value = response.unwrap().json().await.unwrap();
    assert_eq!(answer, json!({ "ok": true, "message": "suspended" }));
    let wrong = json!({ "command": "format-disk" });
    let response = admin
        .post("http://windlass/windlass/v1/command")
        .json(&wrong)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let answer: Value = response.json().await.unwrap();
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("unknown variant"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_second_daemon_does_not_take_the_first_ones_sockets() {
    let fixture = fixture();
    let directory = tempfile::tempdir().unwrap();
    let listen = config(directory.path());
    let running = run(&fixture, directory, listen.clone(), None).await;
    let clash = Bound::bind(&listen).await.err().unwrap();
    assert!(matches!(clash, ListenError::Socket(_)));
    assert!(
        clash.to_string().contains("another daemon answers at "),
        "{clash}"
    );
    running.stop.send(()).unwrap();
    running.task.await.unwrap();
    assert!(
        Bound::bind(&listen).await.is_ok(),
        "after it has stopped its place is free"
    );
}

#[tokio::test]
async fn an_open_watch_does_not_hold_up_the_end() {
    let fixture = fixture();
    let directory = tempfile::tempdir().unwrap();
    let listen = config(directory.path());
    let running = run(&fixture, directory, listen, None).await;
    let read = over(&running.directory.path().join("windlass.sock"));
    let watch = read
        .get("http://windlass/api/v1/pods?watch=true")
        .send()
        .await
        .unwrap();
    assert_eq!(watch.status(), StatusCode::OK);
    running.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), running.task)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn health_says_whether_the_loop_lives_and_has_converged() {
    let fixture = fixture();
    let directory = tempfile::tempdir().unwrap();
    let listen = config(directory.path());
    let running = run(&fixture, directory, listen, None).await;
    let get = async |path: &str| {
        let response = reqwest::get(format!("{}{path}", running.listen))
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get("/healthz").await.0, 200);
    assert_eq!(get("/readyz").await.0, 200);
    let (code, text) = get("/metrics").await;
    assert!(
        code == 200 && text.contains("# TYPE windlass_reconciles_total counter"),
        "{text}"
    );
    assert_eq!(
        get("/webhook/github").await.0,
        404,
        "without a secret there are no webhooks"
    );
    assert_eq!(
        get("/api/v1/pods").await.0,
        404,
        "pods are not for everybody who may scrape"
    );
    let mut view = fixture::view();
    // The clock may be set while the loop runs.
    for hours in [-1, 1] {
        view.at = Timestamp::now() + jiff::SignedDuration::from_hours(hours);
        fixture.publish.send(Arc::new(view.clone())).unwrap();
        assert_eq!(
            get("/healthz").await.0,
            200,
            "the clock was set by {hours} h"
        );
    }
    view.made = Uptime::now().before(Duration::from_secs(61));
    view.converged = false;
    fixture.publish.send(Arc::new(view)).unwrap();
    assert_eq!(
        get("/readyz").await,
        (503, "the first cycle has not converged yet\n".to_owned())
    );
    let (code, text) = get("/healthz").await;
    assert!(code == 503 && text.contains("limit 60 s"), "{text}");
}

/// Debian's Prometheus itself, and not only its checker, scrapes the metrics.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_the_daemon() {
    let fixture = fixture();
    fixture.daemon.metrics.observe(&fixture::view());
    let directory = tempfile::tempdir().unwrap();
    let listen = config(directory.path());
    let running = run(&fixture, directory, listen, None).await;
    let home = running.directory.path();
    let target = running.listen.strip_prefix("http://").unwrap();
    let configuration = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs: [{{ job_name: windlass, static_configs: [{{ targets: ['{target}'] }}] }}]\n"
    );
    std::fs::write(home.join("prometheus.yml"), configuration).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut prometheus = Command::new("prometheus")
        .arg(format!(
            "--config.file={}",
            home.join("prometheus.yml").display()
        ))
        .arg(format!(
            "--storage.tsdb.path={}",
            home.join("tsdb").display()
        ))
        .arg(format!("--web.listen-address={free}"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("prometheus is needed: it is in Debian's package prometheus");
    let query = format!("http://{free}/api/v1/query?query=windlass_commit_info");
    let scraped = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let Ok(response) = reqwest::get(&query).await {
                let answer: Value = response.json().await.unwrap_or_default();
                let series = answer["data"]["result"].as_array().map_or(0, Vec::len);
                if series > 0 {
                    return series;
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    assert_eq!(
        scraped.await.expect("prometheus scrapes within a minute"),
        4,
        "one series a pointer"
    );
    prometheus.kill().await.unwrap();
}

#[tokio::test]
async fn webhooks_share_the_listener_where_they_have_none() {
    let fixture = fixture();
    let directory = tempfile::tempdir().unwrap();
    let listen = config(directory.path());
    let running = run(&fixture, directory, listen, Some("0123456789abcdef")).await;
    let url = format!("{}/webhook/generic", running.listen);
    let response = reqwest::Client::new()
        .post(url)
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_over_tcp_needs_the_token() {
    let fixture = fixture();
    let directory = tempfile::tempdir().unwrap();
    let kubectl = over_tls(directory.path()).await;
    let certificate = kubectl.certificate.clone();
    let mut listen = config(directory.path());
    listen.kubectl = Some(kubectl);
    let running = run(&fixture, directory, listen, None).await;
    let server = running.kubectl.clone().unwrap();
    let get = async |token: &str| {
        let mut command = kubectl::command(running.directory.path(), &server);
        command
            .arg("--certificate-authority")
            .arg(&certificate)
            .args(["--token", token, "get", "pods"]);
        let output = command.output().await.expect("kubectl is needed");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let text = get(TOKEN).await;
    assert!(text.contains("web-bbbbbbbbbb-b2222"), "{text}");
    let text = get("0123456789abcdef0123456789abcdee").await;
    assert!(
        text.contains("Unauthorized") || text.contains("logged in"),
        "{text}"
    );
    assert!(!text.contains("web-"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mute_tls_connections_shut_out_nobody_and_end() {
    let fixture = fixture();
    let directory = tempfile::tempdir().unwrap();
    let kubectl = over_tls(directory.path()).await;
    let pem = std::fs::read(&kubectl.certificate).unwrap();
    let mut listen = config(directory.path());
    listen.kubectl = Some(kubectl);
    let running = run(&fixture, directory, listen, None).await;
    let server = running.kubectl.clone().unwrap();
    let address = server.strip_prefix("https://").unwrap().to_owned();
    let client = || {
        let builder = reqwest::Client::builder().timeout(Duration::from_secs(60));
        builder
            .add_root_certificate(reqwest::Certificate::from_pem(&pem).unwrap())
            .build()
            .unwrap()
    };
    let pods = format!("{server}/api/v1/pods");
    let mut watch = client()
        .get(format!("{pods}?watch=true"))
        .bearer_auth(TOKEN)
        .send()
        .await
        .unwrap();
    assert_eq!(watch.status(), StatusCode::OK);
    while let Ok(Ok(Some(_))) =
        tokio::time::timeout(Duration::from_millis(500), watch.chunk()).await
    {}

    let mut mute = Vec::new();
    for _ in 0..161 {
        mute.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    let genuine = client().get(&pods).bearer_auth(TOKEN).send();
    let answer = tokio::time::timeout(ANSWER, genuine)
        .await
        .expect("in time")
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let without = client().get(&pods).send().await.unwrap();
    assert_eq!(without.status(), StatusCode::UNAUTHORIZED);

    // All silent connections are closed, whatever they wait for; a client with a valid token
    // continues.
    for stream in &mut mute {
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0])).await;
        assert_eq!(ended.expect("a mute connection ends").unwrap_or(0), 0);
    }
    let mut view = fixture::view();
    Arc::make_mut(&mut view.state).pods.clear();
    fixture.publish.send(Arc::new(view)).unwrap();
    let event = tokio::time::timeout(ANSWER, watch.chunk())
        .await
        .expect("in time")
        .unwrap();
    assert!(event.is_some(), "the watch goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_do_not_shut_out_a_webhook() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let fixture = fixture();
    let directory = tempfile::tempdir().unwrap();
    let listen = config(directory.path());
    let running = run(&fixture, directory, listen, Some(SECRET)).await;
    let address = running.listen.strip_prefix("http://").unwrap().to_owned();
    let mut slow = Vec::new();
    for _ in 0..130 {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream
            .write_all(b"POST /webhook/github HTTP/1.1\r\nHost: here\r\nX-Slow: ")
            .await
            .unwrap();
        slow.push(stream);
    }
    let body = "{\"ref\":\"refs/heads/main\"}";
    let tag = ring::hmac::sign(
        &ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes()),
        body.as_bytes(),
    );
    let tag: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let request = reqwest::Client::new()
        .post(format!("{}/webhook/github", running.listen))
        .header("x-github-event", "push")
        .header("x-hub-signature-256", format!("sha256={tag}"))
        .body(body);
    let answer = tokio::time::timeout(ANSWER, request.send())
        .await
        .expect("in time")
        .unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let health = tokio::time::timeout(ANSWER, reqwest::get(format!("{}/healthz", running.listen)));
    assert_eq!(
        health.await.expect("in time").unwrap().status(),
        StatusCode::OK
    );
    for stream in &mut slow {
        // Before it closes the connection, the server answers that the request did not come in
        // time.
        let ended = async {
            while stream
                .read(&mut [0; 512])
                .await
                .is_ok_and(|bytes| bytes > 0)
            {}
        };
        tokio::time::timeout(Duration::from_secs(20), ended)
            .await
            .expect("a slow head is cut off");
    }
}
