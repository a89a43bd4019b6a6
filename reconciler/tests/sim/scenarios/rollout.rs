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

/// What the rollout waits for, or its phase if it does not wait.
fn waits_for(sim: &Sim) -> String {
    let rollout = &sim.state.rollout;
    match &rollout.phase {
        Phase::Progressing { message } if rollout.waiting => message.to_string(),
        phase => format!("{phase:?}, waiting: {}", rollout.waiting),
    }
}

#[test]
fn an_old_pod_that_the_engine_cannot_remove_is_waited_for() {
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
            "the commit is not bad",
        );
        let message = waits_for(&sim);
        let wanted = format!("the old pod {old} has been stopping for ");
        sim.expect(
            message.contains(&wanted) && message.contains(" min: StopFailed"),
            &message,
        );
        sim.expect(sim.ready("other") == 2, "the other workload was updated");
        let (state, reason) = sim.outcome("c2").unwrap();
        sim.expect(
            state == CommitState::Progressing && reason.contains("StopFailed"),
            &reason,
        );
        // The stop is tried again at least every minute.
        let failed = sim
            .failures
            .values()
            .map(|failure| failure.at)
            .max()
            .unwrap();
        sim.expect(
            sim.now.duration_since(failed).as_secs() <= 61,
            "the last try was less than a minute ago",
        );

        sim.host.stuck.clear();
        sim.run_seconds(120);
        sim.expect_healthy("c2");
        sim.expect(
            sim.outcome("c2") == Some((CommitState::Healthy, String::new())),
            "the history has the commit as healthy",
        );
        sim.expect_idle();
    }
}

#[test]
fn the_deadline_continues_when_the_old_pod_is_gone() {
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
    sim.expect(!sim.is_bad("c2"), "the new pod could not start yet");
    sim.host.stuck.clear();
    sim.run_seconds(500);
    sim.expect(!sim.is_bad("c2"), "the time of the wait does not count");
    sim.run_seconds(300);
    sim.expect(sim.is_bad("c2"), "the time after the wait counts");
}

#[test]
fn a_new_pod_that_is_not_ready_has_its_deadline_while_old_pods_stop() {
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
    sim.expect(sim.is_bad("c2"), "the new pods do not become ready");
}

#[test]
fn a_pod_that_waits_for_the_host_port_of_an_old_one_does_not_fail_the_commit() {
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
        "the commit is not bad",
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
fn the_sandbox_of_an_ended_pod_is_removed_at_a_slow_pace() {
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
        "the sandbox is gone",
    );
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
fn deletions_over_the_budget_are_held_until_a_commit_allows_them() {
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
        sim.outcome("c2")
            .is_some_and(|(state, _)| state == CommitState::Held),
        "held",
    );
    sim.expect(sim.alive() == before, "no container stopped");
    sim.expect_idle();
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
        "only one pod is left",
    );
    sim.expect_idle();
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
fn a_refused_head_changes_no_pod_and_is_recorded_once() {
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
    sim.expect(sim.alive() == before, "no container stopped");
    sim.expect(
        sim.outcome("c2") == Some((CommitState::Refused, "not signed".to_owned())),
        "the history has the refusal",
    );
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
fn a_suspended_daemon_follows_no_commit_and_still_repairs_pods() {
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
    sim.expect(sim.ready("web") == 1, "the pod was repaired");
    sim.state.rollout.suspended = false;
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c2");
}

#[test]
fn a_newer_commit_supersedes_a_rollout() {
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
        sim.outcome("c2")
            .is_some_and(|(state, _)| state == CommitState::Superseded),
        "the history has the commit as superseded",
    );
    sim.expect(!sim.is_bad("c2"), "a superseded commit is not bad");
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
fn a_missing_commit_is_waited_for() {
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
        "the commit is not healthy, and its pods keep running",
    );
    sim.commits = kept;
    sim.crash(false);
    sim.run_seconds(60);
    sim.expect_healthy("c1");
}

#[test]
fn a_commit_with_other_content_stops_no_more_than_the_budget_allows() {
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
    // The same commit has other content, as after a change of `source.paths`.
    sim.commits
        .insert(commit_id("c1"), of("c1", &["a"]).build());
    sim.crash(false);
    sim.run_seconds(60);
    sim.expect(sim.alive() == before, "no container stopped");
    let held = sim.decision().held;
    sim.expect(
        held.as_ref()
            .is_some_and(|held| held.workloads.len() == 3 && held.running == 4),
        &format!("{held:?}"),
    );
    sim.expect_idle();
    sim.push(of("c2", &["a"]).allow_deletions().build());
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    sim.expect(
        sim.state.pods.len() == 1 && sim.decision().held.is_none(),
        "the allowed deletions are not held",
    );
}

#[test]
fn deletions_by_a_rollback_are_not_held() {
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
    // A bad commit adds many workloads: the rollback deletes all of them again.
    let names = ["a", "b", "c", "d", "e"];
    let bad = names.iter().fold(commit("c2"), |commit, name| {
        commit.with(bare(name, pod("web:1")))
    });
    sim.push(bad.with(bare("f", pod("web:crash"))).build());
    sim.run_seconds(120);
    sim.expect_healthy("c1");
    sim.expect(
        sim.state.pods.len() == 1 && sim.decision().held.is_none(),
        "only the pod of the healthy commit is left",
    );
    sim.expect(
        sim.state.rollout.left.is_empty(),
        "no superseded commit is left",
    );
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

#[test]
fn pods_of_a_superseded_commit_must_be_replaced_before_the_next_is_healthy() {
    let mut sim = sim();
    let web =
        |id: &str, image: &str| commit(id).with(deployment("web", 1, pod(image).with_readiness()));
    sim.push(web("c1", "web:1").build());
    sim.run_seconds(30);
    sim.push(web("c2", "web:deaf").build());
    sim.run_seconds(20);
    // c3 has the workloads of c1: they do not differ from the healthy commit, while pods of c2
    // still exist.
    sim.push(
        web("c3", "web:1")
            .service("web", "web", node_port(None))
            .build(),
    );
    sim.expect(sim.state.pods.len() == 2, "a pod of c2 still exists");
    sim.run_seconds(1);
    sim.expect(
        sim.phase() != "Healthy",
        "the commit must settle and soak first",
    );
    sim.run_seconds(60);
    sim.expect_healthy("c3");
    sim.expect(
        sim.state.rollout.left.is_empty(),
        "no superseded commit is left",
    );
    sim.expect_idle();
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

#[test]
fn old_bad_commits_and_restarts_of_deleted_workloads_are_dropped() {
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
        "no more bad commits are kept than the history has",
    );
    sim.push(good("c2", "new").build());
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    sim.expect(
        sim.state.rollout.restarts.is_empty(),
        "no restart is kept for a deleted workload",
    );
}
