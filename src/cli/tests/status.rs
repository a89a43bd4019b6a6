//! `windlass status` against a served view.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use reconciler::{
    fault::FaultKind,
    foreign::ForeignText,
    name::{NodeName, PodUid},
    state::{CommitState, Phase, PodPlace, StopReason, StopRecord, Stored},
};

use super::{
    super::{status::headline::Headline, *},
    daemon, windlass,
};
use crate::{
    http::{
        fixture::{self, OLD},
        report::StatusReport,
    },
    ids::commit_id,
    view::{EventView, FailedPull, HostTrouble, RefusedCommit, View},
};

/// A refusal of the head of the fixture, with these problems.
fn refusal(class: &str, problems: &[&str]) -> RefusedCommit {
    RefusedCommit {
        commit: commit_id(BAD),
        summary: format!("{} problems", problems.len()),
        problems: problems.iter().map(ToString::to_string).collect(),
        class: class.into(),
        signer: String::new(),
    }
}

const BAD: &str = "3333333333333333333333333333333333333333";

/// The text of a status without colours and without times, which pass while a test runs.
fn printed(view: &View) -> String {
    let mut text = Vec::new();
    let report = StatusReport::new(view);
    status::print(&report, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    anstream::adapter::strip_str(&text).to_string()
}

/// The first lines of a status, up to the first empty one.
fn beginning(view: &View) -> String {
    let text = printed(view);
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "at most 80 columns:\n{text}"
    );
    text.split("\n\n").next().unwrap().to_owned()
}

fn exit(view: &View) -> Exit {
    Headline::of(&StatusReport::new(view), Timestamp::now())
        .standing
        .exit()
}

