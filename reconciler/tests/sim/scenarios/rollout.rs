//! The life of commits: forward, back, held, pinned.

use std::time::Duration;

use reconciler::{
    cluster::roll_back,
    object::{IntOrPercent, PodSpec, RestartPolicy, Workload},
    rollout::{Head, retry},
    state::{CommitState, Phase},
};

use crate::{
    build::{
        PodSpecExt, bare, commit, commit_id, container, daemon_set, deployment, node_port, pod,
        recreate, replica_set, rolling,
    },
    daemon::Sim,
    registry::Behaviour,
};

fn sim() -> Sim {
    let mut sim = Sim::default();
    sim.registry.push("web:1", Behaviour::Fine);
    sim.registry.push("web:2", Behaviour::Fine);
    sim.registry.push("web:crash", Behaviour::ExitsAtOnce(1));
    sim.registry.push("web:deaf", Behaviour::NeverReady);
    sim.registry.push("web:broken", Behaviour::Rejected);
    sim
}

#[test]
fn the_first_push_of_a_pod_runs_and_becomes_healthy() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.expect(sim.phase() == "Preparing", "its image is pulled first");
    sim.run_seconds(5);
    sim.expect(
        sim.phase() == "Soaking" && sim.ready("web") == 1,
        "it runs within seconds",
    );
    sim.run_seconds(10);
    sim.expect_healthy("c1");
    sim.expect(
        sim.fate("c1") == Some((CommitState::Healthy, String::new())),
        "the history says so",
    );
    sim.expect_quiet();
}

#[test]
fn a_changed_pod_is_replaced_and_never_runs_twice() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    let before = sim.pod("web").uid.clone();
    sim.push(commit("c2").with(bare("web", pod("web:2"))).build());
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(
        sim.pod("web").uid != before,
        "its replacement has a new uid",
    );
    sim.expect(
        sim.host.containers.len() == 2,
        "nothing is left of the old one",
    );
    sim.expect_quiet();
}

#[test]
fn nothing_old_stops_before_all_images_of_the_commit_are_here() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    let before = sim.alive();
    sim.push(
        commit("c2")
            .with(bare("web", pod("web:2")))
            .with(bare("other", pod("nowhere:1")))
            .build(),
    );
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    sim.expect(sim.is_bad("c2"), "a missing image is the commit's fault");
    sim.expect(sim.alive() == before, "the old containers were not touched");
    sim.expect(
        sim.fate("c2")
            .is_some_and(|(state, _)| state == CommitState::RolledBack),
        "rolled back",
    );
    sim.expect_quiet();
}

#[test]
fn a_container_that_the_engine_refuses_rolls_back_at_once() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    let image = sim.image(&sim.pod("web").uid);
    sim.push(commit("c2").with(bare("web", pod("web:broken"))).build());
    sim.run_seconds(6);
    sim.expect(sim.is_target("c1"), "the verdict is immediate");
    sim.run_seconds(20);
    sim.expect_healthy("c1");
    sim.expect(
        sim.image(&sim.pod("web").uid) == image,
        "the recorded image runs again",
    );
    sim.expect_quiet();
}

#[test]
fn a_crash_loop_rolls_back_after_three_restarts() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(deployment("web", 2, pod("web:1").with_readiness()))
            .build(),
    );
    sim.run_seconds(30);
    let before = sim.uids("web");
    sim.push(
        commit("c2")
            .with(deployment("web", 2, pod("web:crash").with_readiness()))
            .build(),
    );
    sim.run_seconds(25);
    sim.expect(sim.is_target("c2"), "two restarts are not a loop");
    sim.run_seconds(40);
    sim.expect_healthy("c1");
    let reason = sim.state.rollout.bad[&commit_id("c2")].to_string();
    sim.expect(
        reason.contains("restarted 3 times") && reason.contains("exit code 1"),
        &reason,
    );
    sim.expect(sim.uids("web") == before, "the old pods never stopped");
    sim.expect_quiet();
}

