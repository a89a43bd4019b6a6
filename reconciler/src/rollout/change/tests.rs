use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    foreign::ForeignText,
    ids::commit_id,
    name::NodeName,
    state::{FailureClass, HistoryEntry, Share, Shares, Wave},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

fn some(name: &str) -> Option<CommitId> {
    Some(commit_id(name))
}

fn failure() -> Failure {
    Failure {
        class: FailureClass::Manual,
        reason: FailureReason::Images(ForeignText::new("no such image")),
    }
}

fn degraded() -> Phase {
    Phase::Degraded {
        message: failure().reason.into(),
    }
}

fn entry(name: &str, state: CommitState) -> HistoryEntry {
    HistoryEntry {
        commit: commit_id(name),
        subject: String::new(),
        signer: String::new(),
        state,
        reason: CommitReason::None.into(),
        class: None,
        began: at(1),
        ended: None,
    }
}

#[test]
fn a_retry_clears_the_marks_that_it_names_and_prepares_a_degraded_target_again() {
    // The commit that is named, how many marks are cleared, which stay, and whether c1 is
    // prepared again.
    let cases = [
        (None, 3, vec![], true),
        (some("c1"), 1, vec!["c2", "c3"], true),
        (some("c2"), 1, vec!["c1", "c3"], false),
        (some("c9"), 0, vec!["c1", "c2", "c3"], false),
    ];
    for (named, cleared, left, prepared) in cases {
        let reason = || Stored::from(failure().reason);
        let mut rollout = Rollout {
            target: some("c1"),
            phase: degraded(),
            began: Some(at(1)),
            since: Some(at(2)),
            failing: Some(at(2)),
            bad: ["c1", "c2", "c3"]
                .map(|name| (commit_id(name), reason()))
                .into(),
            history: vec![entry("c1", CommitState::Degraded)],
            ..Rollout::default()
        };
        assert_eq!(retry(&mut rollout, named.as_ref(), at(9)), cleared);
        let marks: Vec<&CommitId> = rollout.bad.keys().collect();
        let left: Vec<CommitId> = left.into_iter().map(commit_id).collect();
        assert_eq!(marks, left.iter().collect::<Vec<_>>(), "{named:?}");
        let state = rollout.history[0].state;
        let times = (rollout.began, rollout.since, rollout.failing);
        if prepared {
            assert_eq!(rollout.phase, Phase::preparing());
            assert_eq!(state, CommitState::Progressing);
            assert_eq!(times, (Some(at(9)), Some(at(9)), None));
        } else {
            assert_eq!(rollout.phase, degraded());
            assert_eq!(state, CommitState::Degraded);
            assert_eq!(times, (Some(at(1)), Some(at(2)), Some(at(2))));
        }
    }

    let mut healthy = Rollout {
        target: some("c1"),
        phase: Phase::Healthy,
        ..Rollout::default()
    };
    assert_eq!(retry(&mut healthy, None, at(9)), 0);
    assert_eq!(healthy.phase, Phase::Healthy, "only a degraded target");
}

#[test]
fn the_commits_before_are_named_once_newest_first_and_without_the_driving_one() {
    let mut rollout = Rollout {
        healthy: some("c1"),
        driving: some("c4"),
        left: ["c2", "c3", "c4"].map(commit_id).into(),
        ..Rollout::default()
    };
    let names =
        |rollout: &Rollout| -> Vec<CommitId> { rollout.before().into_iter().cloned().collect() };
    assert_eq!(names(&rollout), ["c3", "c2", "c1"].map(commit_id));
    assert_eq!(rollout.base(), some("c1"));

    rollout.rollback = Some(Rollback {
        from: commit_id("c5"),
        reason: failure().reason.into(),
        class: FailureClass::Manual,
    });
    assert_eq!(names(&rollout), ["c3", "c2", "c5", "c1"].map(commit_id));
    assert_eq!(rollout.base(), some("c5"));
    rollout.healthy = some("c3");
    assert_eq!(names(&rollout), ["c3", "c2", "c5"].map(commit_id));
    assert_eq!(Rollout::default().before(), Vec::<&CommitId>::new());
}

#[test]
fn a_rollout_is_under_way_until_its_driving_commit_is_healthy_or_degraded() {
    let phases = [
        (Phase::Empty, false),
        (Phase::Healthy, false),
        (degraded(), false),
        (Phase::progressing(Activity::RollingBack), true),
        (Phase::Soaking, true),
    ];
    for (phase, expected) in phases {
        let rollout = Rollout {
            phase,
            ..Rollout::default()
        };
        assert_eq!(rollout.is_under_way(), expected, "{:?}", rollout.phase);
    }

    // While a newer commit is prepared, the last entry of the driving commit decides.
    let histories = [
        (vec![], true),
        (vec![("c2", CommitState::Degraded)], true),
        (vec![("c1", CommitState::Degraded)], false),
        (vec![("c1", CommitState::Superseded)], true),
        (
            vec![
                ("c1", CommitState::Degraded),
                ("c1", CommitState::Progressing),
            ],
            true,
        ),
    ];
    for (history, expected) in histories {
        let entries = history.iter().map(|(name, state)| entry(name, *state));
        let rollout = Rollout {
            driving: some("c1"),
            target: some("c2"),
            phase: Phase::preparing(),
            history: entries.collect(),
            ..Rollout::default()
        };
        assert_eq!(rollout.is_under_way(), expected, "{history:?}");
    }
}

