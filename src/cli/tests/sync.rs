//! `windlass sync`: which report shows the outcome of the newest commit.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use reconciler::{
    foreign::ForeignText,
    state::{Phase, Stored},
};

use super::{
    super::{sync::SyncVerdict, *},
    TestDaemon, daemon, windlass,
};
use crate::{
    http::{
        fixture::{self, NEW, OLD},
        report::StatusReport,
    },
    ids::commit_id,
    uptime::Uptime,
    view::{FetchStart, RefusedCommit, View},
};

/// A daemon whose loop answers every command, fetches, and publishes what `becomes` makes of the
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
async fn sync_waits_for_the_outcome() {
    let (exit, text) =
        synced(|view| Arc::make_mut(&mut view.state).rollout.phase = Phase::Healthy).await;
    assert!(
        exit == Exit::Done
            && text.ends_with(
                "2222222222  Healthy, with a warning:\n  deploy/rbac.yaml:1:1: warning: kind: a Role has no effect here\n"
            ),
        "{text}"
    );
    let back = |view: &mut View| {
        let rollout = &mut Arc::make_mut(&mut view.state).rollout;
        rollout.target = Some(commit_id(OLD));
        let reason = Stored::Read(ForeignText::new("default/web: crash loop"));
        rollout.bad.insert(commit_id(NEW), reason);
        view.last_outputs = Arc::new(vec![fixture::output()]);
    };
    let (exit, text) = synced(back).await;
    assert!(
        exit == Exit::Refused
            && text.contains("2222222222  default/web: crash loop\n  default/web-bbbbbbbbbb-c3333, container httpd")
            && text.contains("\n  | fatal: no ")
            && text.ends_with("  windlass retry 2222222222\n"),
        "{text}"
    );
    let (exit, text) = synced(|_| {}).await;
    assert!(
        exit == Exit::TimedOut
            && text.contains("timed out after 2 s; last: 2222222222  Progressing"),
        "{text}"
    );
    // Once, until some seconds have passed.
    let pulling = "  pulling registry.example.com/web:3 (20.0 of 40.0 MiB)\n";
    assert_eq!(text.matches(pulling).count(), 1, "{text}");
}

#[tokio::test]
async fn sync_waits_for_the_first_commit_of_an_empty_repository() {
    let (exit, text) = synced(|view| view.source.head = None).await;
    assert_eq!(exit, Exit::TimedOut);
    let waits = "waiting for the first commit: branch main of https://git.example.com/site.git";
    assert!(
        text.lines().any(|line| line.starts_with(waits)) && text.contains("timed out after 2 s"),
        "{text}"
    );
}

#[test]
fn a_report_from_before_the_command_is_not_its_outcome() {
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
        class: "unsigned".into(),
        signer: String::new(),
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
fn setting_the_clock_does_not_make_an_older_fetch_the_newest() {
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