#[test]
fn a_deployment_that_is_never_ready_rolls_back_at_the_dead_line() {
    let mut sim = sim();
    let good = pod("web:1").with_readiness();
    sim.push(commit("c1").with(deployment("web", 4, good)).build());
    sim.run_seconds(30);
    sim.marks = Default::default();
    sim.push(
        commit("c2")
            .with(deployment("web", 4, pod("web:deaf").with_readiness()))
            .build(),
    );
    sim.run_seconds(590);
    sim.expect(sim.is_target("c2"), "it has ten minutes");
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    sim.expect(
        sim.marks.least_ready["web"] >= 3,
        "one of four may be unavailable",
    );
    sim.expect(
        sim.marks.most_active["web"] <= 5,
        "one more than four may run",
    );
    sim.expect(sim.ready("web") == 4, "all are back");
    sim.expect_quiet();
}

#[test]
fn a_deployments_own_dead_line_wakes_the_loop() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(deployment("web", 1, pod("web:1").with_readiness()))
            .build(),
    );
    sim.run_seconds(30);
    let mut late = deployment("web", 1, pod("web:deaf").with_readiness());
    if let reconciler::object::Control::Deployment {
        progress_deadline, ..
    } = &mut late.control
    {
        *progress_deadline = Some(Duration::from_secs(60));
    }
    sim.push(commit("c2").with(late).build());
    sim.run_seconds(70);
    sim.expect(sim.is_target("c1"), "nothing but the deadline happened");
}

#[test]
fn a_roll_out_keeps_to_its_bounds_and_a_good_one_completes() {
    let mut sim = sim();
    for (index, (surge, unavailable)) in [(1, 0), (0, 1), (2, 1), (0, 3), (3, 0)]
        .into_iter()
        .enumerate()
    {
        let bounds = (IntOrPercent::Int(surge), IntOrPercent::Int(unavailable));
        let web = |image: &str| rolling("web", 5, pod(image).with_readiness(), bounds.0, bounds.1);
        sim.push(commit(&format!("a{index}")).with(web("web:1")).build());
        sim.run_seconds(120);
        sim.marks = Default::default();
        sim.push(commit(&format!("b{index}")).with(web("web:2")).build());
        sim.run_seconds(120);
        sim.expect_healthy(&format!("b{index}"));
        sim.expect(
            sim.marks.least_ready["web"] >= 5 - unavailable as usize,
            "maxUnavailable",
        );
        sim.expect(
            sim.marks.most_active["web"] <= 5 + surge as usize,
            "maxSurge",
        );
        sim.expect_quiet();
    }
}

#[test]
fn an_unreachable_registry_waits_and_is_never_the_commits_fault() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    let before = sim.alive();
    sim.registry.reachable = false;
    sim.push(commit("c2").with(bare("web", pod("web:2"))).build());
    sim.run_seconds(3600);
    sim.expect(sim.phase() == "Preparing" && !sim.is_bad("c2"), "it waits");
    sim.expect(sim.alive() == before, "the old one runs on");
    sim.registry.reachable = true;
    sim.run_seconds(400);
    sim.expect_healthy("c2");
    sim.expect_quiet();
}

#[test]
fn a_full_disk_stops_the_clock_of_the_roll_out() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(deployment("web", 2, pod("web:1").with_readiness()))
            .build(),
    );
    sim.run_seconds(30);
    sim.push(
        commit("c2")
            .with(deployment("web", 2, pod("web:2").with_readiness()))
            .build(),
    );
    sim.host.disk_full = true;
    sim.run_seconds(3600);
    sim.expect(sim.is_target("c2") && !sim.is_bad("c2"), "it waits");
    sim.host.disk_full = false;
    sim.run_seconds(600);
    sim.expect_healthy("c2");
}

/// What the rollout is waiting for, if it is.
fn waits_for(sim: &Sim) -> String {
    let rollout = &sim.state.rollout;
    match &rollout.phase {
        Phase::Progressing { message } if rollout.waiting => message.to_string(),
        phase => format!("{phase:?}, waiting: {}", rollout.waiting),
    }
}

