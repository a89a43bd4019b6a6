//! Crashes at every step: short tales in which nothing goes wrong but this, told once for each
//! point at which a daemon can be cut in half, with a crash exactly there.
//!
//! One that ends badly is printed with its tale and point, and told again aloud by the test
//! `one_crash` with `WINDLASS_SIM_TALE=bad-commit`, `WINDLASS_SIM_POINT=123` and
//! `WINDLASS_SIM_DOWN=9000`.

mod tale;
mod telling;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tale::{TALES, Tale};
use telling::Telling;

use crate::{clock::Time, on_two_threads, setting, store::Sabotage, text_setting};

/// For how long a daemon that crashed is down: within its leases, and so long that its node is
/// given up.
const DOWN: [Time; 2] = [1_500, 9_000];
/// How many points there are between two places from which a tale is told again.
const APART: u64 = 10;

/// A tale with a crash in it.
#[derive(Clone, Copy)]
struct Crash<'a> {
    tale: &'static Tale,
    /// Where the telling begins: anywhere before the crash.
    from: &'a Telling,
    point: u64,
    down: Time,
}

/// One that ended badly.
struct Bad {
    tale: &'static str,
    point: u64,
    down: Time,
    what: String,
    wrong: String,
    tail: String,
}

impl Crash<'_> {
    /// What is wrong with its end; a panic of the core is a bad end like any other.
    fn tell(self) -> Option<Bad> {
        let Self {
            tale, point, down, ..
        } = self;
        let told = catch_unwind(AssertUnwindSafe(|| {
            let mut telling = self.from.clone();
            telling.world.cuts.at = Some((point, down));
            telling.end(tale)
        }));
        let bad = |what, wrong, tail| Bad {
            tale: tale.name,
            point,
            down,
            what,
            wrong,
            tail,
        };
        let Ok(world) = told else {
            return Some(bad(
                "somewhere".to_owned(),
                "it panicked, see above".to_owned(),
                String::new(),
            ));
        };
        let nowhere = || "there is no such point: the tale is not the same again".to_owned();
        let wrong = world
            .wrong
            .clone()
            .or_else(|| world.cuts.done.is_none().then(nowhere))?;
        Some(bad(
            world.cuts.done.clone().unwrap_or_default(),
            wrong,
            world.transcript.tail(150),
        ))
    }
}

impl Bad {
    fn line(&self) -> String {
        let Self {
            tale,
            point,
            down,
            what,
            ..
        } = self;
        format!(
            "{tale} {point} {down}: {what}: {}",
            self.wrong.lines().next().unwrap_or_default()
        )
    }

    fn report(&self) -> String {
        let Self {
            tale,
            point,
            down,
            what,
            wrong,
            tail,
        } = self;
        format!(
            "{tail}\n{tale}, point {point}: {what}, crashes and is down for {down} ms: {wrong}\nagain: \
             WINDLASS_SIM_TALE={tale} WINDLASS_SIM_POINT={point} WINDLASS_SIM_DOWN={down} cargo test -p reconciler --test \
             cluster_sim one_crash -- --nocapture"
        )
    }
}

/// Tells a tale without a crash. How many points it has, and places from which it can be told
/// again, with how many points lie before them.
fn points(tale: &Tale, sabotage: Sabotage) -> (u64, Vec<(u64, Telling)>) {
    let mut telling = Telling::new(tale, sabotage, false);
    let mut places = vec![(0, telling.clone())];
    while telling.go_on(tale) {
        let passed = telling.world.cuts.passed;
        if places
            .last()
            .is_none_or(|(before, _)| passed >= before + APART)
        {
            places.push((passed, telling.clone()));
        }
    }
    let points = telling.world.cuts.passed;
    let world = telling.end(tale);
    let tail = || world.transcript.tail(150);
    assert_eq!(
        world.wrong,
        None,
        "{}\n{} without a crash",
        tail(),
        tale.name
    );
    (points, places)
}

/// All tales with a crash at each of their points: how many those are, and what ends badly.
fn all(sabotage: Sabotage, enough: usize) -> (u64, Vec<Bad>) {
    let tales = TALES.each_ref().map(|tale| (tale, points(tale, sabotage)));
    let mut crashes = Vec::new();
    for (tale, (points, places)) in &tales {
        assert!(
            *points >= tale.least,
            "{} has {points} points, and should have {}",
            tale.name,
            tale.least
        );
        for point in 1..=*points {
            let Some((_, from)) = places.iter().rfind(|(before, _)| *before < point) else {
                continue;
            };
            crashes.extend(DOWN.map(|down| Crash {
                tale,
                from,
                point,
                down,
            }));
        }
    }
    let bad = on_two_threads(crashes.len() as u64, enough, |index| {
        crashes[index as usize].tell()
    });
    (crashes.len() as u64 / DOWN.len() as u64, bad)
}

#[test]
fn every_tale_ends_well_wherever_a_daemon_crashes() {
    let (count, bad) = all(Sabotage::None, 100);
    assert!(count > 1_600, "{count} points: where are the others?");
    if let Some(first) = bad.first() {
        let lines: Vec<String> = bad.iter().map(Bad::line).collect();
        panic!(
            "{}\n{} of {count} points end badly:\n{}",
            first.report(),
            bad.len(),
            lines.join("\n")
        );
    }
}

/// Aloud, for whoever looks into a crash.
#[test]
fn one_crash() {
    let named = text_setting("WINDLASS_SIM_TALE");
    let tale = TALES
        .iter()
        .find(|tale| named.as_deref().is_none_or(|name| tale.name == name));
    let tale = tale.expect("there is no tale of that name");
    let from = Telling::new(tale, Sabotage::None, named.is_some());
    let point = setting("WINDLASS_SIM_POINT").unwrap_or(1);
    let down = setting("WINDLASS_SIM_DOWN").unwrap_or(DOWN[0]);
    let bad = Crash {
        tale,
        from: &from,
        point,
        down,
    }
    .tell();
    assert!(
        bad.is_none(),
        "{}",
        bad.as_ref().map(Bad::report).unwrap_or_default()
    );
}

#[test]
fn a_daemon_that_remembers_nothing_after_a_crash_is_noticed() {
    let (_, bad) = all(Sabotage::Forgets, 1);
    assert!(
        !bad.is_empty(),
        "what a daemon does not write down is not missed"
    );
}
