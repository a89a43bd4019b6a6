//! kill -9 between an effect and its record, at every point that a rollout and a rollback come
//! past.

use crate::sample::application;
use crate::support::{MAY_DELETE, SOON, Site, is};
use std::time::{Duration, Instant};

/// Points that only the first rollout on an empty host comes past in this way.
const FIRST: &[(&str, &[u32])] = &[
    ("state-file", &[1, 2, 4]),
    ("state", &[1]),
    ("start-sandbox", &[1]),
];

/// Points that a rollout of a new Deployment which replaces another comes past, with the
/// occurrences that are tried.
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

/// Points that a rollout which fails, and the rollback after it, come past.
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

/// Starts a daemon that dies at a point, and waits until it has.
#[track_caller]
fn die_at(site: &mut Site, point: &str, nth: u32) {
    let at = format!("{point}:{nth}");
    site.launch(&[("WINDLASS_CRASH_AT", &at)]);
    let mut daemon = site.take_daemon();
    let start = Instant::now();
    while daemon.is_running() {
        assert!(
            start.elapsed() < SOON,
            "the daemon never came past {at}:\n{}",
            daemon.log()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = daemon.log();
    assert!(
        log.contains(&format!("crash point {point}")),
        "the daemon ended otherwise than at {at}:\n{log}"
    );
}

/// Starts the daemon again after it died, and waits until a commit runs. Checks that this one
/// application runs, once, and that nothing else is left.
#[track_caller]
fn settles(site: &mut Site, at: &str, commit: &str, name: &str) {
    site.launch(&[]);
    site.wait_settled(commit);
    site.assert_exactly(1, 2);
    let app = site.one("app");
    assert!(app.pod.starts_with(name), "{at} left {app:?}");
    assert_eq!(app.attempt, 0, "{at} cost a restart");
    site.assert_state_files();
    site.wait_answer_inside("/", name);
    site.wait_answer_inside("/notes/note", at);
    site.wait_answer_inside("/hook", "hooked");
}

#[test]
fn a_first_roll_out_killed_after_any_step_is_taken_up_again() {
    for (point, occurrences) in FIRST {
        for nth in *occurrences {
            let at = format!("{point}:{nth}");
            eprintln!("first rollout: {at}");
            let mut site = Site::new("");
            let commit = site.push(
                &[("web.yaml", &application("web", "web", &at))],
                "the first",
            );
            die_at(&mut site, point, *nth);
            settles(&mut site, &at, &commit, "web");
        }
    }
}

#[test]
fn a_roll_out_killed_after_any_step_leaves_neither_duplicate_nor_leftover() {
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
            die_at(&mut site, point, *nth);
            settles(&mut site, &at, &commit, &name);
            site.take_daemon().kill9();
        }
    }
}

#[test]
fn a_rollback_killed_after_any_step_leaves_neither_duplicate_nor_leftover() {
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
            // The first container runs and the second never does.
            let broken = application("web", &name, "bad").replace(
                "      volumes:",
                "      - {name: broken, image: 'windlass-test/app:1', command: [/does/not/exist]}\n      volumes:",
            );
            let bad = site.push(&[("web.yaml", &broken)], &name);
            die_at(&mut site, point, *nth);
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
                "{point}:{nth}: what ran was touched"
            );
            site.assert_exactly(1, 2);
            site.assert_state_files();
            site.wait_answer_inside("/", "good");
            site.wait_answer_inside("/notes/note", "good");
            site.take_daemon().kill9();
        }
    }
}
