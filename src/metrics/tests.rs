//! Metrics as Prometheus sees them.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use super::*;
use crate::http::fixture::{self, NEW, OLD};
use crate::ids::commit_id;

#[test]
fn promtool_reports_no_problem() {
    let metrics = Metrics::new().unwrap();
    metrics.observe(&fixture::view());
    metrics.cycle(Duration::from_millis(3), CycleResult::Changed);
    metrics.push(PushPhase::Total, Duration::from_secs(4));
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed: it is in Debian's package prometheus");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.text().unwrap().as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let report = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&report)
    );
    assert!(report.is_empty(), "{}", String::from_utf8_lossy(&report));
}

#[test]
fn a_pointer_shows_one_commit_at_a_time() {
    let metrics = Metrics::new().unwrap();
    let mut view = fixture::view();
    metrics.observe(&view);
    let text = metrics.text().unwrap();
    assert!(
        text.contains(&format!(
            "windlass_commit_info{{commit=\"{NEW}\",pointer=\"target\"}} 1"
        )),
        "{text}"
    );
    Arc::make_mut(&mut view.state).rollout.target = Some(commit_id(OLD));
    view.source.head = None;
    metrics.observe(&view);
    let text = metrics.text().unwrap();
    assert!(text.contains(&format!(
        "windlass_commit_info{{commit=\"{OLD}\",pointer=\"target\"}} 1"
    )));
    assert!(!text.contains(&format!("commit=\"{NEW}\",pointer=\"target\"")));
    assert!(!text.contains("pointer=\"head\""));
}

#[test]
fn restarts_count_from_the_first_view_on() {
    let metrics = Metrics::new().unwrap();
    let mut view = fixture::view();
    metrics.observe(&view);
    assert!(
        metrics
            .text()
            .unwrap()
            .contains("windlass_container_restarts_total 0")
    );
    let pods = Arc::make_mut(&mut view.pods);
    for status in pods.values_mut() {
        status.containers[0].restarts += 1;
    }
    metrics.observe(&view);
    metrics.observe(&view);
    let text = metrics.text().unwrap();
    assert!(
        text.contains("windlass_container_restarts_total 4"),
        "{text}"
    );
    assert!(
        text.contains("windlass_pods{phase=\"Running\"} 3"),
        "{text}"
    );
    assert!(text.contains("windlass_suspended 0"));
}

#[test]
fn every_label_exists_from_the_start() {
    let text = Metrics::new().unwrap().text().unwrap();
    for line in [
        "windlass_rollbacks_total{reason=\"crash_loop\"} 0",
        "windlass_webhook_requests_total{forge=\"github\",result=\"bad_signature\"} 0",
        "windlass_signature_checks_total{outcome=\"untrusted\"} 0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
