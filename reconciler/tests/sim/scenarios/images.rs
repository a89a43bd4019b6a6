//! Which image a container runs.

use reconciler::object::PullPolicy;

use crate::{
    build::{bare, commit, deployment, pod},
    daemon::Sim,
    registry::Behaviour,
};

#[test]
fn a_moved_tag_does_not_change_unchanged_workloads() {
    let mut sim = Sim::default();
    let first = sim.registry.push("web:latest", Behaviour::Fine);
    sim.registry.push("other:1", Behaviour::Fine);
    sim.registry.push("other:2", Behaviour::Fine);

    sim.push(
        commit("c1")
            .with(bare("web", pod("web:latest")))
            .with(bare("other", pod("other:1")))
            .build(),
    );
    sim.run_seconds(30);
    let before = sim.main("web");
    let second = sim.registry.push("web:latest", Behaviour::Fine);
    sim.push(
        commit("c2")
            .with(bare("web", pod("web:latest")))
            .with(bare("other", pod("other:2")))
            .build(),
    );
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(sim.main("web") == before, "the container was not changed");
    sim.host.remove(&before);
    sim.cycle();
    sim.run_seconds(5);
    sim.expect(
        sim.image(&sim.pod("web").uid) == first && first != second,
        "a restart keeps the image",
    );
    sim.expect_idle();
}

#[test]
fn a_rollback_from_a_moved_tag_runs_the_recorded_image() {
    let mut sim = Sim::default();
    let first = sim.registry.push("web:latest", Behaviour::Fine);
    let mut spec = pod("web:latest");
    sim.push(commit("c1").with(bare("web", spec.clone())).build());
    sim.run_seconds(30);
    sim.registry.push("web:latest", Behaviour::ExitsAtOnce(1));
    spec.hostname = Some("changed".to_owned());

    sim.push(commit("c2").with(bare("web", spec)).build());
    sim.run_seconds(120);
    sim.expect_healthy("c1");
    sim.expect(sim.is_bad("c2"), "the commit with the new image is bad");
    sim.expect(
        sim.image(&sim.pod("web").uid) == first,
        "the recorded image runs again",
    );
    sim.expect_idle();
}

#[test]
fn an_image_that_was_removed_is_pulled_again_by_its_digest() {
    let mut sim = Sim::default();
    let first = sim.registry.push("web:latest", Behaviour::Fine);
    sim.push(commit("c1").with(bare("web", pod("web:latest"))).build());
    sim.run_seconds(30);
    sim.registry.push("web:latest", Behaviour::Fine);
    let main = sim.main("web");
    sim.host.remove(&main);
    sim.host.remove_image(&first);
    sim.cycle();
    sim.run_seconds(10);
    sim.expect(
        sim.image(&sim.pod("web").uid) == first,
        "the recorded digest is pulled, and not the moved tag",
    );
    sim.expect_idle();
}

#[test]
fn pull_policy_always_uses_the_local_image_with_a_warning_without_a_registry() {
    let mut sim = Sim::default();
    let first = sim.registry.push("web:latest", Behaviour::Fine);
    sim.push(commit("c1").with(bare("web", pod("web:latest"))).build());
    sim.run_seconds(30);
    sim.registry.push("web:latest", Behaviour::Fine);
    sim.registry.reachable = false;
    let mut spec = pod("web:latest");
    spec.hostname = Some("changed".to_owned());

    sim.push(commit("c2").with(bare("web", spec)).build());
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(
        sim.image(&sim.pod("web").uid) == first,
        "the local image runs",
    );
    let warned = sim
        .pins
        .values()
        .flat_map(|pins| pins.values())
        .any(|pin| pin.warning.is_some());
    sim.expect(warned, "the pin has a warning");
}

#[test]
fn pull_policy_never_fails_the_commit_without_a_local_image() {
    let mut sim = Sim::default();
    sim.registry.push("web:1", Behaviour::Fine);
    let mut spec = pod("web:1");
    spec.containers[0].pull = PullPolicy::Never;
    sim.push(commit("c1").with(bare("web", spec)).build());
    sim.run_seconds(30);
    sim.expect(sim.phase() == "Degraded", "the image is not pulled");
}

#[test]
fn thirty_pods_of_one_image_pull_it_once() {
    let mut sim = Sim::default();
    sim.registry.push("web:1", Behaviour::Fine);
    let all = (0..30).fold(commit("c1"), |commit, n| {
        commit.with(deployment(&format!("web{n}"), 1, pod("web:1")))
    });

    sim.push(all.build());
    sim.run_seconds(30);
    sim.expect_healthy("c1");
    let pulls = sim
        .transcript
        .iter()
        .filter(|line| line.contains("pull web:1"))
        .count();
    sim.expect(pulls == 1, "the image is pulled once");
}
