//! The command line against a served view.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::{io::Write, path::Path, sync::Arc, time::Duration};

use clap::{CommandFactory, Parser};
use jiff::Timestamp;
use reconciler::{
    fault::FaultKind,
    foreign::{self, ForeignText},
    manifest::{Problem, Severity},
    name::NodeName,
    state::{Phase, PodPlace, StopReason, StopRecord, Stored},
};
use tokio::sync::watch;

use super::{args::Format, check::CheckReport, sync::SyncVerdict, *};
use crate::{
    http::{
        fixture::{self, Fixture, NEW, OLD, fixture},
        report::StatusReport,
        serve::{Bound, ListenerConfig},
    },
    ids::commit_id,
    uptime::Uptime,
    view::{FetchStart, HostTrouble, RefusedCommit, View},
};

struct TestDaemon {
    fixture: Fixture,
    directory: tempfile::TempDir,
    _stop: watch::Sender<()>,
}

async fn daemon() -> TestDaemon {
    fixture::crypto();
    let (fixture, directory) = (fixture(), tempfile::tempdir().unwrap());
    let config = ListenerConfig {
        socket_dir: directory.path().to_owned(),
        listen: None,
        webhook: None,
        kubectl: None,
    };
    let bound = Bound::bind(&config).await.unwrap();
    let (stop, stopped) = watch::channel(());
    tokio::spawn(bound.serve(fixture.daemon.clone(), None, stopped));
    TestDaemon {
        fixture,
        directory,
        _stop: stop,
    }
}

async fn windlass(sockets: &Path, arguments: &str) -> (Exit, String) {
    let arguments = ["windlass", "--socket-dir", sockets.to_str().unwrap()]
        .into_iter()
        .chain(arguments.split_whitespace());
    let cli = Cli::try_parse_from(arguments).unwrap();
    let mut written = Vec::new();
    let mut out = Output::to(&mut written, false);
    let result = client(&cli, &mut out).await.unwrap();
    out.flush().unwrap();
    let mut text = String::from_utf8(written).unwrap();
    let exit = match result {
        Ok(exit) => exit,
        Err(error) => {
            text.push_str(&error.to_string());
            error.exit()
        }
    };
    (exit, text)
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains("5  the daemon cannot be reached"), "{help}");
    assert!(!help.contains("fetch-child"));
    assert!(
        Cli::try_parse_from(["windlass", "run", "--kubectl-listen", "127.0.0.1:6443"]).is_err()
    );
}

