//! `windlass get` against a served view.

use std::{io::Write, sync::Arc, time::Duration};

use clap::Parser;
use reconciler::name::PodUid;
use tokio::sync::watch;

use super::{super::*, TestDaemon, daemon, windlass};
use crate::http::fixture::{self, Fixture};

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
        ("get jobs", Exit::Usage, "`jobs` is not a known kind"),
        ("get pod ../../secrets", Exit::Usage, "is not a name"),
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
async fn a_watched_get_prints_changes() {
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
        let crashed = PodUid::new("00000000-0000-4000-8000-000000000003");
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
    assert!(matches!(ended, Ok(Exit::Done)));
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
