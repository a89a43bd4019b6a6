//! Addresses, ports and endpoints of Services.

use std::collections::BTreeSet;

use reconciler::{name::ObjectKey, object::ServiceKind, state::ClusterState};

use crate::{
    build::{PodSpecExt, bare, commit, deployment, node_port, pod},
    daemon::Sim,
    registry::Behaviour,
};

fn sim() -> Sim {
    let mut sim = Sim::default();
    sim.registry.push("web:1", Behaviour::Fine);
    sim.registry.push("web:2", Behaviour::Fine);
    sim
}

fn endpoints(sim: &Sim) -> BTreeSet<String> {
    sim.services().node_ports.values().flat_map(|one| &one.endpoints).map(ToString::to_string).collect()
}

#[test]
fn node_ports_and_cluster_addresses_are_kept_over_commits_and_rollbacks() {
    let mut sim = sim();
    let web = |id: &str, image: &str| {
        commit(id).with(deployment("web", 2, pod(image))).service("web", "web", node_port(None))
    };
    sim.push(web("c1", "web:1").build());
    sim.run_seconds(30);
    let given = sim.state.services.clone();
    sim.expect(sim.node_port("web").is_some(), "a port was given");
    sim.push(web("c2", "web:2").service("another", "web", node_port(None)).build());
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    let key = ObjectKey::new("default", "web");
    sim.expect(sim.state.services[&key] == given[&key], "kept");
    // The Service leaves with a commit that turns out bad: it must come back as it was.
    sim.push(commit("c3").with(deployment("web", 2, pod("nowhere:1"))).build());
    sim.run_seconds(120);
    sim.expect_healthy("c2");
    sim.expect(sim.state.services[&key] == given[&key], "kept over a rollback");
    sim.push(commit("c4").with(deployment("web", 2, pod("web:1"))).build());
    sim.run_seconds(60);
    sim.expect_healthy("c4");
    sim.expect(sim.state.services.is_empty(), "dropped when nothing could bring it back");
}

#[test]
fn a_service_that_asks_for_a_given_port_or_address_gets_it() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).service("auto", "web", node_port(None)).build());
    sim.run_seconds(30);
    let key = ObjectKey::new("default", "auto");
    let given = sim.state.services[&key].clone();
    let mut asking = node_port(sim.node_port("auto"));
    asking.kind = ServiceKind::NodePort { address: given.cluster_ip };
    sim.push(
        commit("c2")
            .with(bare("web", pod("web:1")))
            .service("auto", "web", node_port(None))
            .service("exact", "web", asking)
            .build(),
    );
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(sim.state.services[&ObjectKey::new("default", "exact")] == given, "as asked");
    sim.expect(sim.state.services[&key] != given, "the other one moved");
    sim.expect_quiet();
}

#[test]
fn a_stopping_pod_leaves_the_endpoints_first_and_drains() {
    let mut sim = sim();
    let web = |id: &str, image: &str| {
        commit(id).with(bare("web", pod(image))).service("web", "web", node_port(Some(30080))).build()
    };
    sim.push(web("c1", "web:1"));
    sim.run_seconds(30);
    sim.expect(endpoints(&sim).len() == 1, "it takes traffic");
    sim.push(web("c2", "web:2"));
    sim.run_seconds(3);
    sim.expect(endpoints(&sim).is_empty(), "out of the endpoints");
    sim.expect(sim.alive().len() == 2, "and still running while it drains");
    sim.run_seconds(30);
    sim.expect_healthy("c2");
    sim.expect(endpoints(&sim).len() == 1, "the new one takes traffic");
}

#[test]
fn a_pod_that_is_not_ready_takes_no_traffic() {
    let mut sim = sim();
    sim.registry.push("slow:1", Behaviour::SlowReady(std::time::Duration::from_secs(20)));
    let web = bare("web", pod("slow:1").with_readiness());
    sim.push(commit("c1").with(web).service("web", "web", node_port(None)).build());
    sim.run_seconds(10);
    sim.expect(endpoints(&sim).is_empty(), "not yet");
    sim.run_seconds(30);
    sim.expect(endpoints(&sim).len() == 1, "now");
}

#[test]
fn a_roll_out_never_leaves_a_service_without_endpoints() {
    let mut sim = sim();
    let web = |id: &str, image: &str| {
        let web = deployment("web", 3, pod(image).with_readiness());
        commit(id).with(web).service("web", "web", node_port(None)).build()
    };
    sim.push(web("c1", "web:1"));
    sim.run_seconds(30);
    sim.push(web("c2", "web:2"));
    for _ in 0..600 {
        sim.run(std::time::Duration::from_millis(50));
        sim.expect(!endpoints(&sim).is_empty(), "somebody answers");
    }
    sim.expect_healthy("c2");
}

#[test]
fn a_commit_that_cannot_be_read_takes_no_service_away_and_takes_no_push_up() {
    let mut sim = sim();
    let web = |id: &str, image: &str| {
        commit(id).with(bare("web", pod(image))).service("web", "web", node_port(None)).build()
    };
    sim.push(web("c1", "web:1"));
    sim.run_seconds(30);
    sim.expect(endpoints(&sim).len() == 1, "it takes traffic");
    let kept = std::mem::take(&mut sim.commits);
    sim.crash(false);
    let plan = sim.last.as_ref().unwrap();
    sim.expect(plan.services.is_none() && plan.names.is_none(), "left as they are");
    sim.push(web("c2", "web:2"));
    sim.run_seconds(60);
    sim.expect(sim.target() == "c1", "nobody can say what the new one would delete");
    sim.commits.extend(kept);
    sim.cycle();
    sim.run_seconds(60);
    sim.expect_healthy("c2");
    sim.expect(endpoints(&sim).len() == 1, "it takes traffic again");
}

#[test]
fn a_lost_state_empties_no_service_while_its_pods_run() {
    let mut sim = sim();
    sim.push(commit("c1").with(bare("web", pod("web:1"))).service("web", "web", node_port(None)).build());
    sim.run_seconds(30);
    let serial = sim.state.serial;
    let cluster = format!("{}+{serial}", sim.state.cluster);
    sim.state = ClusterState { cluster, ..ClusterState::default() };
    let plan = sim.ask_node();
    sim.expect(plan.services.is_none() && plan.names.is_none(), "left as they are");
    sim.crash(false);
    sim.run_seconds(60);
    sim.expect_healthy("c1");
    sim.expect(endpoints(&sim).len() == 1, "published again");
}
