//! Old pods that stop slowly, or that the engine cannot remove.

use std::time::Duration;

use reconciler::{
    object::{PodSpec, RestartPolicy, Workload},
    state::{CommitState, Phase},
};

use super::sim;
use crate::{
    build::{PodSpecExt, bare, commit, daemon_set, deployment, pod, recreate},
    daemon::Sim,
    registry::Behaviour,
};

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