#[test]
fn an_old_pod_that_the_engine_cannot_remove_is_waited_for_and_not_the_commits_fault() {
    let kinds: [fn(&str, PodSpec) -> Workload; 4] = [
        bare,
        daemon_set,
        |name, spec| recreate(name, 1, spec),
        |name, spec| deployment(name, 1, spec),
    ];
    for kind in kinds {
        let mut sim = sim();
        sim.registry.push("other:1", Behaviour::Fine);
        sim.registry.push("other:2", Behaviour::Fine);
        let of = |id: &str, web: &str, other: &str| {
            commit(id)
                .with(kind("web", pod(web)))
                .with(deployment("other", 2, pod(other)))
                .build()
        };
        sim.push(of("c1", "web:1", "other:1"));
        sim.run_seconds(60);
        sim.expect_healthy("c1");
        let old = sim.pods("web")[0].key.name.clone();
        sim.host.stuck.insert(sim.main("web"));

        sim.push(of("c2", "web:2", "other:2"));
        sim.run_seconds(1800);
        sim.expect(
            !sim.is_bad("c2") && sim.is_target("c2"),
            "it is not called bad",
        );
        let message = waits_for(&sim);
        let wanted = format!("the old pod {old} has been stopping for ");
        sim.expect(
            message.contains(&wanted) && message.contains(" min: StopFailed"),
            &message,
        );
        sim.expect(sim.ready("other") == 2, "the others went on");
        let (state, reason) = sim.fate("c2").unwrap();
        sim.expect(
            state == CommitState::Progressing && reason.contains("StopFailed"),
            &reason,
        );
        // It is tried again at least every minute.
        let failed = sim
            .failures
            .values()
            .map(|failure| failure.at)
            .max()
            .unwrap();
        sim.expect(
            sim.now.duration_since(failed).as_secs() <= 61,
            "the last try was long ago",
        );

        sim.host.stuck.clear();
        sim.run_seconds(120);
        sim.expect_healthy("c2");
        sim.expect(
            sim.fate("c2") == Some((CommitState::Healthy, String::new())),
            "the history says so",
        );
        sim.expect_quiet();
    }
}

#[test]
fn the_dead_line_counts_again_once_the_old_pod_is_gone() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(60);
    sim.host.stuck.insert(sim.main("web"));
    sim.push(
        commit("c2")
            .with(bare("web", pod("web:deaf").with_readiness()))
            .build(),
    );
    sim.run_seconds(1800);
    sim.expect(!sim.is_bad("c2"), "its own pod could not begin yet");
    sim.host.stuck.clear();
    sim.run_seconds(500);
    sim.expect(!sim.is_bad("c2"), "the time that it waited does not count");
    sim.run_seconds(300);
    sim.expect(sim.is_bad("c2"), "what follows does");
}

#[test]
fn a_pod_that_is_not_ready_has_its_dead_line_whatever_stops_beside_it() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(deployment("web", 4, pod("web:1")))
            .build(),
    );
    sim.run_seconds(60);
    sim.host.stuck.extend(sim.alive());
    sim.push(
        commit("c2")
            .with(deployment("web", 4, pod("web:deaf").with_readiness()))
            .build(),
    );
    sim.run_seconds(800);
    sim.expect(sim.is_bad("c2"), "its new pods do not become ready");
}

#[test]
fn a_pod_whose_host_port_an_old_one_still_holds_is_no_fault_of_the_commit() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(bare("old", pod("web:1").with_host_port(80)))
            .build(),
    );
    sim.run_seconds(60);
    sim.host.stuck.insert(sim.main("old"));
    sim.push(
        commit("c2")
            .with(bare("new", pod("web:2").with_host_port(80)))
            .build(),
    );
    sim.run_seconds(1800);
    sim.expect(
        !sim.is_bad("c2") && sim.is_target("c2"),
        "it is not called bad",
    );
    let message = waits_for(&sim);
    sim.expect(
        message.contains("while the old pod old has been stopping"),
        &message,
    );
    sim.host.stuck.clear();
    sim.run_seconds(120);
    sim.expect_healthy("c2");
}

#[test]
fn what_is_left_of_an_ended_pod_is_cleaned_up_at_a_slow_pace() {
    let mut sim = sim();
    sim.registry
        .push("job:1", Behaviour::Ends(Duration::from_secs(5), 0));
    let once = pod("job:1").with_policy(RestartPolicy::Never);
    sim.push(commit("c1").with(bare("job", once)).build());
    sim.run_seconds(4);
    let sandbox = sim.sandbox(&sim.pod("job").uid.clone()).unwrap();
    sim.host.stuck.insert(sandbox.clone());
    sim.run_seconds(600);
    let tries = sim
        .failures
        .values()
        .map(|failure| failure.count)
        .max()
        .unwrap_or_default();
    sim.expect(
        (5..=20).contains(&tries),
        &format!("{tries} tries in ten minutes"),
    );
    sim.host.stuck.clear();
    sim.run_seconds(61);
    sim.expect(
        !sim.host.containers.contains_key(&sandbox),
        "its sandbox is gone",
    );
}

