//! Texts of other hosts and of containers: what a terminal receives, and what a program receives.

use std::sync::Arc;

use clap::Parser;
use reconciler::{foreign, state::Phase};

use super::{super::*, daemon, windlass};
use crate::http::fixture;

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
    // What has no room in its column is on indented lines.
    let rows = history.lines().filter(|line| !line.starts_with(' '));
    assert_eq!(rows.count(), 3, "{history}");
    assert!(
        history.contains(r"x\u{1b}[2J\u{1b}]0;owned\u{7}\r\nforged\tline\u{9b}1m\u{202e}y\u{200b}"),
        "{history}"
    );
}

#[tokio::test]
async fn a_log_is_unchanged_for_a_program_and_escaped_for_a_person() {
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
        assert!(matches!(client(&cli, &mut out).await, Ok(Exit::Done)));
        assert!(
            String::from_utf8(written)
                .unwrap()
                .contains("hello from httpd")
        );
    }
}
