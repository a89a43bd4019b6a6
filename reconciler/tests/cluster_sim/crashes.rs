//! A crash at every step: short scenarios in which the only fault is one crash. Each scenario runs
//! once for each point at which a daemon can crash, with a crash at exactly that point.
//!
//! A scenario with a violation is printed with its name and point. The test `one_crash` runs it
//! again and prints all its events, with `WINDLASS_SIM_SCENARIO=bad-commit`,
//! `WINDLASS_SIM_POINT=123` and `WINDLASS_SIM_DOWN=9000`.

mod playback;
mod scenario;

use std::panic::{AssertUnwindSafe, catch_unwind};

use playback::Playback;
use scenario::{SCENARIOS, Scenario};

use crate::{clock::Time, on_two_threads, setting, store::Sabotage, text_setting};

/// For how long a crashed daemon is down: shorter than its leases, and so long that its node is
/// given up.
const DOWN: [Time; 2] = [1_500, 9_000];
/// How many crash points lie between two snapshots of a scenario.
const SNAPSHOT_DISTANCE: u64 = 10;

/// A scenario with a crash.
#[derive(Clone, Copy)]
struct Crash<'a> {
    scenario: &'static Scenario,
    /// The snapshot to start from: any one before the crash.
    from: &'a Playback,
    point: u64,
    down: Time,
}

/// A crash after which a rule was violated.
struct CrashViolation {
    scenario: &'static str,
    point: u64,
    down: Time,
    crash_point: String,
    violation: String,
    tail: String,
}

impl Crash<'_> {
    /// Runs the scenario to its end. A panic of the core is reported as a violation.
    fn play(self) -> Option<CrashViolation> {
        let Self {
            scenario,
            point,
            down,
            ..
        } = self;
        let finished = catch_unwind(AssertUnwindSafe(|| {
            let mut playback = self.from.clone();
            playback.world.crash_points.at = Some((point, down));
            playback.finish(scenario)
        }));
        let with_violation = |crash_point, violation, tail| CrashViolation {
            scenario: scenario.name,
            point,
            down,
            crash_point,
            violation,
            tail,
        };
        let Ok(world) = finished else {
            return Some(with_violation(
                "somewhere".to_owned(),
                "the core panicked, see above".to_owned(),
                String::new(),
            ));
        };
        let nowhere = || "there is no such point: the scenario did not repeat exactly".to_owned();
        let violation = world
            .violation
            .clone()
            .or_else(|| world.crash_points.reached.is_none().then(nowhere))?;
        Some(with_violation(
            world.crash_points.reached.clone().unwrap_or_default(),
            violation,
            world.transcript.tail(150),
        ))
    }
}

impl CrashViolation {
    fn line(&self) -> String {
        let Self {
            scenario,
            point,
            down,
            crash_point,
            ..
        } = self;
        format!(
            "{scenario} {point} {down}: {crash_point}: {}",
            self.violation.lines().next().unwrap_or_default()
        )
    }

    fn report(&self) -> String {
        let Self {
            scenario,
            point,
            down,
            crash_point,
            violation,
            tail,
        } = self;
        format!(
            "{tail}\n{scenario}, point {point}: {crash_point}, crashes and is down for {down} ms: {violation}\nto repeat: \
             WINDLASS_SIM_SCENARIO={scenario} WINDLASS_SIM_POINT={point} WINDLASS_SIM_DOWN={down} cargo test -p reconciler --test \
             cluster_sim one_crash -- --nocapture"
        )
    }
}

/// Runs a scenario without a crash. Returns how many crash points it has, and snapshots to start
/// from, each with the number of points before it.
fn points(scenario: &Scenario, sabotage: Sabotage) -> (u64, Vec<(u64, Playback)>) {
    let mut playback = Playback::new(scenario, sabotage, false);
    let mut snapshots = vec![(0, playback.clone())];
    while playback.advance(scenario) {
        let passed = playback.world.crash_points.passed;
        if snapshots
            .last()
            .is_none_or(|(before, _)| passed >= before + SNAPSHOT_DISTANCE)
        {
            snapshots.push((passed, playback.clone()));
        }
    }
    let points = playback.world.crash_points.passed;
    let world = playback.finish(scenario);
    let tail = || world.transcript.tail(150);
    assert_eq!(
        world.violation,
        None,
        "{}\n{} without a crash",
        tail(),
        scenario.name
    );
    (points, snapshots)
}

/// Runs all scenarios with a crash at each of their points. Returns the number of points, and the
/// violations.
fn crash_everywhere(sabotage: Sabotage, limit: usize) -> (u64, Vec<CrashViolation>) {
    let scenarios = SCENARIOS
        .each_ref()
        .map(|scenario| (scenario, points(scenario, sabotage)));
    let mut crashes = Vec::new();
    for (scenario, (points, snapshots)) in &scenarios {
        assert!(
            *points >= scenario.least_points,
            "{} has {points} crash points, expected at least {}",
            scenario.name,
            scenario.least_points
        );
        for point in 1..=*points {
            let Some((_, from)) = snapshots.iter().rfind(|(before, _)| *before < point) else {
                continue;
            };
            crashes.extend(DOWN.map(|down| Crash {
                scenario,
                from,
                point,
                down,
            }));
        }
    }
    let found_violations = on_two_threads(crashes.len() as u64, limit, |index| {
        crashes[index as usize].play()
    });
    (crashes.len() as u64 / DOWN.len() as u64, found_violations)
}

#[test]
fn every_scenario_ends_as_wanted_with_a_crash_at_any_point() {
    let (count, found_violations) = crash_everywhere(Sabotage::None, 100);
    assert!(count > 1_600, "only {count} crash points");
    if let Some(first) = found_violations.first() {
        let lines: Vec<String> = found_violations.iter().map(CrashViolation::line).collect();
        panic!(
            "{}\n{} of {count} crash points lead to violations:\n{}",
            first.report(),
            found_violations.len(),
            lines.join("\n")
        );
    }
}

/// Prints all events of a crash, to examine a failure.
#[test]
fn one_crash() {
    let named = text_setting("WINDLASS_SIM_SCENARIO");
    let scenario = SCENARIOS
        .iter()
        .find(|scenario| named.as_deref().is_none_or(|name| scenario.name == name));
    let scenario = scenario.expect("there is no scenario of that name");
    let from = Playback::new(scenario, Sabotage::None, named.is_some());
    let point = setting("WINDLASS_SIM_POINT").unwrap_or(1);
    let down = setting("WINDLASS_SIM_DOWN").unwrap_or(DOWN[0]);
    let violation = Crash {
        scenario,
        from: &from,
        point,
        down,
    }
    .play();
    assert!(
        violation.is_none(),
        "{}",
        violation
            .as_ref()
            .map(CrashViolation::report)
            .unwrap_or_default()
    );
}

#[test]
fn a_daemon_that_forgets_its_memory_in_a_crash_is_detected() {
    let (_, found_violations) = crash_everywhere(Sabotage::ForgetsMemory, 1);
    assert!(
        !found_violations.is_empty(),
        "no rule detects a daemon that forgets its memory in a crash"
    );
}