#[tokio::test]
async fn status_shows_the_problem_before_the_rollout() {
    let daemon = daemon().await;
    let mut view = fixture::view();
    view.source.head = Some(commit_id(BAD));
    let problem = "deploy/web.yaml:3:5: spec.replicsa: unknown field; did you mean `replicas`?";
    view.source.refusal = Some(RefusedCommit {
        signer: "dev@example.com".into(),
        ..refusal("manifests", &[problem])
    });
    view.troubles.push(HostTrouble::Failed(ForeignText::new(
        "the engine does not answer",
    )));
    daemon.fixture.publish.send(Arc::new(view)).unwrap();
    let (done, text) = windlass(daemon.directory.path(), "status").await;
    assert_eq!(done, Exit::Done);
    let begins = [
        "host-a: Refused: the newest commit does not run",
        "  commit    3333333333  (dev@example.com)",
        "  why       deploy/web.yaml:3:5: spec.replicsa: unknown field; did you mean",
        "            `replicas`?",
        "  do        correct the manifests, `windlass check` them, push a new commit",
        "  meanwhile 2222222222 is Progressing for 6",
    ];
    for (line, begin) in text.lines().zip(begins) {
        assert!(line.starts_with(begin), "{begin}\n{text}");
    }
    for part in [
        "\n  target    2222222222  Serve the new page  (deployer@example.com, ",
        "\n  healthy   1111111111  Serve the page  (deployer@example.com, 24h ago)\n",
        "\n  verified  2222222222  (the target)\n",
        "\n  head      3333333333\n",
        "\n  source    https://git.example.com/site.git, branch main; verification\n",
        "\n            default/web-bbbbbbbbbb-c3333, container httpd: CrashLoopBackOff:\n",
        "\n  pulling   registry.example.com/web:3 (20.0 of 40.0 MiB)\n",
        "\n  trouble   the engine does not answer\n",
        "\n  note      verification is off: ",
        "\n  warning   deploy/rbac.yaml:1:1: warning: kind: a Role has no effect here\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );

    let (refused, json) = windlass(daemon.directory.path(), "status -o json --exit-code").await;
    assert_eq!(refused, Exit::Refused);
    assert_eq!(
        serde_json::from_str::<StatusReport>(&json).unwrap().phase,
        "Progressing"
    );
}

#[test]
fn an_unsigned_commit_comes_with_the_two_commands_that_sign_it() {
    let mut view = fixture::view();
    view.source.head = Some(commit_id(BAD));
    let history = &mut Arc::make_mut(&mut view.state).rollout.history;
    let mut entry = history[1].clone();
    (entry.commit, entry.subject) = (commit_id(BAD), "Add a page".into());
    history.push(entry);
    let only = "commit 3333333333 \"Add a page\": it is not signed";
    view.source.refusal = Some(refusal("unsigned", &[only]));
    let expected = [
        "host-a: Refused: the newest commit does not run",
        "  commit    3333333333  Add a page  (deployer@example.com)",
        "  why       it is not signed",
        "  do        a signed commit on top of it does not help",
        "            sign it in place; it was never accepted, so it may be replaced:",
        "            git commit --amend --no-edit -S",
        "            git push --force-with-lease",
    ];
    let text = beginning(&view);
    assert!(text.starts_with(&expected.join("\n")), "{text}");
    assert_eq!(exit(&view), Exit::Refused);

    // A signed commit on top of the unsigned one.
    let below = "commit 4444444444 \"Add a page\": it is not signed";
    view.source.refusal = Some(refusal("unsigned", &[below]));
    let text = beginning(&view);
    assert!(
        text.contains("git rebase --exec 'git commit --amend --no-edit -S' 2222222222\n"),
        "{text}"
    );

    // A head that is not on top of the verified commit.
    let below = "it does not descend from 2222222222, the last verified commit";
    view.source.refusal = Some(refusal("rewritten", &[below]));
    view.source.verified = Some(commit_id(fixture::NEW));
    let text = beginning(&view);
    let command = "\n            git reset --soft 2222222222 && git commit -S\n";
    assert!(text.contains(command), "{text}");
    view.source.refusal = Some(refusal("unsigned", &[below]));

    // Of the first commit of all, and in the mode `head`, only the newest is judged.
    view.source.verified = None;
    let text = beginning(&view);
    assert!(
        !text.contains("does not help") && text.contains("--amend"),
        "{text}"
    );
}

#[test]
fn a_held_commit_and_a_failed_one_are_the_headline() {
    let mut view = fixture::view();
    view.source.head = Some(commit_id(BAD));
    let rollout = &mut Arc::make_mut(&mut view.state).rollout;
    rollout.phase = Phase::Healthy;
    let mut held = rollout.history[1].clone();
    held.commit = commit_id(BAD);
    held.state = CommitState::Held;
    held.reason = Stored::Read(ForeignText::new("it would delete 2 of 4 workloads"));
    rollout.history.push(held);
    let text = beginning(&view);
    assert!(
        text.starts_with("host-a: Held: the newest commit waits for an approval\n"),
        "{text}"
    );
    assert!(
        text.contains("  why       it would delete 2 of 4 workloads\n"),
        "{text}"
    );
    for command in [
        "\n            git revert -S --no-edit HEAD && git push\n",
        "\n            git commit -S --allow-empty -m OK -m 'Windlass-Allow-Deletions: yes'\n",
    ] {
        assert!(text.contains(command), "{text}");
    }
    assert_eq!(exit(&view), Exit::Refused);

    let rollout = &mut Arc::make_mut(&mut view.state).rollout;
    rollout.history.pop();
    let reason = || Stored::Read(ForeignText::new("Deployment/default/web: crash loop"));
    rollout.bad.insert(commit_id(BAD), reason());
    // A commit that failed earlier is history.
    rollout.bad.insert(
        commit_id(OLD),
        Stored::Read(ForeignText::new("an old failure")),
    );
    let expected = [
        "host-a: RolledBack: the newest commit has failed, 2222222222 runs instead",
        "  commit    3333333333",
        "  why       Deployment/default/web: crash loop",
        "  do        correct it and push a new commit, or try the same commit again:",
        "            windlass retry 3333333333",
    ];
    let text = beginning(&view);
    assert!(text.starts_with(&expected.join("\n")), "{text}");
    assert!(!printed(&view).contains("an old failure"));
    assert_eq!(exit(&view), Exit::Refused);
}

#[test]
fn a_restart_shows_a_failed_commit_before_the_first_fetch() {
    let mut view = fixture::view();
    view.source.head = None;
    view.source.verified = Some(commit_id(BAD));
    let rollout = &mut Arc::make_mut(&mut view.state).rollout;
    rollout.phase = Phase::Healthy;
    let reason = Stored::Read(ForeignText::new("Deployment/default/web: crash loop"));
    rollout.bad.insert(commit_id(BAD), reason);
    let text = beginning(&view);
    assert!(
        text.starts_with("host-a: RolledBack: the newest commit has failed"),
        "{text}"
    );
    assert_eq!(exit(&view), Exit::Refused);

    // All that is known runs, but a newer commit may wait in the repository.
    let rollout = &mut Arc::make_mut(&mut view.state).rollout;
    view.source.verified = rollout.target.clone();
    Arc::make_mut(&mut view.pods).clear();
    let text = beginning(&view)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(text.starts_with("host-a: Healthy for "), "{text}");
    assert!(
        text.contains("; the repository has not been read since the daemon started"),
        "{text}"
    );
    assert_ne!(exit(&view), Exit::Done);
}

#[test]
fn a_registry_that_does_not_answer_is_shown_with_its_times() {
    let mut view = fixture::view();
    // The first attempts: the rollout does not count as waiting yet.
    Arc::make_mut(&mut view.state).rollout.phase = Phase::Preparing {
        message: Stored::Read(ForeignText::new("three images")),
    };
    Arc::make_mut(&mut view.pods).clear();
    let now = Timestamp::now();
    view.failed_pulls.push(FailedPull {
        image: "registry.example.com/web:3".into(),
        fault: FaultKind::RegistryUnreachable,
        since: now - Duration::from_secs(690),
        attempts: 4,
        retry_at: Some(now + Duration::from_secs(3600)),
        error: "dial tcp: connection refused".into(),
    });
    let text = beginning(&view)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    for part in [
        "host-a: Waiting: something outside of the commit is in the way",
        "why registry.example.com/web:3: the registry does not answer since ",
        " (11m, 4 attempts), the next attempt is in ",
        ": dial tcp: connection refused do check the image's name",
        "the rollout goes on by itself when the registry answers, and a newer commit ends the waiting",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(exit(&view), Exit::Failed);

    // An image for a later node holds nothing up.
    Arc::make_mut(&mut view.state).rollout.phase = Phase::Healthy;
    assert!(beginning(&view).starts_with("host-a: Healthy for 6"));
    // The rollout waits after it has begun.
    Arc::make_mut(&mut view.state).rollout.phase = Phase::Progressing {
        message: Stored::Read(ForeignText::new("three images")),
    };
    Arc::make_mut(&mut view.state).rollout.waiting = true;
    assert!(beginning(&view).starts_with("host-a: Waiting: something outside"));
}

#[test]
fn pods_that_fail_after_the_rollout_are_the_headline_of_a_healthy_commit() {
    let mut view = fixture::view();
    Arc::make_mut(&mut view.state).rollout.phase = Phase::Healthy;
    let text = beginning(&view);
    assert!(
        text.starts_with("host-a: Unwell: the commit was healthy for 6"),
        "{text}"
    );
    assert!(
        text.contains("default/web-bbbbbbbbbb-c3333, container httpd: CrashLoopBackOff"),
        "{text}"
    );
    assert_eq!(exit(&view), Exit::Failed);

    Arc::make_mut(&mut view.pods).clear();
    assert!(beginning(&view).starts_with("host-a: Healthy for 6"));
    assert_eq!(exit(&view), Exit::Done);
}

#[test]
fn a_running_pod_whose_probe_fails_is_shown_with_the_message_of_the_probe() {
    let mut view = fixture::view();
    let uid = PodUid::new("00000000-0000-4000-8000-000000000002");
    let status = Arc::make_mut(&mut view.pods).get_mut(&uid).unwrap();
    status.ready = None;
    status.containers[0].ready = false;
    let event = EventView {
        uid: Some(uid),
        reason: "Unhealthy".into(),
        message: "Readiness probe failed: HTTP 404".into(),
        ..view.events[0].clone()
    };
    view.events.push(event);
    let unwell = StatusReport::new(&view).unwell;
    let expected =
        "default/web-bbbbbbbbbb-b2222: running, and not ready: Readiness probe failed: HTTP 404";
    assert!(
        unwell.iter().any(|sentence| sentence == expected),
        "{unwell:?}"
    );
}

#[tokio::test]
async fn status_counts_pods_by_the_words_of_get_pods() {
    let daemon = daemon().await;
    let (_, status) = windlass(daemon.directory.path(), "status").await;
    let (_, pods) = windlass(daemon.directory.path(), "get pods -A").await;
    let mut words: BTreeMap<&str, usize> = BTreeMap::new();
    for row in pods.lines().skip(1) {
        *words
            .entry(row.split_whitespace().nth(3).unwrap())
            .or_default() += 1;
    }
    let counts: Vec<String> = words
        .iter()
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    assert!(counts.len() > 2, "{pods}");
    assert!(
        status.contains(&format!("  pods      {}", counts.join(", "))),
        "{pods}\n{status}"
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