#[test]
fn only_a_driving_commit_between_the_healthy_one_and_the_target_is_judged_as_superseded() {
    // Phase, healthy commit, driving commit, and whether the driving commit is judged; c3 is
    // the target.
    let cases = [
        (Phase::preparing(), some("c1"), some("c2"), true),
        (Phase::Soaking, some("c1"), some("c2"), false),
        (Phase::preparing(), None, some("c2"), false),
        (Phase::preparing(), some("c1"), None, false),
        (Phase::preparing(), some("c1"), some("c3"), false),
        (Phase::preparing(), some("c2"), some("c2"), false),
    ];
    for (phase, healthy, driving, expected) in cases {
        let rollout = Rollout {
            target: some("c3"),
            healthy,
            driving,
            phase,
            ..Rollout::default()
        };
        assert_eq!(rollout.judges_superseded(), expected, "{rollout:?}");
    }
}

#[test]
fn a_superseded_commit_that_fails_is_bad_and_the_healthy_one_is_driven() {
    for target in ["c1", "c3"] {
        let mut rollout = Rollout {
            target: some(target),
            healthy: some("c1"),
            driving: some("c2"),
            phase: Phase::preparing(),
            clock: Some(at(1)),
            waiting: true,
            history: vec![entry("c2", CommitState::Superseded)],
            ..Rollout::default()
        };
        rollout.give_up_superseded(&failure(), at(9));
        assert_eq!(rollout.driving, some("c1"));
        assert_eq!(rollout.left, [commit_id("c2")]);
        assert_eq!((rollout.clock, rollout.waiting), (Some(at(9)), false));
        assert_eq!(rollout.history[0].state, CommitState::RolledBack);
        let bad = BTreeMap::from([(commit_id("c2"), failure().reason.into())]);
        assert_eq!(rollout.bad, bad);
        let phase = if target == "c1" {
            Phase::progressing(Activity::RollingBack)
        } else {
            Phase::preparing()
        };
        assert_eq!(rollout.phase, phase, "{target}");
    }
}

#[test]
fn a_commit_that_is_driven_anew_forgets_the_nodes_of_the_one_before() {
    let wave = Wave {
        nodes: BTreeSet::new(),
        since: at(1),
        broken: BTreeSet::new(),
        settled: Some(at(8)),
    };
    let mut rollout = Rollout {
        driving: some("c0"),
        wave: Some(wave.clone()),
        ..Rollout::default()
    };
    rollout.drive(commit_id("c0"));
    assert_eq!(rollout.wave, Some(wave), "it was driven already");
    assert!(rollout.left.is_empty());

    for number in 1..=10 {
        rollout.drive(commit_id(&format!("c{number}")));
    }
    assert_eq!(rollout.wave, None);
    let newest = ["c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"].map(commit_id);
    assert_eq!(rollout.left, newest);

    rollout.drive(commit_id("c5"));
    let newest = ["c2", "c3", "c4", "c6", "c7", "c8", "c9", "c10"].map(commit_id);
    assert_eq!(rollout.driving, some("c5"));
    assert_eq!(rollout.left, newest);
}

/// A rollout with every stored time at these seconds.
fn with_times(seconds: i64, phase: Phase) -> Rollout {
    let time = Some(at(seconds));
    let share = Share {
        pods: BTreeSet::new(),
        spare: BTreeSet::new(),
        number: 1,
        since: at(seconds),
        behind: time,
    };
    Rollout {
        phase,
        since: time,
        clock: time,
        failing: time,
        wave: Some(Wave {
            nodes: BTreeSet::new(),
            since: at(1),
            broken: BTreeSet::new(),
            settled: time,
        }),
        shares: Some(Shares {
            commit: commit_id("c1"),
            began: None,
            first: 1,
            number: 1,
            everywhere: false,
            among: BTreeSet::new(),
            nodes: BTreeMap::from([(NodeName::new("a"), share)]),
            off: BTreeMap::new(),
        }),
        ..Rollout::default()
    }
}

#[test]
fn no_stored_time_is_later_than_the_present() {
    let mut ahead = with_times(90, Phase::Soaking);
    ahead.limit_times_to(at(50));
    assert_eq!(ahead, with_times(50, Phase::Soaking));
    let mut past = with_times(20, Phase::Soaking);
    past.limit_times_to(at(50));
    assert_eq!(past, with_times(20, Phase::Soaking));
}

#[test]
fn after_a_gap_all_deadlines_that_run_count_from_the_present() {
    for phase in [
        Phase::preparing(),
        Phase::progressing(Activity::RollingBack),
        Phase::Soaking,
    ] {
        let after = with_times(20, phase.clone()).after_gap(at(50));
        assert_eq!(after, Some(with_times(50, phase)));
    }
    for phase in [Phase::Empty, Phase::Healthy, degraded()] {
        assert_eq!(with_times(20, phase).after_gap(at(50)), None);
    }
    let mut without = with_times(20, Phase::Soaking);
    (without.clock, without.failing) = (None, None);
    let after = without.after_gap(at(50)).expect("a phase with a deadline");
    assert_eq!((after.clock, after.failing), (None, None), "none runs");
}
