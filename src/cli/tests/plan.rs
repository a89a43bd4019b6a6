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
    insta::assert_snapshot!(text, @r"
    2222222222 Serve the new page
    compared with 1111111111
    Held: it would delete 2 of 4 workloads

    - Deployment/default/old: deleted  old.yaml:1

    Deployment/default/web  web.yaml:1
      - spec.replicas: 3
      + spec.replicas: 2
      data[app.conf], from line 7:
      - root /a;
      + root /b;
      + gzip on;

    + Deployment/default/new: new  new.yaml:1
      + spec.replicas: 1

    pods, if it is rolled out, every image can be pulled and every new pod becomes ready:
      Deployment/default/web: at most 1 pod more
      1. start a pod of Deployment/default/web on host-a
      2. stop pod default/web-1 on host-a
      then the commit is healthy
    ");
}

#[tokio::test]
async fn a_commit_that_is_refused_for_its_content_shows_all_problems_and_no_pods() {
    let daemon = daemon().await;
    let (exit, text) = windlass(daemon.directory.path(), "plan refused").await;
    assert_eq!(exit, Exit::Refused);
    insta::assert_snapshot!(text, @r"
    2222222222 Serve the new page
    compared with 1111111111
    Refused: it has errors, and is not rolled out
      web.yaml:3:1: spec: one
      web.yaml:4:1: spec: two

    Deployment/default/web  web.yaml:1: not found; it is deleted, or in a document with errors
      and 3 more fields
    ");
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
