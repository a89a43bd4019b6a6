//! Each sabotage of the product or the store must be detected by the rule that it breaks: a referee
//! that detects nothing proves nothing.

use crate::{on_two_threads, outcome, store::Sabotage};

/// In how many histories a sabotage must be detected.
const HISTORIES: u64 = 600;

/// Expects that a history with this sabotage has a violation with this text.
#[track_caller]
fn expect_detected(sabotage: Sabotage, text: &str) {
    let detected = on_two_threads(HISTORIES, 1, |index| {
        let violation = outcome(1 + index, sabotage, false).violation?;
        violation.contains(text).then_some(())
    });
    assert!(
        !detected.is_empty(),
        "no violation with `{text}` in {HISTORIES} histories with {sabotage:?}"
    );
}

#[test]
fn writes_without_a_fence_are_detected() {
    expect_detected(Sabotage::Unfenced, "wrote after a leader of epoch");
}

#[test]
fn lost_stop_records_are_detected() {
    expect_detected(Sabotage::LosesStops, "was deleted without a stop record");
}

#[test]
fn giving_up_silent_nodes_at_once_is_detected() {
    expect_detected(Sabotage::GivesUpAtOnce, "nodes vanished within a minute");
}

#[test]
fn deciding_after_a_write_of_unknown_outcome_is_detected() {
    expect_detected(Sabotage::NoRelist, "a pod was made, and there are");
}

#[test]
fn running_a_commit_that_was_not_verified_is_detected() {
    expect_detected(Sabotage::SkipsVerification, "which it has not verified");
}

#[test]
fn replacing_a_pod_without_its_disk_is_detected() {
    expect_detected(
        Sabotage::IgnoresDisks,
        "is stopped without reason: StopRecord",
    );
}

#[test]
fn a_recreate_that_does_not_wait_for_old_pods_is_detected() {
    expect_detected(
        Sabotage::RecreateOverlaps,
        "recreates, and a pod is made beside another",
    );
}

#[test]
fn trusting_an_older_store_is_detected() {
    expect_detected(
        Sabotage::TrustsEveryStore,
        "trusts a store that is older than what it knows",
    );
}

#[test]
fn trusting_an_empty_store_is_detected() {
    expect_detected(Sabotage::TrustsEveryStore, "trusts a store that was wiped");
}

#[test]
fn deciding_before_the_stock_is_complete_is_detected() {
    expect_detected(Sabotage::NoStock, "2 pods on node");
}

#[test]
fn starting_a_pod_again_that_was_gone_is_detected() {
    expect_detected(Sabotage::NoStock, "was gone and starts again");
}
