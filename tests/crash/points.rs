//! kill -9 between the effect of a step and its record, at every crash point that a rollout or a
//! rollback reaches.

use crate::sample::application;
use crate::support::{MAY_DELETE, SOON, Site, is};
use std::time::{Duration, Instant};

/// Crash points that only the first rollout on an empty host reaches in this way, with the
/// occurrences that are tried.
const FIRST: &[(&str, &[u32])] = &[
    ("state-file", &[1, 2, 4]),
    ("state", &[1]),
    ("start-sandbox", &[1]),
];

/// Crash points of a rollout in which a new Deployment replaces another.
const ROLL_OUT: &[(&str, &[u32])] = &[
    ("fetch-move", &[1, 2]),
    ("fetch-accepted", &[1]),
    ("pull-image", &[1]),
    ("prepare-files", &[1]),
    ("start-sandbox", &[1]),
    ("connect", &[1]),
    ("start-container", &[1]),
    ("post-start", &[1]),
    ("stop", &[1]),
    ("remove", &[1]),
    ("disconnect", &[1]),
    ("remove-files", &[1]),
    ("pointers", &[1, 2, 3]),
    ("state", &[1, 2, 3, 4]),
    ("memory", &[1, 3, 5, 8]),
    ("state-file", &[1, 2, 3, 5, 6, 8]),
];

/// Crash points of a rollout that fails and of the rollback after it.
const ROLLBACK: &[(&str, &[u32])] = &[
    ("pull-image", &[1]),
    ("prepare-files", &[1]),
    ("start-sandbox", &[1]),
    ("connect", &[1]),
    ("start-container", &[1]),
    ("stop", &[1]),
    ("remove", &[1]),
    ("disconnect", &[1]),
    ("remove-files", &[1]),
    ("pointers", &[1, 3]),
    ("state", &[1, 2, 4]),
    ("memory", &[3, 6]),
    ("state-file", &[1, 5, 7]),
];

/// Starts a daemon that kills itself at a crash point, and waits until the daemon has ended.
#[track_caller]
fn crash_at(site: &mut Site, point: &str, nth: u32) {
    let at = format!("{point}:{nth}");
    site.launch(&[("WINDLASS_CRASH_AT", &at)]);
    let mut daemon = site.take_daemon();
    let start = Instant::now();
    while daemon.is_running() {
        assert!(
            start.elapsed() < SOON,
            "the daemon did not reach {at}:\n{}",
            daemon.log()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = daemon.log();
    assert!(
        log.contains(&format!("crash point {point}")),
        "the daemon did not end at {at}:\n{log}"
    );
}

/// Starts the daemon again after a crash, and waits until a commit is healthy. Checks that its
/// application runs exactly once, without a restart, and that the host has no other container.
#[track_caller]
fn assert_recovers(site: &mut Site, at: &str, commit: &str, name: &str) {
    site.launch(&[]);
    site.wait_settled(commit);
    site.assert_exactly(1, 2);
    let app = site.only_container("app");
    assert!(
        app.pod.starts_with(name),
        "{at}: another application runs: {app:?}"
    );
    assert_eq!(app.attempt, 0, "{at}: the container was restarted");
    site.assert_state_files();
    site.wait_answer_inside("/", name);
    site.wait_answer_inside("/notes/note", at);
    site.wait_answer_inside("/hook", "hooked");
}

#[test]
fn a_first_rollout_continues_after_a_crash_at_any_step() {
    for (point, occurrences) in FIRST {
        for nth in *occurrences {
            let at = format!("{point}:{nth}");
            eprintln!("first rollout: {at}");
            let mut site = Site::new("");
            let commit = site.push(
                &[("web.yaml", &application("web", "web", &at))],
                "the first",
            );
            crash_at(&mut site, point, *nth);
            assert_recovers(&mut site, &at, &commit, "web");
        }
    }
}

#[test]
fn a_rollout_with_a_crash_at_any_step_leaves_no_duplicate_and_no_leftover() {
    let mut site = Site::new("");
    let first = site.push(
        &[("web.yaml", &application("first", "first", "first"))],
        "the first",
    );
    site.launch(&[]);
    site.wait_settled(&first);
    site.take_daemon().kill9();
    for (point, occurrences) in ROLL_OUT {
        for nth in *occurrences {
            let at = format!("{point}:{nth}");
            eprintln!("rollout: {at}");
            let name = format!("web-{point}-{nth}");
            let manifest = application(&name, &name, &at);
            let commit = site.push(&[("web.yaml", &manifest)], &format!("{name}{MAY_DELETE}"));
            crash_at(&mut site, point, *nth);
            assert_recovers(&mut site, &at, &commit, &name);
            site.take_daemon().kill9();
        }
    }
}

#[test]
fn a_rollback_with_a_crash_at_any_step_leaves_no_duplicate_and_no_leftover() {
    let mut site = Site::new("");
    let good = site.push(&[("web.yaml", &application("web", "good", "good"))], "good");
    site.launch(&[]);
    site.wait_settled(&good);
    site.take_daemon().kill9();
    let before = site.containers();
    for (point, occurrences) in ROLLBACK {
        for nth in *occurrences {
            eprintln!("rollback: {point}:{nth}");
            let name = format!("bad {point} {nth}");
            // The first container of the pod starts, and the second cannot.
            let broken = application("web", &name, "bad").replace(
                "      volumes:",
                "      - {name: broken, image: 'windlass-test/app:1', command: [/does/not/exist]}\n      volumes:",
            );
            let bad = site.push(&[("web.yaml", &broken)], &name);
            crash_at(&mut site, point, *nth);
            site.launch(&[]);
            site.wait_status(&format!("{name} is rolled back"), |status| {
                status["bad"].get(&bad).is_some()
                    && is(&status["target"]["id"], &good)
                    && is(&status["phase"], "Healthy")
            });
            site.wait_converged();

            assert_eq!(
                site.containers(),
                before,
                "{point}:{nth}: a container of the good commit was touched"
            );
            site.assert_exactly(1, 2);
            site.assert_state_files();
            site.wait_answer_inside("/", "good");
            site.wait_answer_inside("/notes/note", "good");
            site.take_daemon().kill9();
        }
    }
}
