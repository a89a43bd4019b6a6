//! What is broken on purpose must be noticed, and by a rule that it breaks: a referee that is blind
//! proves nothing.

use crate::{on_two_threads, outcome, store::Sabotage};

/// So many stories are enough to notice it.
const STORIES: u64 = 600;

/// Some story with this sabotage ends badly, in these words.
#[track_caller]
fn is_noticed(sabotage: Sabotage, words: &str) {
    let noticed = on_two_threads(STORIES, 1, |index| {
        let wrong = outcome(1 + index, sabotage, false).wrong?;
        wrong.contains(words).then_some(())
    });
    assert!(
        !noticed.is_empty(),
        "{STORIES} stories with {sabotage:?}: the referee never says `{words}`"
    );
}

#[test]
fn writes_that_are_not_fenced_are_noticed() {
    is_noticed(Sabotage::Unfenced, "wrote after one of");
}

#[test]
fn stop_records_that_are_lost_are_noticed() {
    is_noticed(Sabotage::ForgetStops, "was forgotten without a stop record");
}

#[test]
fn nodes_given_up_in_haste_are_noticed() {
    is_noticed(Sabotage::Hasty, "nodes vanished within a minute");
}

#[test]
fn deciding_on_what_may_not_be_written_is_noticed() {
    is_noticed(Sabotage::NoRelist, "a pod was made, and there are");
}

#[test]
fn a_host_that_runs_what_it_did_not_verify_is_noticed() {
    is_noticed(Sabotage::Credulous, "which it has not verified");
}

#[test]
fn what_is_made_anew_without_its_disk_is_noticed() {
    is_noticed(Sabotage::Uproots, "is stopped without reason: StopRecord");
}

#[test]
fn what_recreates_and_does_not_wait_is_noticed() {
    is_noticed(
        Sabotage::Overlaps,
        "recreates, and one is made beside another",
    );
}

#[test]
fn a_host_that_believes_a_store_of_before_is_noticed() {
    is_noticed(
        Sabotage::Believes,
        "believes a store that is older than what it knows",
    );
}

#[test]
fn a_host_that_believes_an_empty_store_is_noticed() {
    is_noticed(Sabotage::Believes, "believes a store that was wiped");
}

#[test]
fn what_is_decided_before_stock_is_taken_is_noticed() {
    is_noticed(Sabotage::NoStock, "2 pods on node");
}

#[test]
fn what_was_gone_and_is_begun_again_is_noticed() {
    is_noticed(Sabotage::NoStock, "was gone and starts again");
}
