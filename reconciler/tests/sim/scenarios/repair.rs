//! The repair of pods whose containers, sandboxes or links were changed or lost.

use reconciler::{
    observed::ContainerState,
    plan::{Drift, Why},
};

use super::life::{running, sim};
use crate::build::{PodSpecExt, bare, commit, deployment, pod};

#[test]
fn a_pod_without_its_sandbox_restarts_with_the_same_address() {
    for kill in [false, true] {
        let (mut sim, uid) = running(pod("web:1").with_init("setup", "setup:1"));
        let address = sim.address(&uid);
        let sandbox = sim.sandbox(&uid).unwrap();
        if kill {
            sim.host.end(&sandbox, 137, sim.now);
        } else {
            sim.host.remove(&sandbox);
        }
        sim.cycle();
        sim.run_seconds(10);
        sim.expect(sim.ready("web") == 1, "the pod runs");
        sim.expect(
            address.is_some() && sim.address(&uid) == address,
            "the pod has the same address",
        );
        sim.expect(sim.host.containers.len() == 3, "no old container is left");
        sim.expect_idle();
    }
}

#[test]
fn drift_is_repaired_and_named() {
    let (mut sim, uid) = running(pod("web:1"));
    let address = sim.address(&uid);
    let main = sim.main("web");
    sim.host.pause(&main);
    let plan = sim.planned();
    sim.expect(
        matches!(
            &plan.lanes[0].why,
            Why::Repair {
                drift: Drift::ContainerPaused,
                ..
            }
        ),
        "the plan names the pause",
    );
    sim.cycle();
    sim.run_seconds(5);
    sim.expect(
        sim.state_of(&main)
            .is_some_and(|state| matches!(state, ContainerState::Running { .. })),
        "the container runs again",
    );

    sim.host.remove(&main);
    let plan = sim.planned();
    sim.expect(
        matches!(
            &plan.lanes[0].why,
            Why::Repair {
                drift: Drift::ContainerRemoved,
                ..
            }
        ),
        "the plan names the removal",
    );
    sim.cycle();
    sim.run_seconds(5);
    sim.expect(sim.ready("web") == 1, "the container runs again");

    sim.host.links.clear();
    let plan = sim.planned();
    sim.expect(
        matches!(
            &plan.lanes[0].why,
            Why::Repair {
                drift: Drift::LinkGone,
                ..
            }
        ),
        "the plan names the missing link",
    );
    sim.cycle();
    sim.run_seconds(5);
    sim.expect(sim.address(&uid) == address, "the pod has the same address");
    sim.expect_idle();
}

#[test]
fn a_removed_container_is_repaired_while_its_predecessor_is_kept() {
    let (mut sim, uid) = running(pod("web:1"));
    let first = sim.main("web");
    sim.host.end(&first, 1, sim.now);
    sim.cycle();
    sim.run_seconds(5);
    let second = sim.main("web");
    sim.expect(
        first != second && sim.state_of(&first).is_some(),
        "the first container is kept for its log",
    );
    sim.host.remove(&second);
    sim.cycle();
    sim.run_seconds(5);
    let (_, third) = sim.container(&uid, "main").unwrap();
    sim.expect(
        third.attempt == 2 && third.state.is_alive(),
        "the third container starts at once",
    );
    sim.expect_idle();
}

#[test]
fn a_container_restarts_while_its_predecessors_cannot_be_removed() {
    let (mut sim, uid) = running(pod("web:1"));
    for attempt in 1..=4 {
        let id = sim.main("web");
        sim.host.stuck.insert(id.clone());
        sim.host.end(&id, 1, sim.now);
        sim.cycle();
        sim.run_seconds(400);
        let (_, newest) = sim.container(&uid, "main").unwrap();
        let is_running = matches!(newest.state, ContainerState::Running { .. });
        sim.expect(
            is_running && newest.attempt == attempt,
            &format!("attempt {attempt}: {newest:?}"),
        );
    }
    sim.expect(sim.ready("web") == 1, "the pod is ready");
}

#[test]
fn a_killed_container_restarts_at_once() {
    let (mut sim, uid) = running(pod("web:1"));
    let main = sim.main("web");
    sim.host.end(&main, 137, sim.now);
    sim.cycle();
    sim.run_seconds(1);
    sim.expect(sim.ready("web") == 1, "the pod runs");
    sim.expect(sim.status(&uid).restarts() == 1, "the restart is counted");
    let last = sim.status(&uid).containers[0].last.clone().unwrap();
    sim.expect(last.code == 137, "the status has the exit code");
}

#[test]
fn after_a_reboot_all_pods_come_back_with_their_addresses_and_no_back_off() {
    let mut sim = sim();
    let all = commit("c1")
        .with(deployment("web", 3, pod("web:1").with_readiness()))
        .with(bare("one", pod("web:1").with_init("setup", "setup:1")));
    sim.push(all.build());
    sim.run_seconds(30);
    sim.expect_healthy("c1");
    for _ in 0..4 {
        let before = sim.host.links.clone();
        sim.registry.reachable = false;

        sim.head = reconciler::rollout::Head::Unknown;
        sim.reboot();
        sim.run_seconds(5);
        sim.expect(
            sim.ready("web") == 3 && sim.ready("one") == 1,
            "all pods are ready within seconds",
        );
        sim.expect(sim.host.links == before, "all pods have the same addresses");
        sim.expect_healthy("c1");
        sim.expect_idle();
    }
}