#[test]
fn the_next_push_after_a_bad_one_is_tried_afresh() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    sim.push(commit("c2").with(bare("web", pod("nowhere:1"))).build());
    sim.run_seconds(60);
    sim.expect(sim.is_bad("c2"), "bad");
    sim.push(commit("c3").with(bare("web", pod("web:2"))).build());
    sim.run_seconds(60);
    sim.expect_healthy("c3");
}

#[test]
fn a_retry_asks_for_the_images_again_and_succeeds_when_they_are_there() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    sim.push(commit("c2").with(bare("web", pod("late:1"))).build());
    sim.run_seconds(60);
    sim.expect(sim.is_bad("c2"), "bad");
    sim.registry.push("late:1", Behaviour::Fine);
    sim.state.rollout.bad.clear();
    sim.cycle();
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect_quiet();
}

#[test]
fn a_bad_first_commit_is_degraded_and_recovers_when_it_comes_up() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("late:1"))).build());
    sim.run_seconds(60);
    sim.expect(
        sim.phase() == "Degraded" && sim.is_bad("c1"),
        "there is nothing to go back to",
    );
    sim.registry.push("late:1", Behaviour::Fine);
    sim.run_seconds(400);
    sim.expect_healthy("c1");
    sim.expect(!sim.is_bad("c1"), "it is not bad any more");
    sim.expect(
        sim.fate("c1")
            .is_some_and(|(state, _)| state == CommitState::Healthy),
        "history",
    );
    sim.expect_quiet();
}

#[test]
fn a_rollback_that_fails_is_degraded_and_not_rolled_back_further() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    sim.push(commit("c2").with(bare("web", pod("web:broken"))).build());
    let image = sim.image(&sim.pod("web").uid);
    sim.host.images.insert(image, Behaviour::Rejected);
    sim.run_seconds(60);
    sim.expect(
        sim.phase() == "Degraded" && sim.is_target("c1"),
        "degraded on the healthy commit",
    );
    sim.expect(!sim.is_bad("c1"), "what was healthy once is not bad");
    sim.run_seconds(3600);
    sim.expect(sim.phase() == "Degraded" && sim.is_target("c1"), "it stays");
}

#[test]
fn deletions_over_the_budget_are_held_until_a_commit_says_that_they_are_meant() {
    let mut sim = sim();
    let all = ["a", "b", "c", "d"].into_iter();
    let four = all.fold(commit("c1"), |commit, name| {
        commit.with(bare(name, pod("web:1")))
    });
    sim.push(four.build());
    sim.run_seconds(30);
    let before = sim.alive();
    sim.push(commit("c2").with(bare("a", pod("web:1"))).build());
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    sim.expect(
        sim.fate("c2")
            .is_some_and(|(state, _)| state == CommitState::Held),
        "held",
    );
    sim.expect(sim.alive() == before, "nothing stopped");
    sim.expect_quiet();
    sim.push(
        commit("c3")
            .with(bare("a", pod("web:1")))
            .allow_deletions()
            .build(),
    );
    sim.run_seconds(60);
    sim.expect_healthy("c3");
    sim.expect(
        sim.state.pods.len() == 1 && sim.host.containers.len() == 2,
        "only one is left",
    );
    sim.expect_quiet();
}

#[test]
fn one_workload_may_always_be_deleted() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(bare("a", pod("web:1")))
            .with(bare("b", pod("web:1")))
            .build(),
    );
    sim.run_seconds(30);
    sim.push(commit("c2").with(bare("a", pod("web:1"))).build());
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(sim.state.pods.len() == 1, "b is gone");
}

#[test]
fn a_refused_head_changes_nothing_and_is_recorded_once() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    let before = sim.alive();
    sim.head = Head::Refused {
        commit: commit_id("c2"),
        subject: "Change".to_owned(),
        reason: "not signed".to_owned(),
    };
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    sim.expect(sim.alive() == before, "nothing stopped");
    sim.expect(
        sim.fate("c2") == Some((CommitState::Refused, "not signed".to_owned())),
        "recorded",
    );
    sim.expect(sim.state.rollout.history.len() == 2, "once");
    sim.head = Head::Unknown;
    sim.run_seconds(60);
    sim.expect_healthy("c1");
}