#[tokio::test]
async fn get_prints_kubectls_tables() {
    let daemon = daemon().await;
    let (exit, text) = windlass(daemon.directory.path(), "get po,svc").await;
    let text: String = text
        .lines()
        .filter(|line| !line.contains("CrashLoop"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(exit, Exit::Done);
    insta::assert_snapshot!(text, @r"
    NAME                       READY   STATUS             RESTARTS      AGE
    pod/batch                  0/1     Init:0/1           0             60m
    pod/web-aaaaaaaaaa-a1111   1/1     Terminating        0             60m
    pod/web-bbbbbbbbbb-b2222   1/1     Running            0             60m

    NAME          TYPE       CLUSTER-IP   EXTERNAL-IP   PORT(S)        AGE
    service/web   NodePort   10.96.0.11   <none>        80:30080/TCP   24h
    ");
}

#[tokio::test]
async fn get_prints_objects_and_names() {
    let daemon = daemon().await;
    let cases = [
        ("get deploy/web -o yaml", "kind: Deployment"),
        ("get deploy web -o json", "\"readyReplicas\": 1"),
        ("get all -o name", "replicaset.apps/web-bbbbbbbbbb"),
        ("get pods -A -o wide", "NAMESPACE   NAME "),
        ("get pods -l app=web,!none", "web-bbbbbbbbbb-b2222"),
        ("get pods -o json", "\"kind\": \"List\""),
    ];
    for (arguments, part) in cases {
        let (exit, text) = windlass(daemon.directory.path(), arguments).await;
        assert!(
            exit == Exit::Done && text.contains(part),
            "{arguments}: {part}\n{text}"
        );
    }
    let wrong = [
        (
            "get pod nothing",
            Exit::Failed,
            "pods \"nothing\" not found",
        ),
        ("get jobs", Exit::Usage, "`jobs` is no kind"),
        ("get pod ../../secrets", Exit::Usage, "is no name"),
        ("get all web", Exit::Usage, "a name needs one kind"),
    ];
    for (arguments, code, part) in wrong {
        let (exit, text) = windlass(daemon.directory.path(), arguments).await;
        assert!(
            exit == code && text.contains(part),
            "{arguments}: {part}\n{text}"
        );
    }
}

#[tokio::test]
async fn get_goes_on_with_what_changes() {
    let TestDaemon {
        fixture,
        directory,
        _stop,
    } = daemon().await;
    let Fixture { publish, .. } = fixture;
    let mut out = CountedOutput {
        text: Vec::new(),
        lines: watch::channel(0).0,
    };
    let mut lines = out.lines.subscribe();
    let mut printed = Output::to(&mut out, false);
    let changing = async {
        lines.wait_for(|lines| *lines >= 5).await.unwrap();
        let mut view = fixture::view();
        let crashed = reconciler::name::PodUid::new("00000000-0000-4000-8000-000000000003");
        Arc::make_mut(&mut view.pods).insert(crashed, fixture::running(3));
        publish.send(Arc::new(view)).unwrap();
        lines.wait_for(|lines| *lines >= 6).await.unwrap();
        // The loop's end is the end of the watch.
        drop(publish);
    };
    let sockets = directory.path().to_str().unwrap();
    let cli =
        Cli::try_parse_from(["windlass", "--socket-dir", sockets, "get", "pods", "-w"]).unwrap();
    let both = async { tokio::join!(client(&cli, &mut printed), changing) };
    let (ended, ()) = tokio::time::timeout(Duration::from_secs(30), both)
        .await
        .unwrap();
    assert!(matches!(ended, Some(Ok(Exit::Done))));
    let text = String::from_utf8(out.text).unwrap();
    assert!(
        text.starts_with("NAME                   READY   STATUS             RESTARTS"),
        "{text}"
    );
    assert!(
        text.contains("\nweb-bbbbbbbbbb-c3333   1/1     Running            0 "),
        "{text}"
    );
}

/// Counts the lines that are written to it.
struct CountedOutput {
    text: Vec<u8>,
    lines: watch::Sender<usize>,
}

impl Write for CountedOutput {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        let lines = self.text.iter().filter(|byte| **byte == b'\n').count();
        self.lines.send_replace(lines);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn status_says_what_runs_and_what_is_in_the_way() {
    let daemon = daemon().await;
    let mut view = fixture::view();
    let bad = commit_id("3333333333333333333333333333333333333333");
    view.source.head = Some(bad.clone());
    view.source.refusal = Some(RefusedCommit {
        commit: bad,
        summary: "2 problems".into(),
        problems: vec![
            "deploy/web.yaml:3:5: spec.replicsa: unknown field; did you mean `replicas`?".into(),
        ],
    });
    view.troubles.push(HostTrouble::Failed(ForeignText::new(
        "the engine does not answer",
    )));
    daemon.fixture.publish.send(Arc::new(view)).unwrap();
    let (exit, text) = windlass(daemon.directory.path(), "status").await;
    assert_eq!(exit, Exit::Done);
    for line in [
        "host-a: Progressing for 60s",
        "Deployment default/web: 1 of 2 updated pods are available",
        "target    2222222222  Serve the new page  (deployer@example.com, 80s ago)",
        "healthy   1111111111  Serve the page  (deployer@example.com, 24h ago)",
        "head      3333333333",
        "3333333333 is refused: 2 problems",
        "deploy/web.yaml:3:5: spec.replicsa: unknown field; did you mean `replicas`?",
        "source    https://git.example.com/site.git, branch main; verification mainline; asked 3s ago",
        "pods      1 Pending, 3 Running; 2 of 4 ready",
        "default/web-bbbbbbbbbb-c3333, container httpd: CrashLoopBackOff: back-off 20 s",
        "trouble   the engine does not answer",
        "warning   deploy/rbac.yaml:1:1: warning: kind: a Role has no effect here",
        "note      verification is off: whoever can push to the repository is root on this host",
    ] {
        // Seconds may pass while the test runs.
        let (start, end) = line.split_once("0s").unwrap_or((line, ""));
        assert!(
            text.contains(start.trim_end_matches("3s ago")) && text.contains(end),
            "{line}\n{text}"
        );
    }
    let (_, json) = windlass(daemon.directory.path(), "status -o json").await;
    assert_eq!(
        serde_json::from_str::<StatusReport>(&json).unwrap().phase,
        "Progressing"
    );
}

#[tokio::test]
async fn the_grounds_that_pods_run_on_are_printed() {
    let daemon = daemon().await;
    let (exit, text) = windlass(daemon.directory.path(), "trust audit").await;
    assert_eq!(exit, Exit::Done);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("POD "), "{text}");
    let kept = ["default/old", "1111111111", "none", "kept up in place"];
    let signed = [
        "default/web-1",
        "2222222222",
        "signature",
        "dev@example.com (SHA256:abc)",
        "its key was withdrawn",
    ];
    for (line, parts) in [(lines[1], &kept[..]), (lines[2], &signed[..])] {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    let (_, json) = windlass(daemon.directory.path(), "trust audit -o json").await;
    assert!(json.contains("\"grounds\": \"none\""), "{json}");
}

#[tokio::test]
async fn history_plan_and_logs_are_printed() {
    let daemon = daemon().await;
    let cases = [
        ("history", "COMMIT       STATE         AGE"),
        ("history", "2222222222   Progressing   120m"),
        ("history", "deployer@example.com   Serve the page"),
        (
            "plan",
            "container httpd is started again\n  - start container httpd",
        ),
        ("plan HEAD", "2222222222: nothing to do here"),
        ("logs web-bbbbbbbbbb-b2222 --tail 5", "hello from httpd"),
    ];
    for (arguments, part) in cases {
        let (exit, text) = windlass(daemon.directory.path(), arguments).await;
        assert!(
            exit == Exit::Done && text.contains(part),
            "{arguments}: {part}\n{text}"
        );
    }
    let (exit, text) = windlass(daemon.directory.path(), "plan nonsense").await;
    assert_eq!(
        (exit, text.as_str()),
        (
            Exit::Failed,
            "nonsense names no commit of https://example.com/site.git: see `windlass history`"
        )
    );
    let (exit, text) = windlass(daemon.directory.path(), "logs batch").await;
    assert_eq!(exit, Exit::Failed);
    assert!(text.contains("choose one of: [httpd prepare]"), "{text}");
}

#[tokio::test]
async fn orders_reach_the_loop_and_its_answer_comes_back() {
    let TestDaemon {
        mut fixture,
        directory,
        _stop,
    } = daemon().await;
    let answering = async {
        let request = fixture.requests.recv().await.unwrap();
        let crate::command::Command::Restart { workload } = request.command else {
            panic!("{:?}", request.command);
        };
        request
            .answer
            .send(Err(crate::command::CommandError::NoWorkload(workload)))
            .unwrap();
    };
    let (ended, ()) = tokio::join!(windlass(directory.path(), "restart deploy/web"), answering);
    assert_eq!(
        ended,
        (
            Exit::Failed,
            "there is no Deployment/default/web in the commit that runs; see `windlass get all -A`"
                .to_owned()
        )
    );

    let answering = async {
        let request = fixture.requests.recv().await.unwrap();
        assert_eq!(request.command, crate::command::Command::Suspend);
        request
            .answer
            .send(Ok("no new commit is taken".to_owned()))
            .unwrap();
    };
    let ((exit, text), ()) = tokio::join!(windlass(directory.path(), "suspend -o json"), answering);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (exit, answer["message"].as_str()),
        (Exit::Done, Some("no new commit is taken"))
    );
}

#[tokio::test]
async fn without_a_daemon_the_code_is_five() {
    fixture::crypto();
    let nowhere = tempfile::tempdir().unwrap();
    for arguments in ["status", "get pods", "sync", "suspend"] {
        let (exit, text) = windlass(nowhere.path(), arguments).await;
        assert_eq!(exit, Exit::Unreachable);
        let end = ": is `windlass run` running? (No such file or directory)";
        assert!(
            text.starts_with("cannot reach the daemon at ") && text.ends_with(end),
            "{text}"
        );
    }
}

/// A daemon whose loop answers every order, fetches, and publishes what `becomes` makes of the
/// view.
async fn synced(becomes: impl Fn(&mut View)) -> (Exit, String) {
    let TestDaemon {
        mut fixture,
        directory,
        _stop,
    } = daemon().await;
    let looping = async {
        fixture
            .requests
            .recv()
            .await
            .unwrap()
            .answer
            .send(Ok("asking".into()))
            .unwrap();
        let mut view = fixture::view();
        view.source.answered(FetchStart::now());
        fixture.publish.send(Arc::new(view.clone())).unwrap();
        becomes(&mut view);
        fixture.publish.send(Arc::new(view)).unwrap();
    };
    let (ended, ()) = tokio::join!(
        windlass(directory.path(), "sync --wait --timeout 2s"),
        looping
    );
    ended
}

#[tokio::test]
async fn sync_waits_for_a_verdict() {
    let (exit, text) =
        synced(|view| Arc::make_mut(&mut view.state).rollout.phase = Phase::Healthy).await;
    assert!(
        exit == Exit::Done && text.ends_with("2222222222  Healthy\n"),
        "{text}"
    );
    let back = |view: &mut View| {
        let rollout = &mut Arc::make_mut(&mut view.state).rollout;
        rollout.target = Some(commit_id(OLD));
        let reason = Stored::Read(ForeignText::new("default/web: crash loop"));
        rollout.bad.insert(commit_id(NEW), reason);
    };
    let (exit, text) = synced(back).await;
    assert!(
        exit == Exit::Refused && text.ends_with("2222222222  default/web: crash loop\n"),
        "{text}"
    );
    let (exit, text) = synced(|_| {}).await;
    assert!(
        exit == Exit::TimedOut
            && text.contains("the time is up after 2 s; last: 2222222222  Progressing"),
        "{text}"
    );
}

#[test]
fn status_names_an_old_pod_that_does_not_go() {
    let said = |node: &str, seconds: u64, fault: Option<FaultKind>, message: Option<&str>| {
        let mut view = fixture::view();
        let state = Arc::make_mut(&mut view.state);
        let record = state
            .pods
            .values_mut()
            .find(|record| record.stop.is_some())
            .unwrap();
        record.place = PodPlace::Node(NodeName::new(node));
        let at = view.at - Duration::from_secs(seconds);
        record.stop = Some(StopRecord {
            at,
            reason: StopReason::Replaced,
        });
        let status = Arc::make_mut(&mut view.pods).get_mut(&record.uid).unwrap();
        (status.fault, status.message) = (fault, message.map(str::to_owned));
        let unwell = StatusReport::new(&view).unwell;
        unwell
            .into_iter()
            .find(|sentence| sentence.contains("has been stopping"))
            .unwrap_or_default()
    };
    assert_eq!(said("host-a", 29, None, None), "");
    let begin = "default/web-aaaaaaaaaa-a1111: the old pod has been stopping for";
    let long = said("host-a", 75, None, None);
    assert_eq!(long, format!("{begin} 75 s: it has not ended yet"));
    let here = said(
        "host-a",
        5,
        Some(FaultKind::Other),
        Some("operation not permitted"),
    );
    let class = "StopFailed: what is left of it cannot be removed";
    assert_eq!(
        here,
        format!("{begin} 5 s: {class}: operation not permitted")
    );
    let there = said("host-b", 75, Some(FaultKind::EngineUnreachable), None);
    let class = "StopFailed: the container engine does not answer";
    assert_eq!(
        there,
        format!("{begin} 75 s: {class}; `windlass status` on node host-b says more")
    );
}

#[test]
fn a_report_from_before_the_question_is_no_verdict() {
    let mut view = fixture::view();
    Arc::make_mut(&mut view.state).rollout.phase = Phase::Healthy;
    let now = Uptime::now();
    assert!(matches!(
        sync::verdict(&StatusReport::new(&view), now),
        SyncVerdict::Wait { .. }
    ));
    view.source.answered(FetchStart::now());
    assert!(matches!(
        sync::verdict(&StatusReport::new(&view), now),
        SyncVerdict::Healthy { .. }
    ));
    view.source.refusal = Some(RefusedCommit {
        commit: commit_id(NEW),
        summary: "not signed".into(),
        problems: Vec::new(),
    });
    assert!(matches!(
        sync::verdict(&StatusReport::new(&view), now),
        SyncVerdict::Refused { .. }
    ));
    view.source.refusal = None;
    let rollout = &mut Arc::make_mut(&mut view.state).rollout;
    rollout.target = Some(commit_id(OLD));
    rollout.suspended = true;
    assert!(matches!(
        sync::verdict(&StatusReport::new(&view), now),
        SyncVerdict::Stopped { .. }
    ));
}

#[test]
fn a_clock_that_is_set_makes_no_older_answer_the_newest() {
    let mut view = fixture::view();
    Arc::make_mut(&mut view.state).rollout.phase = Phase::Healthy;
    let hour = jiff::SignedDuration::from_hours(1);
    // The clock was an hour ahead when the repository was last asked, and is put back before `sync`
    // asks.
    let before = Uptime::now().before(Duration::from_millis(1));
    view.source.answered(FetchStart {
        at: Timestamp::now() + hour,
        uptime: before,
    });
    let asked = Uptime::now();
    assert!(matches!(
        sync::verdict(&StatusReport::new(&view), asked),
        SyncVerdict::Wait { .. }
    ));
    // The clock is put back by another hour while the answer to `sync` is on its way.
    view.source.answered(FetchStart {
        at: Timestamp::now() - hour,
        uptime: Uptime::now(),
    });
    assert!(matches!(
        sync::verdict(&StatusReport::new(&view), asked),
        SyncVerdict::Healthy { .. }
    ));
}

#[test]
fn check_ends_with_one_only_for_errors() {
    let problem = |severity| Problem {
        file: "a.yaml".into(),
        line: 3,
        column: 7,
        severity,
        field: "spec.replicsa".into(),
        message: "unknown field; did you mean `replicas`?".into(),
    };
    let print = |problems: Vec<Problem>| {
        let mut out = Vec::new();
        let report = CheckReport {
            files: 1,
            objects: 2,
            problems,
        };
        let exit = check::report(&report, Format::Text, &mut out).unwrap();
        (
            exit,
            anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string(),
        )
    };
    let (exit, text) = print(vec![problem(Severity::Error), problem(Severity::Warning)]);
    assert_eq!(exit, Exit::Failed);
    insta::assert_snapshot!(text, @r"
    a.yaml:3:7: spec.replicsa: unknown field; did you mean `replicas`?
    a.yaml:3:7: warning: spec.replicsa: unknown field; did you mean `replicas`?
    2 objects in 1 files: 1 wrong, 1 to look at
    ");
    assert_eq!(print(vec![problem(Severity::Warning)]).0, Exit::Done);
    assert_eq!(print(Vec::new()).1, "2 objects in 1 files: nothing wrong\n");
}

#[tokio::test]
async fn nothing_foreign_acts_on_a_terminal_or_forges_a_line() {
    let daemon = daemon().await;
    let mut plain = fixture::unescaped();
    let text = serde_json::to_string(&plain.state.rollout).unwrap();
    // What was written down is escaped where it is read.
    let read: reconciler::state::Rollout = serde_json::from_str(&text).unwrap();
    assert!(!read.history[0].subject.contains(foreign::is_unprintable));
    Arc::make_mut(&mut plain.state).rollout.phase = Phase::Healthy;
    let commands = [
        "status",
        "history",
        "plan",
        "get pods",
        "get events -o wide",
        "get nodes -o wide",
        "get pods -o yaml",
        "get nodes -o yaml",
        "get events -o json",
        "status -o json",
        "history -o json",
        "plan -o json",
        "get pods -o name",
    ];
    for view in [plain, fixture::unescaped()] {
        daemon.fixture.publish.send(Arc::new(view)).unwrap();
        for arguments in commands {
            let (exit, text) = windlass(daemon.directory.path(), arguments).await;
            assert_eq!(exit, Exit::Done, "{arguments}: {text}");
            let odd = text
                .lines()
                .find(|line| line.contains(foreign::is_unprintable));
            assert!(odd.is_none(), "{arguments}: {odd:?}");
            assert!(
                !text.lines().any(|line| line.starts_with("forged")),
                "{arguments}: {text}"
            );
        }
    }
    let (_, history) = windlass(daemon.directory.path(), "history").await;
    assert_eq!(history.lines().count(), 3, "{history}");
    assert!(
        history.contains(r"x\u{1b}[2J\u{1b}]0;owned\u{7}\r\nforged\tline\u{9b}1m\u{202e}y\u{200b}"),
        "{history}"
    );
}

#[tokio::test]
async fn a_log_is_bytes_for_a_program_and_words_for_a_person() {
    let daemon = daemon().await;
    let sockets = daemon.directory.path().to_str().unwrap();
    for (arguments, terminal) in [
        ("logs web-bbbbbbbbbb-b2222", false),
        ("logs web-bbbbbbbbbb-b2222 --raw", true),
    ] {
        let arguments = ["windlass", "--socket-dir", sockets]
            .into_iter()
            .chain(arguments.split(' '));
        let cli = Cli::try_parse_from(arguments).unwrap();
        let mut written = Vec::new();
        let mut out = Output::to(&mut written, terminal);
        assert!(matches!(client(&cli, &mut out).await, Some(Ok(Exit::Done))));
        assert!(
            String::from_utf8(written)
                .unwrap()
                .contains("hello from httpd")
        );
    }
}
