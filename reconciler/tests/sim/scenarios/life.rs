//! The life of a pod on its host.

use std::time::Duration;

use reconciler::{
    name::PodUid,
    object::{PodSpec, RestartPolicy},
    observed::ContainerState,
    plan::LaneKey,
};

use crate::{
    build::{PodSpecExt, bare, commit, container, pod, probe},
    daemon::Sim,
    registry::Behaviour,
};

const TEN: Duration = Duration::from_secs(10);

pub(super) fn sim() -> Sim {
    let mut sim = Sim::default();
    sim.registry.push("web:1", Behaviour::Fine);
    sim.registry
        .push("setup:1", Behaviour::Ends(Duration::from_secs(1), 0));
    sim.registry.push("setup:bad", Behaviour::ExitsAtOnce(3));
    sim.registry.push("crash:1", Behaviour::ExitsAtOnce(1));
    sim
}

/// A host on which a bare Pod `web` of this spec is healthy, and the uid of the pod.
pub(super) fn running(spec: PodSpec) -> (Sim, PodUid) {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", spec)).build());
    sim.run_seconds(30);
    sim.expect_healthy("c1");
    let uid = sim.pod("web").uid.clone();
    (sim, uid)
}

#[test]
fn restarts_are_delayed_by_0_10_20_40_seconds_and_so_on() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("crash:1"))).build());
    let mut starts = Vec::new();
    let mut last_id = None;
    for _ in 0..20_000 {
        sim.run(Duration::from_millis(50));
        let Some(record) = sim.pods("web").first().copied() else {
            continue;
        };
        if let Some((id, container)) = sim.container(&record.uid, "main")
            && last_id.as_ref() != Some(id)
            && let ContainerState::Running { started } | ContainerState::Exited { started, .. } =
                container.state
        {
            last_id = Some(id.clone());
            starts.push(started);
        }
    }
    let gaps: Vec<i64> = starts
        .windows(2)
        .map(|pair| pair[1].duration_since(pair[0]).as_secs())
        .collect();
    sim.expect(
        gaps.starts_with(&[0, 10, 20, 40, 80, 160, 300]),
        &format!("{gaps:?}"),
    );
}

#[test]
fn the_back_off_survives_a_restart_of_the_daemon() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("crash:1"))).build());
    sim.run_seconds(40);
    let before = sim.main("web");

    sim.crash(false);
    sim.run_seconds(10);
    sim.expect(sim.main("web") == before, "the container still waits");
    sim.run_seconds(60);
    sim.expect(
        sim.main("web") != before,
        "the container starts when its back-off ends",
    );
}

#[test]
fn on_failure_restarts_only_failed_containers() {
    let mut sim = sim();
    sim.registry.push("flaky:1", Behaviour::ExitsAtOnce(1));
    sim.registry.push("job:1", Behaviour::Ends(TEN, 0));
    let mut spec = pod("flaky:1").with_policy(RestartPolicy::OnFailure);
    spec.containers.push(container("job", "job:1"));

    sim.push(commit("c1").with(bare("web", spec)).build());
    sim.run_seconds(25);
    let uid = sim.pod("web").uid.clone();
    let (_, job) = sim.container(&uid, "job").unwrap();
    sim.expect(
        job.attempt == 0 && !job.state.is_alive(),
        "a container with exit code 0 does not run again",
    );
    let (_, main) = sim.container(&uid, "main").unwrap();
    sim.expect(main.attempt >= 2, "a failed container runs again");
    let image = main.image.clone();
    sim.host.images.insert(image, Behaviour::ExitsAtOnce(0));
    sim.run_seconds(60);
    sim.expect(
        sim.status(&uid).phase.as_str() == "Succeeded",
        "all containers have ended with exit code 0",
    );
}

#[test]
fn never_restarts_no_container_and_a_failure_fails_the_commit() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(bare(
                "web",
                pod("crash:1").with_policy(RestartPolicy::Never),
            ))
            .build(),
    );
    sim.run_seconds(60);
    let uid = sim.pod("web").uid.clone();
    sim.expect(
        sim.status(&uid).phase.as_str() == "Failed",
        "the pod failed",
    );
    sim.expect(sim.status(&uid).restarts() == 0, "the container ran once");
    sim.expect(
        sim.phase() == "Degraded",
        "there is no healthy commit to go back to",
    );
    let expected = "Pod/default/web: pod web failed: its containers ended with exit codes [1]";
    let (_, reason) = sim.outcome("c1").unwrap();
    sim.expect(reason == expected, &reason);
    sim.expect_idle();
}