#[test]
fn a_manual_rollback_is_pinned_until_the_head_moves() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    let image = sim.image(&sim.pod("web").uid);
    sim.push(commit("c2").with(bare("web", pod("web:2"))).build());
    sim.run_seconds(30);
    sim.state.rollout = roll_back(&sim.state.rollout, commit_id("c1"), sim.now);
    sim.cycle();
    sim.run_seconds(120);
    sim.expect_healthy("c1");
    sim.expect(
        sim.image(&sim.pod("web").uid) == image,
        "the recorded image",
    );
    sim.expect(!sim.is_bad("c2"), "nobody said that it is bad");
    sim.expect_quiet();
    sim.push(commit("c3").with(bare("web", pod("web:2"))).build());
    sim.run_seconds(60);
    sim.expect_healthy("c3");
}

#[test]
fn a_manual_rollback_stays_while_a_held_head_is_there() {
    let mut sim = sim();
    let three = |id: &str| {
        commit(id)
            .with(bare("a", pod("web:1")))
            .with(bare("b", pod("web:1")))
            .with(bare("c", pod("web:1")))
    };
    sim.push(
        commit("c1")
            .with(bare("a", pod("web:1")))
            .with(bare("b", pod("web:1")))
            .build(),
    );
    sim.run_seconds(30);
    sim.push(three("c2").with(bare("d", pod("web:1"))).build());
    sim.run_seconds(30);
    sim.push(commit("c3").with(bare("a", pod("web:2"))).build());
    sim.run_seconds(5);
    sim.expect(
        sim.fate("c3")
            .is_some_and(|(state, _)| state == CommitState::Held),
        "held",
    );
    sim.state.rollout = roll_back(&sim.state.rollout, commit_id("c1"), sim.now);
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c1");
}

#[test]
fn a_suspended_daemon_takes_no_commit_and_keeps_healing() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    sim.state.rollout.suspended = true;
    sim.push(commit("c2").with(bare("web", pod("web:2"))).build());
    let main = sim.main("web");
    sim.host.remove(&main);
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    sim.expect(sim.ready("web") == 1, "healed");
    sim.state.rollout.suspended = false;
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c2");
}

#[test]
fn a_newer_push_takes_the_place_of_one_under_way() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    sim.push(
        commit("c2")
            .with(bare("web", pod("web:deaf").with_readiness()))
            .build(),
    );
    sim.run_seconds(20);
    sim.push(commit("c3").with(bare("web", pod("web:2"))).build());
    sim.run_seconds(30);
    sim.expect_healthy("c3");
    sim.expect(
        sim.fate("c2")
            .is_some_and(|(state, _)| state == CommitState::Superseded),
        "superseded",
    );
    sim.expect(!sim.is_bad("c2"), "not judged");
}

#[test]
fn a_commit_that_changes_no_workload_is_healthy_at_once_and_touches_nothing() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    let before = sim.alive();
    sim.push(
        commit("c2")
            .with(bare("web", pod("web:1")))
            .config_map("unused", "x")
            .build(),
    );
    sim.run_seconds(1);
    sim.expect_healthy("c2");
    sim.expect(sim.alive() == before, "nothing was touched");
    sim.expect_quiet();
}

#[test]
fn old_crashes_of_a_running_pod_are_not_held_against_a_rollback() {
    let mut sim = sim();
    sim.registry.push(
        "odd:1",
        Behaviour::FailsLivenessAfter(Duration::from_secs(100)),
    );
    let odd = pod("odd:1").with_liveness();
    sim.push(commit("c1").with(bare("odd", odd.clone())).build());
    sim.run_seconds(1000);
    sim.expect_healthy("c1");
    sim.expect(
        sim.status(&sim.pod("odd").uid).restarts() >= 3,
        "it has restarted often",
    );
    let mut two = odd;
    two.containers.push(container("more", "nowhere:1"));
    sim.push(commit("c2").with(bare("odd", two)).build());
    sim.run_seconds(60);
    sim.expect(
        sim.is_target("c1") && sim.phase() != "Degraded",
        "back on a pod that still runs",
    );
}

#[test]
fn a_daemon_that_was_away_past_the_dead_line_looks_before_it_judges() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(deployment("web", 1, pod("web:1").with_readiness()))
            .build(),
    );
    sim.run_seconds(30);
    let slow = sim
        .registry
        .push("web:slow", Behaviour::SlowReady(Duration::from_secs(120)));
    sim.push(
        commit("c2")
            .with(deployment("web", 1, pod("web:slow").with_readiness()))
            .build(),
    );
    sim.run_seconds(20);
    sim.now += Duration::from_secs(3600);
    sim.crash(false);
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    sim.expect(sim.image(&sim.pod("web").uid) == slow, "the new one");
}

