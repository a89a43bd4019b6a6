//! Commands on a fake engine whose responses the test sets: an engine that is slow to start them.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use reconciler::name::{ContainerId, Installation};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

use super::*;
use crate::config::RuntimeConfig;

const LIMIT: Duration = Duration::from_millis(100);

/// The state of the only command on the fake engine, and how often a command was created.
#[derive(Default)]
struct Script {
    running: bool,
    pid: i64,
    code: Option<i64>,
    created: usize,
    /// How often the state was returned.
    inspections: usize,
}

struct FakeEngine {
    script: Arc<Mutex<Script>>,
    runtime: Runtime,
    container: ContainerId,
    _data: TempDir,
}

impl FakeEngine {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = RuntimeConfig::new(Installation::new("test"), data.path());
        config.socket = data.path().join("engine.sock");
        let script = Arc::new(Mutex::new(Script {
            running: true,
            ..Script::default()
        }));
        serve(&config.socket, Arc::clone(&script));
        let runtime = Runtime::open(config).await.unwrap();
        Self {
            script,
            runtime,
            container: ContainerId::new("c0ffee"),
            _data: data,
        }
    }

    fn change_script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock());
    }

    async fn exec(&self) -> ExecOutcome {
        self.runtime
            .exec(&self.container, &["true".to_owned()], LIMIT)
            .await
            .unwrap()
    }

    /// Waits until the engine has returned the state twice more: the state from before is then
    /// known to the caller.
    async fn wait_for_inspections(&self) {
        let inspections = || self.script.lock().inspections;
        let before = inspections();
        let enough_inspections = async {
            while inspections() < before + 2 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), enough_inspections)
            .await
            .unwrap();
    }

    async fn wait_until_settled(&self) {
        let settled = async {
            while !self.runtime.inner.overdue.is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), settled).await.unwrap();
    }
}

fn serve(socket: &Path, script: Arc<Mutex<Script>>) {
    let listener = UnixListener::bind(PathBuf::from(socket)).unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(answer(client, Arc::clone(&script)));
        }
    });
}

async fn answer(mut client: UnixStream, script: Arc<Mutex<Script>>) -> Option<()> {
    let head = read_request(&mut client).await?;
    let path = head.split_whitespace().nth(1)?.to_owned();
    let (status, body) = {
        let mut script = script.lock();
        if path.ends_with("/version") {
            (
                200,
                r#"{"ApiVersion":"1.41","Version":"20.10.24"}"#.to_owned(),
            )
        } else if path.ends_with("/c0ffee/exec") {
            script.created += 1;
            (201, r#"{"Id":"e1"}"#.to_owned())
        } else if path.ends_with("/exec/e1/start") {
            (101, String::new())
        } else if path.ends_with("/exec/e1/json") {
            script.inspections += 1;
            let code = script
                .code
                .map_or("null".to_owned(), |code| code.to_string());
            let (running, pid) = (script.running, script.pid);
            (
                200,
                format!(r#"{{"ID":"e1","Running":{running},"Pid":{pid},"ExitCode":{code}}}"#),
            )
        } else if path.contains("/c0ffee/json") {
            (
                200,
                r#"{"Id":"c0ffee","State":{"Running":true,"Pid":4194304}}"#.to_owned(),
            )
        } else {
            (404, r#"{"message":"not here"}"#.to_owned())
        }
    };
    if status == 101 {
        let head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
                    Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
        client.write_all(head.as_bytes()).await.ok()?;
        // Nothing is printed before the command runs; the fake engine closes the connection.
        let mut rest = [0; 1024];
        while client.read(&mut rest).await.ok()? > 0 {}
        return None;
    }
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Answer\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n"
    );
    client
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .ok()
}

/// Reads the head and the body of a request: with an unread body the client would see a broken
/// connection.
async fn read_request(client: &mut UnixStream) -> Option<String> {
    let (mut read, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let count = client.read(&mut part).await.ok()?;
        read.extend_from_slice(part.get(..count)?);
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")?
                    .trim()
                    .parse::<usize>()
                    .ok()
            });
            let is_whole = match length {
                Some(length) => body.len() >= length,
                None => {
                    !head.to_ascii_lowercase().contains("chunked") || body.ends_with("0\r\n\r\n")
                }
            };
            if is_whole {
                return Some(head.to_owned());
            }
        }
        if count == 0 {
            return None;
        }
    }
}

