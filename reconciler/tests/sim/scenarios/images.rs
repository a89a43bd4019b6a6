//! Which image runs.

use reconciler::object::PullPolicy;

use crate::{
    build::{bare, commit, deployment, pod},
    daemon::Sim,
    registry::Behaviour,
};

#[test]
fn a_tag_that_moved_does_not_move_workloads_that_did_not_change() {
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
    sim.expect(sim.main("web") == before, "it was not touched");
    sim.host.remove(&before);
    sim.cycle();
    sim.run_seconds(5);
    sim.expect(
        sim.image(&sim.pod("web").uid) == first && first != second,
        "a restart keeps the image",
    );
    sim.expect_quiet();
}

#[test]
fn going_back_from_a_moved_tag_brings_the_recorded_image_back() {
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
    sim.expect(sim.is_bad("c2"), "the new image is bad");
    sim.expect(
        sim.image(&sim.pod("web").uid) == first,
        "the old one is back",
    );
    sim.expect_quiet();
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
        "the recorded digest, not the moved tag",
    );
    sim.expect_quiet();
}

#[test]
fn always_uses_what_is_here_when_the_registry_does_not_answer_and_says_so() {
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
    sim.expect(sim.image(&sim.pod("web").uid) == first, "what was here");
    let warned = sim
        .pins
        .values()
        .flat_map(|pins| pins.values())
        .any(|pin| pin.warning.is_some());
    sim.expect(warned, "with a warning");
}

#[test]
fn a_pull_policy_of_never_fails_the_commit_if_the_image_is_not_here() {
    let mut sim = Sim::default();
    sim.registry.push("web:1", Behaviour::Fine);
    let mut spec = pod("web:1");
    spec.containers[0].pull = PullPolicy::Never;
    sim.push(commit("c1").with(bare("web", spec)).build());
    sim.run_seconds(30);
    sim.expect(sim.phase() == "Degraded", "it is not asked for");
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
    sim.expect(pulls == 1, "once");
}