#[test]
fn a_commit_that_is_not_in_the_clone_is_waited_for() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(replica_set("web", 2, pod("web:1")))
            .build(),
    );
    sim.run_seconds(5);
    let kept = std::mem::take(&mut sim.commits);
    let before = sim.alive();
    sim.head = Head::Unknown;
    sim.crash(false);
    sim.run_seconds(3600);
    sim.expect(
        sim.phase() != "Healthy" && sim.alive() == before,
        "it is not called healthy, and it runs on",
    );
    sim.commits = kept;
    sim.crash(false);
    sim.run_seconds(60);
    sim.expect_healthy("c1");
}

#[test]
fn a_commit_that_reads_as_another_one_stops_no_more_than_the_budget_allows() {
    let mut sim = sim();
    let names = ["a", "b", "c", "d"];
    let of = |id: &str, names: &[&str]| {
        names.iter().fold(commit(id), |commit, name| {
            commit.with(bare(name, pod("web:1")))
        })
    };
    sim.push(of("c1", &names).build());
    sim.run_seconds(30);
    let before = sim.alive();
    // As after a change of `source.paths`: the same commit, other content.
    sim.commits
        .insert(commit_id("c1"), of("c1", &["a"]).build());
    sim.crash(false);
    sim.run_seconds(60);
    sim.expect(sim.alive() == before, "nothing stopped");
    let held = sim.ask_cluster().held;
    sim.expect(
        held.as_ref()
            .is_some_and(|held| held.workloads.len() == 3 && held.running == 4),
        &format!("{held:?}"),
    );
    sim.expect_quiet();
    sim.push(of("c2", &["a"]).allow_deletions().build());
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    sim.expect(
        sim.state.pods.len() == 1 && sim.ask_cluster().held.is_none(),
        "meant",
    );
}

#[test]
fn what_commits_took_away_one_after_the_other_is_not_held() {
    let mut sim = sim();
    let of = |id: &str, names: &[&str]| {
        names
            .iter()
            .fold(commit(id), |commit, name| {
                commit.with(bare(name, pod("web:1")))
            })
            .build()
    };
    sim.push(of("c1", &["a"]));
    sim.run_seconds(30);
    // A bad commit with much that is new: going back takes all of it away again.
    let names = ["a", "b", "c", "d", "e"];
    let bad = names.iter().fold(commit("c2"), |commit, name| {
        commit.with(bare(name, pod("web:1")))
    });
    sim.push(bad.with(bare("f", pod("web:crash"))).build());
    sim.run_seconds(120);
    sim.expect_healthy("c1");
    sim.expect(
        sim.state.pods.len() == 1 && sim.ask_cluster().held.is_none(),
        "only what was there before",
    );
    sim.expect(sim.state.rollout.left.is_empty(), "nothing is left of it");
}

#[test]
fn what_fails_for_no_known_reason_has_until_the_dead_line() {
    let mut sim = sim();
    sim.registry.push("web:hook", Behaviour::HookFails);
    sim.push(
        commit("c1")
            .with(deployment("web", 1, pod("web:1").with_readiness()))
            .build(),
    );
    sim.run_seconds(30);
    let mut late = deployment("web", 1, pod("web:hook").with_post_start());
    if let reconciler::object::Control::Deployment {
        progress_deadline, ..
    } = &mut late.control
    {
        *progress_deadline = Some(Duration::from_secs(15));
    }
    sim.push(commit("c2").with(late).build());
    sim.run_seconds(40);
    sim.expect(sim.is_bad("c2"), "a hook that fails is not waited for");
    sim.run_seconds(60);
    sim.expect_healthy("c1");
}