#[test]
fn an_ended_container_does_not_run_again_when_the_sandbox_is_lost() {
    let mut sim = sim();
    sim.registry.push("job:1", Behaviour::Ends(TEN, 0));
    let mut spec = pod("web:1").with_policy(RestartPolicy::OnFailure);
    spec.containers.push(container("job", "job:1"));

    sim.push(commit("c1").with(bare("web", spec)).build());
    sim.run_seconds(60);
    let uid = sim.pod("web").uid.clone();
    let sandbox = sim.sandbox(&uid).unwrap();
    sim.host.remove(&sandbox);
    sim.cycle();
    sim.run_seconds(30);
    sim.expect(
        sim.container(&uid, "job").is_none(),
        "the job does not run again",
    );
    let (_, main) = sim.container(&uid, "main").unwrap();
    sim.expect(
        main.state.is_alive() && main.attempt == 1,
        "the other container runs again",
    );
    sim.expect_idle();
}

#[test]
fn a_pod_whose_container_and_sandbox_end_together_ends_by_its_exit_code() {
    let outcomes = [
        (RestartPolicy::Never, 0, "Succeeded"),
        (RestartPolicy::OnFailure, 0, "Succeeded"),
        (RestartPolicy::Never, 1, "Failed"),
        (RestartPolicy::OnFailure, 1, "Running"),
    ];
    for (policy, code, phase) in outcomes {
        let (mut sim, uid) = running(pod("web:1").with_policy(policy));
        let (main, sandbox) = (sim.main("web"), sim.sandbox(&uid).unwrap());
        sim.host.end(&main, code, sim.now);
        sim.host.end(&sandbox, 137, sim.now);
        sim.cycle();
        sim.run_seconds(10);
        let status = sim.status(&uid);
        sim.expect(
            status.phase.as_str() == phase,
            &format!("{policy:?} with exit code {code}: {status:?}"),
        );
    }
}

#[test]
fn init_containers_run_one_after_another_before_the_others() {
    let (sim, uid) = running(
        pod("web:1")
            .with_init("first", "setup:1")
            .with_init("second", "setup:1"),
    );
    let ended = |name: &str| match &sim.container(&uid, name).unwrap().1.state {
        ContainerState::Exited {
            started, finished, ..
        } => (*started, *finished),
        other => sim.fail(&format!("{other:?}")),
    };
    let ContainerState::Running { started } = sim.container(&uid, "main").unwrap().1.state else {
        sim.fail("main does not run")
    };
    sim.expect(
        ended("first").1 <= ended("second").0,
        "init containers run one after another",
    );
    sim.expect(
        ended("second").1 <= started,
        "init containers end before the others start",
    );
    sim.expect(sim.status(&uid).initialized, "the status is initialized");
}

#[test]
fn a_failing_init_container_is_retried_or_ends_the_pod() {
    let mut sim = sim();
    let spec = pod("web:1").with_init("setup", "setup:bad");
    sim.push(commit("c1").with(bare("web", spec.clone())).build());
    sim.run_seconds(20);
    let uid = sim.pod("web").uid.clone();
    sim.expect(
        sim.container(&uid, "setup").unwrap().1.attempt == 2,
        "the init container is retried with back-off",
    );
    sim.expect(
        sim.container(&uid, "main").is_none(),
        "no other container starts",
    );
    sim.run_seconds(40);
    sim.expect(sim.phase() == "Degraded", "the crash loop fails the commit");

    sim.push(
        commit("c2")
            .with(bare("web", spec.with_policy(RestartPolicy::Never)))
            .build(),
    );
    sim.run_seconds(60);
    let uid = sim.pod("web").uid.clone();
    let status = sim.status(&uid);
    sim.expect(
        status.phase.as_str() == "Failed",
        "with Never a failed init container ends the pod",
    );
    sim.expect(
        status.message.as_ref().unwrap().contains("exit code 3"),
        "the message has the exit code",
    );
}

