//! Simulated clusters: hosts, a store, links and clocks are simulated, in virtual time; decisions
//! and plans are those of the product's core. Hosts crash and come back, links are cut, messages
//! are late, lost and repeated, daemons are killed between any two steps. An independent referee
//! checks every transaction, every effect, and the state at the end.
//!
//! One seed gives one random history. `WINDLASS_SIM_SEEDS=20000` runs more of them, and
//! `WINDLASS_SIM_SEED=123` with the test `one_seed` runs one and prints all its events. Besides, a
//! few fixed scenarios are run once for each point at which a daemon can crash.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "../simulated/build.rs"]
#[allow(
    dead_code,
    reason = "the other simulation uses other parts of this module"
)]
mod build;
mod clock;
mod crash_point;
mod crashes;
mod daemon;
mod delivery;
mod ending;
#[path = "../simulated/engine.rs"]
#[allow(
    dead_code,
    reason = "the other simulation uses other parts of this module"
)]
mod engine;
mod faults;
mod history;
mod host;
#[path = "../invariants/invariants.rs"]
#[allow(dead_code, reason = "the simulation of one host checks plans")]
mod invariants;
mod leader;
#[path = "../simulated/prober.rs"]
mod prober;
mod random;
mod referee;
#[path = "../simulated/registry.rs"]
#[allow(
    dead_code,
    reason = "the other simulation uses other parts of this module"
)]
mod registry;
mod sabotages;
mod scenarios;
mod store;
mod store_loss;
mod transcript;
mod view;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use ending::{Outcome, play};
use store::Sabotage;

/// How many random histories run if the environment gives no number.
const SEEDS: u64 = 2_000;

#[expect(
    clippy::disallowed_methods,
    reason = "the person who runs the simulation chooses the histories by environment variables"
)]
fn text_setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn setting(name: &str) -> Option<u64> {
    text_setting(name)?.parse().ok()
}

/// Runs one history. A panic of the core is reported as a violation.
fn outcome(seed: u64, sabotage: Sabotage, verbose: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| play(seed, sabotage, verbose))).unwrap_or_else(|_| Outcome {
        seed,
        hash: 0,
        violation: Some("the core panicked, see above".to_owned()),
        tail: String::new(),
        cycles: 0,
        decisions: 0,
    })
}

fn report(outcome: &Outcome) -> String {
    let seed = outcome.seed;
    format!(
        "{}\nseed {seed}: {}\nto repeat: WINDLASS_SIM_SEED={seed} cargo test -p reconciler --test cluster_sim one_seed -- \
         --nocapture",
        outcome.tail,
        outcome.violation.as_deref().unwrap_or_default()
    )
}

/// Runs `task` for 0 to `count` on two threads until `limit` of them have given a result. Returns
/// the results, ordered by their index.
fn on_two_threads<T: Send>(
    count: u64,
    limit: usize,
    task: impl Fn(u64) -> Option<T> + Sync,
) -> Vec<T> {
    let (next, results) = (AtomicU64::new(0), AtomicUsize::new(0));
    let worker = || {
        let mut indexed = Vec::new();
        while results.load(Ordering::Relaxed) < limit {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            if let Some(result) = task(index) {
                results.fetch_add(1, Ordering::Relaxed);
                indexed.push((index, result));
            }
        }
        indexed
    };
    let mut indexed: Vec<(u64, T)> = std::thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    indexed.sort_by_key(|(index, _)| *index);
    indexed.into_iter().map(|(_, result)| result).collect()
}

/// Runs many histories, and returns those with a violation, ordered by seed.
fn bad_histories(first: u64, count: u64, sabotage: Sabotage, limit: usize) -> Vec<Outcome> {
    on_two_threads(count, limit, |index| {
        let outcome = outcome(first + index, sabotage, false);
        outcome.violation.is_some().then_some(outcome)
    })
}

#[test]
fn every_random_history_ends_as_the_last_commit_wants() {
    let first = setting("WINDLASS_SIM_FIRST").unwrap_or(1);
    let count = setting("WINDLASS_SIM_SEEDS").unwrap_or(SEEDS);
    let bad = bad_histories(first, count, Sabotage::None, 100);
    if let Some(shortest) = bad
        .iter()
        .min_by_key(|outcome| (outcome.decisions, outcome.seed))
    {
        let violations: Vec<String> = bad
            .iter()
            .map(|outcome| {
                let violation = outcome
                    .violation
                    .as_deref()
                    .unwrap_or_default()
                    .lines()
                    .next()
                    .unwrap_or_default();
                format!("{}: {violation}", outcome.seed)
            })
            .collect();
        panic!(
            "{}\n{} of {count} histories have violations:\n{}",
            report(shortest),
            bad.len(),
            violations.join("\n")
        );
    }
}

/// Prints all events of a history, to examine a failure.
#[test]
fn one_seed() {
    let seed = setting("WINDLASS_SIM_SEED");
    let outcome = outcome(seed.unwrap_or(1), Sabotage::None, seed.is_some());
    assert!(outcome.violation.is_none(), "{}", report(&outcome));
    assert!(outcome.cycles > 0 && outcome.decisions > 0);
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 1..20 {
        let (first, second) = (
            outcome(seed, Sabotage::None, false),
            outcome(seed, Sabotage::None, false),
        );
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_ne!(
            first.hash,
            outcome(seed + 1, Sabotage::None, false).hash,
            "seed {seed} and the next seed give different histories"
        );
    }
}