#[test]
fn what_was_driven_on_the_way_is_judged_too() {
    let mut sim = sim();
    let web =
        |id: &str, image: &str| commit(id).with(deployment("web", 1, pod(image).with_readiness()));
    sim.push(web("c1", "web:1").build());
    sim.run_seconds(30);
    sim.push(web("c2", "web:deaf").build());
    sim.run_seconds(20);
    // The workloads of c1 again: nothing differs from the healthy commit, and pods of c2 are still
    // there.
    sim.push(
        web("c3", "web:1")
            .service("web", "web", node_port(None))
            .build(),
    );
    sim.expect(sim.state.pods.len() == 2, "one of c2 is still there");
    sim.run_seconds(1);
    sim.expect(sim.phase() != "Healthy", "it must settle and soak");
    sim.run_seconds(60);
    sim.expect_healthy("c3");
    sim.expect(sim.state.rollout.left.is_empty(), "nothing is left behind");
    sim.expect_quiet();
}

#[test]
fn a_bad_commit_does_not_go_on_because_the_next_one_waits_for_the_registry() {
    let mut sim = sim();
    let web = |id: &str, image: &str| commit(id).with(bare("web", pod(image))).build();
    sim.push(web("c1", "web:1"));
    sim.run_seconds(30);
    sim.push(web("c2", "web:crash"));
    sim.run_seconds(5);
    sim.registry.reachable = false;
    sim.push(web("c3", "web:2"));
    sim.run_seconds(120);
    sim.expect(sim.is_bad("c2"), "it is judged all the same");
    sim.expect(
        sim.fate("c2")
            .is_some_and(|(state, _)| state == CommitState::RolledBack),
        "history",
    );
    sim.expect(
        sim.is_target("c3") && sim.phase() == "Preparing",
        "the next one is still wanted",
    );
    sim.expect(sim.ready("web") == 1, "what was healthy runs again");
    sim.registry.reachable = true;
    sim.run_seconds(400);
    sim.expect_healthy("c3");
    sim.expect_quiet();
}

#[test]
fn a_head_that_went_back_to_the_healthy_commit_needs_no_registry() {
    let mut sim = sim();
    let web = |id: &str, image: &str| commit(id).with(bare("web", pod(image))).build();
    sim.push(web("c1", "web:1"));
    sim.run_seconds(30);
    sim.push(web("c2", "web:crash"));
    sim.run_seconds(5);
    sim.registry.reachable = false;
    sim.push(web("c1", "web:1"));
    sim.run_seconds(120);
    sim.expect_healthy("c1");
    sim.expect_quiet();
}

#[test]
fn a_retry_of_a_degraded_commit_prepares_it_again() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("late:1"))).build());
    sim.run_seconds(60);
    sim.expect(
        sim.phase() == "Degraded" && sim.is_bad("c1"),
        "there is nothing to go back to",
    );
    let now = sim.now;
    let cleared = retry(&mut sim.state.rollout, None, now);
    sim.expect(cleared == 1 && !sim.is_bad("c1"), "the mark is cleared");
    sim.cycle();
    sim.expect(sim.phase() == "Preparing", "it is tried afresh");
    sim.run_seconds(10);
    sim.expect(
        sim.phase() == "Degraded" && sim.is_bad("c1"),
        "and fails again",
    );
    sim.registry.push("late:1", Behaviour::Fine);
    let now = sim.now;
    retry(&mut sim.state.rollout, Some(&commit_id("c1")), now);
    sim.cycle();
    sim.run_seconds(30);
    sim.expect_healthy("c1");
    sim.expect(
        sim.fate("c1")
            .is_some_and(|(state, _)| state == CommitState::Healthy),
        "history",
    );
    sim.expect(sim.state.rollout.history.len() == 1, "one entry");
    sim.expect_quiet();
}

#[test]
fn marks_of_bad_commits_and_restarts_of_what_has_left_do_not_pile_up() {
    let mut sim = sim();
    let good = |id: &str, more: &str| {
        commit(id)
            .with(bare("web", pod("web:1")))
            .with(bare(more, pod("web:1")))
    };
    sim.push(good("c1", "old").build());
    sim.run_seconds(30);
    let owner = sim.pod("old").owner.clone();
    sim.state.rollout.restarts.insert(owner, sim.state.serial);
    sim.cycle();
    for number in 0..80 {
        sim.push(
            commit(&format!("bad{number}"))
                .with(bare("web", pod("nowhere:1")))
                .allow_deletions()
                .build(),
        );
        sim.run_seconds(60);
    }
    sim.expect(
        sim.state.rollout.bad.len() < 60 && sim.is_bad("bad79"),
        "as many as the history has",
    );
    sim.push(good("c2", "new").build());
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    sim.expect(
        sim.state.rollout.restarts.is_empty(),
        "nobody restarts what is not there",
    );
}
