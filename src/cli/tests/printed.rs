//! What containers printed before they failed, in `status`, `history` and `sync`.

use std::sync::Arc;

use reconciler::{
    foreign::ForeignText,
    name::NodeName,
    state::{CommitState, KnownNode, Stored},
};
use runtime::LastOutput;

use super::{daemon, windlass};
use crate::{
    http::fixture::{self, NEW, OLD, output},
    ids::commit_id,
    view::View,
};

/// Prints what a command shows of this view.
async fn shown(view: View, command: &str) -> String {
    let daemon = daemon().await;
    daemon.fixture.publish.send_replace(Arc::new(view));
    windlass(daemon.directory.path(), command).await.1
}

/// A view whose newest commit has failed and was rolled back.
fn rolled_back() -> View {
    let mut view = fixture::view();
    view.last_outputs = Arc::new(vec![output()]);
    let rollout = &mut Arc::make_mut(&mut view.state).rollout;
    rollout.target = Some(commit_id(OLD));
    let reason = ForeignText::new("Deployment/default/web: crash loop");
    rollout
        .bad
        .insert(commit_id(NEW), Stored::Read(reason.clone()));
    rollout.history[1].state = CommitState::RolledBack;
    rollout.history[1].reason = Stored::Read(reason);
    view
}

#[tokio::test]
async fn status_prints_the_last_lines_of_a_pod_that_fails() {
    let mut view = fixture::view();
    assert!(!shown(view.clone(), "status").await.contains("printed"));
    view.last_outputs = Arc::new(vec![output()]);
    let text = shown(view, "status").await;
    let begin = text.find("  printed").expect("a line with that title");
    let printed: Vec<&str> = text[begin..].lines().take(3).collect();
    let wanted = [
        "  printed   default/web-bbbbbbbbbb-c3333, container httpd: exit code 1, 50m ago:",
        "            | reading the configuration",
        "            | fatal: no \\u{1b}[1mkey",
    ];
    assert_eq!(printed, wanted);
}

#[tokio::test]
async fn a_failed_commit_is_shown_with_what_its_containers_printed() {
    for command in ["status", "history"] {
        let text = shown(rolled_back(), command).await;
        assert!(
            text.contains("| reading the configuration\n")
                && text.contains("| fatal: no \\u{1b}[1mkey\n"),
            "{command}: {text}"
        );
        assert!(
            text.contains("default/web-bbbbbbbbbb-c3333, container httpd: exit code 1, 50m ago:"),
            "{command}: {text}"
        );
    }
    // A container of a commit that has not failed explains nothing.
    let mut view = rolled_back();
    Arc::make_mut(&mut view.pods).clear();
    view.last_outputs = Arc::new(vec![LastOutput {
        commit: commit_id(OLD),
        ..output()
    }]);
    for command in ["status", "history"] {
        let text = shown(view.clone(), command).await;
        assert!(!text.contains("fatal"), "{command}: {text}");
    }
}

#[tokio::test]
async fn other_hosts_are_asked_for_what_containers_of_a_failed_commit_printed() {
    let mut view = rolled_back();
    view.last_outputs = Arc::default();
    let mut other: KnownNode = view.nodes.values().next().unwrap().clone();
    other.facts.name = NodeName::new("host-b");
    view.nodes.insert(NodeName::new("host-b"), other);
    for command in ["status", "history"] {
        let text = shown(view.clone(), command).await;
        assert!(text.contains("| fatal on host-b\n"), "{command}: {text}");
    }
}

#[tokio::test]
async fn of_a_long_output_the_end_is_printed() {
    let mut view = rolled_back();
    let lines = (1..=25).map(|number| ForeignText::new(&format!("line {number}")));
    let long = LastOutput {
        lines: lines.collect(),
        ..output()
    };
    let empty = LastOutput {
        container: "silent".into(),
        lines: Vec::new(),
        ..output()
    };
    view.last_outputs = Arc::new(vec![long, empty]);
    let text = shown(view, "history").await;
    assert!(
        !text.contains("| line 15\n")
            && text.contains("| line 16\n")
            && text.contains("| line 25\n"),
        "{text}"
    );
    // The titles are wrapped.
    let words: Vec<&str> = text.split_whitespace().collect();
    let words = words.join(" ");
    assert!(
        words.contains("50m ago; the last 10 of 25 lines: | line 16 ")
            && words.contains("50m ago; it printed nothing"),
        "{text}"
    );
}
