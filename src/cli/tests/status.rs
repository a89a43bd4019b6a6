//! `windlass status` against a served view.

use std::{sync::Arc, time::Duration};

use reconciler::{
    fault::FaultKind,
    foreign::ForeignText,
    name::NodeName,
    state::{PodPlace, StopReason, StopRecord},
};

use super::{super::*, daemon, windlass};
use crate::{
    http::{fixture, report::StatusReport},
    ids::commit_id,
    view::{HostTrouble, RefusedCommit},
};

#[tokio::test]
async fn status_shows_the_rollout_and_what_blocks_it() {
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
        "source    https://git.example.com/site.git, branch main; verification mainline; fetched 3s ago",
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

#[test]
fn status_names_an_old_pod_that_does_not_stop() {
    let line = |node: &str, seconds: u64, fault: Option<FaultKind>, message: Option<&str>| {
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
    assert_eq!(line("host-a", 29, None, None), "");
    let begin = "default/web-aaaaaaaaaa-a1111: the old pod has been stopping for";
    let long = line("host-a", 75, None, None);
    assert_eq!(long, format!("{begin} 75 s: the pod has not ended yet"));
    let here = line(
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
    let there = line("host-b", 75, Some(FaultKind::EngineUnreachable), None);
    let class = "StopFailed: the container engine does not answer";
    assert_eq!(
        there,
        format!("{begin} 75 s: {class}; run `windlass status` on node host-b for details")
    );
}
