//! Convergence after a lost state, a crash of the daemon, and changed files.

use reconciler::state::ClusterState;

use crate::{
    build::{PodSpecExt, bare, commit, deployment, node_port, pod, replica_set},
    daemon::Sim,
    registry::Behaviour,
};

fn sim() -> Sim {
    let mut sim = Sim::default();
    sim.registry.push("web:1", Behaviour::Fine);
    sim
}

#[test]
fn a_lost_state_takes_back_the_running_pods_and_stops_none() {
    let mut sim = sim();
    let all = commit("c1")
        .with(deployment("web", 3, pod("web:1").with_readiness()))
        .with(replica_set("set", 2, pod("web:1")))
        .with(bare("one", pod("web:1")))
        .service("web", "web", node_port(None));
    sim.push(all.build());
    sim.run_seconds(30);
    let before = (sim.alive(), sim.host.links.clone());

    sim.state = ClusterState {
        cluster: "anew".to_owned(),
        ..ClusterState::default()
    };

    sim.crash(false);
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    sim.expect(
        (sim.alive(), sim.host.links.clone()) == before,
        "containers and addresses are unchanged",
    );
    let addresses: Vec<_> = sim
        .memory
        .pods
        .values()
        .filter_map(|memory| memory.address)
        .collect();
    sim.expect(
        sim.host
            .links
            .values()
            .all(|(_, address)| addresses.contains(address)),
        "the addresses are in the memory of the node",
    );
    sim.expect(
        sim.ready("web") == 3 && sim.ready("set") == 2 && sim.ready("one") == 1,
        "all pods are in the state and ready",
    );
    sim.expect_idle();
}

#[test]
fn pods_made_after_a_lost_state_have_new_names() {
    let mut sim = sim();
    sim.registry.push("web:2", Behaviour::Fine);
    let web = |id: &str, image: &str| commit(id).with(deployment("web", 3, pod(image))).build();

    sim.push(web("c1", "web:1"));
    sim.run_seconds(30);
    let before = sim.alive();

    // The installation's id is kept; the serial of its pods is lost.
    sim.state = ClusterState {
        cluster: sim.state.cluster.clone(),
        ..ClusterState::default()
    };

    sim.crash(false);
    sim.run_seconds(60);
    sim.expect(sim.alive() == before, "no container was changed");

    sim.push(web("c2", "web:2"));
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    sim.expect(
        sim.alive().iter().all(|id| !before.contains(id)),
        "all containers were replaced",
    );
    sim.expect_idle();
}

#[test]
fn without_a_head_a_lost_state_keeps_orphans_and_their_addresses() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("one", pod("web:1"))).build());
    sim.run_seconds(30);
    let before = (sim.alive(), sim.host.links.clone(), sim.memory.clone());

    sim.state = ClusterState {
        cluster: "anew".to_owned(),
        ..ClusterState::default()
    };

    sim.head = reconciler::rollout::Head::Unknown;
    sim.crash(false);
    sim.run_seconds(60);
    sim.expect(
        (sim.alive(), sim.host.links.clone()) == (before.0, before.1),
        "containers and links are unchanged",
    );
    let address = |memory: &reconciler::pod::memory::NodeMemory| {
        memory
            .pods
            .values()
            .map(|pod| pod.address)
            .collect::<Vec<_>>()
    };
    sim.expect(
        address(&sim.memory) == address(&before.2),
        "its address is remembered",
    );
    sim.expect_idle();
}

#[test]
fn a_changed_config_map_refreshes_files_without_a_restart() {
    let mut sim = sim();
    let web = |content: &str, id: &str| {
        commit(id)
            .config_map("conf", content)
            .with(bare("web", pod("web:1").with_config("conf")))
            .build()
    };

    sim.push(web("one", "c1"));
    sim.run_seconds(30);

    let before = sim.alive();
    let files_before = sim.host.files.clone();
    sim.push(web("two", "c2"));
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(sim.alive() == before, "no container was restarted");
    sim.expect(
        sim.host.files != files_before,
        "the files were written again",
    );
    sim.expect_idle();
}

#[test]
fn files_of_unknown_pods_are_removed() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).build());
    sim.run_seconds(30);
    sim.host
        .files
        .insert(reconciler::name::PodUid::new("gone"), String::new());
    sim.cycle();
    sim.run_seconds(5);
    sim.expect(
        sim.host.files.len() == 1,
        "only the files of the known pod are left",
    );
    sim.expect_idle();
}

#[test]
fn an_engine_that_does_not_answer_stops_nothing_and_fails_nothing() {
    let mut sim = sim();
    sim.push(
        commit("c1")
            .with(deployment("web", 2, pod("web:1").with_readiness()))
            .build(),
    );
    sim.run_seconds(30);
    let before = sim.alive();
    sim.host.engine_down = true;
    sim.cycle();
    sim.run_seconds(3600);
    sim.expect(sim.alive() == before, "no container was stopped");
    sim.host.engine_down = false;
    sim.run_seconds(30);
    sim.expect_healthy("c1");
    sim.expect(sim.alive() == before, "no container was stopped");
    sim.expect_idle();
}

#[test]
fn a_daemon_killed_at_any_time_of_a_rollout_leaves_no_duplicate_and_no_leftover() {
    for halfway in [false, true] {
        for tenths in 0..60 {
            let mut sim = sim();
            sim.registry.push("web:2", Behaviour::Fine);
            let web = |id: &str, image: &str| {
                commit(id)
                    .with(deployment(
                        "web",
                        2,
                        pod(image).with_readiness().with_post_start(),
                    ))
                    .with(bare("one", pod(image).with_init("setup", "setup:1")))
                    .build()
            };
            let second = std::time::Duration::from_secs(1);
            sim.registry.push("setup:1", Behaviour::Ends(second, 0));
            sim.push(web("c1", "web:1"));
            sim.run_seconds(30);
            sim.push(web("c2", "web:2"));
            sim.run(std::time::Duration::from_millis(1000 + tenths * 100));
            sim.crash(halfway);
            sim.run_seconds(90);
            sim.expect_healthy("c2");
            sim.expect(
                sim.host.containers.len() == 2 * 2 + 3,
                "there is no duplicate and no leftover container",
            );
            sim.expect(
                sim.host.files.len() == 3 && sim.host.links.len() == 3,
                "there are no leftover files and links",
            );
            sim.expect_idle();
        }
    }
}
