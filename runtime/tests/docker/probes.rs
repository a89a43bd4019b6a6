//! Probes of real containers and real sockets.

use std::{net::Ipv4Addr, time::Duration};

use jiff::Timestamp;
use reconciler::{
    name::ContainerId,
    object::{Handler, Probe},
    observed::ProbeFact,
    plan::{ProbeKind, ProbeTask},
};
use runtime::Prober;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    bed::{Bed, docker, within},
    proxy::Proxy,
};

fn task(container: &ContainerId, kind: ProbeKind, handler: Handler) -> ProbeTask {
    ProbeTask {
        container: container.clone(),
        kind,
        probe: Probe {
            handler,
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 1,
            termination_grace: None,
        },
        address: Ipv4Addr::LOCALHOST,
        started: Timestamp::now(),
        initial: None,
    }
}

fn exec(script: &str) -> Handler {
    Handler::Exec {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
    }
}

/// Waits until the result of a probe fulfils a condition; returns that result.
async fn fact(
    prober: &Prober,
    task: &ProbeTask,
    condition: impl Fn(&ProbeFact) -> bool,
) -> ProbeFact {
    let mut changed = prober.changed();
    within("the result of a probe", async {
        loop {
            if let Some(fact) = prober
                .facts()
                .get(&(task.container.clone(), task.kind))
                .filter(|fact| condition(fact))
            {
                return fact.clone();
            }
            changed.changed().await.unwrap();
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_hangs_is_killed_with_its_children_and_delays_no_other_probe() {
    let bed = Bed::new().await;
    let id = bed.pod("web", "exec sleep 7777").await;
    let prober = Prober::new(bed.runtime.clone());
    let hangs = task(&id, ProbeKind::Liveness, exec("sleep 8888 & sleep 9999"));
    let succeeds = task(&id, ProbeKind::Readiness, exec("true"));
    prober.set(&[hangs.clone(), succeeds.clone()]);
    assert!(fact(&prober, &succeeds, |_| true).await.ok);
    let failed = fact(&prober, &hangs, |_| true).await;
    assert!(!failed.ok);
    assert!(
        failed
            .message
            .contains("did not end within 1 s and was killed"),
        "{}",
        failed.message
    );
    within("the processes of the command to be killed", async {
        while ["8888", "9999"]
            .iter()
            .any(|time| docker(&["top", id.as_str()]).contains(time))
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(
        docker(&["top", id.as_str()]).contains("7777"),
        "the container's own process was killed"
    );
    prober.set(&[]);
    assert!(prober.facts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_of_a_failed_command_has_its_exit_code_and_output() {
    let bed = Bed::new().await;
    let id = bed.pod("web", "exec sleep 1000").await;
    let prober = Prober::new(bed.runtime.clone());
    let bad = task(&id, ProbeKind::Liveness, exec("echo not well; exit 5"));
    let missing = Handler::Exec {
        command: vec!["/nosuch".to_owned()],
    };
    let missing = task(&id, ProbeKind::Readiness, missing);
    prober.set(&[bad.clone(), missing.clone()]);
    assert_eq!(
        fact(&prober, &bad, |_| true).await.message,
        "exit code 5: not well"
    );
    let message = fact(&prober, &missing, |_| true).await.message;
    assert!(message.contains("no such file"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_the_engine_cannot_run_does_not_count_as_a_failure() {
    let sockets = tempfile::tempdir().unwrap();
    let socket = sockets.path().join("engine.sock");
    let proxy = Proxy::start(&socket);
    let bed = Bed::with(|config| config.socket = socket.clone()).await;
    let id = bed.pod("web", "exec sleep 1000").await;
    let prober = Prober::new(bed.runtime.clone());
    let alive = task(&id, ProbeKind::Liveness, exec("[ ! -e /bad ]"));
    prober.set(std::slice::from_ref(&alive));
    fact(&prober, &alive, |fact| fact.ok).await;
    proxy.fail("/exec");
    let mut failures = proxy.failures();
    within(
        "two probes that the engine refuses",
        failures.wait_for(|count| *count >= 2),
    )
    .await
    .unwrap();
    assert!(
        prober.facts().values().all(|fact| fact.ok),
        "a refusal of the engine was counted as a failure, of which one is enough"
    );
    proxy.fail("nothing");
    docker(&["exec", id.as_str(), "touch", "/bad"]);
    assert!(
        !fact(&prober, &alive, |fact| !fact.ok).await.ok,
        "the probe does not run any more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_http_and_tcp_probes_follow_the_server() {
    let bed = Bed::new().await;
    let id = ContainerId::new("no container");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (set_status, status) = tokio::sync::watch::channel("200 OK");
    let server = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = connection.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let is_as_configured =
                request.starts_with("GET /healthz?full=1 ") && request.contains("x-token: abc");
            let status = if is_as_configured {
                *status.borrow()
            } else {
                "400 Bad Request"
            };
            let elsewhere = "location: http://elsewhere.invalid/\r\n";
            let answer = format!("HTTP/1.1 {status}\r\n{elsewhere}content-length: 0\r\n\r\n");
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    let http = task(
        &id,
        ProbeKind::Readiness,
        Handler::HttpGet {
            host: None,
            port,
            path: "/healthz?full=1".to_owned(),
            https: false,
            headers: vec![("X-Token".to_owned(), "abc".to_owned())],
        },
    );
    let tcp = task(
        &id,
        ProbeKind::Liveness,
        Handler::TcpSocket { host: None, port },
    );
    let prober = Prober::new(bed.runtime.clone());
    prober.set(&[http.clone(), tcp.clone()]);
    assert!(fact(&prober, &http, |_| true).await.ok);
    assert!(fact(&prober, &tcp, |_| true).await.ok);
    set_status.send("503 Service Unavailable").unwrap();
    assert_eq!(
        fact(&prober, &http, |fact| !fact.ok).await.message,
        "HTTP status 503"
    );
    // A redirect counts as success and is not followed.
    set_status.send("302 Found").unwrap();
    fact(&prober, &http, |fact| fact.ok).await;
    server.abort();
    let failed = fact(&prober, &tcp, |fact| !fact.ok).await;
    assert!(failed.message.contains("refused"), "{}", failed.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_late_is_ready_long_before_the_next_period() {
    let bed = Bed::new().await;
    let id = ContainerId::new("no container");
    // On an address of its own, so that no other program takes the port while it is free.
    let held = TcpListener::bind((Ipv4Addr::new(127, 83, 0, 1), 0))
        .await
        .unwrap();
    let address = held.local_addr().unwrap();
    drop(held);
    let handler = Handler::TcpSocket {
        host: Some(address.ip().to_string()),
        port: address.port(),
    };
    let mut ready = task(&id, ProbeKind::Readiness, handler);
    // The period is far longer than the deadline of this test.
    ready.probe.period = Duration::from_secs(3600);
    ready.probe.failure_threshold = 2;
    let prober = Prober::new(bed.runtime.clone());
    prober.set(std::slice::from_ref(&ready));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        prober.facts().is_empty(),
        "a failure before the next period was counted"
    );
    let _server = TcpListener::bind(address).await.unwrap();
    assert!(fact(&prober, &ready, |_| true).await.ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_from_before_a_restart_is_kept_until_enough_probes_fail() {
    let bed = Bed::new().await;
    let id = ContainerId::new("no container");
    // No program listens on the discard port of this host.
    let handler = Handler::TcpSocket {
        host: None,
        port: 9,
    };
    let mut ready = task(&id, ProbeKind::Readiness, handler);
    ready.initial = Some(true);
    ready.probe.failure_threshold = 2;
    let prober = Prober::new(bed.runtime.clone());
    prober.set(std::slice::from_ref(&ready));
    assert!(prober.facts().values().all(|fact| fact.ok));
    assert!(!fact(&prober, &ready, |fact| !fact.ok).await.ok);
}