#[test]
fn a_failed_liveness_probe_restarts_only_that_container() {
    let mut sim = sim();
    sim.registry.push(
        "sick:1",
        Behaviour::FailsLivenessAfter(Duration::from_secs(60)),
    );
    let mut spec = pod("sick:1").with_liveness();
    spec.containers.push(container("other", "web:1"));
    sim.push(commit("c1").with(bare("web", spec)).build());
    sim.run_seconds(30);
    sim.expect_healthy("c1");
    let uid = sim.pod("web").uid.clone();
    let other = sim.container(&uid, "other").unwrap().0.clone();
    sim.run_seconds(90);
    sim.expect(
        sim.container(&uid, "main").unwrap().1.attempt == 1,
        "the container restarted",
    );
    sim.expect(
        sim.container(&uid, "other").unwrap().0 == &other,
        "no other container restarted",
    );
    sim.expect(sim.ready("web") == 1, "the pod is ready again");
}

#[test]
fn a_failed_startup_probe_restarts_and_delays_the_other_probes() {
    let mut sim = sim();
    sim.registry.push("late:1", Behaviour::NeverStarts);
    let mut spec = pod("late:1").with_readiness().with_liveness();
    spec.containers[0].startup = Some(probe());

    sim.push(commit("c1").with(bare("web", spec)).build());
    sim.run_seconds(25);
    sim.expect(
        sim.last_plan.as_ref().unwrap().probes.len() == 1,
        "only the startup probe runs",
    );
    sim.run_seconds(25);
    let uid = sim.pod("web").uid.clone();
    sim.expect(
        sim.container(&uid, "main").unwrap().1.attempt == 1,
        "the container restarts after three failures",
    );
}

#[test]
fn a_post_start_hook_runs_once_and_delays_readiness() {
    let (mut sim, uid) = running(pod("web:1").with_post_start());
    let main = sim.container(&uid, "main").unwrap().0.clone();
    sim.expect(sim.hooked.contains(&main), "the hook ran");
    sim.crash(false);
    sim.run_seconds(10);
    sim.expect(sim.ready("web") == 1, "the pod is still ready");
    sim.expect_idle();
}

#[test]
fn a_failing_post_start_hook_is_a_crash_loop() {
    let mut sim = sim();
    sim.registry.push("hook:1", Behaviour::HookFails);
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);

    sim.push(
        commit("c2")
            .with(bare("web", pod("hook:1").with_post_start()))
            .build(),
    );
    sim.run_seconds(300);
    sim.expect_healthy("c1");
    sim.expect(sim.is_bad("c2"), "the commit failed");
}

#[test]
fn the_back_off_of_a_failed_start_does_not_delay_the_stop() {
    let mut sim = sim();
    sim.registry.push("broken:1", Behaviour::Rejected);
    sim.push(commit("c1").with(bare("web", pod("broken:1"))).build());
    sim.run_seconds(700);
    let uid = sim.pod("web").uid.clone();
    sim.expect(
        sim.failures[&LaneKey::Pod(uid)].count >= 5,
        "the start has failed so often that its back-off takes minutes",
    );

    sim.push(commit("c2").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(10);
    sim.expect(sim.ready("web") == 1, "the next pod runs at once");
}

#[test]
fn a_pod_past_its_active_deadline_fails() {
    let mut spec = pod("web:1");
    spec.active_deadline = Some(Duration::from_secs(100));
    let (mut sim, uid) = running(spec);
    sim.run_seconds(100);
    sim.expect(
        sim.status(&uid).phase.as_str() == "Failed" && sim.alive().is_empty(),
        "all containers of the pod stopped",
    );
    sim.expect_idle();
}

#[test]
fn a_ready_container_stays_ready_during_a_restart_of_the_daemon() {
    let (mut sim, _) = running(pod("web:1").with_readiness().with_liveness());
    let before = sim.alive();
    sim.extremes = Default::default();
    sim.crash(false);
    sim.run_seconds(60);
    sim.expect(
        sim.extremes.least_ready["web"] == 1 && sim.alive() == before,
        "the pod is always ready",
    );
    sim.expect_idle();
}
