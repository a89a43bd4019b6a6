//! The core as a cluster: leaders, hosts and a store that are played, with real decisions and
//! plans, in virtual time. Hosts die and come back, links are cut, messages are late, lost and
//! repeated, daemons are killed between any two steps; an independent referee looks at every
//! transaction and every effect, and at how it all ends.
//!
//! One seed is one story. `WINDLASS_SIM_SEEDS=20000` tells more of them, `WINDLASS_SIM_SEED=123`
//! with the test `one_seed` tells one aloud. Besides there are a few fixed tales in which a daemon
//! crashes at every point in turn.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "../simulated/build.rs"]
#[allow(dead_code, reason = "each of the simulations builds other commits")]
mod build;
mod clock;
mod crashes;
mod cut;
mod daemon;
mod ending;
#[path = "../simulated/engine.rs"]
#[allow(dead_code, reason = "each of the simulations breaks other things")]
mod engine;
mod faults;
mod host;
#[path = "../invariants/invariants.rs"]
#[allow(dead_code, reason = "the simulation of one host checks plans")]
mod invariants;
mod leader;
mod loss;
#[path = "../simulated/prober.rs"]
mod prober;
mod random;
mod referee;
#[path = "../simulated/registry.rs"]
#[allow(dead_code, reason = "each of the simulations runs other images")]
mod registry;
mod sabotages;
mod store;
mod story;
mod tales;
mod transcript;
mod view;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use ending::{Outcome, tell};
use store::Sabotage;

/// How many stories are told where nobody says how many.
const SEEDS: u64 = 2_000;

#[expect(
    clippy::disallowed_methods,
    reason = "which stories are told is for whoever runs them to say"
)]
fn text_setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn setting(name: &str) -> Option<u64> {
    text_setting(name)?.parse().ok()
}

/// One story; a panic of the core is a bad end like any other.
fn outcome(seed: u64, sabotage: Sabotage, aloud: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| tell(seed, sabotage, aloud))).unwrap_or_else(|_| Outcome {
        seed,
        hash: 0,
        wrong: Some("it panicked, see above".to_owned()),
        tail: String::new(),
        looks: 0,
        decisions: 0,
    })
}

fn report(outcome: &Outcome) -> String {
    let seed = outcome.seed;
    format!(
        "{}\nseed {seed}: {}\nagain: WINDLASS_SIM_SEED={seed} cargo test -p reconciler --test cluster_sim one_seed -- \
         --nocapture",
        outcome.tail,
        outcome.wrong.as_deref().unwrap_or_default()
    )
}

/// Does so many things side by side, until enough have come to something; what they came to, in
/// order.
fn on_two_threads<T: Send>(
    count: u64,
    enough: usize,
    one: impl Fn(u64) -> Option<T> + Sync,
) -> Vec<T> {
    let (next, results) = (AtomicU64::new(0), AtomicUsize::new(0));
    let worker = || {
        let mut found = Vec::new();
        while results.load(Ordering::Relaxed) < enough {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            if let Some(result) = one(index) {
                results.fetch_add(1, Ordering::Relaxed);
                found.push((index, result));
            }
        }
        found
    };
    let mut found: Vec<(u64, T)> = std::thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, result)| result).collect()
}

/// Tells many stories; those that end badly, by seed.
fn many(first: u64, count: u64, sabotage: Sabotage, enough: usize) -> Vec<Outcome> {
    on_two_threads(count, enough, |index| {
        Some(outcome(first + index, sabotage, false)).filter(|outcome| outcome.wrong.is_some())
    })
}

#[test]
fn every_story_ends_well() {
    let first = setting("WINDLASS_SIM_FIRST").unwrap_or(1);
    let count = setting("WINDLASS_SIM_SEEDS").unwrap_or(SEEDS);
    let bad = many(first, count, Sabotage::None, 100);
    if let Some(shortest) = bad
        .iter()
        .min_by_key(|outcome| (outcome.decisions, outcome.seed))
    {
        let all: Vec<String> = bad
            .iter()
            .map(|outcome| {
                let wrong = outcome
                    .wrong
                    .as_deref()
                    .unwrap_or_default()
                    .lines()
                    .next()
                    .unwrap_or_default();
                format!("{}: {wrong}", outcome.seed)
            })
            .collect();
        panic!(
            "{}\n{} of {count} end badly:\n{}",
            report(shortest),
            bad.len(),
            all.join("\n")
        );
    }
}

/// Aloud, for whoever looks into a story.
#[test]
fn one_seed() {
    let seed = setting("WINDLASS_SIM_SEED");
    let outcome = outcome(seed.unwrap_or(1), Sabotage::None, seed.is_some());
    assert!(outcome.wrong.is_none(), "{}", report(&outcome));
    assert!(outcome.looks > 0 && outcome.decisions > 0);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 1..20 {
        let (one, other) = (
            outcome(seed, Sabotage::None, false),
            outcome(seed, Sabotage::None, false),
        );
        assert_eq!(one.hash, other.hash, "seed {seed}");
        assert_ne!(
            one.hash,
            outcome(seed + 1, Sabotage::None, false).hash,
            "seed {seed} and the next"
        );
    }
}
