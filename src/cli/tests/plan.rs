//! Plans as they are printed.

use std::io::Write;

use clap::Parser;

use super::{super::*, daemon, windlass};
use crate::http::plan::{LocalFile, LocalManifests};

#[tokio::test]
async fn a_held_commit_shows_its_differences_as_a_diff_and_its_pods_in_order() {
    let daemon = daemon().await;
    let (exit, text) = windlass(daemon.directory.path(), "plan held").await;
    assert_eq!(exit, Exit::Refused);
    insta::assert_snapshot!(text, @"");
}

#[tokio::test]
async fn a_commit_that_is_refused_for_its_content_shows_all_problems_and_no_pods() {
    let daemon = daemon().await;
    let (exit, text) = windlass(daemon.directory.path(), "plan refused").await;
    assert_eq!(exit, Exit::Refused);
    insta::assert_snapshot!(text, @"");
}

#[tokio::test]
async fn manifests_that_are_not_pushed_are_planned_by_the_daemon() {
    let daemon = daemon().await;
    let sockets = daemon.directory.path().to_str().unwrap();
    let arguments = [
        "windlass",
        "--socket-dir",
        sockets,
        "plan",
        "--local",
        "dir",
    ];
    let cli = Cli::try_parse_from(arguments).unwrap();
    let CliCommand::Plan(args) = &cli.command else {
        panic!("{cli:?}");
    };
    let manifests = LocalManifests {
        name: "dir".to_owned(),
        files: vec![LocalFile {
            path: "web.yaml".to_owned(),
            content: "kind: Pod".to_owned(),
        }],
    };
    assert!(!format!("{manifests:?}").contains("Pod"));

    let mut written = Vec::new();
    let mut out = Output::to(&mut written, false);
    let exit = plan_local(&cli, args, &manifests, &mut out).await;
    out.flush().unwrap();
    assert!(matches!(exit, Ok(Exit::Refused)));
    let text = String::from_utf8(written).unwrap();
    assert!(text.contains("dir: kind: Pod"), "{text}");

    let both = ["windlass", "plan", "HEAD", "--local", "dir"];
    assert!(Cli::try_parse_from(both).is_err());
}
