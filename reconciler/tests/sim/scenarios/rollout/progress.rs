//! The progress of rollouts: images, bounds and deadlines.

use std::time::Duration;

use reconciler::{object::IntOrPercent, state::CommitState};

use super::sim;
use crate::{
    build::{PodSpecExt, bare, commit, deployment, pod, rolling},
    registry::Behaviour,
};

#[test]
fn the_first_push_of_a_pod_runs_and_becomes_healthy() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.expect(sim.phase() == "Preparing", "the image is pulled first");
    sim.run_seconds(5);
    sim.expect(
        sim.phase() == "Soaking" && sim.ready("web") == 1,
        "the pod runs within seconds",
    );
    sim.run_seconds(10);
    sim.expect_healthy("c1");
    sim.expect(
        sim.outcome("c1") == Some((CommitState::Healthy, String::new())),
        "the history has the commit as healthy",
    );
    sim.expect_idle();
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
        "the replacement has a new uid",
    );
    sim.expect(
        sim.host.containers.len() == 2,
        "no container of the old pod is left",
    );
    sim.expect_idle();
}

#[test]
fn no_old_pod_stops_before_all_images_of_the_commit_are_present() {
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
    sim.expect(sim.is_bad("c2"), "a missing image fails the commit");
    sim.expect(sim.alive() == before, "the old containers were not changed");
    sim.expect(
        sim.outcome("c2")
            .is_some_and(|(state, _)| state == CommitState::RolledBack),
        "the history has the rollback",
    );
    sim.expect_idle();
}

#[test]
fn a_deployment_that_is_never_ready_rolls_back_at_the_deadline() {
    let mut sim = sim();
    let good = pod("web:1").with_readiness();
    sim.push(commit("c1").with(deployment("web", 4, good)).build());
    sim.run_seconds(30);
    sim.extremes = Default::default();

    sim.push(
        commit("c2")
            .with(deployment("web", 4, pod("web:deaf").with_readiness()))
            .build(),
    );
    sim.run_seconds(590);
    sim.expect(sim.is_target("c2"), "the deadline is ten minutes");
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    sim.expect(
        sim.extremes.least_ready["web"] >= 3,
        "maxUnavailable allows one of four",
    );
    sim.expect(
        sim.extremes.most_active["web"] <= 5,
        "maxSurge allows one more than four",
    );
    sim.expect(sim.ready("web") == 4, "all four pods are ready again");
    sim.expect_idle();
}

#[test]
fn a_deployments_own_deadline_wakes_the_loop() {
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
    sim.expect(sim.is_target("c1"), "the deadline alone starts a cycle");
}

#[test]
fn a_rollout_honours_max_surge_and_max_unavailable() {
    let mut sim = sim();
    for (index, (surge, unavailable)) in [(1, 0), (0, 1), (2, 1), (0, 3), (3, 0)]
        .into_iter()
        .enumerate()
    {
        let bounds = (IntOrPercent::Int(surge), IntOrPercent::Int(unavailable));
        let web = |image: &str| rolling("web", 5, pod(image).with_readiness(), bounds.0, bounds.1);

        sim.push(commit(&format!("a{index}")).with(web("web:1")).build());
        sim.run_seconds(120);
        sim.extremes = Default::default();

        sim.push(commit(&format!("b{index}")).with(web("web:2")).build());
        sim.run_seconds(120);
        sim.expect_healthy(&format!("b{index}"));
        sim.expect(
            sim.extremes.least_ready["web"] >= 5 - unavailable as usize,
            "maxUnavailable",
        );
        sim.expect(
            sim.extremes.most_active["web"] <= 5 + surge as usize,
            "maxSurge",
        );
        sim.expect_idle();
    }
}

#[test]
fn an_unreachable_registry_is_waited_for_and_never_fails_the_commit() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    let before = sim.alive();
    sim.registry.reachable = false;

    sim.push(commit("c2").with(bare("web", pod("web:2"))).build());
    sim.run_seconds(3600);
    sim.expect(
        sim.phase() == "Preparing" && !sim.is_bad("c2"),
        "the rollout waits",
    );
    sim.expect(sim.alive() == before, "the old pod keeps running");
    sim.registry.reachable = true;
    sim.run_seconds(400);
    sim.expect_healthy("c2");
    sim.expect_idle();
}

#[test]
fn a_full_disk_suspends_the_deadline_of_the_rollout() {
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
    sim.expect(
        sim.is_target("c2") && !sim.is_bad("c2"),
        "the rollout waits",
    );
    sim.host.disk_full = false;
    sim.run_seconds(600);
    sim.expect_healthy("c2");
}

#[test]
fn a_commit_that_changes_no_workload_is_healthy_at_once() {
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
    sim.expect(sim.alive() == before, "no container was changed");
    sim.expect_idle();
}

#[test]
fn a_daemon_that_was_down_past_the_deadline_observes_before_it_judges() {
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
    sim.expect(sim.image(&sim.pod("web").uid) == slow, "the new image runs");
}

#[test]
fn a_failure_of_unknown_reason_is_waited_for_until_the_deadline() {
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
    sim.expect(
        sim.is_bad("c2"),
        "the failing hook fails the commit at the deadline",
    );
    sim.run_seconds(60);
    sim.expect_healthy("c1");
}
