//! The command line against a served view.

#![expect(clippy::unwrap_used, reason = "test code")]

mod escaped;
mod get;
mod plan;
mod printed;
mod status;
mod sync;

use std::{io::Write, path::Path};

use clap::{CommandFactory, Parser};
use reconciler::manifest::{Problem, Severity};
use tokio::sync::watch;

use super::{args::Format, check::CheckReport, *};
use crate::http::{
    fixture::{self, Fixture, fixture},
    serve::{Bound, ListenerConfig},
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
    let result = client(&cli, &mut out).await;
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

#[test]
fn the_version_names_the_commit_of_the_build() {
    let version = Cli::command().render_version();
    // An archive of the sources has no repository, unless the build is given its commit.
    let commit = env!("WINDLASS_COMMIT").get(..10);
    let expected = match commit {
        Some(short) => format!(" {} (commit {short})\n", env!("CARGO_PKG_VERSION")),
        None => format!(" {}\n", env!("CARGO_PKG_VERSION")),
    };
    assert_eq!(version, format!("windlass{expected}"));
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
        ("logs po/web-bbbbbbbbbb-b2222", "hello from httpd"),
        (
            "logs deploy/web",
            "hello from httpd of 00000000-0000-4000-8000-000000000002",
        ),
        (
            "logs svc/web",
            "hello from httpd of 00000000-0000-4000-8000-000000000002",
        ),
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
    let refused = [
        ("logs deploy/none", "\"none\" not found"),
        ("logs thing/web", "`thing` is not a known kind"),
        ("logs node/host-a", "node/host-a selects no pods"),
    ];
    for (arguments, part) in refused {
        let (exit, text) = windlass(daemon.directory.path(), arguments).await;
        assert!(exit != Exit::Done && text.contains(part), "{text}");
    }
    let (exit, text) = windlass(daemon.directory.path(), "logs batch").await;
    assert_eq!(exit, Exit::Failed);
    assert!(text.contains("choose one of: [httpd prepare]"), "{text}");
}

#[tokio::test]
async fn commands_reach_the_loop_and_its_answer_is_printed() {
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
    2 objects in 1 files: errors: 1, warnings: 1
    ");
    assert_eq!(print(vec![problem(Severity::Warning)]).0, Exit::Done);
    assert_eq!(print(Vec::new()).1, "2 objects in 1 files: no problems\n");
}