/// A process that belongs to no container.
fn process_of_no_container() -> Child {
    Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_a_process_is_not_started_again_before_it_has_ended() {
    let engine = FakeEngine::start().await;
    assert_eq!(
        engine.exec().await,
        ExecOutcome::Unanswered,
        "the command has no process yet, and no process is killed"
    );
    assert_eq!(
        engine.exec().await,
        ExecOutcome::Unanswered,
        "the same command is still waited for"
    );
    assert_eq!(engine.script.lock().created, 1);

    let other = engine
        .runtime
        .exec(&engine.container, &["false".to_owned()], LIMIT)
        .await
        .unwrap();
    assert_eq!(
        (other, engine.script.lock().created),
        (ExecOutcome::Unanswered, 2),
        "another command is created"
    );

    engine.change_script(|script| (script.running, script.pid, script.code) = (false, 42, Some(0)));
    engine.wait_until_settled().await;
    assert_eq!(
        engine.exec().await,
        ExecOutcome::Exited {
            code: 0,
            output: Vec::new()
        }
    );
    assert_eq!(engine.script.lock().created, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_outside_of_the_container_is_not_killed() {
    let engine = FakeEngine::start().await;
    assert_eq!(engine.exec().await, ExecOutcome::Unanswered);

    let mut process = process_of_no_container();
    engine.change_script(|script| script.pid = i64::from(process.id()));
    engine.wait_for_inspections().await;
    assert!(
        process.try_wait().unwrap().is_none(),
        "the engine named a process outside of the container"
    );
    assert_eq!(engine.exec().await, ExecOutcome::Unanswered);
    assert_eq!(engine.script.lock().created, 1);

    process.kill().unwrap();
    process.wait().unwrap();
    engine.wait_until_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_started_late_has_its_full_time() {
    let engine = FakeEngine::start().await;
    let (limit, late) = (Duration::from_secs(1), Duration::from_millis(500));
    let (runtime, container) = (engine.runtime.clone(), engine.container.clone());
    let run =
        tokio::spawn(async move { runtime.exec(&container, &["true".to_owned()], limit).await });
    sleep(late).await;
    let (mut process, began) = (process_of_no_container(), Instant::now());
    engine.change_script(|script| script.pid = i64::from(process.id()));

    assert_eq!(run.await.unwrap().unwrap(), ExecOutcome::TimedOut);
    let ran = began.elapsed();
    // The kernel counts a process's start in steps of 10 ms.
    assert!(
        ran + Duration::from_millis(20) >= limit,
        "it ran for {ran:?}"
    );

    process.kill().unwrap();
    process.wait().unwrap();
    engine.wait_until_settled().await;
}

#[test]
fn a_failure_of_the_engine_differs_from_a_command_that_the_container_lacks() {
    let missing_command = "OCI runtime exec failed: exec failed: container_linux.go:380: exec: \"/containerd\": no such file";
    let engine_failure = "connection error: desc = \"transport: Error while dialing dial unix \
                   /run/containerd/containerd.sock: connect: connection refused\": unavailable";
    let is_answer = |ended, words: &str| {
        matches!(
            exited(ended, words.as_bytes().to_vec()),
            Ok(ExecOutcome::Exited { .. })
        )
    };
    for code in [126, 127] {
        assert!(is_answer((code, false), missing_command));
        assert!(is_answer((code, false), "sh: nosuch: not found"));
        assert!(!is_answer((code, false), engine_failure));
        assert!(
            is_answer((code, true), engine_failure),
            "the output of the command itself"
        );
    }
}
