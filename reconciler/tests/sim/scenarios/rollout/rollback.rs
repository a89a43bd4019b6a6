//! Bad commits: rollbacks by the leader and by a person, and retries.

use std::time::Duration;

use reconciler::{cluster::roll_back, rollout::retry, state::CommitState};

use super::sim;
use crate::{
    build::{PodSpecExt, bare, commit, commit_id, container, deployment, pod},
    registry::Behaviour,
};

#[test]
fn a_container_that_the_engine_refuses_rolls_back_at_once() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);

    let image = sim.image(&sim.pod("web").uid);
    sim.push(commit("c2").with(bare("web", pod("web:broken"))).build());
    sim.run_seconds(6);
    sim.expect(sim.is_target("c1"), "the commit is rolled back at once");
    sim.run_seconds(20);
    sim.expect_healthy("c1");
    sim.expect(
        sim.image(&sim.pod("web").uid) == image,
        "the recorded image runs again",
    );
    sim.expect_idle();
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
    sim.expect(sim.is_target("c2"), "two restarts are not a crash loop");
    sim.run_seconds(40);
    sim.expect_healthy("c1");
    let reason = sim.state.rollout.bad[&commit_id("c2")].to_string();
    sim.expect(
        reason.contains("restarted 3 times") && reason.contains("exit code 1"),
        &reason,
    );
    sim.expect(sim.uids("web") == before, "the old pods never stopped");
    sim.expect_idle();
}

#[test]
fn the_commit_after_a_bad_one_is_tried() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    sim.push(commit("c2").with(bare("web", pod("nowhere:1"))).build());
    sim.run_seconds(60);
    sim.expect(sim.is_bad("c2"), "the commit is bad");
    sim.push(commit("c3").with(bare("web", pod("web:2"))).build());
    sim.run_seconds(60);
    sim.expect_healthy("c3");
}

#[test]
fn a_retry_pulls_the_images_again_and_succeeds_if_they_exist() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);

    sim.push(commit("c2").with(bare("web", pod("late:1"))).build());
    sim.run_seconds(60);
    sim.expect(sim.is_bad("c2"), "the commit is bad");
    sim.registry.push("late:1", Behaviour::Fine);

    sim.state.rollout.bad.clear();
    sim.cycle();
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect_idle();
}

#[test]
fn a_bad_first_commit_is_degraded_and_recovers_when_its_pods_run() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("late:1"))).build());
    sim.run_seconds(60);
    sim.expect(
        sim.phase() == "Degraded" && sim.is_bad("c1"),
        "there is no healthy commit to go back to",
    );
    sim.registry.push("late:1", Behaviour::Fine);
    sim.run_seconds(400);
    sim.expect_healthy("c1");
    sim.expect(!sim.is_bad("c1"), "the commit is not bad any more");
    sim.expect(
        sim.outcome("c1")
            .is_some_and(|(state, _)| state == CommitState::Healthy),
        "history",
    );
    sim.expect_idle();
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
    sim.expect(!sim.is_bad("c1"), "a commit that was healthy is not bad");
    sim.run_seconds(3600);
    sim.expect(
        sim.phase() == "Degraded" && sim.is_target("c1"),
        "the rollout stays degraded",
    );
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
        "the recorded image runs",
    );
    sim.expect(
        !sim.is_bad("c2"),
        "a manual rollback does not make the commit bad",
    );
    sim.expect_idle();

    sim.push(commit("c3").with(bare("web", pod("web:2"))).build());
    sim.run_seconds(60);
    sim.expect_healthy("c3");
}

#[test]
fn a_manual_rollback_stays_while_the_head_is_held() {
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
        sim.outcome("c3")
            .is_some_and(|(state, _)| state == CommitState::Held),
        "held",
    );

    sim.state.rollout = roll_back(&sim.state.rollout, commit_id("c1"), sim.now);
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c1");
}

#[test]
fn earlier_restarts_of_a_running_pod_do_not_fail_a_rollback() {
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
        "the pod has restarted often",
    );
    let mut two = odd;
    two.containers.push(container("more", "nowhere:1"));

    sim.push(commit("c2").with(bare("odd", two)).build());
    sim.run_seconds(60);
    sim.expect(
        sim.is_target("c1") && sim.phase() != "Degraded",
        "the rollback keeps the running pod",
    );
}

#[test]
fn a_bad_commit_is_rolled_back_while_the_next_one_waits_for_the_registry() {
    let mut sim = sim();
    let web = |id: &str, image: &str| commit(id).with(bare("web", pod(image))).build();
    sim.push(web("c1", "web:1"));
    sim.run_seconds(30);

    sim.push(web("c2", "web:crash"));
    sim.run_seconds(5);
    sim.registry.reachable = false;

    sim.push(web("c3", "web:2"));
    sim.run_seconds(120);
    sim.expect(sim.is_bad("c2"), "c2 is judged");
    sim.expect(
        sim.outcome("c2")
            .is_some_and(|(state, _)| state == CommitState::RolledBack),
        "history",
    );
    sim.expect(
        sim.is_target("c3") && sim.phase() == "Preparing",
        "c3 is still the target",
    );
    sim.expect(
        sim.ready("web") == 1,
        "the pod of the healthy commit runs again",
    );
    sim.registry.reachable = true;
    sim.run_seconds(400);
    sim.expect_healthy("c3");
    sim.expect_idle();
}

#[test]
fn a_head_that_returns_to_the_healthy_commit_needs_no_registry() {
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
    sim.expect_idle();
}

#[test]
fn a_retry_of_a_degraded_commit_prepares_it_again() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("late:1"))).build());
    sim.run_seconds(60);
    sim.expect(
        sim.phase() == "Degraded" && sim.is_bad("c1"),
        "there is no healthy commit to go back to",
    );
    let now = sim.now;
    let cleared = retry(&mut sim.state.rollout, None, now);
    sim.expect(
        cleared == 1 && !sim.is_bad("c1"),
        "the commit is not bad after the retry",
    );
    sim.cycle();
    sim.expect(sim.phase() == "Preparing", "the commit is prepared again");
    sim.run_seconds(10);
    sim.expect(
        sim.phase() == "Degraded" && sim.is_bad("c1"),
        "the commit fails again",
    );
    sim.registry.push("late:1", Behaviour::Fine);
    let now = sim.now;
    retry(&mut sim.state.rollout, Some(&commit_id("c1")), now);
    sim.cycle();
    sim.run_seconds(30);
    sim.expect_healthy("c1");
    sim.expect(
        sim.outcome("c1")
            .is_some_and(|(state, _)| state == CommitState::Healthy),
        "history",
    );
    sim.expect(
        sim.state.rollout.history.len() == 1,
        "the history has one entry",
    );
    sim.expect_idle();
}
